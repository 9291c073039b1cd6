//! The two architectures that a lab machine can have, and what each is called by whom.

use std::fmt;
use std::str::FromStr;

/// An architecture of a lab machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit Arm: QEMU's `virt` machine.
    Aarch64,
    /// 64-bit x86: QEMU's `q35` machine.
    X86_64,
}

impl Arch {
    /// Both, in the order in which tests go through them.
    pub const ALL: [Self; 2] = [Self::Aarch64, Self::X86_64];

    /// The architecture of the machine that runs the lab.
    #[must_use]
    pub fn host() -> Option<Self> {
        std::env::consts::ARCH.parse().ok()
    }

    /// QEMU's and Rust's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        }
    }

    /// Debian's name, that of packages and kernel flavours.
    #[must_use]
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::X86_64 => "amd64",
        }
    }

    /// The GNU triplet, that of library folders and cross compilers.
    #[must_use]
    pub const fn triplet(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-linux-gnu",
            Self::X86_64 => "x86_64-linux-gnu",
        }
    }

    /// The Rust target of guest programs.
    #[must_use]
    pub const fn rust_target(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }

    /// The kernel's name of the first serial port.
    #[must_use]
    pub const fn console(self) -> &'static str {
        match self {
            Self::Aarch64 => "ttyAMA0",
            Self::X86_64 => "ttyS0",
        }
    }

    /// The file name of the dynamic loader, as it is in the library folder.
    #[must_use]
    pub const fn loader(self) -> &'static str {
        match self {
            Self::Aarch64 => "ld-linux-aarch64.so.1",
            Self::X86_64 => "ld-linux-x86-64.so.2",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            "x86_64" | "amd64" => Ok(Self::X86_64),
            _ => Err(format!(
                "unknown architecture {text:?}: aarch64 and x86_64 are known"
            )),
        }
    }
}
