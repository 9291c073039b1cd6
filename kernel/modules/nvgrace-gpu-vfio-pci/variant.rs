// SPDX-License-Identifier: GPL-2.0-only
//! The variant of `nvgrace-gpu-vfio-pci.ko`.
#![no_std]

pub use varia_variants::NvgraceGpu as Served;
