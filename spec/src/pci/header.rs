//! The type 0 configuration header.
//!
//! Source: PCI Express Base Specification 6.0, section 7.5.1.

/// Vendor id, u16.
pub const VENDOR_ID: u16 = 0x00;
/// Device id, u16.
pub const DEVICE_ID: u16 = 0x02;
/// Command, u16; see [`command`].
pub const COMMAND: u16 = 0x04;
/// Status, u16; see [`status`].
pub const STATUS: u16 = 0x06;
/// Revision id, u8.
pub const REVISION_ID: u16 = 0x08;
/// Class code, three bytes: programming interface, subclass, class.
pub const CLASS_PROG: u16 = 0x09;
/// Cache line size, u8.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Latency timer, u8.
pub const LATENCY_TIMER: u16 = 0x0d;
/// Header type, u8; bit 7 says that the device has more functions.
pub const HEADER_TYPE: u16 = 0x0e;
/// Built-in self test, u8.
pub const BIST: u16 = 0x0f;
/// The first of six base address registers, u32 each.
pub const BASE_ADDRESS_0: u16 = 0x10;
/// Base address register 2: the low half of the second 64-bit BAR.
pub const BASE_ADDRESS_2: u16 = 0x18;
/// Base address register 4: the low half of the third 64-bit BAR.
pub const BASE_ADDRESS_4: u16 = 0x20;
/// CardBus CIS pointer, u32.
pub const CARDBUS_CIS: u16 = 0x28;
/// Subsystem vendor id, u16.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem id, u16.
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Expansion ROM base address, u32.
pub const ROM_ADDRESS: u16 = 0x30;
/// Offset of the first capability, u8.
pub const CAPABILITY_LIST: u16 = 0x34;
/// Interrupt line, u8: scratch for software.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, u8: 1 to 4 for INTA to INTD, 0 for none.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// Bytes in the header; capabilities start at or after this offset.
pub const STD_HEADER_SIZEOF: u16 = 0x40;

/// Bits of the command register.
pub mod command {
    /// I/O space enable.
    pub const IO: u16 = 1 << 0;
    /// Memory space enable.
    pub const MEMORY: u16 = 1 << 1;
    /// Bus master enable.
    pub const MASTER: u16 = 1 << 2;
    /// Parity error response.
    pub const PARITY: u16 = 1 << 6;
    /// SERR# enable.
    pub const SERR: u16 = 1 << 8;
    /// INTx disable.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register.
pub mod status {
    /// An INTx interrupt is pending.
    pub const INTERRUPT: u16 = 1 << 3;
    /// The capability list is there.
    pub const CAP_LIST: u16 = 1 << 4;
}

/// Expansion ROM base address.
pub mod rom {
    /// Bit 0: the ROM is decoded while memory space is enabled.
    pub const ENABLE: u32 = 1 << 0;
    /// The smallest ROM that the register can describe, in bytes.
    pub const SIZE_MIN: u64 = 1 << 11;
}

/// Low bits of a base address register.
pub mod bar {
    /// The smallest I/O BAR, in bytes.
    pub const IO_SIZE_MIN: u64 = 4;
    /// The smallest memory BAR, in bytes.
    pub const MEM_SIZE_MIN: u64 = 16;
    /// I/O space (else memory).
    pub const SPACE_IO: u32 = 1 << 0;
    /// Memory that takes a 64-bit address; the next register holds the upper half.
    pub const MEM_TYPE_64: u32 = 1 << 2;
    /// Prefetchable memory.
    pub const MEM_PREFETCH: u32 = 1 << 3;
    /// Bits of a memory BAR that are not address.
    pub const MEM_FLAGS: u32 = 0xf;
    /// Bits of an I/O BAR that are not address.
    pub const IO_FLAGS: u32 = 0x3;
}
