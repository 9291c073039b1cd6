//! Any bytes as a device and a run of questions to its variant, and what must hold of the answers.
//!
//! The fuzz target `variant_decisions` runs the same.

use varia_spec::{
    nvidia::MEMBLK_SIZE,
    vfio::{RegionIndex, region_flags},
};
use varia_variant::{
    Answer, Answers, BarIndex, Begin, ConfigOwner, Direction, Environment, Fault, FaultRequest,
    MemoryLayout, MemoryRegion, MmapRequest, Outcome, PageShift, Probe, Region, SegmentKind,
    Variant, memory::natural_width, probe::Question,
};
use varia_variants::nvgrace_gpu::NvgraceGpu;

const GIB: u64 = 1 << 30;

/// Numbers made of bytes; zeros when they have run out.
pub(crate) struct Numbers<'a>(pub(crate) &'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Most often a number close to one of these.
    fn near(&mut self, edges: &[u64]) -> u64 {
        let choice = usize::from(self.byte());
        match edges.get(choice % (edges.len() + 1)) {
            Some(edge) => edge.wrapping_add_signed(i64::from(self.byte().cast_signed())),
            None => self.word() >> (self.byte() % 64),
        }
    }

    fn direction(&mut self) -> Direction {
        if self.byte() & 1 == 0 {
            Direction::Read
        } else {
            Direction::Write
        }
    }

    fn page(&mut self) -> PageShift {
        [PageShift::KIB_4, PageShift::KIB_16, PageShift::KIB_64][usize::from(self.byte() % 3)]
    }
}

/// A device that says these things of itself.
struct Device {
    base: u64,
    size: u64,
    bug: bool,
    page: PageShift,
    form: MemoryLayout,
    bar2: u64,
}

impl Device {
    fn new(numbers: &mut Numbers<'_>) -> Self {
        let page = numbers.page();
        let whole = numbers.byte() & 3 != 0;
        let sizes = [
            0,
            GIB,
            GIB + MEMBLK_SIZE,
            64 * GIB,
            65 * GIB,
            96 * GIB,
            128 * GIB,
            184 * GIB,
            1 << 40,
            u64::MAX,
        ];
        let bases = [0, 1 << 32, 0x4200_0000_0000, u64::MAX - 96 * GIB];
        // most are what a machine would have, so that most are served
        let round = |value: u64| {
            if whole {
                value & !(page.size() - 1)
            } else {
                value
            }
        };
        Self {
            base: round(numbers.near(&bases)),
            size: round(numbers.near(&sizes)),
            bug: numbers.byte() & 1 == 0,
            page,
            form: [
                MemoryLayout::Bar,
                MemoryLayout::Bar,
                MemoryLayout::Region,
                MemoryLayout::PhysicalBar,
            ][usize::from(numbers.byte() & 3)],
            bar2: 1 << (numbers.byte() % 46),
        }
    }

    fn probe(&self) -> NvgraceGpu {
        let answer = |question| -> Answer {
            match question {
                Question::Property(name) if name.ends_with("base-pa") => Ok(self.base),
                Question::Property(_) => Ok(self.size),
                Question::DvsecOffset { .. } => Err(varia_spec::Errno::ENOENT),
                Question::DvsecWord { .. } => Ok(u64::from(!self.bug)),
                Question::BarSize(BarIndex::BAR0) => Ok(16 << 20),
                Question::BarSize(_) => Ok(self.bar2),
                question => unreachable!("{question:?}"),
            }
        };
        let answers = Answers::collect(NvgraceGpu::QUESTIONS, answer);
        let environment = Environment {
            layout: self.form,
            ..Environment::new(self.page)
        };
        NvgraceGpu::probe(&answers, environment)
    }
}

/// What a run came across.
#[derive(Default)]
pub(crate) struct Seen {
    /// Devices that are served.
    pub(crate) served: u32,
    /// Devices that are not.
    pub(crate) refused: u32,
    /// Mappings that may exist.
    pub(crate) mapped: u32,
    /// Pages inserted at order 0, and at higher orders.
    pub(crate) inserted: [u32; 2],
    /// Accesses that are clipped.
    pub(crate) clipped: u32,
}

/// Runs it, and adds to what was seen. Panics when an answer is not what must hold.
pub(crate) fn exercise(bytes: &[u8], seen: &mut Seen) {
    let mut numbers = Numbers(bytes);
    let device = Device::new(&mut numbers);
    let gpu = device.probe();
    layout(&device, &gpu);
    match gpu.outcome() {
        Outcome::Serve => seen.served += 1,
        _ => seen.refused += 1,
    }
    for _ in 0..16 {
        config_segments(&device, &gpu, &mut numbers);
        config_bytes(&device, &gpu, &mut numbers);
        for index in 0..RegionIndex::COUNT + 3 {
            if let Region::Memory(region) = gpu.region(RegionIndex(index)) {
                access(&region, &mut numbers, seen);
                mmap(&region, &mut numbers, seen);
                fault(&region, device.page, &mut numbers, seen);
            }
        }
    }
}

/// The regions divide the memory without gap or overlap, behind BARs that are no larger than
/// they must be.
fn layout(device: &Device, gpu: &NvgraceGpu) {
    let Some(layout) = gpu.layout() else {
        assert_ne!(gpu.outcome(), Outcome::Serve);
        return;
    };
    let usemem = layout.usemem;
    assert_eq!(usemem.base().0, device.base);
    assert_eq!(layout.resmem.is_some(), device.bug);
    let mut end = usemem.base().0 + usemem.length();
    let mut covered = usemem.length();
    if let Some(resmem) = layout.resmem {
        assert_eq!(resmem.base().0, end);
        assert_eq!(usemem.length() % MEMBLK_SIZE, 0);
        assert!((GIB..GIB + MEMBLK_SIZE).contains(&resmem.length()));
        let size = match device.form {
            MemoryLayout::Region => resmem.length(),
            _ => resmem.length().next_power_of_two(),
        };
        assert_eq!(resmem.size().0, size);
        end += resmem.length();
        // usemem's BAR is as large as before the rounding
        covered = device.size - GIB;
    }
    assert_eq!(end - device.base, device.size);
    let size = match device.form {
        MemoryLayout::Bar => covered.next_power_of_two(),
        MemoryLayout::Region => usemem.length(),
        MemoryLayout::PhysicalBar => device.bar2,
    };
    assert_eq!(usemem.size().0, size);
}

/// The segments of an access sum to its length, and only the fake BARs' bytes are kept.
fn config_segments(device: &Device, gpu: &NvgraceGpu, numbers: &mut Numbers<'_>) {
    let direction = numbers.direction();
    let start = numbers.near(&[0, 0x10, 0x18, 0x20, 0x28, 4096]);
    let len = numbers.near(&[1, 4, 8, 16, 64]) % 5000;
    let mut at = start;
    let Some(end) = start.checked_add(len) else {
        return;
    };
    while at < end {
        let segment = gpu.config_segment(direction, at, end - at);
        assert!(
            (1..=end - at).contains(&segment.len),
            "{segment:?} at {at:#x}"
        );
        for byte in [at, at + segment.len - 1] {
            let owner = if is_fake(device, gpu, byte) {
                ConfigOwner::Keep
            } else {
                ConfigOwner::Base
            };
            assert_eq!(segment.owner, owner, "byte {byte:#x}");
        }
        at += segment.len;
    }
}

fn is_fake(device: &Device, gpu: &NvgraceGpu, at: u64) -> bool {
    let Some(layout) = gpu.layout() else {
        return false;
    };
    match device.form {
        MemoryLayout::Bar => {
            (0x20..0x28).contains(&at) || layout.resmem.is_some() && (0x18..0x20).contains(&at)
        }
        MemoryLayout::Region => (0x18..0x28).contains(&at),
        MemoryLayout::PhysicalBar => false,
    }
}

/// What is stored shows the BAR's address bits and its flags; the base's bytes stay.
fn config_bytes(device: &Device, gpu: &NvgraceGpu, numbers: &mut Numbers<'_>) {
    let stored: [u8; 24] = std::array::from_fn(|_| numbers.byte());
    gpu.config_store(0x14, &stored);
    let (from, len) = (numbers.byte() % 64, numbers.byte() % 32);
    let mut shown = vec![0xa5; usize::from(len)];
    gpu.config_load(u64::from(from), &mut shown);
    for (at, byte) in (u64::from(from)..).zip(shown) {
        let region = match at {
            0x18..0x20 => RegionIndex::BAR2,
            0x20..0x28 => RegionIndex::BAR4,
            _ => RegionIndex::CONFIG,
        };
        let expected = match gpu.region(region) {
            Region::Absent => 0,
            Region::Memory(_) if device.form == MemoryLayout::PhysicalBar => 0xa5,
            Region::Base | Region::Registers(_) | Region::Composed(_) => 0xa5,
            Region::Memory(memory) => {
                let pair = (at & !7) as usize - 0x14;
                let raw = u64::from_le_bytes(std::array::from_fn(|i| stored[pair + i]));
                let value = raw & !(memory.size().0 - 1) | 0xc;
                (value >> (8 * (at & 7))) as u8
            }
        };
        assert_eq!(byte, expected, "byte {at:#x}");
    }
}

/// The segments of an access sum to its clipped count, and reach no byte outside the memory.
fn access(region: &MemoryRegion, numbers: &mut Numbers<'_>, seen: &mut Seen) {
    let (length, size) = (region.length(), region.size().0);
    let direction = numbers.direction();
    let offset = numbers.near(&[0, length, size]);
    let asked = numbers.near(&[0, 8, 4096, length, size, u64::MAX]);
    let count = match region.begin(direction, offset, asked) {
        Begin::Refuse(_) => {
            let only_mapped = region.info().flags == region_flags::MMAP;
            assert!(offset >= size || only_mapped, "{offset:#x} lies in the BAR");
            return;
        }
        Begin::Serve { count, needs_ready } => {
            assert!(offset < size && count <= asked && count <= size - offset);
            assert!(count == asked || offset + count == size, "clipped too much");
            let memory = direction == Direction::Read || offset < length;
            assert_eq!(needs_ready, memory);
            seen.clipped += u32::from(count < asked);
            count
        }
    };
    let mut at = offset;
    let end = offset + count;
    while at < end {
        let segment = region.segment(direction, at, end - at);
        assert!((1..=end - at).contains(&segment.len));
        match segment.kind {
            SegmentKind::Memory(address, memory) => {
                assert_eq!(address.0 - region.base().0, at);
                assert!(at + segment.len <= length, "reaches beyond the memory");
                assert_eq!(memory, region.memory());
                let width = natural_width(address, segment.len);
                assert!(width <= segment.len && address.0.is_multiple_of(width));
            }
            SegmentKind::Ones => assert!(at >= length && direction == Direction::Read),
            SegmentKind::Drop => assert!(at >= length && direction == Direction::Write),
            SegmentKind::Failed => panic!("no page has failed"),
        }
        at += segment.len;
    }
}

/// A mapping that may exist lies in the memory.
fn mmap(region: &MemoryRegion, numbers: &mut Numbers<'_>, seen: &mut Seen) {
    let (length, size) = (region.length(), region.size().0);
    let request = MmapRequest {
        offset: numbers.near(&[0, length, size, u64::MAX]),
        len: numbers.near(&[0, 4096, length, size, u64::MAX]),
        copy_on_write: numbers.byte() & 3 == 0,
    };
    let inside = request
        .offset
        .checked_add(request.len)
        .is_some_and(|end| end <= length);
    let allowed = region.mmap(request).is_ok();
    seen.mapped += u32::from(allowed);
    assert_eq!(allowed, inside && !request.copy_on_write, "{request:?}");
}

/// A page that is inserted lies in the memory and in the mapping, is aligned, and shows what its
/// address stands for.
fn fault(region: &MemoryRegion, page: PageShift, numbers: &mut Numbers<'_>, seen: &mut Seen) {
    let aligned = |value: u64| value & !(page.size() - 1);
    let start = aligned(numbers.near(&[0, 0x7f00_0000_0000, u64::MAX]));
    let pages = numbers.near(&[1, 512, 1 << 20]) % (1 << 28);
    let end = start.saturating_add(pages * page.size());
    let request = FaultRequest {
        page,
        order: [0, 1, 5, 9, 18, u32::from(numbers.byte() % 64)][usize::from(numbers.byte() % 6)],
        address: match numbers.byte() % 4 {
            0 => numbers.near(&[start, end]),
            _ => start + numbers.word() % (end - start).max(1),
        },
        start,
        end,
        offset: aligned(numbers.near(&[0, region.length(), region.size().0])),
    };
    let Fault::Insert(frame) = region.fault(request) else {
        return;
    };
    seen.inserted[usize::from(request.order > 0)] += 1;
    let span = page.size() << request.order;
    let first = request.address & !(span - 1);
    assert!(first >= start && first + span <= end, "{request:?}");
    let at = request.offset + (first - start);
    assert!(at + span <= region.length(), "{request:?}");
    assert_eq!(frame.0 << page.get(), region.base().0 + at, "{request:?}");
    assert!(frame.0.is_multiple_of(1 << request.order), "{request:?}");
    // a page that fails is found where it was inserted
    let located = region.locate(page, frame, request.offset, request.end - request.start);
    assert_eq!(located, Ok(first - start), "{request:?}");
}
