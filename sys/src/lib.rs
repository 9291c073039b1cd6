//! Descriptors, mappings, sockets and VFIO ioctls behind a safe interface.
//!
//! This crate is the one island of `unsafe` in user space. Its interface can be called with any
//! argument and any peer at the other end of a descriptor without undefined behaviour: lengths are
//! checked, mappings are accessed through volatile operations only, and no caller gets a reference
//! to memory that another process can change.
//!
//! This crate knows no protocol, no PCI and no variant. Errors are small enums that name the wrong
//! value; [`std::io::Error`] or [`varia_spec::errno::Errno`] inside an error is the kernel's error.

pub mod child;
pub mod client_memory;
pub mod errno;
pub mod event;
pub mod guarded;
pub mod kvm;
pub mod limits;
pub mod mapping;
pub mod memory;
pub mod numa;
pub mod parent;
pub mod signal;
pub mod socket;
mod time;
pub mod vfio;
pub mod wait;
