//! Limits of QEMU and of guests that a plan keeps and that an explanation of a definition checks.

/// The most NUMA nodes that QEMU takes (`MAX_NODES`).
pub const MAX_NODES: u32 = 128;
/// Size in bytes of the MMIO aperture that QEMU's virt machine has by default, which is also the
/// smallest that it takes.
pub const VIRT_APERTURE: u64 = 512 << 30;
/// Address bits of a guest where KVM could not be asked: those of Grace's CPUs.
pub const ADDRESS_BITS: u32 = 48;
/// Bus numbers for each root bus of a GPU: its own, its port's, and some for what is behind it.
pub const BUSES: u8 = 8;
/// Nodes that Linux has room for if it is built with `CONFIG_NODES_SHIFT=4`, as Debian's arm64
/// kernels are.
pub const SMALL_LINUX_NODES: u32 = 16;
