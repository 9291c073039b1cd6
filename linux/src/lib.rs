//! A Linux host: facts of its PCI functions, the best driver for each function, and binding.
//!
//! | module | contents |
//! |---|---|
//! | `tree`, `archive` | files of this machine or of a captured host |
//! | `capture` | writing a captured host |
//! | `bind` | binding devices, and restoring their previous drivers |
//! | `error_counters` | errors that devices reported |
//! | `inventory` | facts from a host's files |
//! | `aml` | device properties in ACPI tables |
//! | `programs`, `qemu` | output of QEMU, libvirt and modinfo |
//! | `layout` | BARs that a variant gives a device |
//! | `matching` | choice of the best driver |
//! | `pci_ids` | names of vendors and devices |
//! | `probe` | readiness, read from registers |
//! | `users` | users of a device |
//!
//! Only `probe` reads a device's registers.

mod aml;
mod archive;
mod asked;
pub mod bind;
pub mod capture;
mod error;
pub mod error_counters;
pub mod inventory;
pub mod layout;
pub mod matching;
pub mod pci_ids;
pub mod probe;
pub mod programs;
mod qemu;
pub mod tree;
pub mod users;

pub use error::Error;
pub use tree::Tree;
