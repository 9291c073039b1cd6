//! The sets of Debian packages that the lab works with, fetched when first needed.
//!
//! Sets of one *generation* fit together: they have the same kernel. A set lies in
//! `sets/GENERATION/NAME-RECIPE` under the lab's cache, RECIPE being a hash over what the
//! set is made of; it has a folder `root` (the unpacked packages) and a file `versions`.
//! A set that is there is used as it is, without looking at the mirror.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use varia_units::Arch;

use crate::apt::{Apt, Suite, Wanted, natural_key};
use crate::arch::{ArchNames, host_arch};
use crate::cache::{Cache, CacheLock};
use crate::error::{Error, Result};

/// The kernel series that the lab is made for; another is taken only if it is gone.
const KERNEL_SERIES: &str = "7.2";

/// Debian's name of its arm64 kernel with pages of 16 KiB.
pub const ARM64_16K: &str = "arm64-16k";

/// Debian's kernels that the lab builds modules for.
const KERNELS: [(&str, Arch); 3] = [
    ("arm64", Arch::Aarch64),
    ("amd64", Arch::X86_64),
    (ARM64_16K, Arch::Aarch64),
];

/// A set of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// QEMU for both architectures, with firmware for x86-64.
    Qemu,
    /// A machine's kernel, modules, busybox and firmware.
    Guest(Arch),
    /// Debian's arm64 kernel with pages of 16 KiB, and its modules.
    Kernel16k,
    /// Rust and a linker for guest programs of the other architecture. [`Set::Tools`]
    /// stands in for it where it is there.
    RustCross,
    /// Compilers, build tools, kernel headers for both architectures, kernel source.
    Tools,
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
    /// What documentation is for: mdbook, mandoc, and shells that take completions.
    Documentation,
}

impl Set {
    /// Every set that `./x test` needs.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut sets = vec![Self::Qemu, Self::Tools, Self::Kernel16k];
        for arch in Arch::ALL {
            sets.extend([Self::Guest(arch), Self::Userland(arch), Self::Libvirt(arch)]);
        }
        sets.push(Self::Documentation);
        sets
    }

    fn name(self) -> String {
        match self {
            Self::Qemu => "qemu".to_owned(),
            Self::Guest(arch) => format!("guest-{arch}"),
            Self::Kernel16k => "kernel-16k".to_owned(),
            Self::RustCross => "rust-cross".to_owned(),
            Self::Tools => "tools".to_owned(),
            Self::Userland(arch) => format!("userland-{arch}"),
            Self::Dkms(arch) => format!("dkms-{arch}"),
            Self::Libvirt(arch) => format!("libvirt-{arch}"),
            Self::Documentation => "documentation".to_owned(),
        }
    }

    /// Whether the downloaded files are kept for a larger set that has them too.
    const fn shares_downloads(self) -> bool {
        matches!(self, Self::RustCross)
    }
}

/// What the sets of one generation have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    suite: String,
    /// The kernel's release without its flavour, such as `7.2.12+deb14`.
    kernel: String,
    /// The newest cross compiler's major version.
    gcc: u32,
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
    let Some(generation) = current(&cache)? else {
        return Ok("nothing has been fetched yet\n".to_owned());
    };
    let mut text = format!(
        "Debian {}, kernel {}\n",
        generation.suite, generation.kernel
    );
    for set in Set::all() {
        if let Some(tree) = find(&cache, set, &generation)? {
            text.push_str(&format!("\n[{}]\n{}", set.name(), tree.versions()?));
        }
    }
    Ok(text)
}

fn existing(cache: &Cache, set: Set) -> Result<Option<Tree>> {
    let suites = suites()?;
    match current(cache)? {
        Some(generation) if suites.iter().any(|suite| suite.name() == generation.suite) => {
            find(cache, set, &generation)
        }
        _ => Ok(None),
    }
}

fn find(cache: &Cache, set: Set, generation: &Generation) -> Result<Option<Tree>> {
    let mut candidates = vec![set];
    if set == Set::RustCross {
        candidates.insert(0, Set::Tools);
    }
    for set in candidates {
        let folder = cache.root().join(folder_of(set, generation)?);
        if folder.is_dir() {
            return Ok(Some(Tree {
                folder,
                kernel: generation.kernel.clone(),
            }));
        }
    }
    Ok(None)
}

fn current(cache: &Cache) -> Result<Option<Generation>> {
    let path = cache.root().join("generation.json");
    match fs::read(&path) {
        // A file of another version of this program is as good as none.
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}

fn fetch(cache: &Cache, lock: &CacheLock, set: Set, force: bool) -> Result<Tree> {
    let (apt, generation) = match settled(cache)? {
        Some(settled) if !force => settled,
        _ => choose_suite(cache, force)?,
    };
    let record = cache.root().join("generation.json");
    if current(cache)?.as_ref() != Some(&generation) {
        let text = serde_json::to_vec_pretty(&generation)
            .map_err(|error| Error::io("describe the generation")(error.into()))?;
        let unfinished = record.with_extension("new");
        fs::write(&unfinished, text).map_err(Error::file("write", &unfinished))?;
        fs::rename(&unfinished, &record).map_err(Error::file("write", &record))?;
    }
    let wanted = recipe(set, &generation)?;
    let name = set.name();
    let apt = match set {
        Set::Dkms(arch) => apt.on(arch),
        _ => apt,
    };
    let folder = cache.fill(lock, &folder_of(set, &generation)?, |folder| {
        let debs = apt.resolve(&wanted)?;
        apt.download(&name, &wanted, &debs)?;
        apt.unpack(&name, &debs, &folder.join("root"))?;
        if matches!(set, Set::Dkms(_)) {
            apt.write_database(&debs, &folder.join("root"))?;
        }
        let versions: String = debs.iter().map(|deb| deb.record() + "\n").collect();
        let path = folder.join("versions");
        fs::write(&path, versions).map_err(Error::file("write", &path))?;
        if !set.shares_downloads() {
            apt.forget(&debs);
        }
        Ok(())
    })?;
    Ok(Tree {
        folder,
        kernel: generation.kernel,
    })
}

/// The current generation, if its package lists are still fresh.
fn settled(cache: &Cache) -> Result<Option<(Apt, Generation)>> {
    let Some(generation) = current(cache)? else {
        return Ok(None);
    };
    let suite = Suite::ALL
        .into_iter()
        .find(|suite| suite.name() == generation.suite);
    let Some(suite) = suite else { return Ok(None) };
    let apt = Apt::open(cache.root(), suite)?;
    Ok(apt.is_fresh().then_some((apt, generation)))
}

/// The suites to try: the one that `VARIA_SUITE` names, or all.
fn suites() -> Result<Vec<Suite>> {
    let Ok(wanted) = std::env::var("VARIA_SUITE") else {
        return Ok(Suite::ALL.to_vec());
    };
    match Suite::ALL.into_iter().find(|suite| suite.name() == wanted) {
        Some(suite) => Ok(vec![suite]),
        None => Err(Error::missing(
            format!("the lab knows no suite {wanted:?}"),
            "set VARIA_SUITE to forky or trixie-backports, or not at all",
        )),
    }
}

/// The first suite that has a kernel and a QEMU for the lab.
fn choose_suite(cache: &Cache, force: bool) -> Result<(Apt, Generation)> {
    let mut refusals = Vec::new();
    for suite in suites()? {
        let apt = Apt::open(cache.root(), suite)?;
        let found = apt.update(force).and_then(|()| {
            let kernel = newest_kernel(&apt)?;
            let gcc = newest_gcc(&apt)?;
            apt.resolve(&Wanted {
                whole: vec!["qemu-system-arm".into()],
                alone: Vec::new(),
            })?;
            Ok(Generation {
                suite: suite.name().to_owned(),
                kernel,
                gcc,
            })
        });
        match found {
            Ok(generation) => return Ok((apt, generation)),
            Err(error) => refusals.push(format!("{}: {error}", suite.name())),
        }
    }
    Err(Error::missing(
        format!(
            "no suite of the mirror has the lab's packages:\n{}",
            refusals.join("\n")
        ),
        "check the network and the mirror, or set VARIA_MIRROR to another",
    ))
}

/// The newest kernel of the lab's series that exists for both architectures, or of the
/// newest series if that one is gone.
fn newest_kernel(apt: &Apt) -> Result<String> {
    for prefix in [
        format!("linux-binary-{KERNEL_SERIES}."),
        "linux-binary-".to_owned(),
    ] {
        let names = apt.names(&prefix)?;
        let releases: Vec<_> = names
            .iter()
            .filter_map(|name| name.strip_prefix("linux-binary-")?.strip_suffix("-arm64"))
            .filter(|release| {
                release.starts_with(|c: char| c.is_ascii_digit())
                    && !release.contains('-')
                    && names.contains(&format!("linux-binary-{release}-amd64"))
            })
            .collect();
        if let Some(release) = releases.iter().max_by_key(|release| natural_key(release)) {
            return Ok((*release).to_owned());
        }
    }
    Err(Error::missing(
        "there is no package linux-binary-*",
        "use a mirror that has forky",
    ))
}

fn newest_gcc(apt: &Apt) -> Result<u32> {
    let names = apt.names("gcc-")?;
    let versions = names.iter().filter_map(|name| {
        name.strip_prefix("gcc-")?
            .strip_suffix("-aarch64-linux-gnu")?
            .parse()
            .ok()
    });
    versions.max().ok_or_else(|| {
        Error::missing(
            "there is no package gcc-N-aarch64-linux-gnu",
            "use another mirror",
        )
    })
}

/// What a set is made of.
fn recipe(set: Set, generation: &Generation) -> Result<Wanted> {
    let host = host_arch()?;
    let kernel = &generation.kernel;
    let gcc = generation.gcc;
    let mut whole: Vec<String> = Vec::new();
    let mut alone: Vec<String> = Vec::new();
    match set {
        Set::Qemu => {
            whole.extend(["qemu-system-arm", "qemu-system-x86", "seabios"].map(str::to_owned));
        }
        Set::Guest(arch) => {
            let debian = arch.debian();
            for part in ["binary", "modules", "base"] {
                alone.push(format!("linux-{part}-{kernel}-{debian}:{debian}"));
            }
            alone.push(format!("busybox-static:{debian}"));
            if arch == Arch::Aarch64 {
                alone.push("qemu-efi-aarch64".to_owned());
            }
        }
        Set::Kernel16k => {
            let name = ARM64_16K;
            for part in ["binary", "modules", "base"] {
                alone.push(format!("linux-{part}-{kernel}-{name}:arm64"));
            }
        }
        Set::RustCross => rust_cross(host, gcc, &mut whole, &mut alone),
        Set::Tools => {
            rust_cross(host, gcc, &mut whole, &mut alone);
            let tools = "rust-src make pahole acpica-tools bash findutils tar xz-utils gzip \
                         diffutils sed grep mawk perl-base bc flex bison cpio kmod pciutils \
                         libssl-dev libelf-dev busybox-static dpkg";
            whole.extend(tools.split_whitespace().map(str::to_owned));
            let series = kernel.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
            whole.push(format!("linux-source-{series}"));
            alone.push(format!("linux-kbuild-{kernel}:{}", host.debian()));
            alone.push(format!("linux-headers-{kernel}-common"));
            for arch in Arch::ALL {
                alone.push(format!("uuid-dev:{}", arch.debian()));
            }
            for (flavour, arch) in KERNELS {
                let debian = arch.debian();
                alone.push(format!("linux-headers-{kernel}-{flavour}:{debian}"));
                alone.push(format!("linux-base-{kernel}-{flavour}:{debian}"));
            }
        }
        Set::Userland(arch) => {
            let debian = arch.debian();
            let qemu = match arch {
                Arch::Aarch64 => "qemu-system-arm",
                Arch::X86_64 => "qemu-system-x86",
            };
            for name in [qemu, "pciutils", "busybox-static", "coreutils", "dash"] {
                whole.push(format!("{name}:{debian}"));
            }
            if arch == Arch::Aarch64 {
                whole.push("qemu-efi-aarch64".to_owned());
            }
        }
        Set::Dkms(arch) => {
            let debian = arch.debian();
            // What every Debian has, and what a machine that uses dkms has beside it.
            let names = format!(
                "bash base-files base-passwd coreutils dash debianutils diffutils dpkg findutils \
                 grep gzip hostname init-system-helpers libc-bin login ncurses-bin perl-base sed \
                 sysvinit-utils tar util-linux mawk dkms gcc make linux-headers-{kernel}-{debian}"
            );
            let names = names
                .split_whitespace()
                .map(|name| format!("{name}:{debian}"));
            whole.extend(names);
        }
        Set::Documentation => {
            let names = "mdbook mandoc zsh bash coreutils grep libpcre2-8-0 libpcre2-32-0";
            whole.extend(names.split_whitespace().map(str::to_owned));
            // without a manual's reader and Python, which it needs for other things
            alone.extend(["fish", "fish-common"].map(str::to_owned));
        }
        Set::Libvirt(arch) => {
            let debian = arch.debian();
            let of_arch = |name: &str| format!("{name}:{debian}");
            let names = "libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt-common";
            whole.extend(names.split_whitespace().map(of_arch));
            match arch {
                Arch::Aarch64 => {
                    alone.extend(["qemu-efi-aarch64".to_owned(), of_arch("bsdutils")]);
                }
                Arch::X86_64 => {
                    let names = "libxml2-utils qemu-system-arm qemu-efi-aarch64 bash coreutils \
                                 dash grep sed base-passwd busybox-static";
                    whole.extend(names.split_whitespace().map(of_arch));
                }
            }
        }
    }
    Ok(Wanted { whole, alone })
}

/// Rust, with what links programs for both architectures.
fn rust_cross(host: Arch, gcc: u32, whole: &mut Vec<String>, alone: &mut Vec<String>) {
    let native = [
        "rustc",
        "cargo",
        "libstd-rust-dev",
        "libc6-dev",
        "dash",
        "coreutils",
    ];
    whole.extend(native.map(str::to_owned));
    whole.push(format!("gcc-{gcc}"));
    let other = if host == Arch::Aarch64 {
        Arch::X86_64
    } else {
        Arch::Aarch64
    };
    whole.push(format!("gcc-{gcc}-{}", other.triplet().replace('_', "-")));
    whole.push(format!("libc6-dev-{}-cross", other.debian()));
    // Only the target's library files are wanted, not a second compiler.
    alone.push(format!("libstd-rust-dev:{}", other.debian()));
}

fn folder_of(set: Set, generation: &Generation) -> Result<String> {
    let wanted = recipe(set, generation)?;
    let text = format!("{} {:?}", generation.suite, wanted);
    Ok(format!(
        "sets/{}/{}-{:08x}",
        generation.kernel,
        set.name(),
        fold_hash(text.as_bytes())
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

    fn generation() -> Generation {
        Generation {
            suite: "forky".into(),
            kernel: "7.2.12+deb14".into(),
            gcc: 16,
        }
    }

    #[test]
    fn a_set_lies_in_its_generation_under_a_name_of_its_recipe() {
        let name = folder_of(Set::Guest(Arch::Aarch64), &generation()).unwrap();
        let (path, hash) = name.rsplit_once('-').unwrap();
        assert_eq!(path, "sets/7.2.12+deb14/guest-aarch64");
        assert_eq!(hash.len(), 8);
        let other = Generation {
            suite: "sid".into(),
            ..generation()
        };
        assert_ne!(folder_of(Set::Guest(Arch::Aarch64), &other).unwrap(), name);
    }

    #[test]
    fn a_guest_needs_no_dependencies() {
        let wanted = recipe(Set::Guest(Arch::X86_64), &generation()).unwrap();
        assert!(wanted.whole.is_empty(), "{wanted:?}");
        assert!(
            wanted
                .alone
                .contains(&"linux-modules-7.2.12+deb14-amd64:amd64".to_owned())
        );
    }

    #[test]
    fn the_tools_contain_what_the_cross_compiler_set_has() {
        let tools = recipe(Set::Tools, &generation()).unwrap();
        let cross = recipe(Set::RustCross, &generation()).unwrap();
        assert!(cross.whole.iter().all(|name| tools.whole.contains(name)));
        assert!(cross.alone.iter().all(|name| tools.alone.contains(name)));
    }
}
