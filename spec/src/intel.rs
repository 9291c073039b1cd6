//! Intel graphics: the OpRegion, and the bridges beside an integrated graphics device.
//!
//! Source: Intel, "ACPI IGD OpRegion Specification", revisions 0.5 to 2.2; the region types are
//! those of Linux 7.2 `include/uapi/linux/vfio.h`.

/// PCI vendor id.
pub const VENDOR_ID: u16 = 0x8086;

/// Configuration offset of the OpRegion's address in a graphics device (`ASLS`), a dword.
pub const ASLS: u16 = 0xfc;

/// Header and mailboxes of the OpRegion.
pub mod opregion {
    /// Text in the first 16 bytes, as two little-endian words of 64 bits.
    pub const SIGNATURE: [u64; 2] = [
        u64::from_le_bytes(*b"IntelGra"),
        u64::from_le_bytes(*b"phicsMem"),
    ];
    /// Offset of the size in KiB, u32.
    pub const SIZE: u16 = 0x10;
    /// Offset of the version, u16: the major number in the high byte.
    pub const VERSION: u16 = 0x16;
    /// Offset of the extended VBT's place, u64, since version 2.0.
    pub const RVDA: u16 = 0x3ba;
    /// Offset of the extended VBT's size in bytes, u32, since version 2.0.
    pub const RVDS: u16 = 0x3c2;
    /// Bytes of header and mailboxes.
    pub const LEN: u64 = 8 << 10;
    /// Version in which RVDA is an address; later it is an offset from the OpRegion.
    pub const VERSION_2_0: u16 = 0x0200;
    /// First version in which RVDA is an offset.
    pub const VERSION_2_1: u16 = 0x0201;
}

/// Classes of the bridges beside the device: class, subclass and interface.
pub mod class {
    /// A host bridge.
    pub const HOST_BRIDGE: u32 = 0x06_0000;
    /// A bridge to the LPC bus.
    pub const LPC_BRIDGE: u32 = 0x06_0100;
}

/// Subtypes of the device-specific regions (`VFIO_REGION_SUBTYPE_INTEL_IGD_*`).
pub mod region {
    /// The OpRegion, with an extended VBT behind it.
    pub const OPREGION: u32 = 1;
    /// Configuration space of the host bridge.
    pub const HOST_BRIDGE: u32 = 2;
    /// Configuration space of the LPC bridge.
    pub const LPC_BRIDGE: u32 = 3;
}
