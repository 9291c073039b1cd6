//! The package of the command `varia`, made by `cli/deb/deb.sh` in the tools' root: the static
//! program of [`crate::dist`], its manual, completions, units and udev rule.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use varia_debian::chroot::Chroot;
use varia_debian::packages::{self, Set};
use varia_debian::{ArchNames, command};
use varia_units::Arch;

use crate::agent_build::{host_cargo, target_folder, workspace};
use crate::dist;
use crate::error::{LabError, Result};
use crate::kernel_modules::lock;
use crate::kernel_package::{VERSION, date};

/// Content of a package that differs between packages.
#[derive(Clone, Debug)]
pub struct Content {
    /// Architecture of the program.
    pub arch: Arch,
    /// Program and bill of materials.
    pub files: dist::Files,
    /// Version of the package.
    pub version: String,
    /// Compressor of `dpkg-deb`, the usual one if `None`.
    pub compressor: Option<&'static str>,
}

/// Makes the package for `arch` in `folder` and returns its path. Its date is `SOURCE_DATE_EPOCH`,
/// or that of the last commit.
///
/// # Errors
/// Those of [`dist::files`], and [`LabError::Command`] with what a tool said.
pub fn deb(arch: Arch, folder: &Path) -> Result<PathBuf> {
    let content = Content {
        arch,
        files: dist::files(arch, &dist::folder())?,
        version: VERSION.to_owned(),
        compressor: None,
    };
    deb_of(&content, folder)
}

/// Makes a package of a given program, with a given version.
///
/// # Errors
/// [`LabError::Missing`] if there is no date, [`LabError::Command`] with what a tool said.
pub fn deb_of(content: &Content, folder: &Path) -> Result<PathBuf> {
    let Content { arch, files, .. } = content;
    let tools = packages::ensure(Set::Tools)?;
    fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    let folder = folder
        .canonicalize()
        .map_err(LabError::file("find", folder))?;
    let _lock = lock(&folder)?;
    let made = folder.join(format!("made-{arch}"));
    if made.exists() {
        fs::remove_dir_all(&made).map_err(LabError::file("remove", &made))?;
    }
    let completions = made.join("completions");
    fs::create_dir_all(&completions).map_err(LabError::file("create", &completions))?;
    for (from, name) in [(&files.program, "varia"), (&files.sbom, "varia.cdx.json")] {
        fs::copy(from, made.join(name)).map_err(LabError::file("copy", from))?;
    }
    // the texts are the same on every architecture: this machine's own program writes them
    let varia = host_program()?;
    let mut man = Command::new(&varia);
    command::run(man.args(["man", "--out"]).arg(made.join("man")))?;
    for shell in ["bash", "fish", "zsh"] {
        let text = command::text(Command::new(&varia).args(["completions", shell]))?;
        let path = completions.join(shell);
        fs::write(&path, text).map_err(LabError::file("write", &path))?;
    }
    let script = workspace().join("cli/deb/deb.sh");
    let mut chroot = Chroot::new(&tools)
        .bind(workspace())
        .bind(&folder)
        .env("SOURCE_DATE_EPOCH", date()?);
    if let Some(maintainer) = std::env::var_os("MAINTAINER") {
        chroot = chroot.env("MAINTAINER", maintainer);
    }
    if let Some(compressor) = content.compressor {
        chroot = chroot.env("DPKG_DEB_COMPRESSOR_TYPE", compressor);
    }
    chroot.run([
        script.as_os_str(),
        content.version.as_ref(),
        arch.debian().as_ref(),
        made.as_os_str(),
        folder.as_os_str(),
    ])?;
    fs::remove_dir_all(&made).map_err(LabError::file("remove", &made))?;
    Ok(folder.join(format!("varia_{}_{}.deb", content.version, arch.debian())))
}

/// `varia` for this machine.
fn host_program() -> Result<PathBuf> {
    let mut cargo = host_cargo();
    cargo.args(["build", "--quiet", "--package", "varia", "--target-dir"]);
    command::run(cargo.arg(target_folder()))?;
    Ok(target_folder().join("debug/varia"))
}

/// Folder in which `./x deb` makes the packages.
#[must_use]
pub fn folder() -> PathBuf {
    target_folder().join("deb")
}
