//! Drivers that a host binds its GPUs to.

use varia_lab::{Flavour, kernel_modules};

/// A driver for a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// The kernel's own driver.
    Original,
    /// Varia's module for stock kernels.
    Ours,
    /// Varia's in the kernel's own Rust.
    InTree,
    /// `vfio-pci`.
    VfioPci,
}

impl Driver {
    /// Varia's driver on a kernel.
    #[must_use]
    pub const fn ours_on(flavour: Flavour) -> Self {
        if flavour.is_rust() {
            Self::InTree
        } else {
            Self::Ours
        }
    }

    /// Name of the driver in sysfs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Original | Self::Ours => "nvgrace_gpu_vfio_pci",
            Self::InTree => kernel_modules::IN_TREE,
            Self::VfioPci => "vfio-pci",
        }
    }

    /// File of the driver's module in the machine.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Original => "/lab/drivers/original.ko",
            Self::Ours => "/lab/drivers/ours.ko",
            Self::InTree => "/lab/drivers/in-tree.ko",
            Self::VfioPci => "",
        }
    }
}
