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
    /// Device serial number (7.9.3).
    pub const DSN: u16 = 0x03;
    /// Power budgeting (7.8.1).
    pub const PWR: u16 = 0x04;
    /// Vendor-specific (7.9.5).
    pub const VNDR: u16 = 0x0b;
    /// Access control services (7.7.11).
    pub const ACS: u16 = 0x0d;
    /// Resizable BAR (7.8.6).
    pub const REBAR: u16 = 0x15;
    /// Latency tolerance reporting (7.8.2).
    pub const LTR: u16 = 0x18;
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
