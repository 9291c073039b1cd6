//! Errors of reading a host.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use varia_facts::Bdf;

/// Error of reading a host's files; the message names the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file can't be used.
    #[error("can't {what} {}: {source}: {}", .path.display(), remedy(.source))]
    Io {
        /// Operation that failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The path is neither a sysfs nor a captured host.
    #[error(
        "{} is not a host: name a sysfs (a directory with bus/pci), a file that `varia capture` \
         wrote, or the directory that such a file was unpacked into", .0.display()
    )]
    NoHost(PathBuf),
    /// The archive is compressed.
    #[error("{} is compressed ({how}): unpack it with {program}", .path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// Format.
        how: &'static str,
        /// Program that unpacks the format.
        program: &'static str,
    },
    /// The archive can't be read.
    #[error(
        "{} is not a captured host ({why}): write a captured host with `varia capture FILE`",
        .path.display()
    )]
    BadArchive {
        /// The file.
        path: PathBuf,
        /// Fault of the file.
        why: String,
    },
    /// The host has no PCI bus.
    #[error("{0} has no PCI bus: mount sysfs")]
    NoPci(String),
    /// The function does not exist.
    #[error(
        "PCI function {bdf} does not exist{}",
        Nearest(.nearest)
    )]
    NoFunction {
        /// The requested function.
        bdf: Bdf,
        /// Functions that a variant serves.
        nearest: Vec<Bdf>,
    },
    /// The device is open.
    #[error("{bdf} is in use by {users}: {remedy}")]
    InUse {
        /// The device.
        bdf: Bdf,
        /// User of the device.
        users: String,
        /// Remedy.
        remedy: &'static str,
    },
    /// Registers can be read on this machine only.
    #[error("a captured host has no registers: run `varia list --probe` on the machine itself")]
    ProbeOfCapture,
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run this command as root",
        io::ErrorKind::NotFound => "check the name",
        io::ErrorKind::AlreadyExists => "name another file, or remove this one",
        io::ErrorKind::StorageFull => "free some space on its file system",
        _ => "check the file and its directory",
    }
}

/// Suggestions of existing functions, as the end of a message.
struct Nearest<'a>(&'a [Bdf]);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0 else {
            return f.write_str(": `lspci -D` lists the existing functions");
        };
        write!(f, ": variants serve {first}")?;
        rest.iter().try_for_each(|bdf| write!(f, ", {bdf}"))
    }
}
