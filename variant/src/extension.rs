//! A layer over any variant.
//!
//! An extension adds something that does not depend on the device: a capability in configuration
//! space or in the device's info, a region, a feature. An extension sees the results of the layers below it, changes some and passes
//! on the rest. [`Extended`] is a variant again, so that extensions can be stacked.

use varia_spec::vfio::{DeviceCapability, RegionIndex};

use crate::{
    After, BarIndex, Before, ConfigOwner, ConfigSegment, Describe, Direction, Event, Feature,
    Generation, Outcome, Ready, Region, Sample, Variant, Wait,
    ready::{Status, Values},
};

/// Decisions of an extension; by default those of the layers below.
pub trait Extension {
    /// Kind of the region with this index; `below` is the result of the layers below.
    fn region<'a>(&'a self, index: RegionIndex, below: Region<'a>) -> Region<'a> {
        let _ = index;
        below
    }

    /// Owner of the first bytes of a configuration access, as [`Variant::config_segment`];
    /// [`ConfigOwner::Base`] stands for the layers below.
    fn config_segment(&self, direction: Direction, offset: u64, len: u64) -> ConfigSegment {
        let _ = (direction, offset);
        ConfigSegment {
            len,
            owner: ConfigOwner::Base,
        }
    }

    /// Replaces the bytes at `offset` that the extension owns; `out` holds the bytes of the layers
    /// below.
    fn config_load(&self, offset: u64, out: &mut [u8]) {
        let _ = (offset, out);
    }

    /// Keeps the bytes at `offset` that the extension owns.
    fn config_store(&self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Handles an event of the device.
    fn event(&self, event: Event) {
        let _ = event;
    }

    /// Passes each capability that the extension adds to the device's info to `add`.
    fn capabilities(&self, add: &mut dyn FnMut(DeviceCapability)) {
        let _ = add;
    }

    /// Passes each feature that the extension adds to `add`.
    fn features(&self, add: &mut dyn FnMut(Feature)) {
        let _ = add;
    }
}

/// An extension that was chosen, or none.
impl<E: Extension> Extension for Option<E> {
    fn region<'a>(&'a self, index: RegionIndex, below: Region<'a>) -> Region<'a> {
        match self {
            Some(extension) => extension.region(index, below),
            None => below,
        }
    }

    fn config_segment(&self, direction: Direction, offset: u64, len: u64) -> ConfigSegment {
        match self {
            Some(extension) => extension.config_segment(direction, offset, len),
            None => ConfigSegment {
                len,
                owner: ConfigOwner::Base,
            },
        }
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        if let Some(extension) = self {
            extension.config_load(offset, out);
        }
    }

    fn config_store(&self, offset: u64, data: &[u8]) {
        if let Some(extension) = self {
            extension.config_store(offset, data);
        }
    }

    fn event(&self, event: Event) {
        if let Some(extension) = self {
            extension.event(event);
        }
    }

    fn capabilities(&self, add: &mut dyn FnMut(DeviceCapability)) {
        if let Some(extension) = self {
            extension.capabilities(add);
        }
    }

    fn features(&self, add: &mut dyn FnMut(Feature)) {
        if let Some(extension) = self {
            extension.features(add);
        }
    }
}

/// A variant with an extension over it.
#[derive(Clone, Copy, Debug)]
pub struct Extended<V, E> {
    variant: V,
    extension: E,
}

impl<V, E> Extended<V, E> {
    /// `extension` over `variant`.
    pub const fn new(variant: V, extension: E) -> Self {
        Self { variant, extension }
    }

    /// The variant below.
    pub const fn variant(&self) -> &V {
        &self.variant
    }

    /// The extension.
    pub const fn extension(&self) -> &E {
        &self.extension
    }
}

impl<V: Variant, E: Extension> Variant for Extended<V, E> {
    fn outcome(&self) -> Outcome {
        self.variant.outcome()
    }

    fn region(&self, index: RegionIndex) -> Region<'_> {
        self.extension.region(index, self.variant.region(index))
    }

    /// The segment ends where the segment of either layer ends. Bytes that the extension keeps
    /// reach no layer below; other bytes reach the base unless the variant keeps them.
    fn config_segment(&self, direction: Direction, offset: u64, len: u64) -> ConfigSegment {
        let above = self.extension.config_segment(direction, offset, len);
        let below = self.variant.config_segment(direction, offset, above.len);
        let owner = match (above.owner, below.owner) {
            (ConfigOwner::Keep, _) | (_, ConfigOwner::Keep) => ConfigOwner::Keep,
            (ConfigOwner::Base, ConfigOwner::Base) => ConfigOwner::Base,
            _ => ConfigOwner::Both,
        };
        ConfigSegment {
            len: below.len,
            owner,
        }
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        self.variant.config_load(offset, out);
        self.extension.config_load(offset, out);
    }

    fn config_store(&self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let len = rest.len() as u64;
            let segment = self.extension.config_segment(Direction::Write, at, len);
            let count = usize::try_from(segment.len).unwrap_or(rest.len()).max(1);
            let Some((now, later)) = rest.split_at_checked(count) else {
                return;
            };
            if segment.owner != ConfigOwner::Base {
                self.extension.config_store(at, now);
            }
            if segment.owner != ConfigOwner::Keep {
                self.variant.config_store(at, now);
            }
            at = at.saturating_add(segment.len);
            rest = later;
        }
    }

    fn event(&self, event: Event) {
        self.variant.event(event);
        self.extension.event(event);
    }

    fn needs_bar(&self, bar: BarIndex) -> bool {
        self.variant.needs_bar(bar)
    }
}

impl<V: Ready, E> Ready for Extended<V, E> {
    fn ready_before(&self, wait: &mut Wait, sample: Sample) -> Before {
        self.variant.ready_before(wait, sample)
    }

    fn ready_after(
        &self,
        wait: &mut Wait,
        generation: Generation,
        values: Values,
        sample: Sample,
    ) -> After {
        self.variant.ready_after(wait, generation, values, sample)
    }

    fn readiness(&self) -> Option<Status> {
        self.variant.readiness()
    }
}

/// Capabilities and features of the layers below come first.
impl<V: Describe, E: Extension> Describe for Extended<V, E> {
    fn capabilities(&self, add: &mut dyn FnMut(DeviceCapability)) {
        self.variant.capabilities(add);
        self.extension.capabilities(add);
    }

    fn features(&self, add: &mut dyn FnMut(Feature)) {
        self.variant.features(add);
        self.extension.features(add);
    }
}
