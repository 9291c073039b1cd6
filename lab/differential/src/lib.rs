//! Random operations of a VFIO user, run on several implementations of one device and compared.
//!
//! A seed makes the same [`Op`]s everywhere: in a guest, where an agent runs them on `/dev/vfio`
//! with the original driver and with Varia's, and on the host, where a vfio-user client runs them
//! on the user-space runtime. Each [`Answer`] holds all that the user can see. Two answers are
//! equal, or a named [`Predicate`] says exactly how they may differ.

pub mod compare;
pub mod generate;
pub mod op;
pub mod pci;
pub mod predicate;
mod release;

pub use compare::{Difference, Report, compare};
pub use generate::{Surface, operations};
pub use op::{Answer, MemoryShape, Op, Shape, Target};
pub use predicate::{Case, Predicate};
pub use release::series_of;
