//! Regions, configuration space, mappings and faults.

use super::*;

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
pub(super) fn segments(gpu: &NvgraceGpu, offset: u64, len: u64) -> Vec<(u64, u64, bool)> {
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
    let Region::Memory(resmem) = gpu.region(RegionIndex::BAR2) else {
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
    let Region::Memory(resmem) = gpu.region(RegionIndex::BAR2) else {
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
