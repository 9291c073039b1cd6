//! Memory outside every physical BAR in one of the forms that a user can be given.
//!
//! The memory has a cached part and, on some devices, an uncached one behind it.
//!
//! | form | cached part | uncached part | BAR2 and BAR4 of the base |
//! |---|---|---|---|
//! | `Bar` | BAR4 | BAR2 | hidden by the parts that exist |
//! | `Region` | region 9 | region 10 | do not exist |
//! | `PhysicalBar` | BAR2, of the physical BAR2's size | refused | BAR4 stays |

use varia_spec::{
    pci::header,
    vfio::{RegionIndex, RegionType, region_flags},
};
use varia_units::{BarIndex, BarSize, Bytes};

use crate::{MemoryRegion, Refusal, Region, config::FakeBar};

/// Form in which a variant presents memory outside every physical BAR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum MemoryLayout {
    /// BARs of the variant's own, each as large as its memory asks for.
    #[default]
    Bar,
    /// Device-specific regions that can only be mapped.
    Region,
    /// The physical BAR2, of that BAR's size.
    PhysicalBar,
}

/// Device-specific region of the cached part.
const CACHED: RegionIndex = RegionIndex(RegionIndex::COUNT);

/// Device-specific region of the uncached part.
const UNCACHED: RegionIndex = RegionIndex(RegionIndex::COUNT + 1);

/// The presented memory. The layout is immutable, the values of fake BARs are not.
#[derive(Debug)]
pub struct Presented {
    form: MemoryLayout,
    cached: MemoryRegion,
    uncached: Option<MemoryRegion>,
    /// BAR2 and BAR4, each unless it is the base's.
    bars: [Option<FakeBar>; 2],
}

impl Presented {
    /// Presents both parts, which are given as BARs of their own. `types` are those of the
    /// device-specific regions; `bar2` is the size of the physical BAR2, 0 without that BAR.
    pub fn new(
        form: MemoryLayout,
        (cached, uncached): (MemoryRegion, Option<MemoryRegion>),
        types: [RegionType; 2],
        bar2: Bytes,
    ) -> Result<Self, Refusal> {
        let fake2 = |region: &MemoryRegion| FakeBar::of(header::BASE_ADDRESS_2, region);
        let parts = match form {
            MemoryLayout::Bar => (cached, uncached),
            MemoryLayout::Region => {
                let mapped = |region: MemoryRegion, region_type| {
                    region.device_specific(region_type, region_flags::MMAP)
                };
                let [first, second] = types;
                (
                    mapped(cached, first),
                    uncached.map(|region| mapped(region, second)),
                )
            }
            MemoryLayout::PhysicalBar => (in_physical_bar(cached, uncached, bar2)?, None),
        };
        Ok(Self {
            form,
            cached: parts.0,
            uncached: parts.1,
            bars: match form {
                MemoryLayout::Bar => [
                    uncached.as_ref().map(fake2),
                    Some(FakeBar::of(header::BASE_ADDRESS_4, &cached)),
                ],
                MemoryLayout::Region => [header::BASE_ADDRESS_2, header::BASE_ADDRESS_4]
                    .map(|start| Some(FakeBar::absent64(start))),
                // the physical BAR has the size of the region
                MemoryLayout::PhysicalBar => [None, None],
            },
        })
    }

    /// The cached part.
    pub const fn cached(&self) -> &MemoryRegion {
        &self.cached
    }

    /// The uncached part.
    pub const fn uncached(&self) -> Option<&MemoryRegion> {
        self.uncached.as_ref()
    }

    /// Kind of the region with this index.
    pub fn region(&self, index: RegionIndex) -> Region<'_> {
        match (self.form, index) {
            (MemoryLayout::Bar, RegionIndex::BAR4)
            | (MemoryLayout::Region, CACHED)
            | (MemoryLayout::PhysicalBar, RegionIndex::BAR2) => Region::Memory(self.cached),
            (MemoryLayout::Bar, RegionIndex::BAR2) | (MemoryLayout::Region, UNCACHED) => {
                self.uncached.map_or(Region::Base, Region::Memory)
            }
            (MemoryLayout::Region, RegionIndex(2..=5)) => Region::Absent,
            _ => Region::Base,
        }
    }

    /// The fake BARs in ascending order of their configuration offset.
    pub fn bars(&self) -> impl Iterator<Item = &FakeBar> {
        self.bars.iter().flatten()
    }
}

/// The cached part behind the physical BAR2.
fn in_physical_bar(
    cached: MemoryRegion,
    uncached: Option<MemoryRegion>,
    size: Bytes,
) -> Result<MemoryRegion, Refusal> {
    if let Some(uncached) = uncached {
        let reserve = Bytes(uncached.length());
        return Err(Refusal::NoUncachedPart { reserve });
    }
    let memory = Bytes(cached.length());
    if size < memory {
        let bar = BarIndex::BAR2;
        return Err(Refusal::PhysicalBarTooSmall { bar, size, memory });
    }
    let region = BarSize::covering(size.0).and_then(|size| cached.behind(size).ok());
    region.ok_or(Refusal::BarTooLarge { length: size })
}
