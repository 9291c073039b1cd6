//! A VFIO PCI core in user space: what `vfio-pci-core` is to a variant driver in Linux.
//!
//! A [`Core`] takes a physical [`Device`] and answers what VFIO asks of a PCI device: regions,
//! configuration space, interrupts, reset and power state. It is the base that a variant lies
//! over in the user-space runtime. It names no variant and speaks no protocol.
//!
//! What it answers is what Linux 7.2 `drivers/vfio/pci/vfio_pci_core.c`, `vfio_pci_config.c`,
//! `vfio_pci_rdwr.c` and `vfio_pci_intrs.c` answer for the same device; the kernel is the oracle.
//!
//! | module | what is in it |
//! |---|---|
//! | [`device`] | the trait below: registers, BARs, memory, interrupts of a physical function |
//! | `core` | open and close, configuration accesses, the lock that guards memory |
//! | `power` | power states and resets |
//! | `config` | the virtual configuration space |
//! | `regions` | region information, reads and writes of BARs |
//! | `rom` | how long the image in an expansion ROM is |
//! | [`dma`] | the user's memory, as a device reaches it |
//! | [`irq`] | interrupt information and triggers |
//!
//! # Locks
//! Every method takes `&self`. Locks are taken in this order: configuration space, then memory,
//! then interrupts. A device calls [`Interrupts`] without holding a lock of its own. The crate is
//! not `no_std`: it lends out descriptors and sleeps on locks, and would lose both.

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
    BarSpace, BarSpec, BusFunction, ConfigRegister, Device, HostPhys, Interrupts, SharedFd, Width,
};
pub use dma::{Dma, DmaAccess};
pub use error::Refused;
pub use irq::{IrqData, Source, Trigger};
pub use regions::{DeviceRegion, RegionInfo};
pub use varia_spec::Errno;
