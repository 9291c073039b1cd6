//! ACPI tables that tie coherent memory, PCI functions and NUMA nodes together: SRAT, SLIT and
//! HMAT of a machine, and the SSDT by which bare metal describes its GPUs.
//!
//! They are for VMMs that can't make them, and for test machines. Input is checked once, by
//! [`Numa::new`] and its parts; making a table from it can't fail for what the table can carry.
//! Nothing here does I/O.
//!
//! Source: ACPI Specification 6.5, chapters 5.2.16 (SRAT), 5.2.17 (SLIT), 5.2.27 (HMAT), 6.2.5
//! (`_DSD`) and 19 (AML). Structures that acpi_tables 0.2.1 has and gets right are taken from it.

mod error;
mod hmat;
mod numa;
mod slit;
mod srat;
mod ssdt;
mod table;

pub use error::Error;
pub use hmat::{Access, hmat};
pub use numa::{Distances, Domain, MemoryRange, Numa, Processor, ProximityDomain};
pub use slit::slit;
pub use srat::srat;
pub use ssdt::{AcpiPath, DeviceProperties, empty_dsdt, ssdt};
pub use table::Oem;
