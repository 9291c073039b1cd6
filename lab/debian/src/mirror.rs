//! Debian mirror of this machine, and the keys that sign it.
//!
//! Debian has one in apt's configuration. A derivative, such as Ubuntu, has none there; its
//! machines know one from the templates of `python-apt` or from `debootstrap`, and Debian's keys
//! are a package of its own archive ([`crate::neighbour`]). `VARIA_MIRROR=URI` names another
//! mirror. No mirror is written down in this program.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::neighbour::Neighbour;
use crate::sources::{Source, sources};

/// A Debian mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The URI in front of `dists/`.
    pub uri: String,
    /// The keys that sign it.
    pub keys: Keys,
}

/// Keys that apt accepts for a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Keyrings that apt trusts for every source (`trusted.gpg.d`).
    Default,
    /// Key files or fingerprints, as `Signed-By` names them.
    Named(String),
    /// An armoured key block that stands in the configuration itself.
    Inline(String),
}

/// Code names of Debian's suites.
const CODENAMES: [&str; 6] = ["bullseye", "bookworm", "trixie", "forky", "duke", "sid"];

/// Names of Debian's suites by their state. Archives of other origin use the same names.
const STATES: [&str; 5] = ["oldoldstable", "oldstable", "stable", "testing", "unstable"];

/// Endings of suites that are on Debian's main mirrors too.
const POCKETS: [&str; 3] = ["-updates", "-backports", "-proposed-updates"];

impl Mirror {
    /// The mirror of this machine. What a derivative's own archive has to give is kept in the
    /// folder `private`.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] with what to set or install.
    pub fn of_this_machine(private: &Path) -> Result<Self> {
        static FOUND: Mutex<Option<Mirror>> = Mutex::new(None);
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mirror) = &*found {
            return Ok(mirror.clone());
        }
        let machine = Neighbour::new(Path::new("/"), private);
        let mirror = Self::of(&machine, env::var("VARIA_MIRROR").ok())?;
        Ok(found.insert(mirror).clone())
    }

    /// The mirror of a machine: `wanted`, else the Debian source that apt is configured with, else
    /// the one that a derivative knows.
    pub(crate) fn of(machine: &Neighbour, wanted: Option<String>) -> Result<Self> {
        let (uri, origin) = match wanted {
            Some(uri) => (uri, "VARIA_MIRROR".to_owned()),
            None => {
                let configured = sources(&machine.path("/etc/apt"))?;
                if let Some(source) = debian_main(&configured) {
                    return Ok(Self {
                        uri: source.uri.clone(),
                        keys: source.keys.clone(),
                    });
                }
                machine.debian_mirror()?
            }
        };
        let keyring = machine.debian_keyring()?;
        eprintln!(
            "Debian's packages come from {uri} (named by {origin}), checked with {}",
            keyring.display()
        );
        Ok(Self {
            uri,
            keys: Keys::Named(keyring.display().to_string()),
        })
    }
}

/// The best candidate for Debian's main archive among the sources of a machine.
fn debian_main(sources: &[Source]) -> Option<&Source> {
    let likely = |source: &&Source| likelihood(source);
    // The first of the likeliest: `max_by_key` gives the last one.
    sources
        .iter()
        .rev()
        .filter(|source| likelihood(source) > 0)
        .max_by_key(likely)
}

/// Likelihood that a source is Debian's main archive: 0 if it is not. Suite and component alone
/// don't tell, because archives of other origin use Debian's names too; the keys do, then the file,
/// then the path, unless the source names other keys. Security updates live at a URI of their own,
/// which lacks the rest.
fn likelihood(source: &Source) -> u32 {
    let path = source.uri.trim_end_matches('/');
    let named_in = |names: &[&str]| {
        let base = |suite: &str| {
            let pocket = POCKETS.iter().find_map(|pocket| suite.strip_suffix(pocket));
            pocket.unwrap_or(suite).to_owned()
        };
        let mut suites = source.suites.iter().map(|suite| base(suite));
        suites.any(|suite| names.contains(&suite.as_str()))
    };
    let codename = named_in(&CODENAMES);
    if path.ends_with("-security")
        || !source.components.iter().any(|name| name == "main")
        || !(codename || named_in(&STATES))
    {
        return 0;
    }
    let of_debian =
        |keys: &Keys| matches!(keys, Keys::Named(names) if names.contains("debian-archive"));
    let system = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default();
        name == "sources.list" || name == "debian.sources"
    };
    if of_debian(&source.keys) {
        3
    } else if codename && system(&source.file) {
        2
    } else {
        u32::from(path.ends_with("/debian") && source.keys == Keys::Default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{deb822, one_line};

    fn from_one_line(text: &str) -> Option<Mirror> {
        found(one_line(text, Path::new("sources.list")))
    }

    fn from_deb822(text: &str) -> Option<Mirror> {
        found(deb822(text, Path::new("debian.sources")))
    }

    fn found(sources: Vec<Source>) -> Option<Mirror> {
        debian_main(&sources).map(|source| Mirror {
            uri: source.uri.clone(),
            keys: source.keys.clone(),
        })
    }

    fn named(uri: &str, keys: &str) -> Option<Mirror> {
        Some(Mirror {
            uri: uri.into(),
            keys: Keys::Named(keys.into()),
        })
    }

    #[test]
    fn one_line_sources_give_the_first_debian_main() {
        let text = "# deb http://commented/debian trixie main\n\
                    deb [arch=amd64] https://packages.example/apt tool-bookworm main\n\
                    deb http://security.example/debian-security trixie-security main\n\
                    deb-src http://source.example/debian trixie main\n\
                    deb [ arch=amd64 signed-by=/k.gpg ] http://a.example/debian trixie main contrib\n";
        assert_eq!(
            from_one_line(text),
            named("http://a.example/debian", "/k.gpg")
        );
        let plain = "deb http://a.example/debian/ bookworm-updates main # why not";
        let mirror = Mirror {
            uri: "http://a.example/debian/".into(),
            keys: Keys::Default,
        };
        assert_eq!(from_one_line(plain), Some(mirror));
    }

    #[test]
    fn deb822_sources_give_the_first_debian_main() {
        let text = "Types: deb\nURIs: https://deb.example/node\nSuites: nodistro\nComponents: main\n\
                    \nTypes: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: sid\n\
                    Components: main\n\n# why\nTypes: deb deb-src\n# where\n\
                    URIs: http://a.example/debian\nSuites: bookworm\n bookworm-updates\n\
                    Components: main non-free\nSigned-By: /a.gpg\n";
        assert_eq!(
            from_deb822(text),
            named("http://a.example/debian", "/a.gpg")
        );
    }

    #[test]
    fn a_key_block_in_the_file_is_kept_whole() {
        let text = "Types: deb\nURIs: http://a.example/debian\nSuites: trixie\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n \
                    -----END PGP PUBLIC KEY BLOCK-----\n";
        let Some(Mirror {
            keys: Keys::Inline(block),
            ..
        }) = from_deb822(text)
        else {
            panic!("no mirror with a key block");
        };
        assert!(
            block.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n"),
            "{block}"
        );
    }

    #[test]
    fn a_derivative_has_no_debian_mirror() {
        assert_eq!(
            from_one_line("deb http://archive.example/ubuntu noble main universe"),
            None
        );
        let text = "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble noble-updates\n\
                    Components: main universe\nSigned-By: /u.gpg\n";
        assert_eq!(from_deb822(text), None);
    }
}
