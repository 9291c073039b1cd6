// SPDX-License-Identifier: GPL-2.0-only
//! Stands in for `compiler_builtins`, which every `no_std` crate is linked with.
//!
//! It is empty on purpose: the kernel has `memcpy`, `memset`, `memmove` and `memcmp`, and an
//! object that wants any other helper is refused by the build's check of undefined symbols.
#![allow(internal_features)]
#![feature(compiler_builtins)]
#![compiler_builtins]
#![no_std]
