//! Models of physical PCI devices, as the machine that owns them sees them: NVIDIA's coherent
//! GPUs, and a plain network card.
//!
//! A [`Profile`] is a chip as data, each fact marked as sourced or assumed; [`Silicon`] makes a
//! device of it: raw configuration space, BARs, coherent memory outside every BAR, firmware
//! properties, and the faults that a test wants to see handled. It is a [`varia_core::Device`].
//!
//! Not modelled: what a GPU computes, and the virtual
//! device that a VM gets; that is a variant's work.

pub mod clock;
mod config;
mod dump;
mod engine;
mod error;
mod fault;
pub mod machine;
mod memory;
mod options;
mod platform;
pub mod profile;
mod rom;
mod silicon;
pub mod virtio;
mod wires;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{SiliconError, UnknownProfile};
pub use fault::Faults;
pub use machine::{Machine, MachineError};
pub use memory::CoherentMemory;
pub use options::{Backing, Options, Readiness};
pub use profile::Profile;
pub use silicon::Silicon;
