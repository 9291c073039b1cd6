//! The same operations on two PCI cores over two equal devices: the kernel's vfio-pci, and ours.
//!
//! The device's raw configuration space says where its capabilities are; a seed and that make the
//! operations. Each answer holds all that a user sees. Two answers are equal, or a named
//! [`Predicate`] says exactly how they may differ; and a [`Coverage`] shows which kinds of access
//! each capability had.

mod coverage;
mod difference;
mod operation;
mod places;
mod sequence;
mod verdict;

pub use coverage::{Coverage, Kind};
pub use difference::{ALLOWED, Case, Predicate, allowed};
pub use operation::{Answer, Data, Op, Target};
pub use places::{Place, places};
pub use sequence::operations;
pub use verdict::{Report, compare};
