//! The decisions against the semantics of Linux 7.2's driver, value by value.

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

const ENVIRONMENT: Environment = Environment {
    page: PageShift::KIB_4,
    honour_memory_enable: false,
    strict: false,
};

/// Answers of a device to the variant's questions.
#[derive(Clone, Copy)]
struct Device {
    base: Answer,
    size: Answer,
    cxl_dvsec: Answer,
    bitmap: Answer,
    bar0: Answer,
}

/// 96 GiB with the MIG bug, and a BAR0.
const GH200: Device = Device {
    base: Ok(BASE),
    size: Ok(96 * GIB),
    cxl_dvsec: ABSENT,
    bitmap: ABSENT,
    bar0: BAR0,
};

impl Device {
    fn probe_in(self, environment: Environment) -> NvgraceGpu {
        let answers = Answers::collect(NvgraceGpu::QUESTIONS, |question| match question {
            MEM_BASE => self.base,
            MEM_SIZE => self.size,
            CXL_DVSEC => self.cxl_dvsec,
            BITMAP => self.bitmap,
            BAR0_SIZE => self.bar0,
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
    let of = |region: &varia_variant::MemoryRegion| (region.length(), region.size().get());
    let layout = gpu.layout().expect("a served device");
    (of(&layout.usemem), layout.resmem.as_ref().map(of))
}

#[test]
fn layouts_around_every_rounding_edge() {
    let cases: &[(u64, Answer, Sizes)] = &[
        (96 * GIB, ABSENT, ((95 * GIB, 128 * GIB), Some((GIB, GIB)))),
        (
            96 * GIB + 300 * MIB,
            ABSENT,
            ((95 * GIB, 128 * GIB), Some((GIB + 300 * MIB, 2 * GIB))),
        ),
        (
            65 * GIB + 100 * MIB,
            ABSENT,
            ((64 * GIB, 128 * GIB), Some((GIB + 100 * MIB, 2 * GIB))),
        ),
        (65 * GIB, ABSENT, ((64 * GIB, 64 * GIB), Some((GIB, GIB)))),
        (
            65 * GIB - 4096,
            ABSENT,
            (
                (64 * GIB - 512 * MIB, 64 * GIB),
                Some((GIB + 512 * MIB - 4096, 2 * GIB)),
            ),
        ),
        (
            GIB + 512 * MIB,
            ABSENT,
            ((512 * MIB, 512 * MIB), Some((GIB, GIB))),
        ),
        (
            GIB + 512 * MIB + 4096,
            ABSENT,
            ((512 * MIB, GIB), Some((GIB + 4096, 2 * GIB))),
        ),
        (
            96 * GIB,
            Ok(0xfffe),
            ((95 * GIB, 128 * GIB), Some((GIB, GIB))),
        ),
        (184 * GIB, FIXED, ((184 * GIB, 256 * GIB), None)),
        (184 * GIB + 100, FIXED, ((184 * GIB + 100, 256 * GIB), None)),
        (128 * GIB, FIXED, ((128 * GIB, 128 * GIB), None)),
        (
            128 * GIB + 4096,
            FIXED,
            ((128 * GIB + 4096, 256 * GIB), None),
        ),
    ];
    for (size, bitmap, expected) in cases {
        let gpu = gpu(*size, *bitmap);
        assert_eq!(gpu.outcome(), Outcome::Serve, "size {size:#x}");
        assert_eq!(sizes(&gpu), *expected, "size {size:#x}");
    }
}

#[test]
fn resmem_follows_usemem_without_a_gap() {
    let gpu = gpu(96 * GIB + 300 * MIB, ABSENT);
    let layout = gpu.layout().expect("a served device");
    let resmem = layout.resmem.expect("resmem");
    assert_eq!(layout.usemem.base(), HostPhys(BASE));
    assert_eq!(resmem.base(), HostPhys(BASE + 95 * GIB));
    assert_eq!(layout.usemem.memory(), MemoryType::Cached);
    assert_eq!(resmem.memory(), MemoryType::WriteCombining);
}

#[test]
fn sizes_that_leave_nothing_fail_with_their_errno() {
    let refused = |base, size, bitmap, page, named: &str| {
        let environment = Environment {
            page,
            ..ENVIRONMENT
        };
        let device = Device {
            base: Ok(base),
            size: Ok(size),
            bitmap,
            ..GH200
        };
        match device.probe_in(environment).outcome() {
            Outcome::Fail(refusal) => {
                let text = format!("{refusal}");
                assert!(
                    text.contains(named),
                    "the message names the value {named}: {text}"
                );
                refusal.errno()
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    let (four, sixty_four) = (PageShift::KIB_4, PageShift::KIB_64);
    let below_reserve = "memory size 1023 MiB + 1023 KiB + 1023 bytes is smaller";
    let below_block = "memory size 1 GiB + 511 MiB + 1023 KiB + 1023 bytes leaves";
    for (base, size, bitmap, page, errno, named) in [
        (BASE, GIB - 1, ABSENT, four, Errno::EOVERFLOW, below_reserve),
        (
            BASE,
            GIB,
            ABSENT,
            four,
            Errno::EINVAL,
            "memory size 1 GiB leaves",
        ),
        (
            BASE,
            GIB + 512 * MIB - 1,
            ABSENT,
            four,
            Errno::EINVAL,
            below_block,
        ),
        (
            BASE,
            (1 << 40) + 4096,
            FIXED,
            four,
            Errno::EOVERFLOW,
            "1 TiB + 4 KiB",
        ),
        (
            BASE,
            u64::MAX,
            FIXED,
            four,
            Errno::EOVERFLOW,
            "memory of 16777215 TiB + ",
        ),
        (
            BASE + 2048,
            96 * GIB,
            FIXED,
            four,
            Errno::EINVAL,
            "base 0x4200000800 ",
        ),
        (
            BASE + 4096,
            96 * GIB,
            FIXED,
            sixty_four,
            Errno::EINVAL,
            "base 0x4200001000 ",
        ),
    ] {
        assert_eq!(refused(base, size, bitmap, page, named), errno, "{named}");
    }
}

#[test]
fn fallback_reason() {
    let probe = |base, size| {
        Device {
            base,
            size,
            ..GH200
        }
        .probe()
    };
    let name = nvidia::property::MEM_BASE_PA;
    let declined = probe(Err(Errno::EINVAL), Ok(GIB));
    let reason = Decline::Property {
        name,
        errno: Errno::EINVAL,
    };
    assert_eq!(declined.outcome(), Outcome::Decline(reason));
    assert!(format!("{reason}").contains("nvidia,gpu-mem-base-pa can't be read (EINVAL)"));

    let name = nvidia::property::MEM_SIZE;
    let declined = probe(Ok(BASE), Err(Errno::EOVERFLOW));
    let reason = Decline::Property {
        name,
        errno: Errno::EOVERFLOW,
    };
    assert_eq!(declined.outcome(), Outcome::Decline(reason));

    assert_eq!(
        probe(Ok(BASE), Ok(0)).outcome(),
        Outcome::Decline(Decline::LinkDown)
    );
}

#[test]
fn strict_refuses_what_would_be_declined() {
    let environment = Environment {
        strict: true,
        ..ENVIRONMENT
    };
    let whole = GH200.probe_in(environment);
    assert_eq!(whole.outcome(), Outcome::Serve);
    for (device, reason) in [
        (
            Device {
                base: ABSENT,
                ..GH200
            },
            Decline::Property {
                name: nvidia::property::MEM_BASE_PA,
                errno: Errno::ENOENT,
            },
        ),
        (
            Device {
                size: Ok(0),
                ..GH200
            },
            Decline::LinkDown,
        ),
    ] {
        assert_eq!(device.probe().outcome(), Outcome::Decline(reason));
        let strict = device.probe_in(environment);
        let refusal = Refusal::Strict(reason);
        assert_eq!(strict.outcome(), Outcome::Fail(refusal));
        assert_eq!(refusal.errno(), Errno::ENODEV);
        assert_eq!(run(&strict, true, |_| [0, 0]).1, 0, "nothing to wait for");
    }
}

#[test]
fn base_page_aligned() {
    let probe = |base| {
        Device {
            base: Ok(base),
            ..GH200
        }
        .probe()
    };
    let refusal = Refusal::BaseNotPageAligned {
        base: HostPhys(BASE + 2048),
        page: Bytes(4096),
    };
    assert_eq!(probe(BASE + 2048).outcome(), Outcome::Fail(refusal));
    assert_eq!(probe(BASE + 4096).outcome(), Outcome::Serve);
}

#[test]
fn bar_within_1_tib() {
    let refused = |size| match gpu(size, FIXED).outcome() {
        Outcome::Fail(refusal) => Some(refusal),
        _ => None,
    };
    assert_eq!(refused(1 << 40), None);
    let size = (1 << 40) + 4096;
    let length = Bytes(size);
    assert_eq!(refused(size), Some(Refusal::BarTooLarge { length }));
}

#[test]
fn bar0_holds_registers() {
    let outcome = |cxl_dvsec, bar0| {
        Device {
            cxl_dvsec,
            bar0,
            ..GH200
        }
        .probe()
        .outcome()
    };
    let refused = |bar0| match outcome(ABSENT, bar0) {
        Outcome::Fail(refusal) => Some((format!("{refusal}"), refusal.errno())),
        _ => None,
    };
    let (text, errno) = refused(ABSENT).expect("BAR0 is wanted");
    assert_eq!(errno, Errno::ENOMEM);
    assert!(text.contains("no BAR0"), "{text}");
    let (text, errno) = refused(Ok(0x2_0000)).expect("a register lies outside");
    assert_eq!(errno, Errno::ENXIO);
    assert!(
        text.contains("128 KiB") && text.contains("0x200c0"),
        "{text}"
    );
    assert_eq!(refused(Ok(0x200c0)), None);
    assert_eq!(
        outcome(Ok(0x300), ABSENT),
        Outcome::Serve,
        "CXL does not poll BAR0"
    );
    let refused = gpu(GIB, ABSENT);
    assert_eq!(run(&refused, true, |_| [0, 0]).1, 0, "nothing to wait for");
}

#[test]
fn a_declined_device_is_transparent() {
    let gpu = Device {
        base: ABSENT,
        size: ABSENT,
        ..GH200
    }
    .probe();
    for index in 0..9 {
        assert!(matches!(gpu.region(RegionIndex(index)), Region::Base));
    }
    let segment = ConfigSegment {
        len: 4096,
        owner: ConfigOwner::Base,
    };
    assert_eq!(gpu.config_segment(Direction::Write, 0, 4096), segment);
    gpu.config_store(0, &[0xff; 64]);
    let mut out = [0x55; 64];
    gpu.config_load(0, &mut out);
    assert_eq!(out, [0x55; 64]);
}

#[test]
fn fallback_without_bar() {
    let declined = Device {
        base: ABSENT,
        size: ABSENT,
        ..GH200
    };
    for (device, needs) in [(GH200, true), (declined, false)] {
        let gpu = device.probe();
        let needed = (0..6)
            .filter_map(BarIndex::new)
            .any(|bar| gpu.needs_bar(bar));
        assert_eq!(needed, needs, "{:?}", gpu.outcome());
        assert_eq!(gpu.needs_bar(BarIndex::BAR0), needs);
    }
}

#[test]
fn only_the_fake_bars_are_replaced() {
    let with_bug = gpu(96 * GIB, ABSENT);
    let without = gpu(184 * GIB, FIXED);
    for index in 0..12 {
        let index = RegionIndex(index);
        let expected = [
            (&with_bug, matches!(index.0, 2 | 4)),
            (&without, index.0 == 4),
        ];
        for (gpu, replaced) in expected {
            let memory = matches!(gpu.region(index), Region::Memory(_));
            assert_eq!(memory, replaced, "{index:?}");
        }
    }
}

#[test]
fn memory_has_the_kernels_names() {
    let names = |gpu: NvgraceGpu| {
        [2, 3, 4].map(|index| match gpu.region(RegionIndex(index)) {
            Region::Memory(region) => Some(region.name()),
            _ => None,
        })
    };
    assert_eq!(
        names(gpu(96 * GIB, ABSENT)),
        [Some("resmem"), None, Some("usemem")]
    );
    assert_eq!(names(gpu(184 * GIB, FIXED)), [None, None, Some("usemem")]);
}

/// The segments of an access, as a runtime walks them: (offset, length, owned by the variant).
fn segments(gpu: &NvgraceGpu, offset: u64, len: u64) -> Vec<(u64, u64, bool)> {
    let (mut at, end) = (offset, offset + len);
    let mut segments = vec![];
    while at < end {
        let segment = gpu.config_segment(Direction::Write, at, end - at);
        assert!(segment.len > 0, "it gets no further than {at:#x}");
        segments.push((at, segment.len, segment.owner == ConfigOwner::Keep));
        at += segment.len;
    }
    segments
}

#[test]
fn whole_config_access() {
    let with_bug = gpu(96 * GIB, ABSENT);
    assert_eq!(
        segments(&with_bug, 0, 64),
        [
            (0, 0x18, false),
            (0x18, 8, true),
            (0x20, 8, true),
            (0x28, 24, false)
        ]
    );
    assert_eq!(
        segments(&with_bug, 0x16, 4),
        [(0x16, 2, false), (0x18, 2, true)]
    );
    assert_eq!(
        segments(&with_bug, 0x1f, 2),
        [(0x1f, 1, true), (0x20, 1, true)]
    );
    let without = gpu(184 * GIB, FIXED);
    assert_eq!(
        segments(&without, 0x18, 16),
        [(0x18, 8, false), (0x20, 8, true)]
    );
}

#[test]
fn sizing_reads_back_the_bar_sizes_and_a_reset_request_clears_them() {
    let gpu = gpu(96 * GIB + 300 * MIB, ABSENT);
    let read = |offset| {
        let mut out = [0; 8];
        gpu.config_load(offset, &mut out);
        u64::from_le_bytes(out)
    };
    gpu.config_store(0x18, &[0xff; 16]);
    assert_eq!(read(0x18), !(2 * GIB - 1) | 0xc);
    assert_eq!(read(0x20), !(128 * GIB - 1) | 0xc);
    gpu.event(Event::ResetDone);
    assert_eq!(read(0x20), !(128 * GIB - 1) | 0xc, "an FLR keeps them");
    gpu.event(Event::ResetRequested);
    assert_eq!((read(0x18), read(0x20)), (0xc, 0xc));
    gpu.config_store(0x20, &[0xff; 8]);
    gpu.event(Event::Opened);
    assert_eq!(read(0x20), 0xc);
}

#[test]
fn resmem_count() {
    // resmem behaves as usemem does: the rest of the access beyond the memory is served too.
    let gpu = gpu(96 * GIB + 300 * MIB, ABSENT);
    let Region::Memory(resmem) = gpu.region(RESMEM_REGION_INDEX) else {
        panic!("resmem is a memory region")
    };
    let begin = resmem.begin(Direction::Read, resmem.length() - 8, 24);
    assert_eq!(
        begin,
        Begin::Serve {
            count: 24,
            needs_ready: true
        }
    );
    let first = resmem.segment(Direction::Read, resmem.length() - 8, 24);
    assert_eq!(first.len, 8);
    let rest = resmem.segment(Direction::Read, resmem.length(), 16);
    assert_eq!((rest.len, rest.kind), (16, SegmentKind::Ones));
}

#[test]
fn mappings_and_faults_use_the_regions_own_memory() {
    let gpu = gpu(96 * GIB, ABSENT);
    let Region::Memory(resmem) = gpu.region(RESMEM_REGION_INDEX) else {
        panic!("resmem is a memory region")
    };
    let mapping = resmem.mmap(MmapRequest {
        offset: 0,
        len: GIB,
        copy_on_write: false,
    });
    assert_eq!(mapping.map(|mapping| mapping.allow_uncached), Ok(true));
    let fault = resmem.fault(FaultRequest {
        page: PageShift::KIB_4,
        order: 0,
        address: 0x1000,
        start: 0,
        end: GIB,
        offset: 0,
    });
    assert_eq!(
        fault,
        Fault::Insert(PageFrame((BASE + 95 * GIB + 0x1000) >> 12))
    );
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

/// Time at which an operation finds the device ready or fails, from `start` on with one wait.
fn polled_from(
    gpu: &NvgraceGpu,
    wait: &mut Wait,
    start: u64,
    registers: impl Fn(u64) -> [u32; 2],
) -> (Result<(), Errno>, u64) {
    let mut now = start;
    loop {
        let sample = Sample {
            now: Monotonic(now),
            memory_enabled: true,
        };
        let generation = match gpu.ready_before(wait, sample) {
            Before::Ready => return (Ok(()), now),
            Before::Failed(errno) => return (Err(errno), now),
            Before::Poll { generation, .. } => generation,
        };
        match gpu.ready_after(wait, generation, registers(now), sample) {
            After::Ready => return (Ok(()), now),
            After::Failed(errno) => return (Err(errno), now),
            After::Sleep(Millis(ms)) => now += ms,
        }
    }
}

#[test]
fn a_wait_begins_anew_once_the_device_is_ready() {
    let cxl = |late: u64| {
        move |now| {
            let ready = status(true, true, 0);
            [if now < late { 0 } else { ready }, 0]
        }
    };
    let bar0 = |late: u64| move |now| if now < late { [0, 0] } else { [0xff, 0xff] };
    // One access that outlives the timeout: ready at 0 s, reset, polled again at 40 s.
    let (gpu, mut wait) = (gpu(96 * GIB, ABSENT), Wait::default());
    assert_eq!(polled_from(&gpu, &mut wait, 0, bar0(0)), (Ok(()), 0));
    gpu.event(Event::ResetDone);
    let late = polled_from(&gpu, &mut wait, 40_000, bar0(60_000));
    assert_eq!(late, (Ok(()), 60_000));
    gpu.event(Event::ResetDone);
    let never = polled_from(&gpu, &mut wait, 100_000, |_| [0, 0]);
    assert_eq!(never, (Err(Errno::ETIME), 131_000));
    // The same if another operation's poll has found it ready meanwhile.
    let mut wait = Wait::default();
    gpu.event(Event::ResetDone);
    let sample = |now| Sample {
        now: Monotonic(now),
        memory_enabled: true,
    };
    let first = gpu.ready_before(&mut wait, sample(0));
    assert!(matches!(first, Before::Poll { .. }), "{first:?}");
    assert_eq!(
        polled_from(&gpu, &mut Wait::default(), 0, bar0(0)).0,
        Ok(())
    );
    assert_eq!(gpu.ready_before(&mut wait, sample(20_000)), Before::Ready);
    gpu.event(Event::ResetDone);
    let late = polled_from(&gpu, &mut wait, 40_000, bar0(60_000));
    assert_eq!(late, (Ok(()), 60_000));

    let (gpu, mut wait) = (cxl_gpu(), Wait::default());
    assert_eq!(polled_from(&gpu, &mut wait, 0, cxl(0)), (Ok(()), 0));
    gpu.event(Event::ResetDone);
    let late = polled_from(&gpu, &mut wait, 40_000, cxl(41_000));
    assert_eq!(late, (Ok(()), 41_000));
}

#[test]
fn bar0_is_polled_for_30_s_and_not_after_the_last_sleep() {
    let (result, time, polls) = run(&gpu(96 * GIB, ABSENT), true, |_| [0xff, 0]);
    assert_eq!((result, time), (Err(Errno::ETIME), 31_000));
    assert_eq!(polls, (0..=30).collect::<Vec<_>>());
}

#[test]
fn both_bar0_registers_must_read_0xff() {
    for (values, expected) in [
        ([0xff, 0xff], Ok(())),
        ([0, 0xff], Err(Errno::ETIME)),
        ([0xff, 0xffff_ffff], Err(Errno::ETIME)),
        ([0x1ff, 0xff], Err(Errno::ETIME)),
    ] {
        assert_eq!(
            run(&gpu(96 * GIB, ABSENT), true, |_| values).0,
            expected,
            "{values:x?}"
        );
    }
}

#[test]
fn a_late_device_becomes_ready_and_stays_so_until_a_reset() {
    let gpu = gpu(96 * GIB, ABSENT);
    let late = |ms| if ms < 7500 { [0, 0] } else { [0xff, 0xff] };
    assert_eq!(run(&gpu, true, late).1, 8000);
    assert_eq!(
        run(&gpu, true, |_| [0, 0]),
        (Ok(()), 0, vec![]),
        "no poll without a reset"
    );
    gpu.event(Event::ResetDone);
    assert_eq!(run(&gpu, true, |_| [0, 0]).0, Err(Errno::ETIME));
    assert_eq!(
        run(&gpu, true, |_| [0, 0]).0,
        Err(Errno::ETIME),
        "a failed check keeps the request"
    );
}

#[test]
fn bar0_is_not_read_while_memory_is_disabled() {
    let gpu = gpu(96 * GIB, ABSENT);
    assert_eq!(
        run(&gpu, false, |_| [0xff, 0xff]),
        (Err(Errno::EIO), 0, vec![])
    );
    assert_eq!(run(&gpu, true, |_| [0xff, 0xff]).0, Ok(()));
    assert_eq!(
        run(&gpu, false, |_| [0, 0]).0,
        Ok(()),
        "checked only after a reset"
    );
}

#[test]
fn honour_memory_enable() {
    let environment = Environment {
        honour_memory_enable: true,
        ..ENVIRONMENT
    };
    let gpu = GH200.probe_in(environment);
    assert_eq!(run(&gpu, true, |_| [0xff, 0xff]).0, Ok(()));
    assert_eq!(run(&gpu, false, |_| [0xff, 0xff]).0, Err(Errno::EIO));
}

/// A CXL status with this timeout encoding.
const fn status(valid: bool, active: bool, timeout: u32) -> u32 {
    valid as u32 | (active as u32) << 1 | timeout << 13
}

#[test]
fn cxl_waits_1_s_for_valid_then_as_long_as_the_device_says() {
    for (encoded, seconds) in [
        (0, 1),
        (1, 4),
        (2, 16),
        (3, 64),
        (4, 256),
        (5, 256),
        (7, 256),
    ] {
        let (result, time, _) = run(&cxl_gpu(), true, |_| [status(true, false, encoded), 0]);
        assert_eq!(
            (result, time),
            (Err(Errno::ETIME), (seconds + 1) * 1000),
            "encoding {encoded}"
        );
    }
    let (result, time, polls) = run(&cxl_gpu(), true, |_| [status(false, true, 4), 0]);
    assert_eq!(
        (result, time, polls),
        (Err(Errno::ETIME), 2000, vec![0, 1, 2])
    );
    let late = |ms| {
        [
            if ms < 1000 {
                0
            } else {
                status(true, ms >= 3000, 1)
            },
            0,
        ]
    };
    assert_eq!(
        run(&cxl_gpu(), true, late),
        (Ok(()), 3000, vec![0, 1, 2, 3])
    );
}

#[test]
fn cxl_errors_come_before_the_memory_enable_check() {
    assert_eq!(
        run(&cxl_gpu(), false, |_| [u32::MAX, 0]).0,
        Err(Errno::ENODEV)
    );
    assert_eq!(run(&cxl_gpu(), false, |_| [0, 0]).0, Err(Errno::ETIME));
    assert_eq!(
        run(&cxl_gpu(), false, |_| [status(true, true, 0), 0]).0,
        Err(Errno::EIO)
    );
}

#[test]
fn a_look_reads_the_methods_registers() {
    let poll = |gpu: &NvgraceGpu| {
        let sample = Sample {
            now: Monotonic(0),
            memory_enabled: true,
        };
        match gpu.ready_before(&mut Wait::default(), sample) {
            Before::Poll { registers, .. } => registers,
            other => panic!("expected a poll, got {other:?}"),
        }
    };
    use varia_variant::Register::{Bar0, Config};
    assert_eq!(
        poll(&gpu(96 * GIB, ABSENT)),
        [Some(Bar0(0x1498)), Some(Bar0(0x200bc))]
    );
    assert_eq!(poll(&cxl_gpu()), [Some(Config(0x31c)), None]);
}

#[test]
fn reset_generation() {
    for gpu in [gpu(96 * GIB, ABSENT), cxl_gpu()] {
        let ready = if gpu.method() == Method::Bar0 {
            [0xff, 0xff]
        } else {
            [3, 0]
        };
        let resets = core::cell::Cell::new(0);
        // Each of the first five polls is raced by a reset; the sixth is not.
        let (result, time, polls) = run(&gpu, true, |_| {
            if resets.get() < 5 {
                resets.set(resets.get() + 1);
                gpu.event(Event::ResetDone);
            }
            ready
        });
        assert_eq!(
            (result, time, polls.len()),
            (Ok(()), 0, 6),
            "again at once, never EAGAIN"
        );
        assert!(matches!(
            gpu.ready_before(
                &mut Wait::default(),
                Sample {
                    now: Monotonic(0),
                    memory_enabled: true
                }
            ),
            Before::Ready
        ));
    }
}
