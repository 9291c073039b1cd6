//! A VFIO PCI core in user space: what `vfio-pci-core` is to a variant driver in Linux.
//!
//! A [`Core`] takes a physical [`Device`] and carries out the operations of VFIO on a PCI device:
//! regions, configuration space, interrupts, reset and power state. The core is the base of a
//! variant in the user-space runtime. It names no variant and speaks no protocol.
//!
//! The results are those of Linux 7.2 `drivers/vfio/pci/vfio_pci_core.c`, `vfio_pci_config.c`,
//! `vfio_pci_rdwr.c` and `vfio_pci_intrs.c` for the same device; the kernel is the oracle.
//!
//! | module | contents |
//! |---|---|
//! | [`device`] | the trait below: registers, BARs, memory, interrupts of a physical function |
//! | `core` | open and close, configuration accesses, the lock that guards memory |
//! | `power` | power states and resets |
//! | `config` | the virtual configuration space |
//! | `regions` | region information, reads and writes of BARs |
//! | `rom` | length of the images in an expansion ROM |
//! | [`dma`] | the user's memory, as a device reaches it |
//! | [`irq`] | interrupt information and triggers |
//!
//! # Locks
//! Every method takes `&self`. Locks are taken in this order: configuration space, then memory,
//! then interrupts. A device calls [`Interrupts`] without holding a lock of its own. The crate is
//! not `no_std`, because it lends descriptors and sleeps on locks.

mod config;
mod core;
pub mod device;
pub mod dma;
mod error;
pub mod irq;
mod power;
mod regions;
mod rom;

pub use self::config::find_dvsec;
pub use self::core::{Core, MemoryGuard, View};
pub use device::{
    BarSpace, BarSpec, BusFunction, ConfigRegister, Device, HostPhys, Interrupts, SharedFd,
    TreeNode, Width,
};
pub use dma::{Dma, DmaAccess, Job, MAX_MAPPINGS, Remote, Transaction};
pub use error::Refused;
pub use irq::{IrqData, Source, Trigger};
pub use regions::{DeviceRegion, RegionInfo};
pub use varia_spec::Errno;
