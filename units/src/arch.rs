//! Processor architectures, by the names that the world has for them.

use core::fmt;
use core::str::FromStr;

/// A processor architecture of a host or of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Arch {
    /// 64-bit Arm, arm64: what a Grace host runs; QEMU's `virt` machine.
    Aarch64,
    /// 64-bit x86, amd64; QEMU's `q35` machine.
    X86_64,
}

/// Error for a name that is not one of an [`Arch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownArch;

impl Arch {
    /// Every architecture, in the order in which tests go through them.
    pub const ALL: [Self; 2] = [Self::Aarch64, Self::X86_64];

    /// Name in `uname -m`, in Rust's targets and in `qemu-system-NAME`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        }
    }

    /// Linux's name of the first serial port of QEMU's machine.
    #[must_use]
    pub const fn console(self) -> &'static str {
        match self {
            Self::Aarch64 => "ttyAMA0",
            Self::X86_64 => "ttyS0",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = UnknownArch;

    /// Reads the kernel's names and Debian's: `aarch64` or `arm64`, `x86_64` or `amd64`.
    fn from_str(text: &str) -> Result<Self, UnknownArch> {
        match text {
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            "x86_64" | "amd64" => Ok(Self::X86_64),
            _ => Err(UnknownArch),
        }
    }
}

impl fmt::Display for UnknownArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown architecture: use aarch64 (arm64) or x86_64 (amd64)")
    }
}

impl core::error::Error for UnknownArch {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn names_are_read_as_they_are_written_and_as_debian_writes_them() {
        for arch in Arch::ALL {
            assert_eq!(arch.to_string().parse(), Ok(arch));
        }
        assert_eq!("arm64".parse(), Ok(Arch::Aarch64));
        assert_eq!("amd64".parse(), Ok(Arch::X86_64));
        assert_eq!("ppc64".parse::<Arch>(), Err(UnknownArch));
    }
}
