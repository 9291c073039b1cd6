//! The decisions against the semantics of Linux 7.2's driver, value by value.

mod accesses;
mod layouts;
mod outcomes;
mod waits;

use std::{format, vec, vec::Vec};

use varia_spec::nvidia::dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM;
use varia_variant::{
    Answer, Begin, Fault, FaultRequest, MemoryType, Millis, MmapRequest, Monotonic, PageFrame,
    PageShift, SegmentKind,
};

use super::*;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const BASE: u64 = 0x42_0000_0000;
const ABSENT: Answer = Err(Errno::ENOENT);
const BAR0: Answer = Ok(16 << 20);
const FIXED: Answer = Ok(MIG_SUPPORTED_WITH_CACHED_RESMEM as u64);

const ENVIRONMENT: Environment = Environment::new(PageShift::KIB_4);

/// Answers of a device to the variant's questions.
#[derive(Clone, Copy)]
struct Device {
    base: Answer,
    size: Answer,
    cxl_dvsec: Answer,
    bitmap: Answer,
    bar0: Answer,
    bar2: Answer,
}

/// 96 GiB with the MIG bug, and a BAR0.
const GH200: Device = Device {
    base: Ok(BASE),
    size: Ok(96 * GIB),
    cxl_dvsec: ABSENT,
    bitmap: ABSENT,
    bar0: BAR0,
    bar2: Ok(128 * GIB),
};

impl Device {
    fn probe_in(self, environment: Environment) -> NvgraceGpu {
        let answers = Answers::collect(NvgraceGpu::QUESTIONS, |question| match question {
            MEM_BASE => self.base,
            MEM_SIZE => self.size,
            CXL_DVSEC => self.cxl_dvsec,
            BITMAP => self.bitmap,
            BAR0_SIZE => self.bar0,
            BAR2_SIZE => self.bar2,
            other => panic!("{other:?}"),
        });
        NvgraceGpu::probe(&answers, environment)
    }

    fn probe(self) -> NvgraceGpu {
        self.probe_in(ENVIRONMENT)
    }
}

fn gpu(size: u64, bitmap: Answer) -> NvgraceGpu {
    Device {
        size: Ok(size),
        bitmap,
        ..GH200
    }
    .probe()
}

fn cxl_gpu() -> NvgraceGpu {
    Device {
        cxl_dvsec: Ok(0x300),
        bitmap: FIXED,
        bar0: ABSENT,
        ..GH200
    }
    .probe()
}

/// (length, BAR size) of usemem and resmem.
type Sizes = ((u64, u64), Option<(u64, u64)>);

fn sizes(gpu: &NvgraceGpu) -> Sizes {
    let of = |region: &varia_variant::MemoryRegion| (region.length(), region.size().0);
    let layout = gpu.layout().expect("a served device");
    (of(&layout.usemem), layout.resmem.as_ref().map(of))
}

/// Runs one operation's wait; `registers(ms)` gives the registers' values at a time. Returns the
/// result, the time it took in ms and the times of the polls in s.
fn run(
    gpu: &NvgraceGpu,
    memory_enabled: bool,
    registers: impl Fn(u64) -> [u32; 2],
) -> (Result<(), Errno>, u64, Vec<u64>) {
    let mut wait = Wait::default();
    let (mut now, mut polls) = (0, vec![]);
    loop {
        let sample = Sample {
            now: Monotonic(5_000_000 + now),
            memory_enabled,
        };
        let (generation, _) = match gpu.ready_before(&mut wait, sample) {
            Before::Ready => return (Ok(()), now, polls),
            Before::Failed(errno) => return (Err(errno), now, polls),
            Before::Poll {
                generation,
                registers,
            } => (generation, registers),
        };
        polls.push(now / 1000);
        assert!(polls.len() < 1000, "it waits for ever");
        match gpu.ready_after(&mut wait, generation, registers(now), sample) {
            After::Ready => return (Ok(()), now, polls),
            After::Failed(errno) => return (Err(errno), now, polls),
            After::Sleep(Millis(ms)) => now += ms,
        }
    }
}
