//! Building kernel modules for the lab's kernels: Varia's own, and the original driver.
//!
//! The scripts in `kernel/` do it, in the tools' root, against Debian's headers. A build
//! is done again only when something it is made of has changed; processes that want the
//! same build wait for one another.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::agent_build::{target_folder, workspace};
use crate::arch::Arch;
use crate::chroot::Chroot;
use crate::error::{LabError, Result};
use crate::packages::{self, Set, Tree};

/// The file name of either driver.
const MODULE: &str = "nvgrace-gpu-vfio-pci.ko";

/// What Varia's modules are made of, in the workspace.
const SOURCES: [&str; 4] = ["kernel", "spec/src", "variant/src", "variants/src"];

/// Varia's `nvgrace-gpu-vfio-pci.ko` for Debian's kernel.
///
/// # Errors
/// [`LabError::Command`] with what the compiler said, and those of fetching it.
pub fn ours(arch: Arch) -> Result<PathBuf> {
    ours_with(arch, &[])
}

/// The same with features of the crate in `kernel/rust`, in a folder of their own.
///
/// # Errors
/// As for [`ours`].
pub fn ours_with(arch: Arch, features: &[&str]) -> Result<PathBuf> {
    let tools = packages::ensure(Set::Tools)?;
    let mut name = "ours".to_owned();
    for feature in features {
        name.push('-');
        name.push_str(feature);
    }
    let script = workspace().join("kernel/build.sh");
    build(&tools, arch, &name, MODULE, &SOURCES, |out| {
        let argv = [
            script.into_os_string(),
            arch.debian().into(),
            headers(&tools, arch).into(),
            out.into(),
        ];
        (
            argv.to_vec(),
            vec![("FEATURES".to_owned(), features.join(" "))],
        )
    })
}

/// The original driver of the same kernel version, from Debian's source package.
///
/// # Errors
/// As for [`ours`].
pub fn original(arch: Arch) -> Result<PathBuf> {
    let tools = packages::ensure(Set::Tools)?;
    let source = source_archive(&tools)?;
    let script = workspace().join("kernel/original.sh");
    build(
        &tools,
        arch,
        "original",
        MODULE,
        &["kernel/original.sh"],
        |out| {
            let argv = [
                script.into_os_string(),
                arch.debian().into(),
                headers(&tools, arch).into(),
                source.into(),
                out.into(),
            ];
            (argv.to_vec(), Vec::new())
        },
    )
}

/// `varia_position.ko`, which shows a test the file positions that a driver leaves behind.
///
/// # Errors
/// As for [`ours`].
pub fn position(arch: Arch) -> Result<PathBuf> {
    test_module(arch, "position")
}

/// `varia_poison.ko`, which makes pages fail.
///
/// # Errors
/// As for [`ours`].
pub fn poison(arch: Arch) -> Result<PathBuf> {
    test_module(arch, "poison")
}

/// `varia_NAME.ko` from the folder `lab/NAME`.
fn test_module(arch: Arch, name: &str) -> Result<PathBuf> {
    let tools = packages::ensure(Set::Tools)?;
    let folder = format!("lab/{name}");
    let source = workspace().join(&folder);
    let file = format!("varia_{name}.ko");
    build(&tools, arch, name, &file, &[&folder], |out| {
        let script = "cp \"$1\"/* \"$2\" && exec make -s -C \"$3\" M=\"$2\" ARCH=\"$4\" \
                      CROSS_COMPILE=\"$5\" modules";
        let prefix = match arch {
            Arch::Aarch64 => "aarch64-linux-gnu-",
            Arch::X86_64 => "",
        };
        let argv = vec![
            "sh".into(),
            "-ec".into(),
            script.into(),
            name.into(),
            source.into(),
            out.into(),
            headers(&tools, arch).into(),
            arch.debian().into(),
            prefix.into(),
        ];
        (argv, Vec::new())
    })
}

/// The kernel's headers, as the tools' root has them.
#[must_use]
pub fn headers(tools: &Tree, arch: Arch) -> PathBuf {
    Path::new("/usr/src").join(format!("linux-headers-{}", tools.kernel_release(arch)))
}

/// The kernel's source archive, as the tools' root has it.
///
/// # Errors
/// [`LabError::Missing`] if the set has none.
pub fn source_archive(tools: &Tree) -> Result<PathBuf> {
    let folder = tools.path("/usr/src");
    let entries = fs::read_dir(&folder).map_err(LabError::file("read", &folder))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    let name = names.find(|name| {
        let name = name.to_string_lossy();
        name.starts_with("linux-source-") && name.ends_with(".tar.xz")
    });
    name.map(|name| Path::new("/usr/src").join(name))
        .ok_or_else(|| {
            LabError::missing(
                format!("{} has no linux-source-*.tar.xz", folder.display()),
                "remove the set and fetch it again (./x lab fetch)",
            )
        })
}

/// Runs a build script in the tools' root unless its result is there and up to date.
/// `call` gives the command line and variables for a folder to build in.
fn build(
    tools: &Tree,
    arch: Arch,
    name: &str,
    file: &str,
    sources: &[&str],
    call: impl FnOnce(&Path) -> (Vec<std::ffi::OsString>, Vec<(String, String)>),
) -> Result<PathBuf> {
    let out = target_folder().join("kernel").join(arch.name()).join(name);
    fs::create_dir_all(&out).map_err(LabError::file("create", &out))?;
    let out = out.canonicalize().map_err(LabError::file("find", &out))?;
    let lock_path = out.join("lock");
    let lock = File::create(&lock_path).map_err(LabError::file("open", &lock_path))?;
    lock.lock().map_err(LabError::file("lock", &lock_path))?;

    let mut seen = format!("{} {}", tools.root().display(), tools.kernel_release(arch));
    for source in sources {
        digest(&workspace().join(source), &mut seen)?;
    }
    let (module, stamp) = (out.join(file), out.join("stamp"));
    if module.is_file() && fs::read_to_string(&stamp).is_ok_and(|known| known == seen) {
        return Ok(module);
    }
    let (argv, variables) = call(&out);
    let mut chroot = Chroot::new(tools).bind(workspace()).bind(&out).cwd(&out);
    for (name, value) in variables {
        chroot = chroot.env(name, value);
    }
    chroot.run(argv)?;
    fs::write(&stamp, seen).map_err(LabError::file("write", &stamp))?;
    Ok(module)
}

/// Appends the names of all files under `path`, with a hash of what they hold.
fn digest(path: &Path, to: &mut String) -> Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(LabError::file("read", path))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        return paths.iter().try_for_each(|path| digest(path, to));
    }
    let bytes = fs::read(path).map_err(LabError::file("read", path))?;
    let hash = packages::fold_hash(&bytes);
    to.push_str(&format!("\n{} {} {hash:08x}", path.display(), bytes.len()));
    Ok(())
}
