//! Region that a variant composes: read-only bytes of the platform, of functions beside the device
//! and of the variant itself.

use varia_spec::{
    Errno,
    vfio::{RegionInfo, RegionType, SparseArea, region_flags},
};
use varia_units::HostPhys;

/// Function on bus 0 of PCI segment 0, where the bridges of a platform are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootFunction {
    /// Device number; at most 31.
    pub device: u8,
    /// Function number; at most 7.
    pub function: u8,
}

/// Source of bytes of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The variant: the first bytes of these.
    Variant([u8; 8]),
    /// The platform's memory at this address, which is RAM that firmware has reserved.
    Platform(HostPhys),
    /// Configuration space of another function: one access, as wide as the segment.
    Config {
        /// The function.
        function: RootFunction,
        /// Offset in its configuration space.
        offset: u16,
    },
}

/// First segment of a read, and its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ComposedSegment {
    /// Length in bytes: at least 1, at most the length of the read.
    pub len: u64,
    /// Source of the bytes.
    pub source: Source,
}

/// Region of composed bytes. A write is `EINVAL`.
pub trait Composed {
    /// Name of the region.
    fn name(&self) -> &'static str;

    /// Size in bytes.
    fn size(&self) -> u64;

    /// Type of the region.
    fn region_type(&self) -> RegionType;

    /// First segment of a read of `offset..offset + len`, which lies in the region; `len` is at
    /// least 1. The runtime carries out the segment, advances and calls again.
    fn segment(&self, offset: u64, len: u64) -> ComposedSegment;

    /// Length of a read of `len` bytes at `offset`: clipped to the end of the region.
    ///
    /// # Errors
    /// `EINVAL` beyond the end.
    fn clip(&self, offset: u64, len: u64) -> Result<u64, Errno> {
        match self.size().checked_sub(offset) {
            None | Some(0) => Err(Errno::EINVAL),
            Some(rest) => Ok(len.min(rest)),
        }
    }

    /// Region info: readable, not mappable.
    fn info(&self) -> RegionInfo<[SparseArea; 0]> {
        RegionInfo {
            flags: region_flags::READ,
            size: self.size(),
            areas: [],
            region_type: Some(self.region_type()),
            msix_mappable: false,
            capabilities: [None; 2],
        }
    }
}
