//! From facts and a request to a virtual machine's configuration.
//!
//! Facts and a [`Request`] become a [`Plan`]: a typed topology in which [`CoherentMemory`] is the
//! only carrier of the binding between a GPU's memory, its PCI function and its memory-less
//! nodes. Renderers turn a plan into QEMU's arguments, libvirt's XML, and ACPI tables; they
//! decide nothing. Pure: no I/O, so that every plan can be tested as text.

mod aperture;
mod bare_host;
mod check;
pub mod distances;
mod drawing;
mod egm;
mod emulated;
mod error;
pub mod features;
mod gpu;
pub mod libvirt;
pub mod limits;
mod make;
mod part;
mod plan;
pub mod qemu;
mod read;
mod request;
mod substitute;
mod tables;
pub mod topology;
pub mod versions;
pub mod xml;

pub use aperture::{aperture_end, aperture_for, size, window};
pub use bare_host::{BareGpu, BareHost, BareHostPlan, HiddenMemory};
pub use check::leaves_its_group;
pub use drawing::svg;
pub use egm::{egm_domain_note, egm_errors, egm_object};
pub use emulated::Emulated;
pub use error::Error;
pub use gpu::{CoherentMemory, Gpu, GuestNode, PlannedBar, Source, VirtualFunction};
pub use libvirt::domain;
pub use make::{make, pins};
pub use part::{Part, explain};
pub use plan::{Accelerator, Backing, Firmware, Iommu, Kernel, Plan, SCHEMA, Socket};
pub use qemu::{Argument, affinity, arguments, initiators};
pub use read::ReadError;
pub use request::{IommuChoice, NODES_PER_GPU, Request, What, WhatError};
