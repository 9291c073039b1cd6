//! The user-space runtime: a device, a variant and the vfio-user protocol joined.
//!
//! An [`Endpoint`] is one device as a VFIO user sees it. It carries out what the variant decides
//! over Varia's own PCI core, the base. [`Backend`](backend::Backend) speaks for it on a socket.
//!
//! | module | contents |
//! |---|---|
//! | [`discover`] | answers a variant's questions from a device |
//! | [`endpoint`] | open, close, region information, configuration space, reset |
//! | [`access`] | reads and writes of memory regions, with the readiness wait |
//! | [`registers`] | reads and writes of registers that a variant makes |
//! | [`sandbox`] | confinement of a server after its start
//! | [`backend`] | an endpoint as the protocol's server wants it |

pub mod access;
pub mod backend;
pub mod clock;
pub mod discover;
pub mod endpoint;
mod own_region;
pub mod registers;
pub mod sandbox;

pub use access::{Operation, Progress};
pub use backend::Backend;
pub use clock::{Clock, SystemClock};
pub use endpoint::{Endpoint, Error, Options, ServedRegion};
pub use varia_core::View;
