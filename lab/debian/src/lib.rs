//! Debian for the lab, without root: packages fetched and unpacked, and programs run in them.
//!
//! [`mirror`] finds where Debian's packages come from, [`apt`] fetches and unpacks them,
//! [`packages`] keeps the sets that the lab works with. [`chroot`] runs the fetched tools, and
//! [`closure`] says which files a program needs elsewhere. Nothing here knows of virtual
//! machines.

pub mod apt;
pub mod arch;
pub mod cache;
pub mod choice;
pub mod chroot;
pub mod closure;
pub mod command;
pub mod elf;
pub mod error;
pub mod iasl;
#[cfg(test)]
mod machines;
pub mod mirror;
mod neighbour;
pub mod packages;
pub mod progress;
pub mod recipe;
pub mod series;
pub mod sources;
pub mod suite;

pub use arch::{ArchNames, host_arch};
pub use error::{Error, Result};
pub use packages::Set;
pub use series::Series;
