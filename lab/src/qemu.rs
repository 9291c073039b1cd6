//! QEMU for the lab's machines: this machine's own if the lab knows its version, else a fetched one.
//!
//! The fetched QEMU needs no root folder of its own: its loader is told where its
//! libraries are, so it runs as an ordinary program even where namespaces are refused.

use std::path::PathBuf;
use std::process::Command;

use varia_debian::choice;
use varia_debian::command;
use varia_debian::packages::{self, Set};
use varia_debian::{ArchNames, host_arch};
use varia_units::Arch;

use crate::error::{LabError, Result};

/// A QEMU for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    argv: Vec<PathBuf>,
    /// Version as QEMU prints it, such as `11.1.2`.
    pub version: String,
    /// True if QEMU came with this machine rather than from the lab's packages.
    pub is_native: bool,
}

impl Qemu {
    /// A QEMU that can attach vfio-user devices.
    ///
    /// # Errors
    /// Those of fetching one, and [`LabError::Command`] if it does not run.
    pub fn find(arch: Arch) -> Result<Self> {
        let name = format!("qemu-system-{arch}");
        let installed = command::find_program(&name)
            .and_then(|program| Self::probe(vec![program], true).ok())
            .filter(|qemu| choice::knows_qemu(&qemu.version) && qemu.has_vfio_user());
        if let Some(qemu) = installed {
            return Ok(qemu);
        }
        Self::fetched(packages::ensure(Set::Qemu)?.path("/usr/bin").join(name))
    }

    /// A program that runs with the libraries and the firmware of the fetched QEMU.
    pub(crate) fn fetched(program: PathBuf) -> Result<Self> {
        let tree = packages::ensure(Set::Qemu)?;
        let host = host_arch()?;
        let libraries = tree.path("/usr/lib").join(host.triplet());
        Self::probe(
            vec![
                libraries.join(host.loader()),
                "--library-path".into(),
                libraries,
                program,
                "-L".into(),
                tree.path("/usr/share/qemu"),
                "-L".into(),
                tree.path("/usr/share/seabios"),
            ],
            false,
        )
    }

    /// A command that starts it; arguments are to be added.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut words = self.argv.iter();
        let mut command = Command::new(
            words
                .next()
                .map_or("qemu".as_ref(), |word| word.as_os_str()),
        );
        command.args(words);
        command
    }

    fn probe(argv: Vec<PathBuf>, is_native: bool) -> Result<Self> {
        let mut qemu = Self {
            argv,
            version: String::new(),
            is_native,
        };
        let text = command::text(qemu.command().arg("--version"))?;
        qemu.version = text
            .split_once("version ")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .ok_or_else(|| LabError::Description(format!("QEMU says of its version: {text}")))?
            .to_owned();
        Ok(qemu)
    }

    fn has_vfio_user(&self) -> bool {
        let devices = command::text(self.command().args(["-machine", "none", "-device", "help"]));
        devices.is_ok_and(|text| text.contains("\"vfio-user-pci\""))
    }
}
