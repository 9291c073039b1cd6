//! PCI configuration space: where things are and what their bits mean.
//!
//! Source: PCI Express Base Specification 6.0, chapter 7; the names are those of Linux 7.2
//! `include/uapi/linux/pci_regs.h`.

pub mod cap;
pub mod ext_cap;
pub mod header;

/// Bytes in a conventional configuration space.
pub const CFG_SPACE_SIZE: u16 = 256;

/// Bytes in a PCI Express configuration space.
pub const CFG_SPACE_EXP_SIZE: u16 = 4096;
