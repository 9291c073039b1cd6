// SPDX-License-Identifier: GPL-2.0-only
//! Rust half of the kernel runtime: the decisions of one variant behind a C ABI.
//!
//! The crate `varia_module` names the variant: each module has its own in `../modules`, and no code
//! here names a variant.
//!
//! It decides and never acts. It calls no kernel function, takes no kernel type, allocates
//! nothing, takes no lock and never sleeps; so the object depends on the architecture alone, not
//! on the kernel that it is loaded into. The C adaptor beside it acts.
//!
//! - [`abi`]: one declaration of structs and functions, for Rust and for C.
//! - [`types`]: types that cross the border: integers, and structs of integers without padding.
//! - [`state`]: the state of the variant in storage that C provides.
//! - [`probe`], [`access`], [`config`], [`ready`], [`mapping`]: the functions.
//! - [`events`], [`counters`], [`poison`], [`show`]: counts, failed pages, and the files of debugfs.
//! - [`text`]: sentences without `core::fmt`, which could panic.
//!
//! No panic is reachable: the panic handler names a symbol that nothing defines, and the build
//! refuses an object that still refers to it.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod access;
pub mod config;
pub mod counters;
pub mod events;
pub mod mapping;
#[cfg(target_os = "none")]
mod panic;
pub mod poison;
pub mod probe;
pub mod ready;
pub mod show;
pub mod state;
pub mod text;
pub mod types;

#[cfg(test)]
mod header;
#[cfg(test)]
mod rendered;
#[cfg(test)]
mod tests;
