//! Configuration space: owners of the segments of an access, and registers that a variant keeps.

use core::sync::atomic::{AtomicU8, Ordering};

use varia_spec::pci::header::bar::{MEM_PREFETCH, MEM_TYPE_64, SPACE_IO};

use crate::memory::MemoryRegion;
use varia_units::BarSize;

/// Read or write, from the user's side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// The user reads.
    Read,
    /// The user writes.
    Write,
}

/// Owner of a segment of configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConfigOwner {
    /// The base.
    Base,
    /// The variant. A write does not reach the base; a read shows the variant's bytes.
    Keep,
    /// The base and the variant: a write reaches both, a read shows the variant's bytes.
    Both,
}

/// First segment of an access, and the owner of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConfigSegment {
    /// Length in bytes: at least 1, at most the length of the access.
    pub len: u64,
    /// Owner of the segment.
    pub owner: ConfigOwner,
}

impl ConfigSegment {
    /// First segment of `offset..offset + len` where `owner` owns `window.0..window.1` and the base
    /// the rest. `None` if the access does not reach the window.
    pub const fn split(
        offset: u64,
        len: u64,
        window: (u64, u64),
        owner: ConfigOwner,
    ) -> Option<Self> {
        let end = offset.saturating_add(len);
        if offset >= window.1 || end <= window.0 {
            None
        } else if offset < window.0 {
            Some(Self {
                len: window.0 - offset,
                owner: ConfigOwner::Base,
            })
        } else {
            let stop = if end < window.1 { end } else { window.1 };
            Some(Self {
                len: stop - offset,
                owner,
            })
        }
    }

    /// First segment of `offset..offset + len` where `owner` owns several windows, which do not
    /// overlap, and the base the rest. The segment ends where a window begins or ends.
    pub fn split_all(
        offset: u64,
        len: u64,
        windows: impl Iterator<Item = (u64, u64)>,
        owner: ConfigOwner,
    ) -> Self {
        let mut first = Self {
            len,
            owner: ConfigOwner::Base,
        };
        for window in windows {
            match Self::split(offset, len, window, owner) {
                // The access begins in this window, so in no other.
                Some(segment) if segment.owner == owner => return segment,
                Some(segment) if segment.len < first.len => first = segment,
                _ => {}
            }
        }
        first
    }
}

/// A base address register, or a pair of registers, without hardware behind it, or of a BAR that
/// does not exist.
///
/// Writes are kept raw and byte by byte; the sizing protocol works because a read shows only the
/// address bits of the size. Two writers that race may tear, as on a real bus of bytes.
#[derive(Debug)]
pub struct FakeBar {
    start: u64,
    len: u8,
    flags: u32,
    /// Bits that can be written.
    mask: u64,
    raw: [AtomicU8; 8],
}

impl FakeBar {
    /// The pair at configuration offset `start` that stands for a region of 64-bit prefetchable
    /// memory.
    pub const fn of(start: u16, region: &MemoryRegion) -> Self {
        let mask = !(region.size().0.wrapping_sub(1));
        Self::new(start as u64, 8, MEM_TYPE_64 | MEM_PREFETCH, mask)
    }

    /// A register at configuration offset `start`, for `size` I/O ports.
    pub const fn io(start: u64, size: BarSize) -> Self {
        Self::new(start, 4, SPACE_IO, size.address_mask())
    }

    /// A pair at configuration offset `start` of a BAR that does not exist: its bits are zero,
    /// whatever is written.
    pub const fn absent64(start: u16) -> Self {
        Self::new(start as u64, 8, 0, 0)
    }

    const fn new(start: u64, len: u8, flags: u32, mask: u64) -> Self {
        Self {
            start,
            len,
            flags,
            mask,
            raw: [const { AtomicU8::new(0) }; 8],
        }
    }

    /// Configuration offsets of the register: start, and end (exclusive).
    pub const fn window(&self) -> (u64, u64) {
        (self.start, self.start + self.len as u64)
    }

    /// Replaces the bytes of `out`, which begins at configuration offset `offset`, that lie in
    /// the window.
    pub fn load(&self, offset: u64, out: &mut [u8]) {
        if self.is_beyond(offset, out.len()) {
            return;
        }
        let mut raw = [0; 8];
        for (byte, kept) in raw.iter_mut().zip(&self.raw) {
            *byte = kept.load(Ordering::Relaxed);
        }
        let shown = (u64::from_le_bytes(raw) & self.mask) | u64::from(self.flags);
        let shown = shown.to_le_bytes();
        let (inside, before) = self.skip(offset);
        let shown = shown.get(inside..self.len.into()).unwrap_or_default();
        let out = out.get_mut(before..).unwrap_or_default();
        for (slot, byte) in out.iter_mut().zip(shown) {
            *slot = *byte;
        }
    }

    /// Keeps the bytes of `data`, which begins at configuration offset `offset`, that lie in the
    /// window.
    pub fn store(&self, offset: u64, data: &[u8]) {
        if self.is_beyond(offset, data.len()) {
            return;
        }
        let (inside, before) = self.skip(offset);
        let raw = self.raw.get(inside..self.len.into()).unwrap_or_default();
        let data = data.get(before..).unwrap_or_default();
        for (kept, byte) in raw.iter().zip(data) {
            kept.store(*byte, Ordering::Relaxed);
        }
    }

    /// True if none of the `len` bytes at configuration offset `offset` is in the window.
    fn is_beyond(&self, offset: u64, len: usize) -> bool {
        let (start, end) = self.window();
        offset >= end || offset.saturating_add(len as u64) <= start
    }

    /// Bytes of the window, and bytes of a buffer that begins at configuration offset `offset`,
    /// before the first byte that both have.
    fn skip(&self, offset: u64) -> (usize, usize) {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        (
            bytes(offset.saturating_sub(self.start)),
            bytes(self.start.saturating_sub(offset)),
        )
    }

    /// Sets the register to zero, as a reset does.
    pub fn clear(&self) {
        for kept in &self.raw {
            kept.store(0, Ordering::Relaxed);
        }
    }
}

/// A read-only register whose value is the variant's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedRegister {
    start: u64,
    len: u8,
    value: u32,
}

impl FixedRegister {
    /// A byte at configuration offset `start`.
    pub const fn byte(start: u64, value: u8) -> Self {
        Self {
            start,
            len: 1,
            value: value as u32,
        }
    }

    /// A little-endian word at configuration offset `start`.
    pub const fn word(start: u64, value: u16) -> Self {
        Self {
            start,
            len: 2,
            value: value as u32,
        }
    }

    /// Configuration offsets of the register: start, and end (exclusive).
    pub const fn window(&self) -> (u64, u64) {
        (self.start, self.start + self.len as u64)
    }

    /// Replaces the bytes of `out`, which begins at configuration offset `offset`, that lie in
    /// the window.
    pub fn load(&self, offset: u64, out: &mut [u8]) {
        let bytes = self
            .value
            .to_le_bytes()
            .into_iter()
            .take(usize::from(self.len));
        for (position, byte) in (self.start..).zip(bytes) {
            if let Some(slot) = slot(offset, position).and_then(|index| out.get_mut(index)) {
                *slot = byte;
            }
        }
    }
}

/// A dword of configuration space that the variant alone keeps: no write reaches the base, and what
/// the base reads is replaced.
#[derive(Debug)]
pub struct VirtualDword {
    start: u64,
    initial: u32,
    raw: [AtomicU8; 4],
}

impl VirtualDword {
    /// The dword at configuration offset `start`, with this value for each new user.
    pub const fn new(start: u64, initial: u32) -> Self {
        let [a, b, c, d] = initial.to_le_bytes();
        let raw = [
            AtomicU8::new(a),
            AtomicU8::new(b),
            AtomicU8::new(c),
            AtomicU8::new(d),
        ];
        Self {
            start,
            initial,
            raw,
        }
    }

    /// Configuration offsets of the register: start, and end (exclusive).
    pub const fn window(&self) -> (u64, u64) {
        (self.start, self.start + 4)
    }

    /// Replaces the bytes of `out`, which begins at configuration offset `offset`, that lie in
    /// the window.
    pub fn load(&self, offset: u64, out: &mut [u8]) {
        for (position, kept) in (self.start..).zip(&self.raw) {
            if let Some(byte) = slot(offset, position).and_then(|index| out.get_mut(index)) {
                *byte = kept.load(Ordering::Relaxed);
            }
        }
    }

    /// Keeps the bytes of `data`, which begins at configuration offset `offset`, that lie in the
    /// window.
    pub fn store(&self, offset: u64, data: &[u8]) {
        for (position, kept) in (self.start..).zip(&self.raw) {
            if let Some(byte) = slot(offset, position).and_then(|index| data.get(index)) {
                kept.store(*byte, Ordering::Relaxed);
            }
        }
    }

    /// Sets the register to its first value.
    pub fn restart(&self) {
        for (kept, byte) in self.raw.iter().zip(self.initial.to_le_bytes()) {
            kept.store(byte, Ordering::Relaxed);
        }
    }
}

/// Bits of a word in configuration space that read as set once the user has set them, whatever
/// the base returns.
#[derive(Debug)]
pub struct StickyBits {
    start: u64,
    mask: u16,
    raw: [AtomicU8; 2],
}

impl StickyBits {
    /// The bits `mask` of the word at configuration offset `start`, clear.
    pub const fn new(start: u64, mask: u16) -> Self {
        Self {
            start,
            mask,
            raw: [const { AtomicU8::new(0) }; 2],
        }
    }

    /// Configuration offsets of the register: start, and end (exclusive).
    pub const fn window(&self) -> (u64, u64) {
        (self.start, self.start + 2)
    }

    /// True if the user has set all of the bits.
    pub fn are_set(&self) -> bool {
        self.set() == self.mask.to_le_bytes()
    }

    /// Sets in `out`, which begins at configuration offset `offset`, the bits that are set.
    pub fn load(&self, offset: u64, out: &mut [u8]) {
        for (position, set) in (self.start..).zip(self.set()) {
            if let Some(byte) = slot(offset, position).and_then(|index| out.get_mut(index)) {
                *byte |= set;
            }
        }
    }

    /// Keeps the bytes of `data`, which begins at configuration offset `offset`, that lie in the
    /// window.
    pub fn store(&self, offset: u64, data: &[u8]) {
        for (position, kept) in (self.start..).zip(&self.raw) {
            if let Some(byte) = slot(offset, position).and_then(|index| data.get(index)) {
                kept.store(*byte, Ordering::Relaxed);
            }
        }
    }

    /// Clears the bits, as a reset does.
    pub fn clear(&self) {
        for kept in &self.raw {
            kept.store(0, Ordering::Relaxed);
        }
    }

    fn set(&self) -> [u8; 2] {
        let [low, high] = self.mask.to_le_bytes();
        let [first, second] = &self.raw;
        [
            first.load(Ordering::Relaxed) & low,
            second.load(Ordering::Relaxed) & high,
        ]
    }
}

/// The index of configuration offset `position` in a buffer that begins at `offset`.
fn slot(offset: u64, position: u64) -> Option<usize> {
    usize::try_from(position.checked_sub(offset)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryType;
    use std::vec;
    use varia_units::HostPhys;

    fn bar(size: u64) -> FakeBar {
        let bar = BarSize::covering(size).expect("a size above zero");
        let region = MemoryRegion::new(HostPhys(0), size, bar, MemoryType::Cached);
        FakeBar::of(0x18, &region.expect("a region"))
    }

    fn value(bar: &FakeBar) -> u64 {
        let mut out = [0; 8];
        bar.load(0x18, &mut out);
        u64::from_le_bytes(out)
    }

    #[test]
    fn sizing_shows_the_address_bits_and_the_flags() {
        let bar = bar(128 << 30);
        assert_eq!(value(&bar), 0xc);
        bar.store(0x18, &[0xff; 8]);
        assert_eq!(value(&bar), !((128u64 << 30) - 1) | 0xc);
        bar.clear();
        assert_eq!(value(&bar), 0xc);
    }

    #[test]
    fn partial_and_crossing_accesses_touch_only_their_bytes() {
        let bar = bar(1 << 16);
        bar.store(0x16, &[1, 2, 3, 4, 5]);
        assert_eq!(value(&bar), 0x05_0000 | 0xc);
        bar.store(0x1f, &[0x99, 0x77]);
        assert_eq!(value(&bar), 0x9900_0000_0005_000c);
        let mut out = vec![0xee; 12];
        bar.load(0x16, &mut out);
        assert_eq!(out, [0xee, 0xee, 0x0c, 0, 5, 0, 0, 0, 0, 0x99, 0xee, 0xee]);
    }

    #[test]
    fn an_io_bar_is_four_bytes_with_the_io_flag() {
        let bar = FakeBar::io(0x10, BarSize::covering(32).expect("a size above zero"));
        assert_eq!(bar.window(), (0x10, 0x14));
        bar.store(0x0f, &[0xff; 6]);
        let mut out = [0xee; 6];
        bar.load(0x0f, &mut out);
        assert_eq!(out, [0xee, 0xe1, 0xff, 0xff, 0xff, 0xee]);
        bar.clear();
        bar.load(0x0f, &mut out);
        assert_eq!(out, [0xee, 1, 0, 0, 0, 0xee]);
    }

    #[test]
    fn a_bar_that_does_not_exist_shows_zeros() {
        let bar = FakeBar::absent64(0x18);
        assert_eq!(bar.window(), (0x18, 0x20));
        bar.store(0x18, &[0xff; 8]);
        assert_eq!(value(&bar), 0);
    }

    #[test]
    fn a_fixed_register_shows_its_own_bytes_and_no_others() {
        let word = FixedRegister::word(2, 0x1000);
        let byte = FixedRegister::byte(8, 0);
        assert_eq!((word.window(), byte.window()), ((2, 4), (8, 9)));
        for (offset, expected) in [
            (1, vec![0xee, 0x00, 0x10, 0xee]),
            (3, vec![0x10, 0xee, 0xee, 0xee]),
            (4, vec![0xee; 4]),
            (7, vec![0xee, 0x00, 0xee, 0xee]),
        ] {
            let mut out = vec![0xee; 4];
            word.load(offset, &mut out);
            byte.load(offset, &mut out);
            assert_eq!(out, expected, "from {offset}");
        }
    }

    #[test]
    fn sticky_bits_are_added_to_what_the_base_shows() {
        let bits = StickyBits::new(4, 0x0101);
        assert_eq!(bits.window(), (4, 6));
        let shown = |bits: &StickyBits, base: u16| {
            let [low, high] = base.to_le_bytes();
            let mut out = [0xee, low, high, 0xee];
            bits.load(3, &mut out);
            assert_eq!((out[0], out[3]), (0xee, 0xee));
            u16::from_le_bytes([out[1], out[2]])
        };
        bits.store(3, &[1, 0xfe, 0xfe, 1]);
        assert_eq!((shown(&bits, 0x06), bits.are_set()), (0x06, false));
        bits.store(3, &[0, 7]);
        assert_eq!((shown(&bits, 0x40), bits.are_set()), (0x41, false));
        bits.store(5, &[0xff, 0]);
        assert_eq!((shown(&bits, 0x40), bits.are_set()), (0x141, true));
        bits.store(6, &[0]);
        bits.store(3, &[0]);
        assert!(bits.are_set(), "its bytes were not written");
        bits.clear();
        assert_eq!((shown(&bits, 0x06), bits.are_set()), (0x06, false));
    }

    #[test]
    fn an_access_is_split_at_the_edges_of_the_window() {
        let window = (0x18, 0x20);
        let split = |offset, len| ConfigSegment::split(offset, len, window, ConfigOwner::Keep);
        let segment = |len, owner| Some(ConfigSegment { len, owner });
        assert_eq!(split(0x10, 8), None);
        assert_eq!(split(0x20, 8), None);
        assert_eq!(split(0x10, 9), segment(8, ConfigOwner::Base));
        assert_eq!(split(0x18, 100), segment(8, ConfigOwner::Keep));
        assert_eq!(split(0x1f, 2), segment(1, ConfigOwner::Keep));
        assert_eq!(split(0x1a, 2), segment(2, ConfigOwner::Keep));
        assert_eq!(split(0x1a, u64::MAX), segment(6, ConfigOwner::Keep));
    }
}
