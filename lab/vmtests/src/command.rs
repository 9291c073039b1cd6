//! The command `varia`, built, and a QEMU that can be named as one program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::qemu::Qemu;
use varia_lab::{Arch, command};

use crate::error::{Error, Result};

/// `varia` for this machine.
///
/// # Errors
/// If it does not build.
pub fn varia() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo
        .current_dir(workspace())
        .args(["build", "--quiet", "--package", "varia"])
        .env("CARGO_TARGET_DIR", target_folder());
    if !cargo.status().map_err(Error::io("start cargo"))?.success() {
        return Err(Error::Unexpected("varia does not build".to_owned()));
    }
    Ok(workspace().join(target_folder()).join("debug/varia"))
}

/// The same without debugging information, for a machine that gets it with its initramfs.
///
/// # Errors
/// If it does not build, or binutils are missing.
pub fn small_varia() -> Result<PathBuf> {
    let built = varia()?;
    let small = built.with_file_name("varia-for-guest");
    let mut strip = Command::new("strip");
    let status = strip.arg("-o").args([&small, &built]).status();
    let status = status.map_err(Error::io("start strip (install binutils)"))?;
    if !status.success() {
        return Err(Error::Unexpected("strip fails".to_owned()));
    }
    Ok(small)
}

/// The lab's QEMU as a program of its own, in a folder.
///
/// # Errors
/// Errors of the lab, and of writing the file.
pub fn qemu(folder: &Path, arch: Arch) -> Result<PathBuf> {
    let line = command::line(&Qemu::find(arch)?.command());
    let path = folder.join(format!("qemu-system-{arch}"));
    let script = format!("#!/bin/sh\nexec {line} \"$@\"\n");
    fs::write(&path, script).map_err(Error::io("write a script that starts QEMU"))?;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&path, executable).map_err(Error::io("make a script executable"))?;
    Ok(path)
}
