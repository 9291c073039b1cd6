//! The sets of Debian packages that the lab works with, fetched when first needed.
//!
//! Sets of one [`Choice`] fit together: they have the same kernel, QEMU and compilers. A set lies
//! in `sets/KERNEL/NAME-RECIPE` under the lab's cache, RECIPE being a hash over its recipe; it has
//! a folder `root` (the unpacked packages) and a file `versions`. An existing set is used as it
//! is, without asking the mirror.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use varia_units::Arch;

use crate::apt::Apt;
use crate::arch::host_arch;
use crate::cache::{Cache, CacheLock};
use crate::choice::{Choice, Offer, Pick};
use crate::chroot;
use crate::error::{Error, Result};
use crate::recipe::{S390X, recipe};
use crate::series::Series;
use crate::suite::Suite;

/// The file that records the current choice.
const RECORD: &str = "choice.json";

/// A set of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// QEMU for both architectures, with firmware for x86-64.
    Qemu,
    /// A machine's kernel, modules, busybox and firmware.
    Guest(Arch),
    /// Debian's arm64 kernel with pages of 16 KiB, and its modules.
    Kernel16k,
    /// Headers of another kernel series for all of Debian's kernels that modules are built for;
    /// where the series has a driver to compare with, the kernel's source too.
    Headers(Series),
    /// Kernel and modules of another series.
    Kernel(Series, Arch),
    /// Rust and a linker for guest programs of the other architecture. [`Set::Tools`]
    /// stands in for it where it is there.
    RustCross,
    /// Compilers, build tools, kernel headers for both architectures, kernel source.
    Tools,
    /// Compilers and build tools of a kernel with Rust: LLVM's for C, bindgen, `rustfmt` and clippy.
    KernelRust,
    /// `proot`, which runs the tools on a machine that refuses user namespaces.
    Proot,
    /// QEMU, firmware and `lspci` as programs *for* a machine of this architecture.
    Userland(Arch),
    /// A system for a machine of this architecture on which dkms can build modules, with a
    /// package database that says so.
    Dkms(Arch),
    /// libvirt's daemon and client as programs for a machine of this architecture, and the
    /// firmware for arm64 that it chooses from. For x86-64 with its schema and the QEMU for arm64
    /// that it asks; for arm64 [`Set::Userland`] has that, and here is what gives `virsh console`
    /// the terminal that it insists on.
    Libvirt(Arch),
    /// Readers of documentation: mdbook, mandoc, and shells that take completions.
    Documentation,
    /// QEMU, a kernel and programs for a machine of type s390x.
    S390x,
    /// A boot loader for arm64, and what writes the file system of a disk for it.
    BootDisk,
    /// musl's libraries for both architectures, for the static programs of `./x dist`.
    Musl,
    /// Judges of packages: lintian, and systemd's programs for units and udev rules.
    Packaging,
}

impl Set {
    /// Every set that `./x test` needs on this machine.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut sets = vec![Self::Qemu, Self::Tools, Self::Kernel16k];
        sets.extend([Series::Next, Series::Declined].map(Self::Headers));
        for arch in Arch::ALL {
            sets.push(Self::Kernel(Series::Next, arch));
            sets.extend([Self::Guest(arch), Self::Userland(arch), Self::Libvirt(arch)]);
        }
        sets.extend([Self::Documentation, Self::BootDisk, Self::Packaging]);
        // the machine's own system, for dkms without a VM
        sets.extend(host_arch().map(Self::Dkms));
        if chroot::refusal().is_some() {
            sets.push(Self::Proot);
        }
        sets
    }

    fn name(self) -> String {
        match self {
            Self::Qemu => "qemu".to_owned(),
            Self::Guest(arch) => format!("guest-{arch}"),
            Self::Kernel16k => "kernel-16k".to_owned(),
            Self::Headers(series) => format!("headers-{}", series.name()),
            Self::Kernel(series, arch) => format!("kernel-{}-{arch}", series.name()),
            Self::RustCross => "rust-cross".to_owned(),
            Self::Tools => "tools".to_owned(),
            Self::KernelRust => "kernel-rust".to_owned(),
            Self::Proot => "proot".to_owned(),
            Self::Userland(arch) => format!("userland-{arch}"),
            Self::Dkms(arch) => format!("dkms-{arch}"),
            Self::Libvirt(arch) => format!("libvirt-{arch}"),
            Self::Documentation => "documentation".to_owned(),
            Self::BootDisk => "boot-disk".to_owned(),
            Self::S390x => S390X.to_owned(),
            Self::Musl => "musl".to_owned(),
            Self::Packaging => "packaging".to_owned(),
        }
    }

    /// The kernel series of a set that does not have the chosen kernel.
    const fn series(self) -> Option<Series> {
        match self {
            Self::Headers(series) | Self::Kernel(series, _) => Some(series),
            _ => None,
        }
    }

    /// True if the downloaded files are kept for a larger set that has them too.
    const fn shares_downloads(self) -> bool {
        matches!(self, Self::RustCross)
    }
}

/// A set that is there.
#[derive(Clone, Debug)]
pub struct Tree {
    folder: PathBuf,
    kernel: String,
}

impl Tree {
    /// The unpacked packages: `usr` and the links into it.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// A path inside, given as it would be on an installed system.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root().join(absolute.trim_start_matches('/'))
    }

    /// The release of one of Debian's kernels of the generation: what `uname -r` prints.
    /// `flavour` is Debian's name of it.
    #[must_use]
    pub fn kernel_release(&self, flavour: &str) -> String {
        format!("{}-{flavour}", self.kernel)
    }

    /// The packages with their versions and architectures, one on each line.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn versions(&self) -> Result<String> {
        let path = self.folder.join("versions");
        fs::read_to_string(&path).map_err(Error::file("read", &path))
    }
}

/// A set, fetched if it is not there yet.
///
/// # Errors
/// Those of finding a mirror, of apt and of the file system.
pub fn ensure(set: Set) -> Result<Tree> {
    let cache = Cache::open()?;
    if let Some(tree) = existing(&cache, set)? {
        return Ok(tree);
    }
    let lock = cache.lock()?;
    if let Some(tree) = existing(&cache, set)? {
        return Ok(tree);
    }
    fetch(&cache, &lock, set, false)
}

/// Asks the mirror for newer packages and fetches all of `sets` anew where there are any.
///
/// # Errors
/// Those of [`ensure`].
pub fn refresh(sets: &[Set]) -> Result<()> {
    let cache = Cache::open()?;
    let lock = cache.lock()?;
    for (index, &set) in sets.iter().enumerate() {
        fetch(&cache, &lock, set, index == 0)?;
    }
    Ok(())
}

/// The versions of what is there, for a report.
///
/// # Errors
/// [`Error::Io`].
pub fn report() -> Result<String> {
    let cache = Cache::open()?;
    let Some(choice) = current(&cache)? else {
        return Ok("nothing has been fetched yet\n".to_owned());
    };
    let mut text = format!("{choice}\n");
    for set in Set::all() {
        if let Some(tree) = find(&cache, set, &choice)? {
            text.push_str(&format!("\n[{}]\n{}", set.name(), tree.versions()?));
        }
    }
    Ok(text)
}

fn existing(cache: &Cache, set: Set) -> Result<Option<Tree>> {
    let allowed = suites()?;
    match current(cache)? {
        Some(choice) if choice.suites().iter().all(|suite| allowed.contains(suite)) => {
            find(cache, set, &choice)
        }
        _ => Ok(None),
    }
}

fn find(cache: &Cache, set: Set, choice: &Choice) -> Result<Option<Tree>> {
    let mut choice = choice.clone();
    if let Some(series) = set.series() {
        let Some(kernel) = recorded(cache, series)? else {
            return Ok(None);
        };
        choice.kernel = kernel;
    }
    let choice = &choice;
    let mut candidates = vec![set];
    if set == Set::RustCross {
        candidates.insert(0, Set::Tools);
    }
    for set in candidates {
        let folder = cache.root().join(folder_of(set, choice)?);
        if folder.is_dir() {
            return Ok(Some(Tree {
                folder,
                kernel: choice.kernel.version.clone(),
            }));
        }
    }
    Ok(None)
}

fn current(cache: &Cache) -> Result<Option<Choice>> {
    load(&cache.root().join(RECORD))
}

/// The release of another kernel series that its sets have.
fn recorded(cache: &Cache, series: Series) -> Result<Option<Pick>> {
    load(&record_of(cache, series))
}

fn record_of(cache: &Cache, series: Series) -> PathBuf {
    cache.root().join(format!("linux-{}.json", series.name()))
}

/// A record; none if there is no such file, or if it is of another version of this program.
fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn save(path: &Path, record: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::io("describe the choice")(error.into()))?;
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text).map_err(Error::file("write", &unfinished))?;
    fs::rename(&unfinished, path).map_err(Error::file("write", path))
}

/// The release of another kernel series: the recorded one, or the newest if there is none or if
/// `force` is set.
fn release_of(cache: &Cache, series: Series, force: bool) -> Result<Pick> {
    if let (Some(known), false) = (recorded(cache, series)?, force) {
        return Ok(known);
    }
    let apt = Apt::open(cache.root(), series.suite())?;
    apt.update(force)?;
    let pick = series.pick(&apt.lists()?)?;
    eprintln!("Linux {} from Debian {}", pick.version, pick.suite);
    save(&record_of(cache, series), &pick)?;
    Ok(pick)
}

fn fetch(cache: &Cache, lock: &CacheLock, set: Set, force: bool) -> Result<Tree> {
    let mut choice = match settled(cache)? {
        Some(settled) if !force => settled,
        _ => choose(cache, force)?,
    };
    if current(cache)?.as_ref() != Some(&choice) {
        eprintln!("{choice}");
        save(&cache.root().join(RECORD), &choice)?;
    }
    if let Some(series) = set.series() {
        choice.kernel = release_of(cache, series, force)?;
    }
    let name = set.name();
    let folder = cache.fill(lock, &folder_of(set, &choice)?, |folder| {
        let root = folder.join("root");
        let mut versions = String::new();
        for (suite, wanted) in recipe(set, &choice)? {
            let apt = match set {
                Set::Dkms(arch) => Apt::open(cache.root(), suite)?.on(arch),
                Set::S390x => {
                    let apt = Apt::foreign(cache.root(), suite, S390X)?;
                    apt.update(force)?;
                    apt
                }
                _ => Apt::open(cache.root(), suite)?,
            };
            let debs = apt.resolve(&wanted)?;
            apt.download(&name, &wanted, &debs)?;
            apt.unpack(&name, &debs, &root)?;
            if matches!(set, Set::Dkms(_) | Set::Packaging) {
                apt.write_database(&debs, &root)?;
            }
            if matches!(set, Set::Headers(_)) {
                relocatable(&root)?;
            }
            versions.extend(debs.iter().map(|deb| deb.record() + "\n"));
            if !set.shares_downloads() {
                apt.forget(&debs);
            }
        }
        let path = folder.join("versions");
        fs::write(&path, versions).map_err(Error::file("write", &path))
    })?;
    Ok(Tree {
        folder,
        kernel: choice.kernel.version,
    })
}

/// Headers name one another's folders below `/usr/src`. With names that are relative to the file,
/// the set can be used where it lies.
fn relocatable(root: &Path) -> Result<()> {
    let folder = root.join("usr/src");
    let entries = fs::read_dir(&folder).map_err(Error::file("read", &folder))?;
    for entry in entries.flatten() {
        let path = entry.path().join("Makefile");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if text.contains("/usr/src/linux-headers-") {
            let text = format!("{HERE}{}", text.replace("/usr/src/", "$(varia_src)/"));
            fs::write(&path, text).map_err(Error::file("write", &path))?;
        }
    }
    Ok(())
}

/// Lines that find the folder of a `Makefile`'s folder.
const HERE: &str = "varia_src := $(patsubst %/,%,$(dir $(patsubst %/,%,$(dir \
                    $(abspath $(lastword $(MAKEFILE_LIST)))))))\n";

/// The current choice, if the package lists of its suites are still fresh.
fn settled(cache: &Cache) -> Result<Option<Choice>> {
    let Some(choice) = current(cache)? else {
        return Ok(None);
    };
    let allowed = suites()?;
    for suite in choice.suites() {
        if !allowed.contains(&suite) || !Apt::open(cache.root(), suite)?.is_fresh() {
            return Ok(None);
        }
    }
    Ok(Some(choice))
}

/// Suites to choose from: all, or the one that `VARIA_SUITE` names.
fn suites() -> Result<Vec<Suite>> {
    let Ok(wanted) = std::env::var("VARIA_SUITE") else {
        return Ok(Suite::ALL.to_vec());
    };
    match Suite::ALL.into_iter().find(|suite| suite.name() == wanted) {
        Some(suite) => Ok(vec![suite]),
        None => Err(Error::missing(
            format!("the lab does not know the suite {wanted:?}"),
            format!(
                "set VARIA_SUITE to one of {}, or not at all",
                Suite::ALL.map(Suite::name).join(", ")
            ),
        )),
    }
}

/// Reads the package lists of one suite after the other, until no further suite could give a
/// better choice.
fn choose(cache: &Cache, force: bool) -> Result<Choice> {
    let (mut offers, mut refusals) = (Vec::new(), Vec::new());
    for suite in suites()? {
        let apt = Apt::open(cache.root(), suite)?;
        match apt.update(force).and_then(|()| apt.lists()) {
            Ok(lists) => offers.push(Offer::read(suite, &lists)),
            Err(error) => refusals.push(format!("Debian {suite}: {error}")),
        }
        if let Some(choice) = Choice::among(&offers).ok().filter(Choice::is_best) {
            return Ok(with_refusals(choice, refusals));
        }
    }
    match Choice::among(&offers) {
        Ok(choice) => Ok(with_refusals(choice, refusals)),
        Err(error) if refusals.is_empty() => Err(error),
        Err(error) => Err(Error::missing(
            format!("{error}\nnot read:\n{}", refusals.join("\n")),
            "check the network and the mirror",
        )),
    }
}

/// The choice, which also says which suites could not be read.
fn with_refusals(mut choice: Choice, refusals: Vec<String>) -> Choice {
    let refusals = refusals.into_iter();
    let remarks = refusals.map(|refusal| format!("not read: {refusal}"));
    choice.remarks.extend(remarks);
    choice
}

fn folder_of(set: Set, choice: &Choice) -> Result<String> {
    let parts = recipe(set, choice)?;
    let parts: Vec<_> = parts
        .iter()
        .map(|(suite, wanted)| format!("{suite} {wanted:?}"))
        .collect();
    Ok(format!(
        "sets/{}/{}-{:08x}",
        choice.kernel.version,
        set.name(),
        fold_hash(parts.join("; ").as_bytes())
    ))
}

/// FNV-1a over the bytes, folded to 32 bits: stable between compilers, and long enough
/// to notice a change.
#[must_use]
pub fn fold_hash(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash >> 32) ^ (hash & 0xffff_ffff)) as u32
}

/// The folder that the lab keeps everything in, for messages.
///
/// # Errors
/// Those of [`Cache::open`].
pub fn cache_folder() -> Result<PathBuf> {
    Cache::open().map(|cache| cache.root().to_path_buf())
}

/// A folder of the lab's cache for the caller's own use, created if need be.
///
/// # Errors
/// [`Error::Io`].
pub fn cache_subfolder(name: &Path) -> Result<PathBuf> {
    let path = Cache::open()?.root().join(name);
    fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::tests::choice;

    #[test]
    fn a_choice_says_which_suites_could_not_be_read() {
        let refusal = "Debian sid: no network".to_owned();
        let choice = with_refusals(choice(), vec![refusal]);
        let text = choice.to_string();
        assert!(
            text.ends_with("\nnot read: Debian sid: no network"),
            "{text}"
        );
    }

    #[test]
    fn a_set_lies_in_its_generation_under_a_name_of_its_recipe() {
        let name = folder_of(Set::Guest(Arch::Aarch64), &choice()).unwrap();
        let (path, hash) = name.rsplit_once('-').unwrap();
        assert_eq!(path, "sets/7.2.12+deb14/guest-aarch64");
        assert_eq!(hash.len(), 8);
        let mut other = choice();
        other.kernel.suite = Suite::Sid;
        assert_ne!(folder_of(Set::Guest(Arch::Aarch64), &other).unwrap(), name);
    }
}
