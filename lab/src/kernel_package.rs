//! The DKMS package of Varia's kernel module, made by `kernel/dkms/deb.sh` in the tools' root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use varia_debian::ArchNames;
use varia_debian::chroot::Chroot;
use varia_debian::command;
use varia_debian::packages::{self, Set, Tree};
use varia_units::Arch;

use crate::agent_build::{target_folder, workspace};
use crate::error::{LabError, Result};
use crate::kernel_modules::{lock, rust_object};

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Packages whose versions decide the bytes of the Rust object.
const MAKERS: [&str; 4] = [
    "rustc ",
    "rust-src ",
    "binutils-x86-64-linux-gnu ",
    "binutils-aarch64-linux-gnu ",
];

/// Makes the package in `folder` and gives its path. Its date is `SOURCE_DATE_EPOCH`, or that of
/// the last commit.
///
/// # Errors
/// [`LabError::Missing`] if there is no date, [`LabError::Command`] with what a tool said, and
/// those of building the Rust objects.
pub fn deb(folder: &Path) -> Result<PathBuf> {
    deb_of(VERSION, folder)
}

/// [`deb`] of another version, to test an upgrade.
///
/// # Errors
/// Those of [`deb`].
pub fn deb_of(version: &str, folder: &Path) -> Result<PathBuf> {
    let tools = packages::ensure(Set::Tools)?;
    let date = date()?;
    fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    let folder = folder
        .canonicalize()
        .map_err(LabError::file("find", folder))?;
    let _lock = lock(&folder)?;
    let objects = folder.join("objects");
    for arch in Arch::ALL {
        let place = objects.join(arch.debian());
        fs::create_dir_all(&place).map_err(LabError::file("create", &place))?;
        let object = rust_object(arch, &[])?;
        fs::copy(&object, place.join("rust.o_shipped")).map_err(LabError::file("copy", &object))?;
    }
    let path = objects.join("built-with");
    fs::write(&path, built_with(&tools)?).map_err(LabError::file("write", &path))?;
    let script = workspace().join("kernel/dkms/deb.sh");
    Chroot::new(&tools)
        .bind(workspace())
        .bind(&folder)
        .env("SOURCE_DATE_EPOCH", date)
        .run([
            script.as_os_str(),
            version.as_ref(),
            objects.as_os_str(),
            folder.as_os_str(),
        ])?;
    Ok(folder.join(format!("nvgrace-gpu-vfio-pci-dkms_{version}_all.deb")))
}

/// Folder in which `./x kernel deb` and the tests make the package.
#[must_use]
pub fn folder() -> PathBuf {
    target_folder().join("kernel/deb")
}

/// The tools that made the objects, one on each line: package, version, architecture.
fn built_with(tools: &Tree) -> Result<String> {
    let versions = tools.versions()?;
    let made = |line: &&str| MAKERS.iter().any(|name| line.starts_with(name));
    let lines = versions.lines().filter(made);
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// Date of a package: `SOURCE_DATE_EPOCH`, or the date of the last commit.
pub(crate) fn date() -> Result<String> {
    if let Ok(date) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(date);
    }
    let mut git = Command::new("git");
    git.current_dir(workspace())
        .args(["log", "-1", "--format=%ct"]);
    match command::text(&mut git) {
        Ok(date) => Ok(date.trim().to_owned()),
        Err(error) => Err(LabError::missing(
            format!("the package has no date: {error}"),
            "set SOURCE_DATE_EPOCH to one, in seconds since 1970",
        )),
    }
}
