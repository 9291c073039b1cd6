//! What can go wrong with a host.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use varia_facts::Bdf;

/// What goes wrong with a host's files. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file can't be used.
    #[error("can't {what} {}: {source}: {}", .path.display(), remedy(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Neither a sysfs nor a captured host.
    #[error(
        "{} is no host: name a sysfs (a folder with bus/pci), or a file that `varia capture` \
         made, or the folder that it was unpacked into", .0.display()
    )]
    NoHost(PathBuf),
    /// An archive that can't be read.
    #[error("{} is no captured host ({why}): make one with `varia capture FILE`", .path.display())]
    BadArchive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no PCI bus at all.
    #[error("there is no PCI bus in {0}: is sysfs mounted?")]
    NoPci(String),
    /// There is no such function.
    #[error(
        "there is no PCI function {bdf}{}",
        Nearest(.nearest)
    )]
    NoFunction {
        /// What was asked for.
        bdf: Bdf,
        /// Functions that a variant serves.
        nearest: Vec<Bdf>,
    },
    /// Somebody has the device open.
    #[error("{bdf} is in use by {users}: {remedy}")]
    InUse {
        /// The device.
        bdf: Bdf,
        /// Who.
        users: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Looking at registers needs this machine.
    #[error(
        "a captured host has no registers to look at: run `varia list --probe` on the machine itself"
    )]
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
        io::ErrorKind::PermissionDenied => "run it as root",
        io::ErrorKind::NotFound => "check the name",
        io::ErrorKind::AlreadyExists => "name another file, or remove this one",
        io::ErrorKind::StorageFull => "make room there",
        _ => "check the file and its folder",
    }
}

/// What could have been meant.
struct Nearest<'a>(&'a [Bdf]);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0 else {
            return f.write_str(": `lspci -D` lists what there is");
        };
        write!(f, ": variants serve {first}")?;
        rest.iter().try_for_each(|bdf| write!(f, ", {bdf}"))
    }
}
