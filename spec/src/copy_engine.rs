//! Registers of the copy engine that an emulated GPU has on request: Varia's own, no chip has them.
//!
//! The block lies in BAR0, 15 MiB from the start, at an offset that neither nvgrace-gpu nor vfio-pci
//! reads, and that the MSI-X table and the readiness registers do not touch. docs/guest.md describes
//! it. Registers are little-endian; one of 64 bits may be written as two of 32 bits.

/// Offset of the block in BAR0.
pub const OFFSET: u64 = 0xf0_0000;
/// Bytes in the block.
pub const LEN: u64 = 0x50;
/// Value of [`register::ID`]: "VCE1".
pub const ID: u32 = u32::from_le_bytes(*b"VCE1");
/// Most bytes of one command.
pub const MAX_LENGTH: u64 = 4 << 20;
/// Value of [`register::VECTOR`] without an interrupt.
pub const NO_VECTOR: u32 = 0xffff_ffff;

/// Registers, by their offset in the block.
pub mod register {
    /// [`super::ID`], 32 bits, read-only.
    pub const ID: u64 = 0x00;
    /// Status of the last command ([`super::status`]), 32 bits, read-only.
    pub const STATUS: u64 = 0x04;
    /// Number of commands that have ended since a reset, 32 bits, read-only.
    pub const COUNT: u64 = 0x08;
    /// Last command ([`super::command`]), 32 bits; a write starts one.
    pub const COMMAND: u64 = 0x0c;
    /// Source of a command, 64 bits.
    pub const SOURCE: u64 = 0x10;
    /// Destination of a command, 64 bits.
    pub const DESTINATION: u64 = 0x18;
    /// Number of bytes, 64 bits.
    pub const LENGTH: u64 = 0x20;
    /// Bytes of a fill, 64 bits, from the lowest on.
    pub const PATTERN: u64 = 0x28;
    /// Result of a checksum, 64 bits, read-only.
    pub const RESULT: u64 = 0x30;
    /// Address at which the last command failed, 64 bits, read-only.
    pub const FAULT: u64 = 0x38;
    /// MSI-X vector of completion, 32 bits; [`super::NO_VECTOR`] after a reset.
    pub const VECTOR: u64 = 0x40;
}

/// Commands: an operation, and where its operands are.
pub mod command {
    /// Bits of the operation.
    pub const OPERATION: u32 = 0xff;
    /// Copies from the source to the destination.
    pub const COPY: u32 = 1;
    /// Fills the destination with the pattern.
    pub const FILL: u32 = 2;
    /// Computes the checksum of the source: FNV-1a of 64 bits.
    pub const CHECKSUM: u32 = 3;
    /// The source is an address of the bus (memory of the guest); else an offset in the coherent memory.
    pub const SOURCE_BUS: u32 = 1 << 8;
    /// The destination is an address of the bus; else an offset in the coherent memory.
    pub const DESTINATION_BUS: u32 = 1 << 9;
}

/// Values of [`register::STATUS`].
pub mod status {
    /// No command since the reset.
    pub const IDLE: u32 = 0;
    /// Running; a write of [`super::register::COMMAND`] is ignored.
    pub const BUSY: u32 = 1;
    /// The last command is done.
    pub const DONE: u32 = 2;
    /// The command does not exist.
    pub const BAD_COMMAND: u32 = 0x10;
    /// The length is 0 or more than [`super::MAX_LENGTH`].
    pub const BAD_LENGTH: u32 = 0x11;
    /// A range is not inside the coherent memory.
    pub const BAD_RANGE: u32 = 0x12;
    /// An address of the bus is not mapped for this access. Nothing was written.
    pub const NOT_MAPPED: u32 = 0x13;
    /// Bus master is disabled.
    pub const NO_MASTER: u32 = 0x14;
    /// A page of the coherent memory has failed, or its link is down. Nothing was written.
    pub const MEMORY_FAILED: u32 = 0x15;
    /// The coherent memory is not ready.
    pub const NOT_READY: u32 = 0x16;
}

/// Start value of the checksum, FNV-1a's offset basis.
pub const CHECKSUM_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The checksum of `bytes` behind those that gave `sum`; the first begin with [`CHECKSUM_START`].
///
/// Source: RFC 9923, FNV-1a with 64 bits.
pub fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
