//! Placement of a GPU's coherent memory on the NUMA nodes of an operating system.
//!
//! A driver that uses the memory, in a VM or on the host itself, asks here: where the memory is
//! ([`Extent`]), which proximity domains belong to the device ([`Domains`]), and which memory blocks
//! go to which node ([`Placement`]). Nothing here acts; not a variant of a VFIO driver either.
//!
//! Freestanding (`no_std`, no allocation, no panic), because a kernel module compiles these
//! decisions too: `kernel/modules/varia-coherent-memory`.
//!
//! | module | decision |
//! |---|---|
//! | `extent` | usemem from `_DSD` or from BAR4, whose memory may end before the BAR does |
//! | `domains` | proximity domains that the SRAT or `_DSD` gives to a function |
//! | `split` | the option `split=` |
//! | `plan` | blocks for each node, and what is left out |
//! | `refusal` | reasons against, with their values |
#![no_std]

#[cfg(test)]
extern crate std;

mod domains;
mod extent;
mod plan;
mod refusal;
mod split;

pub use domains::{Domains, Function, MAX_NODES};
pub use extent::{Extent, Memory, Search};
pub use plan::{Node, Placement, Share};
pub use refusal::Refusal;
pub use split::Split;
