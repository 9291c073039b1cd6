//! A region of registers that a variant emulates, and the targets of accesses to them.
//!
//! Unlike an access to memory, an access to registers is not split into segments: it goes to one
//! target as a whole, or fails.

use varia_spec::{
    Errno,
    vfio::{RegionInfo, SparseArea, region_flags},
};

use crate::config::Direction;
use varia_units::{BarIndex, BarSize};

/// An access to a region of registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterAccess {
    /// Read or write.
    pub direction: Direction,
    /// Offset in the region in bytes.
    pub offset: u64,
    /// Bytes; at least 1.
    pub len: u64,
    /// True if the user has enabled MSI-X.
    pub msix: bool,
}

/// Target of an access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The same number of bytes of a physical BAR; `EIO` while the device's memory is disabled.
    Bar {
        /// The BAR.
        bar: BarIndex,
        /// Offset in it in bytes.
        offset: u64,
    },
    /// So many bytes of a physical BAR, in memory that is enabled or not: a write is one store and is
    /// never split, a read is made of naturally aligned accesses of 8, 4, 2 or 1 bytes.
    Whole {
        /// The BAR.
        bar: BarIndex,
        /// Offset in it in bytes.
        offset: u64,
        /// Bytes: at most those of the access.
        len: u64,
    },
    /// The function's owner, by an administration command for this function.
    Command(Command),
}

/// A command to the owner of a function, with the header of its data. The bytes of a write follow
/// the header; the bytes of a read are the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// The operation, as the device's specification numbers it.
    pub opcode: u16,
    header: [u8; Self::MAX_HEADER],
    header_len: u8,
}

impl Command {
    /// The longest header in bytes.
    pub const MAX_HEADER: usize = 8;

    /// A command whose header is the first `len` bytes of `header`.
    pub const fn new(opcode: u16, header: [u8; Self::MAX_HEADER], len: u8) -> Self {
        Self {
            opcode,
            header,
            header_len: len,
        }
    }

    /// The header.
    pub fn header(&self) -> &[u8] {
        self.header
            .get(..usize::from(self.header_len))
            .unwrap_or(&self.header)
    }
}

/// Registers behind a BAR without hardware.
pub trait Registers {
    /// Name of the registers.
    fn name(&self) -> &'static str;

    /// Size of the BAR.
    fn size(&self) -> BarSize;

    /// Target of an access, or its error.
    fn access(&self, access: RegisterAccess) -> Result<Target, Errno>;

    /// Region info: readable and writable, not mappable.
    fn info(&self) -> RegionInfo<[SparseArea; 0]> {
        RegionInfo {
            flags: region_flags::READ | region_flags::WRITE,
            size: self.size().get(),
            areas: [],
            region_type: None,
            msix_mappable: false,
            capabilities: [None; 2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_as_long_as_it_says_and_never_longer_than_there_is() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(Command::new(5, bytes, 1).header(), [1]);
        assert_eq!(Command::new(5, bytes, 0).header(), []);
        assert_eq!(Command::new(5, bytes, 8).header(), bytes);
        assert_eq!(Command::new(5, bytes, 9).header(), bytes);
    }
}
