//! A Linux host: its PCI functions and what is known of them, the best driver for each, and
//! binding.
//!
//! | module | what is in it |
//! |---|---|
//! | `tree`, `archive` | a host's files: this machine's, or a captured host's |
//! | `capture` | making a captured host |
//! | `bind` | binding and giving back |
//! | `inventory` | files, made into facts |
//! | `aml` | firmware's properties |
//! | `programs`, `qemu` | what QEMU, libvirt and modinfo say |
//! | `layout` | what a variant makes of a device |
//! | `matching` | the best driver |
//! | `pci_ids` | names |
//! | `probe` | registers, looked at |
//! | `users` | who has a device open |
//!
//! Nothing here reads a device's registers but `probe`.

mod aml;
mod archive;
mod asked;
pub mod bind;
pub mod capture;
mod error;
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
