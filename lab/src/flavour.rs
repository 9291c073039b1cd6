//! The kernels that a machine can run and that modules are built for.
//!
//! Debian calls the variants of its kernel package *flavours*; one more is built by the lab
//! itself, from Debian's kernel source. An architecture stands for Debian's ordinary kernel.

use std::fmt;

use varia_debian::recipe::ARM64_16K;
use varia_debian::{ArchNames, Series};
use varia_units::Arch;

/// A kernel of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavour {
    /// Debian's ordinary kernel, with pages of 4 KiB.
    Debian(Arch),
    /// Debian's `arm64-16k`, with pages of 16 KiB.
    Debian16k,
    /// Debian's ordinary kernel of the series [`Series::Next`].
    Next(Arch),
    /// Debian's `arm64-16k` of the same series, for which modules are built.
    Next16k,
    /// The lab's own for arm64 (`lab/kernels/debug-64k.config`): pages of 64 KiB, lockdep,
    /// KASAN, iommufd. Building it takes minutes, so it is for `./x soak`.
    ///
    /// KASAN keeps an eighth of every kernel mapping as shadow memory, so vfio-pci-core can't
    /// map a physical BAR of 128 GiB there: give the silicon a small BAR 2.
    Debug64k,
    /// The same of the series [`Series::Next`].
    NextDebug64k,
    /// The lab's own for x86-64 with Rust (`lab/kernels/rust-amd64.config`), which has the driver in
    /// the kernel's own Rust and the original as modules. Building it takes minutes too.
    RustAmd64,
}

impl Flavour {
    /// All, in the order in which tests go through them.
    pub const ALL: [Self; 9] = [
        Self::Debian(Arch::Aarch64),
        Self::Debian(Arch::X86_64),
        Self::Debian16k,
        Self::Next(Arch::Aarch64),
        Self::Next(Arch::X86_64),
        Self::Next16k,
        Self::Debug64k,
        Self::NextDebug64k,
        Self::RustAmd64,
    ];

    /// Series of the kernel where it is not the one that the lab chooses.
    #[must_use]
    pub const fn series(self) -> Option<Series> {
        match self {
            Self::Debian(_) | Self::Debian16k | Self::Debug64k | Self::RustAmd64 => None,
            Self::Next(_) | Self::Next16k | Self::NextDebug64k => Some(Series::Next),
        }
    }

    /// Architecture of the kernel.
    #[must_use]
    pub const fn arch(self) -> Arch {
        match self {
            Self::Debian(arch) | Self::Next(arch) => arch,
            Self::RustAmd64 => Arch::X86_64,
            Self::Debian16k | Self::Next16k | Self::Debug64k | Self::NextDebug64k => Arch::Aarch64,
        }
    }

    /// True for a kernel with Rust, whose driver is the one in the kernel's own Rust.
    #[must_use]
    pub const fn is_rust(self) -> bool {
        matches!(self, Self::RustAmd64)
    }

    /// True for a kernel that the lab builds itself, which looks for errors and has KASAN.
    #[must_use]
    pub const fn is_debug(self) -> bool {
        matches!(self, Self::Debug64k | Self::NextDebug64k)
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn page_size(self) -> u64 {
        match self {
            Self::Debian(_) | Self::Next(_) | Self::RustAmd64 => 4 << 10,
            Self::Debian16k | Self::Next16k => 16 << 10,
            Self::Debug64k | Self::NextDebug64k => 64 << 10,
        }
    }

    /// Bytes that the largest entry of a page table below the last level maps: the huge page of
    /// a page-frame mapping on arm64, and the smaller of two on x86-64.
    #[must_use]
    pub const fn pmd_size(self) -> u64 {
        // A table is a page of 8-byte entries.
        self.page_size() * (self.page_size() / 8)
    }

    /// Name of the kernel: Debian's for what follows the version in a release, or the lab's own.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian(arch) | Self::Next(arch) => arch.debian(),
            Self::Debian16k | Self::Next16k => ARM64_16K,
            Self::Debug64k | Self::NextDebug64k => "debug-64k",
            Self::RustAmd64 => "rust-amd64",
        }
    }

    /// Name of a folder for what is built for the kernel.
    pub(crate) fn folder(self) -> String {
        let name = match self {
            Self::Debian(arch) | Self::Next(arch) => arch.name(),
            other => other.name(),
        };
        match self.series() {
            None => name.to_owned(),
            Some(series) => format!("{name}-{}", series.name()),
        }
    }
}

impl From<Arch> for Flavour {
    fn from(arch: Arch) -> Self {
        Self::Debian(arch)
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.series() {
            None => Ok(()),
            Some(series) => write!(f, " of Linux {}", series.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_what_the_page_size_makes_them() {
        let sizes = Flavour::ALL.map(Flavour::pmd_size);
        let (small, middle, large) = (2 << 20, 32 << 20, 512 << 20);
        assert_eq!(
            sizes,
            [
                small, small, middle, small, small, middle, large, large, small
            ]
        );
    }

    #[test]
    fn each_kernel_has_a_name_and_a_folder_of_its_own() {
        let mut names = Flavour::ALL.map(|flavour| flavour.to_string()).to_vec();
        names.extend(
            Flavour::ALL
                .map(Flavour::folder)
                .into_iter()
                .filter(|folder| {
                    // the folder of an architecture may have the name of its kernel
                    !Flavour::ALL
                        .iter()
                        .any(|flavour| flavour.to_string() == *folder)
                }),
        );
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
