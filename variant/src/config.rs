//! Configuration space: who owns which piece of an access, and registers that a variant keeps.

use core::sync::atomic::{AtomicU8, Ordering};

use varia_spec::pci::header::bar::{MEM_PREFETCH, MEM_TYPE_64};

use crate::units::BarSize;

/// Read or write, from the user's side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// The user reads.
    Read,
    /// The user writes.
    Write,
}

/// Who serves a piece of configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConfigOwner {
    /// The base.
    Base,
    /// The variant. A write does not reach the base; a read shows the variant's bytes.
    Keep,
    /// Both: a write reaches the base and the variant, a read shows the variant's bytes.
    Both,
}

/// The first piece of an access and its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConfigPiece {
    /// Bytes in the piece: at least 1 and at most what was asked for.
    pub len: u64,
    /// Who serves it.
    pub owner: ConfigOwner,
}

impl ConfigPiece {
    /// The first piece of `offset..offset + len` where `owner` owns `window.0..window.1` and the
    /// base all else. `None` when the access does not reach the window at all.
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
}

/// A 64-bit prefetchable base address register pair that no hardware stands behind.
///
/// Writes are kept raw and byte by byte; the sizing protocol works because a read shows only the
/// address bits of the size. Two writers that race may tear, as on a real bus of bytes.
#[derive(Debug)]
pub struct FakeBar64 {
    start: u64,
    size: BarSize,
    raw: [AtomicU8; 8],
}

impl FakeBar64 {
    /// Bytes in the register pair.
    pub const LEN: u64 = 8;

    /// A pair at configuration offset `start`, for a BAR of `size`.
    pub const fn new(start: u64, size: BarSize) -> Self {
        Self {
            start,
            size,
            raw: [const { AtomicU8::new(0) }; 8],
        }
    }

    /// The configuration offsets it owns: first, and first beyond.
    pub const fn window(&self) -> (u64, u64) {
        (self.start, self.start + Self::LEN)
    }

    /// Replaces the bytes of `out`, which begins at configuration offset `offset`, that lie in
    /// the window.
    pub fn load(&self, offset: u64, out: &mut [u8]) {
        let mut raw = [0; 8];
        for (byte, kept) in raw.iter_mut().zip(&self.raw) {
            *byte = kept.load(Ordering::Relaxed);
        }
        let flags = u64::from(MEM_TYPE_64 | MEM_PREFETCH);
        let shown = (u64::from_le_bytes(raw) & self.size.address_mask()) | flags;
        for (position, byte) in (self.start..).zip(shown.to_le_bytes()) {
            if let Some(slot) = slot(offset, position).and_then(|index| out.get_mut(index)) {
                *slot = byte;
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

    /// Back to zero, as after a reset.
    pub fn clear(&self) {
        for kept in &self.raw {
            kept.store(0, Ordering::Relaxed);
        }
    }
}

/// The index of configuration offset `position` in a buffer that begins at `offset`.
fn slot(offset: u64, position: u64) -> Option<usize> {
    usize::try_from(position.checked_sub(offset)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn bar(size: u64) -> FakeBar64 {
        FakeBar64::new(0x18, BarSize::covering(size).expect("a size above zero"))
    }

    fn value(bar: &FakeBar64) -> u64 {
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
    fn an_access_is_split_at_the_edges_of_the_window() {
        let window = (0x18, 0x20);
        let split = |offset, len| ConfigPiece::split(offset, len, window, ConfigOwner::Keep);
        let piece = |len, owner| Some(ConfigPiece { len, owner });
        assert_eq!(split(0x10, 8), None);
        assert_eq!(split(0x20, 8), None);
        assert_eq!(split(0x10, 9), piece(8, ConfigOwner::Base));
        assert_eq!(split(0x18, 100), piece(8, ConfigOwner::Keep));
        assert_eq!(split(0x1f, 2), piece(1, ConfigOwner::Keep));
        assert_eq!(split(0x1a, 2), piece(2, ConfigOwner::Keep));
        assert_eq!(split(0x1a, u64::MAX), piece(6, ConfigOwner::Keep));
    }
}
