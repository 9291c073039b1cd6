//! A device without a variant of its own: a transparent layer, over which extensions of the platform
//! can lie.

use varia_spec::vfio::RegionIndex;
use varia_variant::{
    BarIndex, ConfigOwner, ConfigSegment, Direction, Event, Outcome, Ready, Region, Variant,
};

/// The variant of a device without one: everything is the base's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain;

impl Variant for Plain {
    fn outcome(&self) -> Outcome {
        Outcome::Serve
    }

    fn region(&self, _: RegionIndex) -> Region<'_> {
        Region::Base
    }

    fn config_segment(&self, _: Direction, _: u64, len: u64) -> ConfigSegment {
        ConfigSegment {
            len,
            owner: ConfigOwner::Base,
        }
    }

    fn config_load(&self, _: u64, _: &mut [u8]) {}

    fn config_store(&self, _: u64, _: &[u8]) {}

    fn event(&self, _: Event) {}

    fn needs_bar(&self, _: BarIndex) -> bool {
        false
    }
}

/// The core alone decides on its devices.
impl Ready for Plain {}
