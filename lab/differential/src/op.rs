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

/// Properties of the device under test that the generator and the predicates know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Region 4, unless the variant declines the device.
    pub usemem: Option<MemoryShape>,
    /// Region 2, if the variant makes one.
    pub resmem: Option<MemoryShape>,
    /// Bytes of the device's own BARs; 0 where there is none.
    pub bars: [u64; 6],
    /// The page size of whoever maps, in bytes.
    pub page: u64,
}

impl Shape {
    /// The fake BAR at a region index.
    pub fn memory(&self, region: u32) -> Option<MemoryShape> {
        match RegionIndex(region) {
            RegionIndex::BAR4 => self.usemem,
            RegionIndex::BAR2 => self.resmem,
            _ => None,
        }
    }

    /// Bytes of a region that can be accessed, fake or not; a physical BAR has no padding.
    pub fn region(&self, region: u32) -> Option<MemoryShape> {
        let own = usize::try_from(region).ok().and_then(|i| self.bars.get(i));
        let own = own.filter(|size| **size > 0).map(|size| MemoryShape {
            length: *size,
            size: *size,
        });
        self.memory(region).or(own)
    }

    /// The variant has declined the device, and is transparent.
    pub fn is_declined(&self) -> bool {
        self.usemem.is_none()
    }
}

/// Protection of a mapping's pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Protection {
    /// `PROT_READ`.
    pub read: bool,
    /// `PROT_WRITE`.
    pub write: bool,
    /// `PROT_EXEC`.
    pub execute: bool,
}

/// Address that a system call gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Pointer {
    /// Buffer with room for all bytes.
    Good,
    /// Buffer behind which this many bytes can be accessed, and no more.
    Cut(u16),
    /// Buffer that can be read and not written.
    ReadOnly,
    /// Null.
    Null,
}

/// A descriptor that an ioctl's argument names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Descriptor {
    /// Event counter of the user.
    Event(u8),
    /// The device's group.
    Group,
    /// The device itself, which is no event and no group.
    Device,
}

/// Number of event counters of a user.
pub const EVENTS: u8 = 3;
/// Number of further event counters of a user, for ioeventfds alone. Nothing signals these: the
/// kernel's write would come at any time, and a read beside the write would see it or not.
pub const DOORBELLS: u8 = 3;
/// Number of mappings that a user keeps.
pub const SLOTS: u8 = 4;

/// Operation of a VFIO user.
///
/// The first six are also done by a vfio-user client; the rest is the kernel's alone.
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
        /// is written where a client's mapping would take it.
        asleep: bool,
    },
    /// A private mapping of a page, not touched.
    MapPrivate {
        /// Region index.
        region: u32,
        /// Offset in the region, a multiple of the page size.
        offset: u64,
        /// Protection of the pages.
        protection: Protection,
    },
    /// `VFIO_DEVICE_RESET`.
    Reset,
    /// A read into an address that is not good for all of it.
    BadRead {
        /// Region index.
        region: u32,
        /// Offset in the region.
        offset: u64,
        /// Bytes.
        len: u32,
        /// The address.
        pointer: Pointer,
    },
    /// A write from an address that is not good for all of it.
    BadWrite {
        /// Region index.
        region: u32,
        /// Offset in the region.
        offset: u64,
        /// Bytes to write.
        data: Vec<u8>,
        /// The address.
        pointer: Pointer,
    },
    /// An ioctl of the device.
    Ioctl {
        /// `VFIO_BASE` + this.
        number: u8,
        /// The argument.
        argument: Vec<u8>,
        /// Where in the argument descriptors are named: offsets of s32 fields.
        descriptors: Vec<(u16, Descriptor)>,
        /// The address of the argument.
        pointer: Pointer,
    },
    /// A shared mapping that is kept, in the place of the slot's last one.
    Keep {
        /// Below [`SLOTS`].
        slot: u8,
        /// Region index.
        region: u32,
        /// Offset in the region.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Protection of the pages.
        protection: Protection,
        /// `MAP_POPULATE`.
        populate: bool,
    },
    /// A read of 8 bytes through a mapping that is kept, and perhaps a write.
    Touch {
        /// The mapping.
        slot: u8,
        /// Where, from its start.
        at: u64,
        /// Written there after the read, if not empty.
        data: Vec<u8>,
        /// By the processor, in a child that a signal may end; else by the kernel.
        directly: bool,
    },
    /// `mprotect` of a mapping that is kept.
    Protect {
        /// The mapping.
        slot: u8,
        /// Protection of the pages.
        protection: Protection,
    },
    /// The end of a mapping that is kept.
    Unmap {
        /// The mapping.
        slot: u8,
    },
    /// `VFIO_IOMMU_MAP_DMA` or `_UNMAP_DMA` of a mapping that is kept.
    Dma {
        /// The mapping.
        slot: u8,
        /// True to map, false to unmap.
        map: bool,
    },
    /// Adds one to an event counter.
    Signal {
        /// Below [`EVENTS`].
        event: u8,
    },
    /// Takes an event counter's value.
    Drain {
        /// Below [`EVENTS`].
        event: u8,
    },
    /// Waits until the device's runtime power management has suspended it, for a second at most;
    /// returns whether it has.
    AwaitSuspend,
    /// The operation, by a child.
    Child(Box<Op>),
    /// Closes the device and opens it again.
    Reopen {
        /// Without mappings, so that the device is really closed in between.
        unmap: bool,
    },
}

impl Op {
    /// Kind of the operation, without its values.
    pub fn deed(&self) -> &Self {
        match self {
            Self::Child(op) => op.deed(),
            op => op,
        }
    }

    /// Name of the kind in tables of operations.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RegionInfo { .. } => "region info",
            Self::Read { region: 7, .. } => "configuration read",
            Self::Read { .. } => "region read",
            Self::Write {
                region: 7,
                offset: 0x44,
                ..
            } => "power state",
            Self::Write {
                region: 7,
                offset: 0x68,
                ..
            } => "function-level reset",
            Self::Write { region: 7, .. } => "configuration write",
            Self::Write { .. } => "region write",
            Self::Map { .. } => "map and touch",
            Self::MapPrivate { .. } => "map privately",
            Self::Reset => "reset",
            Self::BadRead { .. } => "read to a bad address",
            Self::BadWrite { .. } => "write from a bad address",
            Self::Ioctl {
                number, argument, ..
            } => match *number {
                GET_INFO => "device info",
                GET_REGION_INFO => "region info, raw",
                GET_IRQ_INFO => "interrupt info",
                SET_IRQS => "set interrupts",
                GET_HOT_RESET_INFO => "hot reset info",
                HOT_RESET => "hot reset",
                IOEVENTFD => "ioeventfd",
                FEATURE => match argument.get(4).copied() {
                    Some(3 | 4) => "low power entry",
                    Some(5) => "low power exit",
                    Some(11) => "dma-buf",
                    _ => "other feature",
                },
                _ => "unknown ioctl",
            },
            Self::Keep { .. } => "map",
            Self::Touch { directly: true, .. } => "touch by the processor",
            Self::Touch { .. } => "touch",
            Self::Protect { .. } => "protect",
            Self::Unmap { .. } => "unmap",
            Self::Dma { map: true, .. } => "map for DMA",
            Self::Dma { .. } => "unmap for DMA",
            Self::Signal { .. } => "signal an event",
            Self::Drain { .. } => "drain an event",
            Self::AwaitSuspend => "await suspend",
            Self::Child(_) => "by a child",
            Self::Reopen { .. } => "reopen",
        }
    }
}

/// The ioctls of a device, as numbers behind `VFIO_BASE`; Linux 7.2 `include/uapi/linux/vfio.h`.
pub(crate) const GET_INFO: u8 = 7;
pub(crate) const GET_REGION_INFO: u8 = 8;
pub(crate) const GET_IRQ_INFO: u8 = 9;
pub(crate) const SET_IRQS: u8 = 10;
pub(crate) const GET_HOT_RESET_INFO: u8 = 12;
pub(crate) const HOT_RESET: u8 = 13;
pub(crate) const IOEVENTFD: u8 = 16;
/// `VFIO_DEVICE_FEATURE`.
pub const FEATURE: u8 = 17;

/// All that a user can see of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The value returned, or the errno; a signal that ended a child is a negative number.
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
