//! NVLink2 on POWER9: a GPU whose memory the processor reaches over its links, and the bridges of
//! these links, each with one device-specific region.
//!
//! A GPU and its bridges are functions of their own, with an entry of the table for each half. User
//! space finds those that belong together by the target address, a capability of each region.
//!
//! Source: the behaviour of Linux 5.12 `drivers/vfio/pci/vfio_pci_nvlink2.c`, which was a part of
//! vfio-pci until its removal in 5.13. The differences are in docs/variants.md.

pub mod gpu;
pub mod link;

use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{
    Answer, Answers, BarIndex, ConfigOwner, ConfigSegment, Decline, Direction, Environment, Event,
    MemoryRegion, MissingFact, Outcome, Plan, Question, Ready, Refusal, Region, Variant, WrongFact,
};

/// Index of the region.
const REGION: RegionIndex = RegionIndex(RegionIndex::COUNT);

/// A device without its links, for a message.
const WITHOUT_LINKS: &str = "served as a plain PCI device without its NVLinks; ";

/// The variant's state, of either half.
#[derive(Debug)]
pub struct Nvlink2 {
    plan: Plan<MemoryRegion>,
}

/// Reason why a device is not served with its links.
enum Not {
    Declined(Decline),
    Refused(Refusal),
}

/// The answer, without which the base serves the device alone. A property of another size is refused.
fn wanted(answer: Answer, fact: &'static str) -> Result<u64, Not> {
    match answer {
        Err(Errno::EOVERFLOW) => needed(answer, fact, Errno::EINVAL),
        answer => answer.map_err(|errno| {
            Not::Declined(Decline::Platform(MissingFact {
                fact,
                errno,
                without: WITHOUT_LINKS,
                remedy: "use a host whose firmware names the links in its device tree",
            }))
        }),
    }
}

/// The answer, without which the probe fails with `returns`.
fn needed(answer: Answer, fact: &'static str, returns: Errno) -> Result<u64, Not> {
    let wrong = |errno| {
        Not::Refused(Refusal::Platform(WrongFact::Unreadable {
            fact,
            errno,
            returns,
        }))
    };
    answer.map_err(wrong)
}

impl Nvlink2 {
    /// The half of the GPU, from the answers to [`gpu::QUESTIONS`].
    pub fn gpu(answers: &Answers, environment: Environment) -> Self {
        Self::of(gpu::region(answers, environment.page), environment)
    }

    /// The half of a bridge, from the answers to [`link::QUESTIONS`].
    pub fn bridge(answers: &Answers, environment: Environment) -> Self {
        Self::of(link::region(answers, environment.page), environment)
    }

    fn of(region: Result<MemoryRegion, Not>, environment: Environment) -> Self {
        let plan = match region {
            Ok(_) if environment.honour_memory_enable => Plan::Fail(Refusal::NothingToHonour),
            Ok(region) => Plan::Serve(region),
            Err(Not::Declined(reason)) => Plan::declined(reason, environment),
            Err(Not::Refused(refusal)) => Plan::Fail(refusal),
        };
        Self { plan }
    }
}

/// Question for an integer of 32 bits in a property.
const fn word(node: &'static [varia_variant::TreeStep], property: &'static str) -> Question {
    Question::TreeWord(varia_variant::TreePlace {
        node,
        property,
        index: 0,
        count: None,
    })
}

/// Question for the integer of 64 bits with this index in a property.
const fn doubleword(
    node: &'static [varia_variant::TreeStep],
    property: &'static str,
    index: u16,
    count: Option<u16>,
) -> Question {
    Question::TreeDoubleword(varia_variant::TreePlace {
        node,
        property,
        index,
        count,
    })
}

impl Variant for Nvlink2 {
    fn outcome(&self) -> Outcome {
        self.plan.outcome()
    }

    fn region(&self, index: RegionIndex) -> Region<'_> {
        match self.plan.served() {
            Some(region) if index == REGION => Region::Memory(*region),
            _ => Region::Base,
        }
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

/// The links are trained before firmware hands the device over.
impl Ready for Nvlink2 {}

#[cfg(test)]
mod tests;
