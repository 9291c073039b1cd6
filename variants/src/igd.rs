//! Intel's integrated graphics devices: the OpRegion and the bridges of the platform as
//! device-specific regions, and a register of the OpRegion's address that the VM may write.
//!
//! A guest's firmware copies the OpRegion into the guest's memory, writes the copy's address to the
//! register, and reads the ids of the bridges.
//!
//! Source: the behaviour of Linux 7.2 `drivers/vfio/pci/vfio_pci_igd.c`, which belongs to plain
//! vfio-pci. The differences are in docs/igd.md.

mod bridge;
mod opregion;

use varia_spec::{
    intel,
    vfio::{RegionIndex, RegionType},
};
use varia_variant::{
    Answers, BarIndex, Composed, ConfigOwner, ConfigSegment, Decline, Direction, Environment,
    Event, Outcome, Plan, Probe, Question, Ready, Refusal, Region, Variant, config::VirtualDword,
};

use bridge::{Bridge, HOST, LPC};
use opregion::OpRegion;

/// Class byte of display controllers, which selects the variant for Intel's devices.
pub const BASE_CLASS: u8 = 0x03;

/// Index of the first region.
const FIRST: u32 = RegionIndex::COUNT;

/// The variant's state.
#[derive(Debug)]
pub struct Igd {
    plan: Plan<Served>,
}

#[derive(Debug)]
struct Served {
    opregion: OpRegion,
    host: Bridge,
    lpc: Bridge,
    /// Address of the OpRegion in the VM.
    asls: VirtualDword,
}

/// Reason why the device is not served.
enum Not {
    Declined(Decline),
    Refused(Refusal),
}

impl Served {
    fn new(answers: &Answers) -> Result<Self, Not> {
        let (opregion, asls) = OpRegion::of(answers)?;
        Ok(Self {
            opregion,
            host: Bridge::of(&HOST, answers)?,
            lpc: Bridge::of(&LPC, answers)?,
            asls: VirtualDword::new(u64::from(intel::ASLS), asls),
        })
    }
}

/// Type of a region of Intel's.
const fn region_type(subtype: u32) -> RegionType {
    RegionType::of_vendor(intel::VENDOR_ID, subtype)
}

impl Probe for Igd {
    const QUESTIONS: &'static [Question] = &[
        opregion::ASLS,
        opregion::SIGNATURE[0],
        opregion::SIGNATURE[1],
        opregion::SIZE_AND_VERSION,
        opregion::RVDA,
        opregion::RVDS,
        HOST.id(),
        HOST.class(),
        HOST.size(),
        LPC.id(),
        LPC.class(),
        LPC.size(),
    ];

    fn probe(answers: &Answers, environment: Environment) -> Self {
        let plan = match Served::new(answers) {
            Ok(served) => Plan::Serve(served),
            Err(Not::Declined(reason)) => Plan::declined(reason, environment),
            Err(Not::Refused(refusal)) => Plan::Fail(refusal),
        };
        Self { plan }
    }
}

impl Variant for Igd {
    fn outcome(&self) -> Outcome {
        self.plan.outcome()
    }

    fn region(&self, index: RegionIndex) -> Region<'_> {
        let Some(served) = self.plan.served() else {
            return Region::Base;
        };
        let region: &dyn Composed = match index.0.checked_sub(FIRST) {
            Some(0) => &served.opregion,
            Some(1) => &served.host,
            Some(2) => &served.lpc,
            _ => return Region::Base,
        };
        Region::Composed(region)
    }

    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        let windows = self.plan.served().map(|served| served.asls.window());
        ConfigSegment::split_all(offset, len, windows.into_iter(), ConfigOwner::Keep)
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        if let Plan::Serve(served) = &self.plan {
            served.asls.load(offset, out);
        }
    }

    fn config_store(&self, offset: u64, data: &[u8]) {
        if let Plan::Serve(served) = &self.plan {
            served.asls.store(offset, data);
        }
    }

    /// A new user finds the host's address; a reset changes nothing.
    fn event(&self, event: Event) {
        if let (Plan::Serve(served), Event::Opened) = (&self.plan, event) {
            served.asls.restart();
        }
    }

    fn needs_bar(&self, _: BarIndex) -> bool {
        false
    }
}

/// A graphics device is always ready.
impl Ready for Igd {}

#[cfg(test)]
mod tests;
