//! The variants: one folder each, chosen in one table, dispatched by one enum.
//!
//! No code outside this crate names a variant; runtimes go through [`table::TABLE`] or,
//! in a kernel module that serves one variant, through the type.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod clique;
pub mod igd;
pub mod ism;
pub mod nvgrace_gpu;
pub mod nvlink2;
pub mod plain;
pub mod table;
pub mod virtio;
pub mod zdev;

pub use clique::{Clique, CliqueError};
pub use igd::Igd;
pub use ism::Ism;
pub use nvgrace_gpu::NvgraceGpu;
pub use nvlink2::Nvlink2;
pub use plain::Plain;
pub use table::{AnyVariant, Chosen, Entry, Selected, TABLE};
pub use virtio::Virtio;
pub use zdev::Zdev;
