//! Our module with a deliberate fault, to see that a test finds it.
//!
//! The module is built from a copy of its sources in which one text is replaced.

use std::fs;
use std::path::{Path, PathBuf};

use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::chroot::Chroot;
use varia_lab::{Arch, ArchNames, Set, kernel_modules, packages};

use crate::error::{Error, Result};

/// Folders with the sources of our module, in the workspace.
const SOURCES: [&str; 5] = [
    "kernel",
    "units/src",
    "spec/src",
    "variant/src",
    "variants/src",
];
/// Folders that a copy leaves out: results of cargo and make.
const LEFT_OUT: [&str; 2] = ["target", "build"];

/// A fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// A name, good for a folder.
    pub name: &'static str,
    /// The file, from the workspace's root.
    pub file: &'static str,
    /// The text that is right; it has to be there exactly once.
    pub right: &'static str,
    /// Text in the place of the right one.
    pub wrong: &'static str,
}

/// Builds nvgrace-gpu-vfio-pci.ko with the fault, for Debian's kernel.
///
/// # Errors
/// If the text is not there once, or the copy does not build.
pub fn build(arch: Arch, fault: &Fault) -> Result<PathBuf> {
    let tools = packages::ensure(Set::Tools)?;
    let ours = kernel_modules::ours(arch)?;
    let ours = ours.parent().unwrap_or(Path::new("/"));
    let out = target_folder()
        .join("kernel")
        .join(arch.name())
        .join("faulty")
        .join(fault.name);
    let source = out.join("source");
    if source.exists() {
        fs::remove_dir_all(&source).map_err(Error::io("remove an old copy"))?;
    }
    for folder in SOURCES {
        copy(&workspace().join(folder), &source.join(folder))
            .map_err(Error::io("copy the module's sources"))?;
    }
    plant(&source, fault)?;
    let out = out.canonicalize().map_err(Error::io("find the copy"))?;
    let mut chroot = Chroot::new(&tools).bind(&out).bind(ours).cwd(&out);
    if fault.file.starts_with("kernel/adaptor/") {
        chroot = chroot.env("RUST_OBJECT", ours.join("rust.o_shipped"));
    } else {
        kernel_modules::lend_core(arch, &out)?;
    }
    chroot.run([
        out.join("source/kernel/build.sh").into_os_string(),
        arch.debian().into(),
        kernel_modules::headers(&tools, arch.debian()).into(),
        out.clone().into(),
    ])?;
    Ok(out.join("nvgrace-gpu-vfio-pci.ko"))
}

fn plant(source: &Path, fault: &Fault) -> Result<()> {
    let path = source.join(fault.file);
    let text = fs::read_to_string(&path).map_err(Error::io("read the file of a fault"))?;
    let found = text.matches(fault.right).count();
    if found != 1 {
        return Err(Error::Unexpected(format!(
            "fault \"{}\": its text is {found} times in {}, and has to be once; write it anew",
            fault.name, fault.file
        )));
    }
    fs::write(&path, text.replace(fault.right, fault.wrong)).map_err(Error::io("plant a fault"))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() && !LEFT_OUT.iter().any(|left| name == *left) {
            copy(&entry.path(), &to.join(&name))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}
