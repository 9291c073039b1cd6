// SPDX-License-Identifier: GPL-2.0-only
//! The kernel runtime's Rust half: the decisions of one variant behind a C ABI.
//!
//! Which variant, says the crate `varia_module`: each module has its own in `../modules`, and
//! nothing here names one.
//!
//! It decides and never acts. It calls no kernel function, takes no kernel type, allocates
//! nothing, takes no lock and never sleeps; so the object depends on the architecture alone, not
//! on the kernel that it is loaded into. The C adaptor beside it acts.
//!
//! - [`abi`]: how structs and functions are declared once, for Rust and for C.
//! - [`types`]: what crosses the border: integers, and structs of integers without padding.
//! - [`state`]: the variant's state in storage that C provides, and what is asked of it.
//! - [`probe`], [`access`], [`config`], [`ready`], [`mapping`]: the functions.
//! - [`counters`], `poison`, [`show`]: what has happened, and how debugfs shows it.
//! - [`text`]: why a probe was declined or failed, without `core::fmt`, which could panic.
//!
//! No panic is reachable: the panic handler names a symbol that nothing defines, and the build
//! refuses an object that still refers to it.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod access;
pub mod config;
pub mod counters;
pub mod mapping;
mod poison;
pub mod probe;
pub mod ready;
pub mod show;
pub mod state;
pub mod text;
pub mod types;

#[cfg(test)]
mod header;
#[cfg(test)]
mod tests;

#[cfg(target_os = "none")]
unsafe extern "C" {
    fn varia_a_panic_is_reachable() -> !;
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never called: an object in which this is reachable does not link.
    unsafe { varia_a_panic_is_reachable() }
}
