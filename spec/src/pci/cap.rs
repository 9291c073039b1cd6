//! Capabilities in the first 256 bytes: {id u8, next u8, ...}.
//!
//! Source: PCI Express Base Specification 6.0, sections 7.5.2 (power management), 7.5.3
//! (PCI Express), 7.7.1 (MSI), 7.7.2 (MSI-X), 7.9.4 (vendor-specific), 7.9.18 (VPD); for advanced
//! features the Conventional PCI Advanced Capabilities ECN; for capabilities of older buses Linux
//! 7.2 `include/uapi/linux/pci_regs.h`.

/// Capability ids.
pub mod id {
    /// Power management.
    pub const PM: u8 = 0x01;
    /// Accelerated graphics port.
    pub const AGP: u8 = 0x02;
    /// Vital product data.
    pub const VPD: u8 = 0x03;
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// PCI-X.
    pub const PCIX: u8 = 0x07;
    /// HyperTransport.
    pub const HT: u8 = 0x08;
    /// Vendor-specific.
    pub const VNDR: u8 = 0x09;
    /// PCI Express.
    pub const EXP: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// Serial ATA data and index.
    pub const SATA: u8 = 0x12;
    /// Advanced features.
    pub const AF: u8 = 0x13;
}

/// Accelerated graphics port, 12 bytes.
pub mod agp {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 12;
}

/// Vital product data, 8 bytes: a window to bytes that begin with tags.
pub mod vpd {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 8;
    /// Address, u16. A write starts a transfer; the flag is inverted when it is over.
    pub const ADDR: u16 = 2;
    /// Bits 14:0 of [`ADDR`].
    pub const ADDR_MASK: u16 = 0x7fff;
    /// Bit 15 of [`ADDR`]: write 0 to read, 1 to write.
    pub const ADDR_F: u16 = 1 << 15;
    /// Data, u32.
    pub const DATA: u16 = 4;
    /// Bytes that can be addressed.
    pub const SPACE: u32 = 0x8000;
    /// Bit 7 of a tag: large, with a u16 length behind it.
    pub const TAG_LARGE: u8 = 1 << 7;
    /// Bits 2:0 of a small tag: its length.
    pub const TAG_SMALL_LEN: u8 = 0x7;
    /// Bits 7:3 of the small tag that ends the data.
    pub const TAG_END: u8 = 0xf;
}

/// PCI-X; 8 bytes in version 0, else 24.
pub mod pcix {
    /// Bytes in version 0.
    pub const SIZEOF_V0: u16 = 8;
    /// Bytes in later versions.
    pub const SIZEOF_V2: u16 = 24;
    /// Command, u16.
    pub const CMD: u16 = 2;
    /// Bits 13:12 of [`CMD`]: version.
    pub const CMD_VERSION_MASK: u16 = 0x3 << 12;
    /// Error correction control and status, u32, from version 1 on.
    pub const ECC_CSR: u16 = 8;
}

/// HyperTransport.
pub mod ht {
    /// The byte that says which type it is.
    pub const TYPE: u16 = 3;
    /// Bits of [`TYPE`] that are zero for slave and primary.
    pub const TYPE_MASK: u8 = 0xe0;
    /// Bytes of slave and primary.
    pub const SIZEOF_LONG: u16 = 28;
    /// Bytes of host and secondary.
    pub const SIZEOF_SHORT: u16 = 24;
}

/// Serial ATA data and index; 8 bytes, or 16 with its registers inside.
pub mod sata {
    /// The byte that says where the registers are.
    pub const REGS: u16 = 4;
    /// Bits of [`REGS`], all set for registers inside the capability.
    pub const REGS_MASK: u8 = 0xf;
    /// Bytes without registers.
    pub const SIZEOF_SHORT: u16 = 8;
    /// Bytes with registers.
    pub const SIZEOF_LONG: u16 = 16;
}

/// Power management, 8 bytes.
pub mod pm {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 8;
    /// Capabilities, u16: bits 2:0 version.
    pub const PMC: u16 = 2;
    /// Control and status, u16.
    pub const CTRL: u16 = 4;
    /// Bits 1:0 of [`CTRL`]: 0 is D0, 3 is D3hot.
    pub const CTRL_STATE_MASK: u16 = 0x3;
    /// Bit 3 of [`CTRL`]: going from D3hot to D0 does not reset the function.
    pub const CTRL_NO_SOFT_RESET: u16 = 1 << 3;
    /// Bit 8 of [`CTRL`]: PME enable.
    pub const CTRL_PME_ENABLE: u16 = 1 << 8;
    /// Bit 15 of [`CTRL`]: PME status.
    pub const CTRL_PME_STATUS: u16 = 1 << 15;
    /// Bits 15:11 of [`PMC`]: the states that PME can be raised from.
    pub const PMC_PME_MASK: u16 = 0xf800;
    /// Bit 9 of [`PMC`]: D1 is supported.
    pub const PMC_D1: u16 = 1 << 9;
    /// Bit 10 of [`PMC`]: D2 is supported.
    pub const PMC_D2: u16 = 1 << 10;
    /// Bits 2:0 of [`PMC`]: revision 1.2 of the power management specification.
    pub const PMC_VERSION_3: u16 = 3;
}

/// MSI; 10, 14, 20 or 24 bytes by its flags.
pub mod msi {
    /// Message control, u16.
    pub const FLAGS: u16 = 2;
    /// MSI enable.
    pub const FLAGS_ENABLE: u16 = 1 << 0;
    /// Bits 3:1: log2 of the vectors asked for.
    pub const FLAGS_QMASK: u16 = 0x7 << 1;
    /// Bits 6:4: log2 of the vectors granted.
    pub const FLAGS_QSIZE: u16 = 0x7 << 4;
    /// 64-bit addresses.
    pub const FLAGS_64BIT: u16 = 1 << 7;
    /// Per-vector masking.
    pub const FLAGS_MASKBIT: u16 = 1 << 8;
    /// Message address, low half, u32.
    pub const ADDRESS_LO: u16 = 4;
    /// Message address, high half, u32, in the 64-bit form.
    pub const ADDRESS_HI: u16 = 8;
    /// Message data, u16, in the 32-bit form.
    pub const DATA_32: u16 = 8;
    /// Mask bits, u32, in the 32-bit maskable form.
    pub const MASK_32: u16 = 12;
    /// Pending bits, u32, in the 32-bit maskable form.
    pub const PENDING_32: u16 = 16;
    /// Message data, u16, in the 64-bit form.
    pub const DATA_64: u16 = 12;
    /// Mask bits, u32, in the 64-bit maskable form.
    pub const MASK_64: u16 = 16;
    /// Pending bits, u32, in the 64-bit maskable form.
    pub const PENDING_64: u16 = 20;
    /// Bytes in the 64-bit maskable form.
    pub const SIZEOF_64_MASK: u16 = 24;
}

/// MSI-X, 12 bytes.
pub mod msix {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 12;
    /// Message control, u16.
    pub const FLAGS: u16 = 2;
    /// Bits 10:0: table size minus one.
    pub const FLAGS_QSIZE: u16 = 0x7ff;
    /// All vectors masked.
    pub const FLAGS_MASKALL: u16 = 1 << 14;
    /// MSI-X enable.
    pub const FLAGS_ENABLE: u16 = 1 << 15;
    /// Table offset and BAR indicator, u32.
    pub const TABLE: u16 = 4;
    /// Pending bit array offset and BAR indicator, u32.
    pub const PBA: u16 = 8;
    /// Bits 2:0 of [`TABLE`] and [`PBA`]: the BAR.
    pub const BIR_MASK: u32 = 0x7;
    /// Bytes in a table entry {address lo, address hi, data, vector control: u32 each}.
    pub const ENTRY_SIZE: u64 = 16;
}

/// Vendor-specific: {id, next, length u8, body}.
pub mod vndr {
    /// Bytes in the capability, u8.
    pub const LEN: u16 = 2;
}

/// Advanced features, 6 bytes.
pub mod af {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 6;
    /// Bytes in the capability, u8.
    pub const LEN: u16 = 2;
    /// Capabilities, u8.
    pub const CAP: u16 = 3;
    /// Bit 0 of [`CAP`]: transactions pending is reported.
    pub const CAP_TP: u8 = 1 << 0;
    /// Bit 1 of [`CAP`]: function-level reset.
    pub const CAP_FLR: u8 = 1 << 1;
    /// Control, u8.
    pub const CTRL: u16 = 4;
    /// Bit 0 of [`CTRL`]: start a function-level reset; always reads zero.
    pub const CTRL_FLR: u8 = 1 << 0;
}

/// PCI Express, 0x3c bytes in version 2.
pub mod exp {
    /// Bytes in a version 2 capability.
    pub const SIZEOF_V2: u16 = 0x3c;
    /// Capabilities, u16: bits 3:0 version, bits 7:4 device and port type.
    pub const FLAGS: u16 = 2;
    /// Port type of an endpoint, in bits 7:4 of [`FLAGS`].
    pub const TYPE_ENDPOINT: u16 = 0;
    /// Device capabilities, u32.
    pub const DEVCAP: u16 = 4;
    /// Bit 28 of [`DEVCAP`]: function-level reset.
    pub const DEVCAP_FLR: u32 = 1 << 28;
    /// Bits 3:0 of [`FLAGS`]: version.
    pub const FLAGS_VERS: u16 = 0xf;
    /// Bits 7:4 of [`FLAGS`]: type.
    pub const FLAGS_TYPE: u16 = 0xf << 4;
    /// Port type of an integrated endpoint of a root complex, in bits 7:4 of [`FLAGS`].
    pub const TYPE_RC_END: u16 = 9;
    /// Device control, u16.
    pub const DEVCTL: u16 = 8;
    /// Bits 7:5 of [`DEVCTL`]: largest payload, 128 << n bytes.
    pub const DEVCTL_PAYLOAD: u16 = 0x7 << 5;
    /// Bit 9 of [`DEVCTL`]: phantom functions.
    pub const DEVCTL_PHANTOM: u16 = 1 << 9;
    /// Bits 14:12 of [`DEVCTL`]: largest read request, 128 << n bytes.
    pub const DEVCTL_READRQ: u16 = 0x7 << 12;
    /// The largest code in [`DEVCTL_READRQ`], 4096 bytes.
    pub const DEVCTL_READRQ_4096B: u16 = 5;
    /// Bit 15 of [`DEVCTL`]: start a function-level reset; always reads zero.
    pub const DEVCTL_BCR_FLR: u16 = 1 << 15;
    /// Device status, u16.
    pub const DEVSTA: u16 = 10;
    /// Link capabilities, u32.
    pub const LNKCAP: u16 = 12;
    /// Link control, u16.
    pub const LNKCTL: u16 = 16;
    /// Link status, u16.
    pub const LNKSTA: u16 = 18;
    /// Device capabilities 2, u32.
    pub const DEVCAP2: u16 = 0x24;
    /// Device control 2, u16.
    pub const DEVCTL2: u16 = 0x28;
    /// Bit 5 of [`DEVCTL2`]: forwarding by alternative routing id.
    pub const DEVCTL2_ARI: u16 = 1 << 5;
    /// Link capabilities 2, u32.
    pub const LNKCAP2: u16 = 0x2c;
    /// Link control 2, u16.
    pub const LNKCTL2: u16 = 0x30;
    /// Link status 2, u16.
    pub const LNKSTA2: u16 = 0x32;
}
