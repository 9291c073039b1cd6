//! Names that Debian and Rust have for an architecture, and this machine's own.

use varia_units::Arch;

use crate::error::{Error, Result};

/// Debian's and Rust's names for an [`Arch`].
pub trait ArchNames {
    /// Debian's name, the name of packages and kernel flavours.
    fn debian(self) -> &'static str;

    /// GNU triplet, the name of library folders and cross compilers.
    fn triplet(self) -> &'static str;

    /// Rust target of guest programs.
    fn rust_target(self) -> &'static str;

    /// File name of the dynamic loader in the library folder.
    fn loader(self) -> &'static str;
}

impl ArchNames for Arch {
    fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::X86_64 => "amd64",
        }
    }

    fn triplet(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-linux-gnu",
            Self::X86_64 => "x86_64-linux-gnu",
        }
    }

    fn rust_target(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }

    fn loader(self) -> &'static str {
        match self {
            Self::Aarch64 => "ld-linux-aarch64.so.1",
            Self::X86_64 => "ld-linux-x86-64.so.2",
        }
    }
}

/// Architecture of this machine.
///
/// # Errors
/// [`Error::Missing`] if the lab has no tools for it.
pub fn host_arch() -> Result<Arch> {
    let name = std::env::consts::ARCH;
    name.parse().map_err(|_| {
        Error::missing(
            format!("the lab has no tools for a machine of type {name}"),
            "run it on x86-64 or 64-bit Arm",
        )
    })
}
