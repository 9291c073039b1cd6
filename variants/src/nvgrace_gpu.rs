//! NVIDIA GPUs with CPU-coherent memory outside every physical BAR, presented as BAR4 (`usemem`,
//! cached) and, where the MIG bug asks for it, BAR2 (`resmem`, uncached); or in another layout
//! (docs/layouts.md).
//!
//! Source: the behaviour of Linux 7.2 `drivers/vfio/pci/nvgrace-gpu/main.c`. Deliberate
//! differences have names (`reset-generation`, `unlocked-poll`, `resmem-count`,
//! `whole-config-access`, `shared-only`, `fallback-reason` and others) and are listed in
//! docs/nvgrace-gpu.md.

pub mod layout;
pub mod ready;

use varia_spec::{
    Errno, nvidia,
    pci::{ext_cap::cxl, header},
    vfio::{RegionIndex, RegionType},
};
use varia_variant::{
    After, Answers, BarIndex, Before, Bytes, ConfigOwner, ConfigSegment, Decline, Direction,
    Environment, Event, Generation, HostPhys, MemoryLayout, Outcome, Plan, Presented, Probe,
    Question, Ready, Refusal, Region, Sample, Variant, Wait,
    config::FakeBar,
    ready::{Status, Values},
};

use layout::Layout;
pub use ready::Method;
use ready::Readiness;

/// Configuration offsets of the registers of both: start, and end (exclusive).
const BARS: (u64, u64) = (
    header::BASE_ADDRESS_2 as u64,
    header::BASE_ADDRESS_4 as u64 + 8,
);

/// The variant's state: what probing decided, and what changes afterwards in atomics.
#[derive(Debug)]
pub struct NvgraceGpu {
    plan: Plan<Presented>,
    readiness: Readiness,
    honour_memory_enable: bool,
}

/// Types of the device-specific regions of `usemem` and `resmem`.
const TYPES: [RegionType; 2] = [
    RegionType::of_vendor(nvidia::VENDOR_ID, nvidia::region::COHERENT_MEMORY),
    RegionType::of_vendor(nvidia::VENDOR_ID, nvidia::region::UNCACHED_MEMORY),
];

impl NvgraceGpu {
    /// The layout, if the device is served.
    pub fn layout(&self) -> Option<Layout> {
        self.plan.served().map(|memory| Layout {
            usemem: *memory.cached(),
            resmem: memory.uncached().copied(),
        })
    }

    /// The fake BARs in ascending order of their configuration offset.
    fn bars(&self) -> impl Iterator<Item = &FakeBar> {
        self.plan.served().into_iter().flat_map(Presented::bars)
    }

    /// Readiness method.
    pub fn method(&self) -> Method {
        self.readiness.method()
    }
}

/// Base of the coherent memory, from the firmware.
const MEM_BASE: Question = Question::Property(nvidia::property::MEM_BASE_PA);

/// Size of the coherent memory, from the firmware.
const MEM_SIZE: Question = Question::Property(nvidia::property::MEM_SIZE);

/// Offset of the CXL Device DVSEC, which only a device with the CXL method has.
const CXL_DVSEC: Question = Question::DvsecOffset {
    vendor: cxl::VENDOR_ID,
    id: cxl::DEVICE,
};

/// Bits of NVIDIA's DVSEC, one of which says that the device is without the MIG bug.
const BITMAP: Question = Question::DvsecWord {
    vendor: nvidia::VENDOR_ID,
    id: nvidia::dvsec::ID,
    offset: nvidia::dvsec::BITMAP,
};

/// Size of BAR0, in which the readiness registers are.
const BAR0_SIZE: Question = Question::BarSize(BarIndex::BAR0);

/// Size of the physical BAR2, which covers the memory in one of the layouts.
const BAR2_SIZE: Question = Question::BarSize(BarIndex::BAR2);

/// Base and size from the firmware; any failure makes the base serve the device alone.
fn memory(answers: &Answers) -> Result<(HostPhys, Bytes), Decline> {
    let base = answers.property(nvidia::property::MEM_BASE_PA)?;
    let size = answers.property(nvidia::property::MEM_SIZE)?;
    if size == 0 {
        Err(Decline::LinkDown)
    } else {
        Ok((HostPhys(base), Bytes(size)))
    }
}

impl Probe for NvgraceGpu {
    const QUESTIONS: &'static [Question] =
        &[MEM_BASE, MEM_SIZE, CXL_DVSEC, BITMAP, BAR0_SIZE, BAR2_SIZE];

    fn probe(answers: &Answers, environment: Environment) -> Self {
        let cxl_dvsec = answers.to(CXL_DVSEC).ok();
        let cxl_dvsec = cxl_dvsec.and_then(|offset| u16::try_from(offset).ok());
        let bitmap = answers.to(BITMAP).unwrap_or(0);
        let mig_bug = bitmap & u64::from(nvidia::dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM) == 0;
        let method = Method::choose(cxl_dvsec);
        let bar0 = answers.to(BAR0_SIZE).ok();
        let form = environment.layout;
        let plan = match memory(answers) {
            _ if method == Method::Bar0 && bar0 < Some(nvidia::bar0::MIN_LEN) => {
                Plan::Fail(bar0.map_or(Refusal::NoBar0, |size| Refusal::Bar0TooSmall {
                    size: Bytes(size),
                    end: nvidia::bar0::MIN_LEN,
                }))
            }
            Err(reason) => Plan::declined(reason, environment),
            Ok(_) if environment.honour_memory_enable && form == MemoryLayout::Region => {
                Plan::Fail(Refusal::NoBarToHonour)
            }
            Ok((base, size)) => {
                let bar2 = Bytes(answers.to(BAR2_SIZE).unwrap_or(0));
                let layout = Layout::new(base, size, mig_bug, environment.page);
                match layout.and_then(|Layout { usemem, resmem }| {
                    Presented::new(form, (usemem, resmem), TYPES, bar2)
                }) {
                    Ok(presented) => Plan::Serve(presented),
                    Err(refusal) => Plan::Fail(refusal),
                }
            }
        };
        Self {
            plan,
            readiness: Readiness::new(method),
            honour_memory_enable: environment.honour_memory_enable,
        }
    }
}

impl Variant for NvgraceGpu {
    fn outcome(&self) -> Outcome {
        self.plan.outcome()
    }

    fn region(&self, index: RegionIndex) -> Region<'_> {
        let memory = self.plan.served();
        memory.map_or(Region::Base, |memory| memory.region(index))
    }

    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        if offset >= BARS.1 || offset.saturating_add(len) <= BARS.0 {
            // Most accesses: the plan need not be read.
            let owner = ConfigOwner::Base;
            return ConfigSegment { len, owner };
        }
        let windows = self.bars().map(FakeBar::window);
        ConfigSegment::split_all(offset, len, windows, ConfigOwner::Keep)
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        self.bars().for_each(|bar| bar.load(offset, out));
    }

    fn config_store(&self, offset: u64, data: &[u8]) {
        self.bars().for_each(|bar| bar.store(offset, data));
    }

    fn event(&self, event: Event) {
        match event {
            Event::Opened | Event::ResetRequested => {
                self.bars().for_each(FakeBar::clear);
            }
            Event::ResetDone => self.readiness.reset_done(),
        }
    }

    /// BAR0 holds the readiness registers; the original driver needs BAR0 with CXL too. Without its
    /// memory a device has nothing to poll for (fallback-without-bar).
    fn needs_bar(&self, bar: BarIndex) -> bool {
        bar == BarIndex::BAR0 && self.plan.served().is_some()
    }
}

impl Ready for NvgraceGpu {
    fn ready_before(&self, wait: &mut Wait, sample: Sample) -> Before {
        // A refused device is not waited for.
        if matches!(self.plan, Plan::Fail(_)) {
            return Before::Ready;
        }
        if self.honour_memory_enable && !sample.memory_enabled {
            return Before::Failed(Errno::EIO);
        }
        self.readiness.before(wait, sample)
    }

    fn ready_after(
        &self,
        wait: &mut Wait,
        generation: Generation,
        values: Values,
        sample: Sample,
    ) -> After {
        self.readiness.after(wait, generation, values, sample)
    }

    fn readiness(&self) -> Option<Status> {
        Some(self.readiness.status())
    }
}

#[cfg(test)]
mod tests;
