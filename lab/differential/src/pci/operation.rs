//! Operations on a device, and their answers.

use serde::{Deserialize, Serialize};

/// Data of vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Data {
    /// Nothing: all of them.
    None,
    /// Truth value for each vector: every second is true.
    Bools,
    /// An eventfd for each.
    Events,
    /// No eventfd for each.
    NoEvents,
}

/// An operation of a VFIO user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Reads configuration space.
    Read {
        /// Offset.
        at: u16,
        /// Bytes, 1 to 8.
        len: u8,
    },
    /// Writes configuration space.
    Write {
        /// Offset.
        at: u16,
        /// 1 to 8 bytes.
        data: Vec<u8>,
    },
    /// `VFIO_DEVICE_GET_INFO`.
    Info,
    /// `VFIO_DEVICE_GET_REGION_INFO`.
    RegionInfo(u32),
    /// Reads a region that is not configuration space.
    RegionRead {
        /// Index.
        region: u32,
        /// Offset.
        at: u64,
        /// Bytes.
        len: u8,
    },
    /// Writes one.
    RegionWrite {
        /// Index.
        region: u32,
        /// Offset.
        at: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// `VFIO_DEVICE_GET_IRQ_INFO`.
    IrqInfo(u32),
    /// `VFIO_DEVICE_SET_IRQS`.
    SetIrqs {
        /// The index.
        index: u32,
        /// 0 mask, 1 unmask, 2 trigger.
        action: u8,
        /// First vector.
        start: u32,
        /// Number of vectors.
        count: u32,
        /// Data of the vectors.
        data: Data,
    },
    /// `VFIO_DEVICE_RESET`.
    Reset,
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`.
    HotResetInfo,
    /// `VFIO_DEVICE_PCI_HOT_RESET`, with the device's group or without any.
    HotReset {
        /// With it.
        owned: bool,
    },
}

/// Answer of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// A count or zero, or the error number.
    pub result: Result<u64, i32>,
    /// Bytes that were read; of information its fields, each a little-endian u64; of interrupts
    /// what each eventfd has counted since.
    pub data: Vec<u8>,
}

impl Answer {
    /// An error.
    #[must_use]
    pub fn failed(errno: i32) -> Self {
        Self {
            result: Err(errno),
            data: Vec::new(),
        }
    }

    /// Success with these fields.
    #[must_use]
    pub fn fields(fields: impl IntoIterator<Item = u64>) -> Self {
        Self {
            result: Ok(0),
            data: fields.into_iter().flat_map(u64::to_le_bytes).collect(),
        }
    }
}

/// Something that carries out operations.
pub trait Target {
    /// Carries out one.
    fn run(&mut self, op: &Op) -> Answer;
}
