//! Choice of a kernel, a QEMU and a Rust compiler among the suites of a distribution that moves.
//!
//! The lab knows the versions that its machines and modules were seen to work with. Of a program the
//! first suite in [`Suite::ALL`] with any known version wins, of a kernel the first one with the
//! preferred series, and of this suite the newest such version. A version that is newer than all
//! known ones is taken only if no suite has a known one, and the choice says so
//! ([`Choice::remarks`]).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::apt::natural_key;
use crate::error::{Error, Result};
use crate::suite::Suite;

/// A kernel series that the lab was seen to work with.
struct Series {
    name: &'static str,
    /// The kernel module builds against its headers. Guests boot either way.
    builds_module: bool,
}

/// Kernel series in order of preference: those that the module builds on, newest first, then those
/// that only boot guests.
const KERNELS: [Series; 2] = [
    Series {
        name: "7.2",
        builds_module: true,
    },
    Series {
        name: "7.3",
        builds_module: false,
    },
];

/// A program whose versions the lab knows, from `oldest` to the end of `newest`.
struct Program {
    package: &'static str,
    oldest: &'static str,
    newest: &'static str,
}

/// QEMU: the first version with a vfio-user client, to the newest major version known.
const QEMU: Program = Program {
    package: "qemu-system-arm",
    oldest: "10.1",
    newest: "11",
};

/// The Rust compiler: the oldest that builds the workspace, to the newest that was seen to make
/// the kernel module's object.
const RUSTC: Program = Program {
    package: "rustc",
    oldest: env!("CARGO_PKG_RUST_VERSION"),
    newest: "1.97",
};

/// True if the lab knows this version of QEMU (`11.1.2`) to work.
#[must_use]
pub fn knows_qemu(version: &str) -> bool {
    QEMU.compare(version) == Some(Ordering::Equal)
}

/// Versions of what the lab chooses, in the package lists of one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    suite: Suite,
    /// Releases for both architectures, such as `7.2.12+deb14`, with headers and source.
    kernels: Vec<String>,
    /// Versions of [`QEMU`] and [`RUSTC`], newest last, and without their epoch.
    programs: BTreeMap<&'static str, Vec<String>>,
    /// Versions of the cross compiler.
    gcc: BTreeSet<u32>,
}

impl Offer {
    /// Reads package lists (stanzas with `Package`, `Version` and `Architecture`).
    #[must_use]
    pub fn read(suite: Suite, lists: &str) -> Self {
        let mut names = BTreeSet::new();
        let mut programs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut name = "";
        for line in lists.lines() {
            if let Some(package) = line.strip_prefix("Package: ") {
                name = package;
                names.insert(name);
            } else if let Some(version) = line.strip_prefix("Version: ") {
                let Some(program) = [QEMU, RUSTC].iter().find(|known| known.package == name) else {
                    continue;
                };
                let version = version.split_once(':').map_or(version, |(_, rest)| rest);
                programs
                    .entry(program.package)
                    .or_default()
                    .push(version.to_owned());
            }
        }
        for versions in programs.values_mut() {
            versions.sort_by_key(|version| natural_key(version));
        }
        let gcc = names.iter().filter_map(|name| {
            name.strip_prefix("gcc-")?
                .strip_suffix("-aarch64-linux-gnu")?
                .parse()
                .ok()
        });
        Self {
            suite,
            kernels: kernels(&names),
            programs,
            gcc: gcc.collect(),
        }
    }

    /// The newest release of a kernel series.
    fn newest_of(&self, series: &str) -> Option<&String> {
        let of_series = self.kernels.iter().filter(|name| series_of(name) == series);
        of_series.max_by_key(|release| natural_key(release))
    }

    fn versions(&self, program: &Program) -> &[String] {
        self.programs
            .get(program.package)
            .map_or(&[], Vec::as_slice)
    }
}

/// Kernel releases that have all the packages that the lab's sets name.
fn kernels(names: &BTreeSet<&str>) -> Vec<String> {
    let releases = names.iter().filter_map(|name| {
        name.strip_prefix("linux-binary-")?
            .strip_suffix("-arm64")
            .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()))
    });
    let has = |name: String| names.contains(name.as_str());
    releases
        .filter(|release| {
            has(format!("linux-binary-{release}-amd64"))
                && has(format!("linux-headers-{release}-common"))
                && has(format!("linux-kbuild-{release}"))
                && has(format!("linux-source-{}", series_of(release)))
        })
        .map(|release| (*release).to_owned())
        .collect()
}

/// The series of a kernel release: `7.2` of `7.2.12+deb14`.
#[must_use]
pub fn series_of(release: &str) -> &str {
    let mut dots = release.match_indices('.').map(|(at, _)| at);
    let end = dots.nth(1).and_then(|end| release.get(..end));
    end.unwrap_or(release)
}

/// A version and the suite that it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick {
    /// The suite.
    pub suite: Suite,
    /// The version: of a kernel its release without the flavour, such as `7.2.12+deb14`.
    pub version: String,
}

/// Versions that the sets of one generation have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The kernel; headers and source are of the same release and suite.
    pub kernel: Pick,
    /// QEMU, with its firmware.
    pub qemu: Pick,
    /// The Rust compiler; the other tools come from its suite.
    pub rustc: Pick,
    /// Major version of the C compilers, from the suite of the Rust compiler.
    pub gcc: u32,
    /// Shortcomings of the choice, as sentences.
    pub remarks: Vec<String>,
}

impl Choice {
    /// The best choice among the offers, which are in the order of preference.
    ///
    /// # Errors
    /// [`Error::Missing`] that names what was looked for, where, and what was found instead.
    pub fn among(offers: &[Offer]) -> Result<Self> {
        let mut remarks = Vec::new();
        let kernel = kernel(offers, &mut remarks)?;
        let qemu = program(&QEMU, offers, &mut remarks)?;
        let rustc = program(&RUSTC, offers, &mut remarks)?;
        let tools = offers.iter().find(|offer| offer.suite == rustc.suite);
        let gcc = tools.and_then(|offer| offer.gcc.last().copied());
        let gcc = gcc.ok_or_else(|| {
            Error::missing(
                format!("Debian {} has no gcc-N-aarch64-linux-gnu", rustc.suite),
                "use a mirror that has one (VARIA_MIRROR)",
            )
        })?;
        Ok(Self {
            kernel,
            qemu,
            rustc,
            gcc,
            remarks,
        })
    }

    /// True if no further suite could give a better choice.
    #[must_use]
    pub fn is_best(&self) -> bool {
        self.remarks.is_empty() && series_of(&self.kernel.version) == KERNELS[0].name
    }

    /// The suites that the choice takes packages from.
    #[must_use]
    pub fn suites(&self) -> [Suite; 3] {
        [self.kernel.suite, self.qemu.suite, self.rustc.suite]
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, pick) in [
            ("Linux", &self.kernel),
            ("QEMU", &self.qemu),
            ("rustc", &self.rustc),
        ] {
            let comma = if name == "Linux" { "" } else { ", " };
            write!(
                f,
                "{comma}{name} {} from Debian {}",
                pick.version, pick.suite
            )?;
        }
        for remark in &self.remarks {
            write!(f, "\n{remark}")?;
        }
        Ok(())
    }
}

fn kernel(offers: &[Offer], remarks: &mut Vec<String>) -> Result<Pick> {
    let find = |series: &str| {
        offers.iter().find_map(|offer| {
            let release = offer.newest_of(series)?;
            Some(Pick {
                suite: offer.suite,
                version: release.clone(),
            })
        })
    };
    let known = KERNELS.map(|series| series.name).join(", ");
    for series in &KERNELS {
        if let Some(pick) = find(series.name) {
            if !series.builds_module {
                remarks.push(format!(
                    "no suite has a kernel that the kernel module is known to build on: Linux {} \
                     boots guests; tests of the module may fail",
                    pick.version
                ));
            }
            return Ok(pick);
        }
    }
    let newest_known = KERNELS.iter().map(|series| natural_key(series.name)).max();
    let newer = |release: &&String| Some(natural_key(series_of(release))) > newest_known;
    let newest = offers
        .iter()
        .flat_map(|offer| offer.kernels.iter().filter(newer))
        .map(|release| series_of(release))
        .max_by_key(|series| natural_key(series));
    if let Some(pick) = newest.and_then(find) {
        remarks.push(format!(
            "no suite has a kernel series that the lab knows ({known}): Linux {} is tried",
            pick.version
        ));
        return Ok(pick);
    }
    let found = offers.iter().map(|offer| (offer, &offer.kernels[..]));
    Err(unavailable("kernel", &format!("series {known}"), found))
}

fn program(program: &Program, offers: &[Offer], remarks: &mut Vec<String>) -> Result<Pick> {
    let find = |wanted: Ordering| {
        offers.iter().find_map(|offer| {
            let mut newest_first = offer.versions(program).iter().rev();
            let version = newest_first.find(|version| program.compare(version) == Some(wanted))?;
            Some(Pick {
                suite: offer.suite,
                version: version.clone(),
            })
        })
    };
    if let Some(pick) = find(Ordering::Equal) {
        return Ok(pick);
    }
    let name = program.package;
    if let Some(pick) = find(Ordering::Greater) {
        remarks.push(format!(
            "no suite has a version of {name} that the lab knows ({program}): {} is tried",
            pick.version
        ));
        return Ok(pick);
    }
    let found = offers.iter().map(|offer| (offer, offer.versions(program)));
    Err(unavailable(name, &format!("version {program}"), found))
}

fn unavailable<'a>(
    what: &str,
    wanted: &str,
    offers: impl Iterator<Item = (&'a Offer, &'a [String])>,
) -> Error {
    let found: Vec<_> = offers
        .map(|(offer, found)| match found {
            [] => format!("{} has none", offer.suite),
            found => format!("{} has {}", offer.suite, found.join(", ")),
        })
        .collect();
    let found = if found.is_empty() {
        "no suite could be read".to_owned()
    } else {
        found.join("; ")
    };
    Error::missing(
        format!("no suite of the mirror has a {what} of {wanted}: {found}"),
        "use a mirror that has one (VARIA_MIRROR)",
    )
}

impl Program {
    /// Compares a version with the known ones: equal if it is one of them.
    fn compare(&self, version: &str) -> Option<Ordering> {
        let version = major_minor(version)?;
        if version < major_minor(self.oldest)? {
            return Some(Ordering::Less);
        }
        let newest = major_minor(self.newest)?;
        Some(version.cmp(&newest).max(Ordering::Equal))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

/// Major and minor version; a minor version that is not there stands for all.
fn major_minor(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let major = parts.next()?.parse().ok()?;
    Some((major, parts.next().map_or(Ok(u32::MAX), str::parse).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Package lists as a suite has them: kernels with all their packages, QEMU, rustc and gcc.
    fn lists(kernels: &[&str], qemu: &str, rustc: &str) -> String {
        let mut text = String::new();
        let mut add = |name: &str, version: &str, arch: &str| {
            text.push_str(&format!(
                "Package: {name}\nSource: x\nVersion: {version}\nArchitecture: {arch}\n\
                 Depends: linux-binary-9.9.9-arm64, libc6\nDescription: x\n\n"
            ));
        };
        for release in kernels {
            for arch in ["amd64", "arm64"] {
                add(&format!("linux-binary-{release}-{arch}"), "1", arch);
                add(&format!("linux-binary-{release}-rt-{arch}"), "1", arch);
                add(&format!("linux-kbuild-{release}"), "1", arch);
            }
            add(&format!("linux-headers-{release}-common"), "1", "all");
            add(&format!("linux-source-{}", series_of(release)), "1", "all");
        }
        for arch in ["amd64", "arm64"] {
            add("qemu-system-arm", qemu, arch);
            add("rustc", rustc, arch);
        }
        add("gcc-15-aarch64-linux-gnu", "15.2.0-1", "amd64");
        add("gcc-16-aarch64-linux-gnu", "16.2.0-3", "amd64");
        text
    }

    const QEMU_11: &str = "1:11.1.2+ds-3";
    const RUST_97: &str = "1.97.1+dfsg1-1";

    fn among(suites: &[(Suite, String)]) -> Result<Choice> {
        let offers: Vec<_> = suites
            .iter()
            .map(|(suite, lists)| Offer::read(*suite, lists))
            .collect();
        Choice::among(&offers)
    }

    fn pick(suite: Suite, version: &str) -> Pick {
        let version = version.to_owned();
        Pick { suite, version }
    }

    #[test]
    fn the_first_suite_is_enough_if_it_has_the_best_known_versions() {
        let forky = lists(&["7.2.9+deb14", "7.2.12+deb14"], QEMU_11, RUST_97);
        let choice = among(&[(Suite::Forky, forky)]).unwrap();
        assert_eq!(choice.kernel, pick(Suite::Forky, "7.2.12+deb14"));
        assert_eq!(choice.qemu, pick(Suite::Forky, "11.1.2+ds-3"));
        assert_eq!(choice.rustc, pick(Suite::Forky, RUST_97));
        assert_eq!(choice.gcc, 16);
        assert!(choice.is_best());
        assert_eq!(
            choice.to_string(),
            "Linux 7.2.12+deb14 from Debian forky, QEMU 11.1.2+ds-3 from Debian forky, rustc \
             1.97.1+dfsg1-1 from Debian forky"
        );
    }

    #[test]
    fn a_known_kernel_is_found_in_whatever_suite_has_it() {
        let moved = || lists(&["7.4.1+deb14"], QEMU_11, RUST_97);
        let with_known = |release: &str| lists(&["7.4.1+deb14", release], QEMU_11, RUST_97);
        let only_in_sid = among(&[
            (Suite::Forky, moved()),
            (Suite::TrixieBackports, moved()),
            (Suite::Sid, with_known("7.2.13+deb14")),
        ])
        .unwrap();
        assert_eq!(only_in_sid.kernel, pick(Suite::Sid, "7.2.13+deb14"));
        assert_eq!(only_in_sid.qemu.suite, Suite::Forky);
        assert!(only_in_sid.is_best(), "{only_in_sid}");
        let only_in_backports = among(&[
            (Suite::Forky, moved()),
            (Suite::TrixieBackports, with_known("7.2.14+deb13")),
            (Suite::Sid, moved()),
        ])
        .unwrap();
        let expected = pick(Suite::TrixieBackports, "7.2.14+deb13");
        assert_eq!(only_in_backports.kernel, expected);
    }

    #[test]
    fn a_kernel_that_the_module_builds_on_comes_before_a_newer_one_that_boots() {
        let forky = || (Suite::Forky, lists(&["7.3.4+deb14"], QEMU_11, RUST_97));
        let sid = (
            Suite::Sid,
            lists(&["7.2.13+deb14", "7.3.5+deb14"], QEMU_11, RUST_97),
        );
        let choice = among(&[forky(), sid]).unwrap();
        assert_eq!(choice.kernel, pick(Suite::Sid, "7.2.13+deb14"));
        let choice = among(&[forky()]).unwrap();
        assert_eq!(choice.kernel, pick(Suite::Forky, "7.3.4+deb14"));
        assert!(!choice.is_best());
        assert!(choice.to_string().contains("module"), "{choice}");
    }

    #[test]
    fn an_unknown_kernel_is_tried_only_if_no_suite_has_a_known_one() {
        let lists = lists(
            &["6.12.9+deb13", "7.4.1+deb14", "7.10.2+deb14"],
            QEMU_11,
            RUST_97,
        );
        let choice = among(&[(Suite::Forky, lists)]).unwrap();
        assert_eq!(choice.kernel, pick(Suite::Forky, "7.10.2+deb14"));
        assert!(!choice.is_best());
        assert!(choice.to_string().contains("(7.2, 7.3)"), "{choice}");
    }

    #[test]
    fn a_known_qemu_and_rustc_are_found_in_whatever_suite_has_them() {
        let kernels = &["7.2.12+deb14"];
        let forky = lists(kernels, "1:12.0.0+ds-1", "1.99.0+dfsg1-1");
        let backports = lists(&[], "1:11.1.3+ds-1~bpo13+1", "1.40.0");
        let sid = lists(kernels, "1:12.1.0+ds-1", "1.97.2+dfsg1-1");
        let choice = among(&[
            (Suite::Forky, forky.clone()),
            (Suite::TrixieBackports, backports),
            (Suite::Sid, sid),
        ])
        .unwrap();
        assert_eq!(choice.kernel.suite, Suite::Forky);
        let expected = pick(Suite::TrixieBackports, "11.1.3+ds-1~bpo13+1");
        assert_eq!(choice.qemu, expected);
        assert_eq!(choice.rustc, pick(Suite::Sid, "1.97.2+dfsg1-1"));
        let alone = among(&[(Suite::Forky, forky)]).unwrap();
        assert_eq!(alone.qemu.version, "12.0.0+ds-1");
        assert_eq!(alone.rustc.version, "1.99.0+dfsg1-1");
        assert_eq!(alone.remarks.len(), 2, "{alone}");
    }

    #[test]
    fn a_kernel_without_its_headers_or_source_is_not_offered() {
        let all = lists(&["7.2.12+deb14", "7.2.13+deb14"], QEMU_11, RUST_97);
        for missing in [
            "linux-binary-7.2.13+deb14-amd64",
            "linux-binary-7.2.13+deb14-arm64",
            "linux-headers-7.2.13+deb14-common",
            "linux-kbuild-7.2.13+deb14",
        ] {
            let lists = all.replace(&format!("Package: {missing}\n"), "Package: other\n");
            let choice = among(&[(Suite::Forky, lists)]).unwrap();
            assert_eq!(choice.kernel.version, "7.2.12+deb14", "without {missing}");
        }
        // The source is that of both releases.
        let lists = all.replace("Package: linux-source-7.2\n", "Package: other\n");
        let error = among(&[(Suite::Forky, lists)]).unwrap_err().to_string();
        assert!(error.contains("kernel of series 7.2, 7.3"), "{error}");
    }

    #[test]
    fn an_error_names_what_was_looked_for_and_where() {
        let message = |suites: &[(Suite, String)]| among(suites).unwrap_err().to_string();
        let old = lists(&["6.12.9+deb13"], "1:10.0.2+ds-1", "1.63.0");
        let text = message(&[
            (Suite::TrixieBackports, old.clone()),
            (Suite::Sid, String::new()),
        ]);
        for part in [
            "7.2, 7.3",
            "trixie-backports has 6.12.9+deb13",
            "sid has none",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let text = message(&[(Suite::Forky, lists(&["7.2.12"], "1:10.0.2+ds-1", RUST_97))]);
        for part in ["qemu-system-arm", "10.1 to 11", "forky has 10.0.2"] {
            assert!(text.contains(part), "{text}");
        }
        let text = message(&[(Suite::Forky, lists(&["7.2.12"], QEMU_11, "1.63.0"))]);
        for part in ["rustc", "to 1.97", "forky has 1.63.0"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(message(&[]).contains("no suite could be read"));
    }

    #[test]
    fn versions_of_qemu_are_known_from_the_first_with_a_vfio_user_client() {
        for version in ["10.1.0", "10.2.0", "11.1.2"] {
            assert!(knows_qemu(version), "{version}");
        }
        for version in ["7.2.17", "10.0.9", "12.0.0", "unknown"] {
            assert!(!knows_qemu(version), "{version}");
        }
    }
}
