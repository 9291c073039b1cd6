//! NVIDIA GPUs with CPU-coherent memory outside every physical BAR, presented as BAR4 (`usemem`,
//! cached) and, where the MIG bug asks for it, BAR2 (`resmem`, uncached).
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
    vfio::RegionIndex,
};
use varia_variant::{
    After, Answers, BarIndex, Before, Bytes, ConfigOwner, ConfigSegment, Decline, Direction,
    Environment, Event, Generation, HostPhys, Outcome, Plan, Probe, Question, Ready, Refusal,
    Region, Sample, Variant, Wait,
    config::FakeBar,
    ready::{Status, Values},
};

use layout::Layout;
pub use ready::Method;
use ready::Readiness;

/// `resmem` is region 2, so BAR2 and BAR3.
pub const RESMEM_REGION_INDEX: RegionIndex = RegionIndex::BAR2;

/// `usemem` is region 4, so BAR4 and BAR5.
pub const USEMEM_REGION_INDEX: RegionIndex = RegionIndex::BAR4;

/// Configuration offsets of the registers of both: start, and end (exclusive).
const BARS: (u64, u64) = (
    header::BASE_ADDRESS_2 as u64,
    header::BASE_ADDRESS_4 as u64 + 8,
);

/// The variant's state: what probing decided, and what changes afterwards in atomics.
#[derive(Debug)]
pub struct NvgraceGpu {
    plan: Plan<Served>,
    readiness: Readiness,
    honour_memory_enable: bool,
}

#[derive(Debug)]
struct Served {
    layout: Layout,
    usemem_bar: FakeBar,
    resmem_bar: Option<FakeBar>,
}

impl Served {
    fn new(layout: Layout) -> Self {
        let pair = |start, region: &varia_variant::MemoryRegion| {
            FakeBar::memory64(u64::from(start), region.size())
        };
        Self {
            usemem_bar: pair(header::BASE_ADDRESS_4, &layout.usemem),
            resmem_bar: layout
                .resmem
                .as_ref()
                .map(|region| pair(header::BASE_ADDRESS_2, region)),
            layout,
        }
    }
}

impl NvgraceGpu {
    /// The layout, if the device is served.
    pub fn layout(&self) -> Option<&Layout> {
        self.plan.served().map(|served| &served.layout)
    }

    /// The fake BARs in ascending order of their configuration offset.
    fn bars(&self) -> impl Iterator<Item = &FakeBar> {
        let served = self.plan.served();
        let resmem = served.and_then(|served| served.resmem_bar.as_ref());
        let usemem = served.map(|served| &served.usemem_bar);
        [resmem, usemem].into_iter().flatten()
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
    const QUESTIONS: &'static [Question] = &[MEM_BASE, MEM_SIZE, CXL_DVSEC, BITMAP, BAR0_SIZE];

    fn probe(answers: &Answers, environment: Environment) -> Self {
        let cxl_dvsec = answers.to(CXL_DVSEC).ok();
        let cxl_dvsec = cxl_dvsec.and_then(|offset| u16::try_from(offset).ok());
        let bitmap = answers.to(BITMAP).unwrap_or(0);
        let mig_bug = bitmap & u64::from(nvidia::dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM) == 0;
        let method = Method::choose(cxl_dvsec);
        let bar0 = answers.to(BAR0_SIZE).ok();
        let plan = match memory(answers) {
            _ if method == Method::Bar0 && bar0 < Some(nvidia::bar0::MIN_LEN) => {
                Plan::Fail(bar0.map_or(Refusal::NoBar0, |size| Refusal::Bar0TooSmall {
                    size: Bytes(size),
                    end: nvidia::bar0::MIN_LEN,
                }))
            }
            Err(reason) => Plan::declined(reason, environment),
            Ok((base, size)) => match Layout::new(base, size, mig_bug, environment.page) {
                Ok(layout) => Plan::Serve(Served::new(layout)),
                Err(refusal) => Plan::Fail(refusal),
            },
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
        let Some(layout) = self.layout() else {
            return Region::Base;
        };
        match index {
            USEMEM_REGION_INDEX => Region::Memory(layout.usemem),
            RESMEM_REGION_INDEX => layout.resmem.map_or(Region::Base, Region::Memory),
            _ => Region::Base,
        }
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
