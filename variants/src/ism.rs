//! Internal shared memory of s390 (ISM): a function whose BARs are reached by store blocks, each of
//! which the device takes as one message, and whose BAR0 has 256 TiB.
//!
//! So a write is one store for one request and is never split, and the positions of regions leave 48
//! bits for the offset in a region (the table's `offset_shift`). Source: the behaviour of Linux 7.3 `drivers/vfio/pci/ism/main.c`;
//! the differences are in docs/variants.md.

use varia_spec::{Errno, vfio::RegionIndex, zpci::MAX_STORE};
use varia_variant::{
    Answers, BarIndex, BarSize, ConfigOwner, ConfigSegment, Decline, Direction, Environment, Event,
    MissingFact, Outcome, Plan, Probe, Question, Ready, Refusal, Region, RegisterAccess, Registers,
    Target, Variant, WrongFact,
};

/// The variant's state.
#[derive(Debug)]
pub struct Ism {
    plan: Plan<[Option<StoreBar>; 6]>,
}

/// A BAR that is reached by stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct StoreBar {
    bar: BarIndex,
    size: BarSize,
    /// Bytes of the longest store.
    longest: u64,
}

/// Size of the BAR with this index.
const fn bar_size(bar: BarIndex) -> Question {
    Question::BarSize(bar)
}

impl Probe for Ism {
    const QUESTIONS: &'static [Question] = &[
        Question::LongestStore,
        bar_size(BarIndex::BAR0),
        bar_size(BarIndex::BAR1),
        bar_size(BarIndex::BAR2),
        bar_size(BarIndex::BAR3),
        bar_size(BarIndex::BAR4),
        bar_size(BarIndex::BAR5),
    ];

    fn probe(answers: &Answers, environment: Environment) -> Self {
        let plan = match answers.to(Question::LongestStore) {
            Err(errno) => {
                let missing = Decline::Platform(MissingFact {
                    fact: "longest store of the function's group (imaxstbl)",
                    errno,
                    without: "served as a plain PCI device, whose stores are split; ",
                    remedy: "use a host of s390, or give the facts of its firmware",
                });
                Plan::declined(missing, environment)
            }
            Ok(1..=MAX_STORE) if environment.honour_memory_enable => {
                Plan::Fail(Refusal::NothingToHonour)
            }
            Ok(longest @ 1..=MAX_STORE) => Plan::Serve(bars(answers, longest)),
            Ok(value) => Plan::Fail(Refusal::Platform(WrongFact::Range {
                fact: "imaxstbl",
                value,
                least: 1,
                most: MAX_STORE,
            })),
        };
        Self { plan }
    }
}

/// The BARs that the function has.
fn bars(answers: &Answers, longest: u64) -> [Option<StoreBar>; 6] {
    let mut index = 0;
    [(); 6].map(|()| {
        let bar = BarIndex::new(index)?;
        index += 1;
        let size = answers.to(bar_size(bar)).ok()?;
        let size = BarSize::covering(size)?;
        Some(StoreBar { bar, size, longest })
    })
}

impl Registers for StoreBar {
    fn name(&self) -> &'static str {
        "store blocks"
    }

    fn size(&self) -> BarSize {
        self.size
    }

    fn access(&self, access: RegisterAccess) -> Result<Target, Errno> {
        let room = self.size.get().checked_sub(access.offset);
        let room = room.filter(|room| *room > 0).ok_or(Errno::EINVAL)?;
        let len = access.len.min(room);
        // a store does not cross a page, whose size the longest store has
        let left_in_page = MAX_STORE - access.offset % MAX_STORE;
        match access.direction {
            Direction::Write if len > self.longest || len > left_in_page => Err(Errno::EINVAL),
            _ => Ok(Target::Whole {
                bar: self.bar,
                offset: access.offset,
                len,
            }),
        }
    }
}

impl Variant for Ism {
    fn outcome(&self) -> Outcome {
        self.plan.outcome()
    }

    /// Beside the BARs there is configuration space, and nothing else.
    fn region(&self, index: RegionIndex) -> Region<'_> {
        let Some(bars) = self.plan.served() else {
            return Region::Base;
        };
        if index == RegionIndex::CONFIG || index.0 >= RegionIndex::COUNT {
            return Region::Base;
        }
        let bar = bars.get(index.0 as usize).and_then(Option::as_ref);
        bar.map_or(Region::Absent, |bar| Region::Registers(bar))
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

/// There is nothing to wait for.
impl Ready for Ism {}

#[cfg(test)]
mod tests;
