//! Device-specific regions of a variant as regions of the core: those that the variant composes are
//! carried out here, those of memory by [`Endpoint`](crate::Endpoint), and the core counts both.

use std::{fmt, sync::Arc};

use varia_core::{ConfigRegister, Device, DeviceRegion, RegionInfo, Width};
use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{Region, Source, Variant};
use varia_variants::table::Chosen;

use crate::endpoint::listed;

/// A region of a variant, and the device whose platform it reads.
pub(crate) struct OwnRegion {
    variant: Arc<Chosen>,
    index: RegionIndex,
    device: Arc<dyn Device>,
}

impl OwnRegion {
    /// The variant's regions, in the order of their indices.
    pub(crate) fn all(variant: &Arc<Chosen>, device: &Arc<dyn Device>) -> Vec<Self> {
        let regions = (RegionIndex::COUNT..).map(|index| Self {
            variant: Arc::clone(variant),
            index: RegionIndex(index),
            device: Arc::clone(device),
        });
        let exists = |region: &Self| !matches!(region.region(), Region::Base);
        regions.take_while(exists).collect()
    }

    /// Name of the region, if the platform names no memory for it: it exists for its capabilities.
    pub(crate) fn without_memory(&self) -> Option<&'static str> {
        match self.region() {
            Region::Memory(memory) if memory.length() == 0 => Some(memory.name()),
            _ => None,
        }
    }

    fn region(&self) -> Region<'_> {
        self.variant.region(self.index)
    }
}

impl DeviceRegion for OwnRegion {
    fn info(&self) -> RegionInfo {
        match self.region() {
            Region::Composed(region) => listed(region.info()),
            Region::Memory(region) => listed(region.info()),
            Region::Registers(region) => listed(region.info()),
            Region::Base | Region::Absent => RegionInfo::default(),
        }
    }

    /// Reads segment by segment; if one fails, the whole read does.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<usize, Errno> {
        let Region::Composed(region) = self.region() else {
            return Err(Errno::EINVAL);
        };
        let len = region.clip(offset, data.len() as u64)? as usize;
        let mut rest = data.get_mut(..len).ok_or(Errno::EINVAL)?;
        let mut at = offset;
        while !rest.is_empty() {
            let segment = region.segment(at, rest.len() as u64);
            let count = usize::try_from(segment.len).map_err(|_| Errno::EINVAL)?;
            let (now, later) = rest
                .split_at_mut_checked(count.max(1))
                .ok_or(Errno::EINVAL)?;
            match segment.source {
                Source::Variant(bytes) => {
                    let bytes = bytes.get(..now.len()).ok_or(Errno::EINVAL)?;
                    now.copy_from_slice(bytes);
                }
                Source::Platform(address) => self.device.platform_read(address, now)?,
                Source::Config { function, offset } => {
                    let width = match now.len() {
                        1 => Width::Byte,
                        2 => Width::Word,
                        4 => Width::Dword,
                        _ => return Err(Errno::EINVAL),
                    };
                    let register = ConfigRegister::new(offset, width).ok_or(Errno::EINVAL)?;
                    let devfn = (function.device, function.function);
                    let value = self.device.root_config_read(devfn, register)?;
                    for (byte, shown) in now.iter_mut().zip(value.to_le_bytes()) {
                        *byte = shown;
                    }
                }
            }
            at = at.saturating_add(segment.len);
            rest = later;
        }
        Ok(len)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }
}

impl fmt::Debug for OwnRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.region().fmt(f)
    }
}
