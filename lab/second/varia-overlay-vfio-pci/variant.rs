// SPDX-License-Identifier: GPL-2.0-only
//! The variant of `varia-overlay-vfio-pci.ko`: another subsystem id, and nothing else.
#![no_std]
#![forbid(unsafe_code)]

use varia_spec::{pci::header, vfio::RegionIndex};
use varia_variant::{
    Answers, BarIndex, ConfigOwner, ConfigSegment, Direction, Environment, Event, Outcome, Probe, Question,
    Ready, Region, Variant, config::FixedRegister,
};

/// What a user sees as the subsystem id.
const OVERLAY: FixedRegister = FixedRegister::word(header::SUBSYSTEM_ID as u64, 0xcafe);

/// It has no state.
#[derive(Debug)]
pub struct Served;

impl Probe for Served {
    const QUESTIONS: &'static [Question] = &[];

    fn probe(_: &Answers, _: Environment) -> Self {
        Self
    }
}

impl Ready for Served {}

impl Variant for Served {
    fn outcome(&self) -> Outcome {
        Outcome::Serve
    }

    fn region(&self, _: RegionIndex) -> Region<'_> {
        Region::Base
    }

    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        let windows = [OVERLAY.window()].into_iter();
        ConfigSegment::split_all(offset, len, windows, ConfigOwner::Keep)
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        OVERLAY.load(offset, out);
    }

    fn config_store(&self, _: u64, _: &[u8]) {}

    fn event(&self, _: Event) {}

    fn needs_bar(&self, _: BarIndex) -> bool {
        false
    }
}
