// SPDX-License-Identifier: GPL-2.0

//! VFIO: devices that a process or a virtual machine drives itself.
//!
//! C header: [`include/linux/vfio.h`](srctree/include/linux/vfio.h)

pub mod pci;
