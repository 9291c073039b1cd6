//! Descriptors, mappings, sockets and VFIO ioctls behind a safe interface.
//!
//! This is the one island of `unsafe` in user space. What it offers can be
//! called with any argument and any peer at the other end of a descriptor
//! without undefined behaviour: lengths are checked, mappings are accessed
//! through volatile operations only, and no reference to memory that somebody
//! else can change is ever handed out.
//!
//! What it is not: it knows no protocol, no PCI and no variant. Errors are
//! small enums that name the value that was wrong; [`std::io::Error`] or
//! [`varia_spec::errno::Errno`] inside them is what the kernel said.

pub mod child;
pub mod errno;
pub mod event;
pub mod guarded;
pub mod kvm;
pub mod limits;
pub mod mapping;
pub mod memory;
pub mod signal;
pub mod socket;
mod time;
pub mod vfio;
pub mod wait;
