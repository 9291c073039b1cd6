//! Extended capabilities, from offset 0x100: a u32 header {id 15:0, version 19:16, next 31:20}.
//!
//! Source: PCI Express Base Specification 6.0, section 7.6.3, and for each capability the section
//! that its constant names; Compute Express Link 4.0, section 8.1.3 for the CXL Device DVSEC.

/// The first extended capability.
pub const START: u16 = 0x100;

/// Extended capability ids.
pub mod id {
    /// Advanced error reporting (7.8.4).
    pub const ERR: u16 = 0x01;
    /// Virtual channel (7.9.1).
    pub const VC: u16 = 0x02;
    /// Device serial number (7.9.3).
    pub const DSN: u16 = 0x03;
    /// Power budgeting (7.8.1).
    pub const PWR: u16 = 0x04;
    /// Virtual channels of a multi-function device (7.9.2).
    pub const MFVC: u16 = 0x08;
    /// Virtual channel, where [`MFVC`] is present too (7.9.1).
    pub const VC9: u16 = 0x09;
    /// Vendor-specific (7.9.5).
    pub const VNDR: u16 = 0x0b;
    /// Access control services (7.7.11).
    pub const ACS: u16 = 0x0d;
    /// Alternative routing id (7.8.7).
    pub const ARI: u16 = 0x0e;
    /// Address translation services (10.5.1).
    pub const ATS: u16 = 0x0f;
    /// Single root I/O virtualisation (9.3.3).
    pub const SRIOV: u16 = 0x10;
    /// Multicast (7.9.11).
    pub const MCAST: u16 = 0x12;
    /// Page request interface (10.5.2).
    pub const PRI: u16 = 0x13;
    /// Resizable BAR (7.8.6).
    pub const REBAR: u16 = 0x15;
    /// Dynamic power allocation (7.9.12).
    pub const DPA: u16 = 0x16;
    /// TLP processing hints (7.9.13).
    pub const TPH: u16 = 0x17;
    /// Latency tolerance reporting (7.8.2).
    pub const LTR: u16 = 0x18;
    /// Secondary PCI Express (7.7.3).
    pub const SECPCI: u16 = 0x19;
    /// Process address space id (7.8.9).
    pub const PASID: u16 = 0x1b;
    /// Designated vendor-specific, DVSEC (7.9.6).
    pub const DVSEC: u16 = 0x23;
    /// Physical layer 16.0 GT/s (7.7.5).
    pub const PL_16GT: u16 = 0x26;
}

/// Composes the header of an extended capability; `next` is 0 at the end of the list.
pub const fn header(id: u16, version: u8, next: u16) -> u32 {
    id as u32 | ((version as u32) & 0xf) << 16 | (next as u32) << 20
}

/// The capability id in a header.
pub const fn header_id(header: u32) -> u16 {
    header as u16
}

/// The next offset in a header; 0 at the end of the list.
pub const fn header_next(header: u32) -> u16 {
    ((header >> 20) & 0xffc) as u16
}

/// Advanced error reporting, 0x48 bytes with the TLP prefix log.
pub mod err {
    /// Bytes with the TLP prefix log.
    pub const SIZEOF: u16 = 0x48;
    /// Bytes before the root port's registers.
    pub const ENDPOINT_LEN: u16 = 0x2c;
    /// Uncorrectable error status, u32, write one to clear.
    pub const UNCOR_STATUS: u16 = 4;
    /// Uncorrectable error mask, u32.
    pub const UNCOR_MASK: u16 = 8;
    /// Uncorrectable error severity, u32.
    pub const UNCOR_SEVER: u16 = 0xc;
    /// The uncorrectable errors that an endpoint can report (6.0, 7.8.4.2).
    pub const UNCOR_BITS: u32 = 0x03ff_f031;
    /// Correctable error status, u32, write one to clear.
    pub const COR_STATUS: u16 = 0x10;
    /// Correctable error mask, u32.
    pub const COR_MASK: u16 = 0x14;
    /// The correctable errors (6.0, 7.8.4.5).
    pub const COR_BITS: u32 = 0xf1c1;
    /// Capabilities and control, u32.
    pub const CAP: u16 = 0x18;
    /// Bit 6 of [`CAP`]: generate end-to-end checksums.
    pub const CAP_ECRC_GENE: u32 = 1 << 6;
    /// Bit 8 of [`CAP`]: check end-to-end checksums.
    pub const CAP_ECRC_CHKE: u32 = 1 << 8;
}

/// Secondary PCI Express: 12 bytes, then an equalisation u16 for each lane.
pub mod secpci {
    /// Bytes before the lanes.
    pub const LANES: u16 = 12;
}

/// Latency tolerance reporting, 8 bytes.
pub mod ltr {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 8;
    /// Largest snoop latency, u16.
    pub const MAX_SNOOP: u16 = 4;
    /// Largest no-snoop latency, u16.
    pub const MAX_NOSNOOP: u16 = 6;
    /// Bits of a latency: value 9:0, scale 12:10.
    pub const LATENCY_BITS: u16 = 0x1fff;
}

/// Resizable BAR: 4 bytes, then {capability u32, control u32} for each BAR.
pub mod rebar {
    /// Bytes with one BAR.
    pub const SIZEOF_1: u16 = 12;
    /// Sizes that the first BAR can take, u32: bit n is 1 MiB << (n - 4).
    pub const CAP: u16 = 4;
    /// Control of the first BAR, u32.
    pub const CTRL: u16 = 8;
    /// Bits 2:0 of [`CTRL`]: which BAR.
    pub const CTRL_BAR_IDX: u32 = 0x7;
    /// Bits 7:5 of the first [`CTRL`]: how many BARs.
    pub const CTRL_NBAR_SHIFT: u32 = 5;
    /// Bits 13:8 of [`CTRL`]: the size, 1 MiB << n.
    pub const CTRL_SIZE_SHIFT: u32 = 8;
    /// Six bits wide.
    pub const CTRL_SIZE_MASK: u32 = 0x3f << CTRL_SIZE_SHIFT;
}

/// Virtual channels (7.9.1).
pub mod vc {
    /// Bytes with channel 0 alone and no table.
    pub const SIZEOF: u16 = 0x1c;
    /// Control of channel 0, u32: bits 7:0 the traffic classes that use it, bit 31 enable.
    pub const VC0_CTRL: u16 = 0x14;
    /// Traffic classes other than 0, which always uses channel 0.
    pub const CTRL_CLASSES: u32 = 0xfe;
    /// Bit 31 of [`VC0_CTRL`].
    pub const CTRL_ENABLE: u32 = 1 << 31;
}

/// Alternative routing id (7.8.7).
pub mod ari {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 8;
}

/// Address translation services (10.5.1).
pub mod ats {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 8;
    /// Control, u16: bits 4:0 the smallest unit, bit 15 enable.
    pub const CTRL: u16 = 6;
    /// The bits of [`CTRL`] that can be written.
    pub const CTRL_BITS: u16 = 0x801f;
}

/// Power budgeting, 16 bytes.
pub mod pwr {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 0x10;
    /// Data select, u8.
    pub const SELECT: u16 = 4;
    /// Data, u32.
    pub const DATA: u16 = 8;
}

/// Device serial number, 12 bytes.
pub mod dsn {
    /// Bytes in the capability.
    pub const SIZEOF: u16 = 12;
    /// The serial number, u64.
    pub const SERIAL: u16 = 4;
}

/// Vendor-specific extended capability.
pub mod vndr {
    /// Header, u32: id 15:0, revision 19:16, length 31:20.
    pub const HEADER: u16 = 4;
}

/// Designated vendor-specific capability.
pub mod dvsec {
    /// Header 1, u32: vendor 15:0, revision 19:16, length 31:20.
    pub const HEADER1: u16 = 4;
    /// Header 2, u16: DVSEC id.
    pub const HEADER2: u16 = 8;
    /// The first byte that the vendor defines.
    pub const BODY: u16 = 10;

    /// Composes header 1; `len` counts the whole capability in bytes.
    pub const fn header1(vendor: u16, revision: u8, len: u16) -> u32 {
        vendor as u32 | ((revision as u32) & 0xf) << 16 | (len as u32) << 20
    }
}

/// The CXL Device DVSEC (CXL 4.0, 8.1.3).
pub mod cxl {
    /// The CXL consortium's vendor id.
    pub const VENDOR_ID: u16 = 0x1e98;
    /// DVSEC id of a CXL device.
    pub const DEVICE: u16 = 0;
    /// Bytes in the capability, revision 3.
    pub const DEVICE_LEN: u16 = 0x3c;
    /// CXL capability, u16 (8.1.3.1).
    pub const CAP: u16 = 0xa;
    /// Bit 2 of [`CAP`]: memory is there.
    pub const CAP_MEM: u16 = 1 << 2;
    /// Bits 5:4 of [`CAP`]: how many ranges.
    pub const CAP_RANGES_SHIFT: u16 = 4;
    /// Range 1 size high, u32 (8.1.3.8.1).
    pub const RANGE1_SIZE_HIGH: u16 = 0x18;
    /// The bits of a low size or base register that belong to the number: 31:28.
    pub const RANGE_LOW_BITS: u32 = 0xf000_0000;
    /// Range 1 base high, u32 (8.1.3.8.3).
    pub const RANGE1_BASE_HIGH: u16 = 0x20;
    /// Range 1 base low, u32 (8.1.3.8.4).
    pub const RANGE1_BASE_LOW: u16 = 0x24;
    /// Range 1 size low, u32 (8.1.3.8.2).
    pub const RANGE1_SIZE_LOW: u16 = 0x1c;
    /// Memory_Info_Valid.
    pub const MEM_INFO_VALID: u32 = 1 << 0;
    /// Memory_Active.
    pub const MEM_ACTIVE: u32 = 1 << 1;
    /// Memory_Active_Timeout, bits 15:13.
    pub const MEM_ACTIVE_TIMEOUT_SHIFT: u32 = 13;
    /// Three bits wide.
    pub const MEM_ACTIVE_TIMEOUT_MASK: u32 = 0x7;
}
