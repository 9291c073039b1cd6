//! Numbers with a meaning, each a type of its own: the bottom of the layers.
//!
//! Freestanding (`no_std`, no allocation, no dependency), because a kernel module compiles these
//! types too. With the feature `serde` they are (de)serialised as plain numbers and names.
//!
//! | module | types |
//! |---|---|
//! | `address` | [`HostPhys`], [`PageFrame`], [`PageShift`] |
//! | `arch` | [`Arch`] |
//! | `bar` | [`BarIndex`], [`BarSize`] |
//! | `bytes` | [`Bytes`]: a size, how it is written and read |
//! | `time` | [`Millis`], [`Monotonic`] |
#![no_std]

#[cfg(test)]
extern crate std;

mod address;
mod arch;
mod bar;
mod bytes;
mod time;

pub use address::{HostPhys, PageFrame, PageShift};
pub use arch::{Arch, UnknownArch};
pub use bar::{BarIndex, BarSize};
pub use bytes::{Bytes, Rounded, SizeError, Suffixed, Unit};
pub use time::{Millis, Monotonic};
