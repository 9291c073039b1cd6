//! From a device and a request to a virtual machine, and from that to a VMM's arguments.
//!
//! Pure: no I/O, so that every plan can be tested as text. What is planned here is a VM with GPUs
//! that a vfio-user server presents; binding host devices is not its affair.

pub mod coherent;
pub mod qemu;

pub use coherent::{CoherentMemory, Error, VfioUserGpu};
pub use qemu::{Arch, Machine};
