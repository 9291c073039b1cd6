//! Descriptors, mappings, sockets and VFIO ioctls behind a safe interface.
//!
//! This is the one island of `unsafe` in user space. What it offers can be
//! called with any argument and any peer at the other end of a descriptor
//! without undefined behaviour: lengths are checked, mappings are accessed
//! through volatile operations only, and no reference to memory that somebody
//! else can change is ever handed out.
//!
//! What it is not: it knows no protocol, no PCI and no variant. Errors are
//! small enums that name the value that was wrong; [`std::io::Error`] inside
//! them carries what the kernel said.

pub mod event;
pub mod memory;
mod time;
