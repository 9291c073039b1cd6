//! Operations and answers.

use serde::{Deserialize, Serialize};
use varia_spec::vfio::RegionIndex;

/// A fake BAR of the device under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemoryShape {
    /// Bytes of memory.
    pub length: u64,
    /// Bytes of the BAR.
    pub size: u64,
}

/// What the generator and the predicates know of the device under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Region 4.
    pub usemem: MemoryShape,
    /// Region 2, if the variant makes one.
    pub resmem: Option<MemoryShape>,
    /// The page size of whoever maps, in bytes.
    pub page: u64,
}

impl Shape {
    /// The fake BAR at a region index.
    pub fn memory(&self, region: u32) -> Option<MemoryShape> {
        match RegionIndex(region) {
            RegionIndex::BAR4 => Some(self.usemem),
            RegionIndex::BAR2 => self.resmem,
            _ => None,
        }
    }
}

/// What a VFIO user does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// `VFIO_DEVICE_GET_REGION_INFO` with this `argsz`.
    RegionInfo {
        /// Region index.
        region: u32,
        /// Bytes that the user says it has room for.
        argsz: u32,
    },
    /// A read of a region.
    Read {
        /// Region index.
        region: u32,
        /// Offset in the region.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// A write to a region.
    Write {
        /// Region index.
        region: u32,
        /// Offset in the region.
        offset: u64,
        /// Bytes to write.
        data: Vec<u8>,
    },
    /// A shared mapping of a region, a read of 8 bytes through it, and perhaps a write.
    Map {
        /// Region index.
        region: u32,
        /// Offset in the region, a multiple of the page size.
        offset: u64,
        /// Bytes, a multiple of the page size.
        len: u64,
        /// Where to touch it, from the start of the mapping.
        touch: u64,
        /// Written at `touch` after the read, if not empty.
        data: Vec<u8>,
        /// The operations before have disabled memory or put the device to sleep; then nothing
        /// is written.
        asleep: bool,
    },
    /// A private writable mapping of a page, not touched.
    MapPrivate {
        /// Region index.
        region: u32,
        /// Offset in the region, a multiple of the page size.
        offset: u64,
    },
    /// `VFIO_DEVICE_RESET`.
    Reset,
}

/// All that a user can see of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The value returned, or the errno.
    pub result: Result<u64, i32>,
    /// The bytes returned: what was read, or the region info as the kernel packs it.
    pub data: Vec<u8>,
    /// By how much the file position moved; 0 where an operation has none.
    pub advance: u64,
}

impl Answer {
    /// A success without data.
    pub fn done(value: u64) -> Self {
        Self {
            result: Ok(value),
            data: Vec::new(),
            advance: 0,
        }
    }

    /// A failure.
    pub fn failed(errno: i32) -> Self {
        Self {
            result: Err(errno),
            data: Vec::new(),
            advance: 0,
        }
    }
}

/// Something that operations run on.
pub trait Target {
    /// Runs one operation.
    fn run(&mut self, op: &Op) -> Answer;
}
