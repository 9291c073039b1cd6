//! NVIDIA's coherent GPUs: chips, firmware properties, the DVSEC, readiness registers.
//!
//! Source of all but the chips: Linux 7.2 `drivers/vfio/pci/nvgrace-gpu/main.c`, which is the public description of
//! this interface between firmware, GPU and driver.

pub mod chip;

/// NVIDIA's PCI vendor id.
pub const VENDOR_ID: u16 = 0x10de;

/// ACPI `_DSD` properties of the GPU's PCI function, each an unsigned 64-bit integer.
pub mod property {
    /// Host-physical address of the coherent memory.
    pub const MEM_BASE_PA: &str = "nvidia,gpu-mem-base-pa";
    /// Length of the coherent memory in bytes; 0 when the C2C link is down.
    pub const MEM_SIZE: &str = "nvidia,gpu-mem-size";
    /// The first proximity domain set aside for the GPU's memory.
    pub const MEM_PXM_START: &str = "nvidia,gpu-mem-pxm-start";
    /// Number of proximity domains set aside.
    pub const MEM_PXM_COUNT: &str = "nvidia,gpu-mem-pxm-count";
    /// Host-physical address of the socket's Extended GPU Memory (EGM). Source of the properties of
    /// EGM: NVIDIA's edk2 `NvidiaConfigurationManager` and the series "vfio/nvgrace-egm" (v2, February
    /// 2026), which is in no release of Linux.
    pub const EGM_BASE_PA: &str = "nvidia,egm-base-pa";
    /// Length of the EGM in bytes; 0 if firmware's setup leaves EGM off.
    pub const EGM_SIZE: &str = "nvidia,egm-size";
    /// Proximity domain of the EGM, the N of `/dev/egmN`.
    pub const EGM_PXM: &str = "nvidia,egm-pxm";
    /// Host-physical address of the table of the EGM's retired pages.
    pub const EGM_RETIRED_PAGES: &str = "nvidia,egm-retired-pages-data-base";
}

/// The GPU's register DVSEC.
pub mod dvsec {
    /// DVSEC id under vendor [`super::VENDOR_ID`] (`GPU_CAP_DVSEC_REGISTER`).
    pub const ID: u16 = 3;
    /// Offset of the u16 feature bitmap from the start of the capability (`DVSEC_BITMAP_OFFSET`).
    pub const BITMAP: u16 = 0xa;
    /// Bit 0 of the bitmap: MIG works with cached memory, so no resmem is needed
    /// (`MIG_SUPPORTED_WITH_CACHED_RESMEM`).
    pub const MIG_SUPPORTED_WITH_CACHED_RESMEM: u16 = 1 << 0;
}

/// Readiness registers in BAR0, each a u32 that reads [`STATUS_READY`](bar0::STATUS_READY).
pub mod bar0 {
    /// Chip-to-chip link state (`C2C_LINK_BAR0_OFFSET`).
    pub const C2C_LINK: u64 = 0x1498;
    /// HBM training state (`HBM_TRAINING_BAR0_OFFSET`).
    pub const HBM_TRAINING: u64 = 0x200bc;
    /// Value of both registers once the memory can be used.
    pub const STATUS_READY: u32 = 0xff;
    /// The shortest BAR0 that contains both registers, in bytes.
    pub const MIN_LEN: u64 = HBM_TRAINING + 4;
}

/// Subtypes of device-specific regions of type `VFIO_REGION_TYPE_PCI_VENDOR_TYPE | `[`VENDOR_ID`].
/// The kernel's count from 1 (`include/uapi/linux/vfio.h`); those here are Varia's own, and begin where
/// the kernel's will not get to soon.
pub mod region {
    /// Coherent memory, cached.
    pub const COHERENT_MEMORY: u32 = 0x100;
    /// Coherent memory behind the other region's, uncached with write combining: the part that the
    /// MIG bug asks for.
    pub const UNCACHED_MEMORY: u32 = 0x101;
}

/// A hardwired value between GPU firmware and drivers: usemem is a multiple of this many bytes
/// where the MIG bug splits the memory, and the guest adds it in blocks of this size.
pub const MEMBLK_SIZE: u64 = 512 << 20;

/// The least uncached carve-out that the MIG bug needs, in bytes.
pub const RESMEM_MIN: u64 = 1 << 30;
