//! Device-specific regions that a variant composes, carried out as regions of the core.

use std::{fmt, sync::Arc};

use varia_core::{ConfigRegister, Device, DeviceRegion, RegionInfo, Width};
use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{Composed, Region, Source, Variant};
use varia_variants::AnyVariant;

use crate::endpoint::listed;

/// A region of a variant, and the device whose platform it reads.
pub(crate) struct ComposedRegion {
    variant: Arc<AnyVariant>,
    index: RegionIndex,
    device: Arc<dyn Device>,
}

impl ComposedRegion {
    /// The variant's regions, in the order of their indices.
    pub(crate) fn all(variant: &Arc<AnyVariant>, device: &Arc<dyn Device>) -> Vec<Self> {
        let regions = (RegionIndex::COUNT..).map(|index| Self {
            variant: Arc::clone(variant),
            index: RegionIndex(index),
            device: Arc::clone(device),
        });
        regions
            .take_while(|region| region.region().is_some())
            .collect()
    }

    fn region(&self) -> Option<&dyn Composed> {
        match self.variant.region(self.index) {
            Region::Composed(region) => Some(region),
            _ => None,
        }
    }
}

impl DeviceRegion for ComposedRegion {
    fn info(&self) -> RegionInfo {
        let region = self.region();
        region.map_or_else(RegionInfo::default, |region| listed(region.info()))
    }

    /// Reads segment by segment; if one fails, the whole read does.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<usize, Errno> {
        let region = self.region().ok_or(Errno::EINVAL)?;
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

impl fmt::Debug for ComposedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.region().map(Composed::name).fmt(f)
    }
}
