//! Layouts and numbers that other people's documents define: PCI configuration space and the
//! VFIO user interface, as typed constants with their source named.
//!
//! Nothing here decides or acts. The kernel build compiles this crate as it is: no allocation, no
//! dependency, no unsafe.
#![no_std]

pub mod copy_engine;
pub mod errno;
pub mod fact;
pub mod intel;
pub mod nvidia;
pub mod nvlink2;
pub mod pci;
pub mod vfio;
pub mod virtio;
pub mod zpci;

pub use errno::Errno;
pub use fact::{Fact, Mark};
