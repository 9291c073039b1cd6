//! The same operations on two PCI cores over two equal devices: the kernel's vfio-pci, and ours.
//!
//! The device's raw configuration space says where its capabilities are; a seed and that make the
//! operations. Each answer holds all that a user sees. Two answers are equal, or a named
//! [`Predicate`] says exactly how they may differ; and a [`Coverage`] shows which kinds of access
//! each capability had.

mod compare;
mod coverage;
mod generate;
mod op;
mod places;
mod predicate;

pub use compare::{Report, compare};
pub use coverage::{Coverage, Kind};
pub use generate::operations;
pub use op::{Answer, Data, Op, Target};
pub use places::{Place, places};
pub use predicate::{ALLOWED, Case, Predicate};
