//! PCI functions of s390 (zPCI): facts that firmware gives by the CLP instruction, and the
//! capabilities by which VFIO passes them on.
//!
//! Source: Linux 7.2 `include/uapi/linux/vfio_zdev.h`, `arch/s390/include/asm/pci_clp.h`,
//! `drivers/vfio/pci/vfio_pci_zdev.c`; version 3 of the base capability: Linux 7.3.

/// Facts of a function and its group, as the platform gives them: no value is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// First DMA address.
    pub start_dma: u64,
    /// Last DMA address.
    pub end_dma: u64,
    /// Physical channel.
    pub pchid: u64,
    /// Number of the virtual function.
    pub vfn: u64,
    /// Length of the function measurement block in bytes.
    pub fmb_length: u64,
    /// Type of the function.
    pub pft: u64,
    /// Group of the function.
    pub gid: u64,
    /// Handle of the function.
    pub fh: u64,
    /// Bytes of an error record; `None` if the platform keeps no such records.
    pub error_length: Option<u64>,
    /// Mask of the DMA address space.
    pub dasm: u64,
    /// Address of messages.
    pub msi_addr: u64,
    /// Interval between updates of the measurement block.
    pub mui: u64,
    /// Number of interrupts.
    pub noi: u64,
    /// Longest store block that the host's kernel makes, in bytes.
    pub maxstbl: u64,
    /// Longest store block that firmware allows, in bytes.
    pub imaxstbl: u64,
    /// Version of PCI.
    pub version: u64,
    /// Utility string, in EBCDIC.
    pub util_string: Option<[u8; UTIL_LEN]>,
    /// Path of the function, a byte for each segment.
    pub pfip: [u8; PFIP_LEN],
}

/// Bytes of a utility string (`CLP_UTIL_STR_LEN`).
pub const UTIL_LEN: usize = 64;
/// Segments of a path (`CLP_PFIP_NR_SEGMENTS`).
pub const PFIP_LEN: usize = 4;
/// The most interrupts: a field of 12 bits.
pub const MAX_INTERRUPTS: u64 = 0xfff;
/// The longest store block: an instruction stores within a page of 4 KiB.
pub const MAX_STORE: u64 = 4096;
/// Vendor and device id of internal shared memory. Source: Linux `drivers/s390/net/ism_drv.c`.
pub const ISM_ID: (u16, u16) = (0x1014, 0x04ed);
/// Number of bits of a file position that hold the offset in a region of internal shared memory.
/// Source: Linux 7.3 `drivers/vfio/pci/ism/main.c`.
pub const ISM_OFFSET_SHIFT: u32 = 48;
/// `VFIO_DEVICE_INFO_ZPCI_FLAG_REFRESH`, which Linux always sets.
pub const REFRESH: u64 = 1;

/// Versions of the capabilities.
pub mod version {
    /// Base, with the handle.
    pub const BASE: u16 = 2;
    /// Base, with the length of an error record too.
    pub const BASE_WITH_ERRORS: u16 = 3;
    /// Group, with firmware's limit of store blocks.
    pub const GROUP: u16 = 2;
    /// Utility string.
    pub const UTIL: u16 = 1;
    /// Path of the function.
    pub const PFIP: u16 = 1;
}
