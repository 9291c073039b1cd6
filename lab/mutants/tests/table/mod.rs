//! The faults. Texts are exact; when the code changes, write them anew.

mod core;
mod igd;
mod placement;
mod platform;
mod presented;
mod virtio;

use varia_mutants::Mutant;

const LAYOUT: &str = "variants/src/nvgrace_gpu/layout.rs";
const VARIANT: &str = "variants/src/nvgrace_gpu.rs";
const READINESS: &str = "variants/src/nvgrace_gpu/ready.rs";
const MEMORY: &str = "variant/src/memory.rs";
const GENERATIONS: &str = "variant/src/ready.rs";
const PRESENTED: &str = "variant/src/presented.rs";
const PROBE: &str = "variant/src/probe.rs";
const TEXT: &str = "variant/src/text.rs";
const CONFIG: &str = "variant/src/config.rs";
const MMAP: &str = "variant/src/mmap.rs";
const UNITS: &str = "units/src/bar.rs";

const fn mutant(
    file: &'static str,
    name: &'static str,
    right: &'static str,
    wrong: &'static str,
) -> Mutant {
    Mutant {
        name,
        file,
        right,
        wrong,
    }
}

/// All faults, by variant.
pub(crate) fn all() -> Vec<Mutant> {
    let others = [
        core::MUTANTS,
        igd::MUTANTS,
        virtio::MUTANTS,
        platform::MUTANTS,
        placement::MUTANTS,
    ]
    .concat();
    [often(), others].concat()
}

/// Faults of the vocabulary and of nvgrace_gpu, of which each run of the tests tries a share.
/// `./x soak units` tries all, and the others too.
pub(crate) fn often() -> Vec<Mutant> {
    [MUTANTS, presented::MUTANTS].concat()
}

/// Ordered by file, so that little is built anew from one to the next.
const MUTANTS: &[Mutant] = &[
    mutant(
        LAYOUT,
        "BAR4 has the size of the memory after the rounding",
        "region(base, length, usable, MemoryType::Cached)",
        "region(base, length, length, MemoryType::Cached)",
    ),
    mutant(
        LAYOUT,
        "usemem is rounded up",
        "usable - usable % MEMBLK_SIZE",
        "usable.next_multiple_of(MEMBLK_SIZE)",
    ),
    mutant(
        LAYOUT,
        "a whole number of blocks loses one",
        "usable - usable % MEMBLK_SIZE",
        "(usable - 1) - (usable - 1) % MEMBLK_SIZE",
    ),
    mutant(
        LAYOUT,
        "usemem is not rounded",
        "usable - usable % MEMBLK_SIZE",
        "usable",
    ),
    mutant(
        LAYOUT,
        "resmem begins where the rounding began",
        "base.checked_add(length).ok_or(beyond)",
        "base.checked_add(usable).ok_or(beyond)",
    ),
    mutant(
        LAYOUT,
        "resmem is only what the rounding left",
        "let rest = size.0 - length;",
        "let rest = size.0 - length - usable % MEMBLK_SIZE;",
    ),
    mutant(
        LAYOUT,
        "the reserve is taken from chips without the bug",
        "if mig_bug { RESMEM_MIN } else { 0 }",
        "if mig_bug { RESMEM_MIN } else { 4096 }",
    ),
    mutant(
        LAYOUT,
        "resmem is cached",
        "region(start, rest, rest, MemoryType::WriteCombining)",
        "region(start, rest, rest, MemoryType::Cached)",
    ),
    mutant(
        LAYOUT,
        "chips without the bug are rounded too",
        "} else {\n            usable\n",
        "} else {\n            usable - usable % MEMBLK_SIZE\n",
    ),
    mutant(
        LAYOUT,
        "a size of just the reserve is served",
        "if length == 0 {",
        "if length == 1 {",
    ),
    mutant(
        PRESENTED,
        "the windows are swapped",
        "Some(FakeBar::of(header::BASE_ADDRESS_4, &cached))",
        "Some(FakeBar::of(header::BASE_ADDRESS_2, &cached))",
    ),
    mutant(
        PRESENTED,
        "resmem shows the size of usemem",
        "uncached.as_ref().map(fake2)",
        "uncached.as_ref().map(|_| fake2(&cached))",
    ),
    mutant(
        VARIANT,
        "the bug bit is inverted",
        "MIG_SUPPORTED_WITH_CACHED_RESMEM) == 0",
        "MIG_SUPPORTED_WITH_CACHED_RESMEM) != 0",
    ),
    mutant(
        VARIANT,
        "a missing property fails the probe",
        "Err(reason) => Plan::declined(reason, environment)",
        "Err(_) => Plan::Fail(Refusal::NoBar0)",
    ),
    mutant(
        VARIANT,
        "the option strict is ignored",
        "Err(reason) => Plan::declined(reason, environment)",
        "Err(reason) => Plan::Decline(reason)",
    ),
    mutant(
        VARIANT,
        "a fallback needs BAR0",
        "bar == BarIndex::BAR0 && self.plan.served().is_some()",
        "bar == BarIndex::BAR0",
    ),
    mutant(
        MEMORY,
        "a segment reaches into a failed page",
        "Some(before) if before < self.len => Self {",
        "Some(before) if before > self.len => Self {",
    ),
    mutant(
        MEMORY,
        "a failed page is served",
        "Some(0) => Self {\n                len: self.len,\n                kind: SegmentKind::Failed,",
        "Some(0) => Self {\n                len: self.len,\n                kind: self.kind,",
    ),
    mutant(
        MMAP,
        "a huge page is mapped over a failed page",
        "Self::Insert(_) if order > 0 => Self::Fallback,",
        "Self::Insert(_) if order > 0 => self,",
    ),
    mutant(
        MMAP,
        "a failed page is mapped",
        "Self::Insert(_) => Self::Failed,",
        "Self::Insert(_) => self,",
    ),
    mutant(
        READINESS,
        "a wait outlives its success",
        "*wait = Wait::default();\n                return After::Ready;",
        "return After::Ready;",
    ),
    mutant(
        READINESS,
        "a wait outlives the success of another",
        "*wait = Wait::default();\n            return Before::Ready;",
        "return Before::Ready;",
    ),
    mutant(
        VARIANT,
        "a link that is down fails the probe",
        "if size == 0 {",
        "if size == 1 {",
    ),
    mutant(
        VARIANT,
        "a layout that is refused is declined",
        "Err(refusal) => Plan::Fail(refusal)",
        "Err(_) => Plan::Decline(Decline::LinkDown)",
    ),
    mutant(
        VARIANT,
        "a reset asks for no new check",
        "self.readiness.reset_done(),",
        "{}",
    ),
    mutant(
        VARIANT,
        "the end of the fake BARs is the base's",
        "if offset >= BARS.1 ||",
        "if offset >= BARS.1 - 4 ||",
    ),
    mutant(
        VARIANT,
        "a function-level reset zeroes the BARs",
        "Event::Opened | Event::ResetRequested => {",
        "Event::Opened | Event::ResetRequested | Event::ResetDone => {\n                if event == Event::ResetDone {\n                    self.readiness.reset_done();\n                }",
    ),
    mutant(
        VARIANT,
        "a new user sees the last one's BARs",
        "Event::Opened | Event::ResetRequested => {",
        "Event::Opened => {}\n            Event::ResetRequested => {",
    ),
    mutant(
        VARIANT,
        "memory enable is always honoured",
        "self.honour_memory_enable && !sample.memory_enabled",
        "!sample.memory_enabled",
    ),
    mutant(
        VARIANT,
        "memory enable is never honoured",
        "self.honour_memory_enable && !sample.memory_enabled",
        "self.honour_memory_enable && false && !sample.memory_enabled",
    ),
    mutant(
        PRESENTED,
        "resmem is in region 4",
        "self.uncached.map_or(Region::Base, Region::Memory)",
        "Region::Memory(self.uncached.unwrap_or(self.cached))",
    ),
    mutant(
        MEMORY,
        "the end of the BAR is in the BAR",
        "if room == 0 ||",
        "if room == u64::MAX ||",
    ),
    mutant(
        MEMORY,
        "a count is not clipped",
        "count: if count < room { count } else { room },",
        "count,",
    ),
    mutant(
        MEMORY,
        "a count is clipped by one too many",
        "count: if count < room { count } else { room },",
        "count: if count < room { count } else { room - 1 },",
    ),
    mutant(
        MEMORY,
        "a write beyond the memory waits",
        "Direction::Write => offset < self.length,",
        "Direction::Write => offset <= self.length,",
    ),
    mutant(
        MEMORY,
        "a read beyond the memory does not wait",
        "Direction::Read => true,",
        "Direction::Read => offset < self.length,",
    ),
    mutant(
        MEMORY,
        "what is beyond the memory reads as zeros",
        "Direction::Read => SegmentKind::Ones,",
        "Direction::Read => SegmentKind::Drop,",
    ),
    mutant(
        MEMORY,
        "writes beyond the memory reach it",
        "len: if count < here { count } else { here },",
        "len: count,",
    ),
    mutant(
        MEMORY,
        "every segment is at the start of the memory",
        "match self.base.checked_add(offset)",
        "match self.base.checked_add(0)",
    ),
    mutant(
        MEMORY,
        "the padding can be mapped",
        "offset: 0,\n                size: self.length,",
        "offset: 0,\n                size: self.size,",
    ),
    mutant(
        MEMORY,
        "a region cannot be written",
        "region_flags::READ | region_flags::WRITE | region_flags::MMAP",
        "region_flags::READ | region_flags::MMAP",
    ),
    mutant(
        MEMORY,
        "accesses are not aligned",
        "!at.0.is_multiple_of(width) || width > len",
        "width > len",
    ),
    mutant(
        MEMORY,
        "accesses are longer than the rest",
        "!at.0.is_multiple_of(width) || width > len",
        "!at.0.is_multiple_of(width)",
    ),
    mutant(
        MEMORY,
        "a run of words takes the bytes behind them along",
        "8 => (8, len - len % 8),",
        "8 => (8, len),",
    ),
    mutant(
        MEMORY,
        "a BAR above 1 TiB is served",
        "size.get() > MAX_REGION_SIZE ||",
        "",
    ),
    mutant(
        GENERATIONS,
        "a late success undoes a newer one",
        "self.ready.fetch_max(generation.0, Ordering::AcqRel)",
        "self.ready.store(generation.0, Ordering::Release)",
    ),
    mutant(
        GENERATIONS,
        "a generation is lost: it is loaded after the poll",
        "self.ready.fetch_max(generation.0, Ordering::AcqRel)",
        "self.ready.fetch_max(generation.0.max(self.poll().0), Ordering::AcqRel)",
    ),
    mutant(
        GENERATIONS,
        "the second reset is not counted",
        "self.reset.fetch_add(1, Ordering::Release)",
        "self.reset.fetch_or(2, Ordering::Release)",
    ),
    mutant(
        GENERATIONS,
        "a new device is ready",
        "reset: AtomicU64::new(1)",
        "reset: AtomicU64::new(0)",
    ),
    mutant(
        GENERATIONS,
        "ready is what was ready once",
        "self.ready.load(Ordering::Acquire) == self.reset.load(Ordering::Acquire)",
        "self.ready.load(Ordering::Acquire) > 0",
    ),
    mutant(
        READINESS,
        "one register is enough",
        "values == [bar0::STATUS_READY; MAX_REGISTERS]",
        "values.contains(&bar0::STATUS_READY)",
    ),
    mutant(
        READINESS,
        "the registers need not be equal to 0xFF",
        "values == [bar0::STATUS_READY; MAX_REGISTERS]",
        "values.iter().all(|value| value & bar0::STATUS_READY == bar0::STATUS_READY)",
    ),
    mutant(
        READINESS,
        "no poll at the BAR0 deadline itself",
        "if sample.now > deadline {",
        "if sample.now >= deadline {",
    ),
    mutant(
        READINESS,
        "BAR0 is polled for a second longer",
        "POLL_TIMEOUT: Millis = Millis(30_000)",
        "POLL_TIMEOUT: Millis = Millis(31_000)",
    ),
    mutant(
        READINESS,
        "BAR0 is read while memory is disabled",
        "if !sample.memory_enabled {\n                return Before::Failed(Errno::EIO);",
        "if false {\n                return Before::Failed(Errno::EIO);",
    ),
    mutant(
        READINESS,
        "CXL memory is used while memory is disabled",
        "if !sample.memory_enabled {\n                return After::Failed(Errno::EIO);",
        "if false {\n                return After::Failed(Errno::EIO);",
    ),
    mutant(
        READINESS,
        "a device that is gone is late",
        "return After::Failed(Errno::ENODEV);",
        "return After::Failed(Errno::ETIME);",
    ),
    mutant(
        READINESS,
        "the CXL timeout doubles instead of fourfolding",
        "1000 << (2 * encoded.min(MAX_ACTIVE_ENCODING))",
        "1000 << encoded.min(MAX_ACTIVE_ENCODING)",
    ),
    mutant(
        READINESS,
        "a reserved CXL timeout is taken at its word",
        "encoded.min(MAX_ACTIVE_ENCODING)",
        "encoded",
    ),
    mutant(
        READINESS,
        "the CXL deadline moves with each poll",
        "if !wait.extended && status & cxl::MEM_INFO_VALID != 0",
        "if status & cxl::MEM_INFO_VALID != 0",
    ),
    mutant(
        READINESS,
        "no CXL poll after the deadline",
        ".is_some_and(|deadline| sample.now > deadline)",
        ".is_some_and(|deadline| sample.now >= deadline)",
    ),
    mutant(
        READINESS,
        "CXL memory is ready when its information is valid",
        "status & (cxl::MEM_INFO_VALID | cxl::MEM_ACTIVE)\n                    == cxl::MEM_INFO_VALID | cxl::MEM_ACTIVE",
        "status & cxl::MEM_INFO_VALID == cxl::MEM_INFO_VALID",
    ),
    mutant(
        READINESS,
        "a reset that races a poll fails the operation",
        "After::Sleep(Millis(0))\n",
        "After::Failed(Errno::EAGAIN)\n",
    ),
    mutant(
        READINESS,
        "the CXL register is the one before",
        "cxl::RANGE1_SIZE_LOW",
        "cxl::RANGE1_SIZE_LOW - 4",
    ),
    mutant(
        PROBE,
        "every question has the answer to the first",
        ".find(|(asked, _)| **asked == question)",
        ".find(|_| true)",
    ),
    mutant(
        TEXT,
        "a sentence lacks its first segment",
        "for (slot, segment) in all.iter_mut().zip(segments) {",
        "for (slot, segment) in all.iter_mut().zip(segments).skip(1) {",
    ),
    mutant(
        CONFIG,
        "a fake BAR is not prefetchable",
        "Self::new(start as u64, 8, MEM_TYPE_64 | MEM_PREFETCH, mask)",
        "Self::new(start as u64, 8, MEM_TYPE_64, mask)",
    ),
    mutant(
        CONFIG,
        "flags can be written",
        "(u64::from_le_bytes(raw) & self.mask) |",
        "u64::from_le_bytes(raw) |",
    ),
    mutant(
        CONFIG,
        "a fake BAR is one byte further on",
        "self.start.saturating_sub(offset)",
        "(self.start + 1).saturating_sub(offset)",
    ),
    mutant(
        CONFIG,
        "the byte behind the window is kept",
        "offset >= window.1 ||",
        "offset > window.1 ||",
    ),
    mutant(
        CONFIG,
        "the byte before the window is kept",
        "len: window.0 - offset,",
        "len: window.0 - offset - 1,",
    ),
    mutant(
        CONFIG,
        "an access that crosses into the window is the window's",
        "len: window.0 - offset,\n                owner: ConfigOwner::Base",
        "len: window.0 - offset,\n                owner",
    ),
    mutant(
        CONFIG,
        "an access that crosses out of the window is the window's",
        "if end < window.1 { end } else { window.1 }",
        "end",
    ),
    mutant(
        MMAP,
        "a mapping may reach the end of the BAR",
        "if end > self.length() ||",
        "if end > self.size().0 ||",
    ),
    mutant(
        MMAP,
        "the last page cannot be mapped",
        "if end > self.length() ||",
        "if end >= self.length() ||",
    ),
    mutant(
        MMAP,
        "a mapping may copy on write",
        "if end > self.length() || request.copy_on_write",
        "if end > self.length()",
    ),
    mutant(
        MMAP,
        "usemem may be uncached in a guest",
        "allow_uncached: matches!(memory, MemoryType::WriteCombining)",
        "allow_uncached: true",
    ),
    mutant(
        MMAP,
        "a fault inserts a frame that is not aligned",
        "if at.0 & (span - 1) & !(request.page.size() - 1) != 0",
        "if at.0 & (span - 1) & !(span - 1) != 0",
    ),
    mutant(
        MMAP,
        "a fault inserts from its own page on",
        "request.address & !(span - 1)",
        "request.address & !(request.page.size() - 1)",
    ),
    mutant(
        MMAP,
        "a fault reaches beyond the mapping",
        "Some(beyond) => beyond > request.end,",
        "Some(beyond) => beyond > request.end + request.page.size(),",
    ),
    mutant(
        MMAP,
        "a fault never reaches the end of the mapping",
        "Some(beyond) => beyond > request.end,",
        "Some(beyond) => beyond >= request.end,",
    ),
    mutant(
        MMAP,
        "a fault reaches beyond the memory",
        "Some(end) if end <= self.length() => {}",
        "Some(end) if end <= self.size().0 => {}",
    ),
    mutant(
        MMAP,
        "a fault ignores the offset of the mapping",
        "request.offset.checked_add(first - request.start)",
        "Some(first - request.start)",
    ),
    mutant(
        MMAP,
        "a failed page behind the memory is found",
        "index >= self.length() / page.size()",
        "index > self.length() / page.size()",
    ),
    mutant(
        UNITS,
        "a BAR is twice as large as its memory",
        "len.checked_next_power_of_two()",
        "(len + 1).checked_next_power_of_two()",
    ),
    mutant(
        UNITS,
        "the address mask lacks a bit",
        "!(self.0.wrapping_sub(1))",
        "!(self.0.wrapping_mul(2).wrapping_sub(1))",
    ),
];
