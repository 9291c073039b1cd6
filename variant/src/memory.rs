//! A region of memory outside every physical BAR, presented as a BAR that may be larger, or as a
//! device-specific region of the same size.
//!
//! The size of a BAR is a power of two, that of the memory need not be. Bytes from `length` to
//! `size` exist for the user and not for the hardware: reads give 0xFF and writes are dropped, as
//! the hardware does beyond its end (Linux 7.2
//! `drivers/vfio/pci/nvgrace-gpu/main.c:nvgrace_gpu_read_mem`).

use varia_spec::{
    Errno,
    vfio::{MAX_REGION_SIZE, RegionCapability, RegionInfo, RegionType, SparseArea, region_flags},
};

use crate::config::Direction;
use varia_units::{BarSize, Bytes, HostPhys};

/// Type with which the CPU maps and accesses memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryType {
    /// Cached, at byte granularity.
    Cached,
    /// Uncached with write combining (arm64 NORMAL_NC), in naturally aligned accesses of 8, 4, 2 or
    /// 1 bytes.
    WriteCombining,
    /// Uncached and in order: registers.
    Registers,
}

/// Memory presented as a region. Immutable; the constructors check the invariants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    name: &'static str,
    base: HostPhys,
    length: u64,
    size: u64,
    memory: MemoryType,
    /// Type of a device-specific region; `None` for a BAR.
    region_type: Option<RegionType>,
    /// Bits of [`region_flags`].
    flags: u32,
    /// Capabilities of a device-specific region.
    capabilities: [Option<RegionCapability>; 2],
    /// True if a user may map the region once alone.
    once: bool,
}

/// Start of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// The access fails.
    Refuse(Errno),
    /// The access is served, `count` bytes at most.
    Serve {
        /// The count clipped to the region, in bytes.
        count: u64,
        /// True if the device must be ready first, even if the count is 0.
        needs_ready: bool,
    },
}

/// Target of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// Memory at this address, accessed as this type.
    Memory(HostPhys, MemoryType),
    /// No memory: a read gives 0xFF.
    Ones,
    /// No memory: a write is counted and dropped.
    Drop,
    /// Memory whose page has failed. The access ends here, with the bytes before it, or with `EIO`
    /// if there are none (poison-refused).
    Failed,
}

/// First segment of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Length in bytes: at least 1 unless the access is empty.
    pub len: u64,
    /// Target of the segment.
    pub kind: SegmentKind,
}

impl MemoryRegion {
    /// `length` bytes of memory at `base` behind a BAR of `size`.
    ///
    /// `EINVAL` if the length is 0 or beyond the size, `EOVERFLOW` if the memory ends beyond 64
    /// bits or a VFIO file position can't address the size ([`MAX_REGION_SIZE`]).
    pub const fn new(
        base: HostPhys,
        length: u64,
        size: BarSize,
        memory: MemoryType,
    ) -> Result<Self, Errno> {
        if length == 0 || length > size.get() {
            return Err(Errno::EINVAL);
        }
        if size.get() > MAX_REGION_SIZE || base.checked_add(length).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        Ok(Self {
            name: "memory",
            base,
            length,
            size: size.get(),
            memory,
            region_type: None,
            flags: region_flags::READ | region_flags::WRITE | region_flags::MMAP,
            capabilities: [None; 2],
            once: false,
        })
    }

    /// `length` bytes of memory at `base` as a device-specific region, which allows the accesses
    /// `flags`, bits of [`region_flags`]. Errors as [`MemoryRegion::new`].
    pub const fn of_device(
        base: HostPhys,
        length: u64,
        memory: MemoryType,
        region_type: RegionType,
        flags: u32,
    ) -> Result<Self, Errno> {
        let Some(size) = BarSize::covering(length) else {
            return Err(Errno::EINVAL);
        };
        match Self::new(base, length, size, memory) {
            Ok(region) => Ok(region.device_specific(region_type, flags)),
            Err(errno) => Err(errno),
        }
    }

    /// A device-specific region without memory, which exists for its capabilities: each access is
    /// `EINVAL`.
    pub const fn without_memory(region_type: RegionType, flags: u32) -> Self {
        Self {
            name: "memory",
            base: HostPhys(0),
            length: 0,
            size: 0,
            memory: MemoryType::Registers,
            region_type: Some(region_type),
            flags,
            capabilities: [None; 2],
            once: false,
        }
    }

    /// The same region with these capabilities.
    pub const fn with_capabilities(self, capabilities: [Option<RegionCapability>; 2]) -> Self {
        Self {
            capabilities,
            ..self
        }
    }

    /// The same region, of which each user may make one mapping, from the open of the device to its
    /// close.
    pub const fn mapped_once(self) -> Self {
        Self { once: true, ..self }
    }

    /// True if each user may make one mapping alone.
    pub const fn is_mapped_once(&self) -> bool {
        self.once
    }

    /// The same memory behind a BAR of another size. Errors as [`MemoryRegion::new`].
    pub fn behind(self, size: BarSize) -> Result<Self, Errno> {
        Self::new(self.base, self.length, size, self.memory).map(|region| region.named(self.name))
    }

    /// The same memory as a device-specific region of its size, which allows the accesses `flags`,
    /// bits of [`region_flags`].
    pub const fn device_specific(self, region_type: RegionType, flags: u32) -> Self {
        Self {
            size: self.length,
            region_type: Some(region_type),
            flags,
            ..self
        }
    }

    /// The same region under a name of its own.
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Name that the variant gave the region.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Host-physical address of the first byte.
    pub const fn base(&self) -> HostPhys {
        self.base
    }

    /// Length of the memory in bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Size of the region: of a BAR, a power of two.
    pub const fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    /// Type of the memory.
    pub const fn memory(&self) -> MemoryType {
        self.memory
    }

    /// The region's info. The memory is the one area that can be mapped.
    pub const fn info(&self) -> RegionInfo<[SparseArea; 1]> {
        RegionInfo {
            flags: self.flags,
            size: self.size,
            areas: [SparseArea {
                offset: 0,
                size: self.length,
            }],
            region_type: self.region_type,
            msix_mappable: false,
            capabilities: self.capabilities,
        }
    }

    /// Starts a read or write of `count` bytes at `offset`.
    ///
    /// A read, and a write that starts in the memory, wait for the device even when `count` is 0;
    /// a write that starts beyond the memory has nothing to wait for. `EINVAL` beyond the region, and
    /// for an access that the region's flags do not allow.
    pub const fn begin(&self, direction: Direction, offset: u64, count: u64) -> Begin {
        let needed = match direction {
            Direction::Read => region_flags::READ,
            Direction::Write => region_flags::WRITE,
        };
        let Some(room) = self.size.checked_sub(offset) else {
            return Begin::Refuse(Errno::EINVAL);
        };
        if room == 0 || self.flags & needed == 0 {
            return Begin::Refuse(Errno::EINVAL);
        }
        let needs_ready = match direction {
            Direction::Read => true,
            Direction::Write => offset < self.length,
        };
        Begin::Serve {
            count: if count < room { count } else { room },
            needs_ready,
        }
    }

    /// First segment of `offset..offset + count`, which [`MemoryRegion::begin`] has clipped.
    pub const fn segment(&self, direction: Direction, offset: u64, count: u64) -> Segment {
        let here = self.length.saturating_sub(offset);
        match self.base.checked_add(offset) {
            Some(at) if here > 0 => Segment {
                len: if count < here { count } else { here },
                kind: SegmentKind::Memory(at, self.memory),
            },
            _ => Segment {
                len: count,
                kind: match direction {
                    Direction::Read => SegmentKind::Ones,
                    Direction::Write => SegmentKind::Drop,
                },
            },
        }
    }
}

impl Segment {
    /// The segment up to the first failed page in it: `failed` is the number of bytes before that
    /// page, `None` if no page of the segment has failed.
    pub const fn up_to(self, failed: Option<u64>) -> Self {
        match failed {
            Some(0) => Self {
                len: self.len,
                kind: SegmentKind::Failed,
            },
            Some(before) if before < self.len => Self {
                len: before,
                kind: self.kind,
            },
            _ => self,
        }
    }
}

/// The width in bytes of the first naturally aligned access of `len` bytes at `at`: 8, 4, 2 or 1.
pub const fn natural_width(at: HostPhys, len: u64) -> u64 {
    let mut width = 8;
    while width > 1 && (!at.0.is_multiple_of(width) || width > len) {
        width /= 2;
    }
    width
}

/// The first naturally aligned accesses of one width in `len` bytes at `at`: their width and their
/// length together. Below 8 bytes it is one access, of 8 bytes as many as fit.
pub const fn natural_run(at: HostPhys, len: u64) -> (u64, u64) {
    match natural_width(at, len) {
        8 => (8, len - len % 8),
        width => (width, width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: HostPhys = HostPhys(0x42_0000_0000);

    fn region() -> MemoryRegion {
        let size = BarSize::covering(0x2000).expect("above zero");
        MemoryRegion::new(BASE, 0x1800, size, MemoryType::Cached).expect("a good region")
    }

    #[test]
    fn the_constructor_refuses_what_could_not_be_served() {
        let new = |base, length, size| {
            let size = BarSize::covering(size).expect("above zero");
            MemoryRegion::new(HostPhys(base), length, size, MemoryType::Cached).map(|_| ())
        };
        assert_eq!(new(0, 0, 4096), Err(Errno::EINVAL));
        assert_eq!(new(0, 4097, 4096), Err(Errno::EINVAL));
        assert_eq!(new(u64::MAX - 4095, 4096, 4096), Err(Errno::EOVERFLOW));
        assert_eq!(new(0, 4096, 1 << 41), Err(Errno::EOVERFLOW));
        assert_eq!(new(0, 4096, 1 << 40), Ok(()));
    }

    #[test]
    fn the_bar_is_as_large_as_it_says_and_only_the_memory_can_be_mapped() {
        let info = RegionInfo {
            flags: 0b111,
            size: 0x2000,
            areas: [SparseArea {
                offset: 0,
                size: 0x1800,
            }],
            region_type: None,
            msix_mappable: false,
            capabilities: [None; 2],
        };
        assert_eq!(region().info(), info);
    }

    #[test]
    fn a_device_specific_region_is_as_large_as_its_memory_and_allows_what_its_flags_say() {
        let region_type = RegionType::of_vendor(0x10de, 0x100);
        let of = |flags| region().device_specific(region_type, flags);
        let begun = |flags, direction| of(flags).begin(direction, 0, 4);
        let served = Begin::Serve {
            count: 4,
            needs_ready: true,
        };
        let refused = Begin::Refuse(Errno::EINVAL);
        use region_flags::{MMAP, READ, WRITE};
        for (flags, read, write) in [
            (MMAP, refused, refused),
            (READ | MMAP, served, refused),
            (WRITE, refused, served),
            (READ | WRITE | MMAP, served, served),
        ] {
            assert_eq!(begun(flags, Direction::Read), read);
            assert_eq!(begun(flags, Direction::Write), write);
            let info = of(flags).info();
            assert_eq!((info.flags, info.size), (flags, 0x1800));
            assert_eq!(info.region_type, Some(region_type));
        }
    }

    #[test]
    fn an_access_from_the_end_of_the_bar_is_refused_and_others_are_clipped() {
        let region = region();
        assert_eq!(
            region.begin(Direction::Read, 0x2000, 0),
            Begin::Refuse(Errno::EINVAL)
        );
        assert_eq!(
            region.begin(Direction::Write, u64::MAX, 1),
            Begin::Refuse(Errno::EINVAL)
        );
        let serve = |count, needs_ready| Begin::Serve { count, needs_ready };
        assert_eq!(region.begin(Direction::Read, 0x1fff, 100), serve(1, true));
        assert_eq!(region.begin(Direction::Read, 0, 0), serve(0, true));
        assert_eq!(region.begin(Direction::Write, 0x17ff, 0), serve(0, true));
        assert_eq!(region.begin(Direction::Write, 0x1800, 4), serve(4, false));
    }

    #[test]
    fn bytes_beyond_the_memory_are_ones_or_dropped() {
        let region = region();
        let memory = |offset, len| Segment {
            len,
            kind: SegmentKind::Memory(HostPhys(BASE.0 + offset), MemoryType::Cached),
        };
        assert_eq!(
            region.segment(Direction::Read, 0x17fe, 4),
            memory(0x17fe, 2)
        );
        assert_eq!(
            region.segment(Direction::Write, 0x1000, 4),
            memory(0x1000, 4)
        );
        let ones = Segment {
            len: 2,
            kind: SegmentKind::Ones,
        };
        assert_eq!(region.segment(Direction::Read, 0x1800, 2), ones);
        let dropped = Segment {
            len: 5,
            kind: SegmentKind::Drop,
        };
        assert_eq!(region.segment(Direction::Write, 0x1fff, 5), dropped);
    }

    #[test]
    fn a_segment_ends_before_a_failed_page() {
        let whole = region().segment(Direction::Read, 0x100, 0x1000);
        assert_eq!(whole.up_to(None), whole);
        assert_eq!(whole.up_to(Some(0x1000)), whole);
        let Segment { len, kind } = whole.up_to(Some(0xf00));
        assert_eq!((len, kind), (0xf00, whole.kind));
        assert_eq!(whole.up_to(Some(0)).kind, SegmentKind::Failed);
    }

    #[test]
    fn runs_are_the_natural_accesses_with_the_widest_together() {
        for at in 0..16 {
            for len in 0..40 {
                let (mut here, mut left) = (at, len);
                let mut last = 0;
                while left > 0 {
                    let (width, run) = natural_run(HostPhys(here), left);
                    for segment in (0..run).step_by(width as usize) {
                        let at = HostPhys(here + segment);
                        assert_eq!(natural_width(at, left - segment), width, "{here} {left}");
                    }
                    assert!(
                        run > 0 && (width, last) != (8, 8),
                        "all of 8 are in one run"
                    );
                    (here, left, last) = (here + run, left - run, width);
                }
                assert_eq!(here, at + len);
            }
        }
    }

    #[test]
    fn natural_accesses_are_aligned_and_fit() {
        for (at, len, width) in [
            (0, 16, 8),
            (1, 16, 1),
            (2, 16, 2),
            (4, 16, 4),
            (8, 7, 4),
            (12, 8, 4),
            (8, 3, 2),
            (8, 1, 1),
        ] {
            assert_eq!(
                natural_width(HostPhys(at), len),
                width,
                "{len} bytes at {at}"
            );
        }
    }
}
