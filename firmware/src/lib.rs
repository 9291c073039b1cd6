//! ACPI tables that tie coherent memory, PCI functions and NUMA nodes together: SRAT, SLIT and HMAT
//! of a machine, an SSDT with GPU properties as bare-metal firmware writes it, and a UEFI program that
//! brings a table into a machine.
//!
//! The tables are for VMMs that can't write them, and for test machines. [`Numa::new`] and its
//! parts check the input once; the tables that they describe can then be written without errors.
//! This crate does no I/O.
//!
//! Source: ACPI Specification 6.5, chapters 5.2.16 (SRAT), 5.2.17 (SLIT), 5.2.27 (HMAT), 6.2.5
//! (`_DSD`) and 19 (AML). Structures that acpi_tables 0.2.1 implements correctly are taken from
//! acpi_tables.

mod early;
mod error;
mod hmat;
mod numa;
mod slit;
mod srat;
mod ssdt;
mod table;

pub use early::{RegisterWrite, early_program};
pub use error::Error;
pub use hmat::{Access, hmat};
pub use numa::{Distances, Domain, MemoryRange, Numa, Processor, ProximityDomain};
pub use slit::slit;
pub use srat::srat;
pub use ssdt::{AcpiPath, DeviceProperties, empty_dsdt, ssdt};
pub use table::Oem;
