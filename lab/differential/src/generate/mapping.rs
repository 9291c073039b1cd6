//! Mappings, and what is done with them.

use super::{Generator, Surface};
use crate::op::{Op, Protection, SLOTS};

/// The longest mapping that is faulted in at once, in bytes.
const POPULATED: u64 = 1 << 20;
/// Bytes that the largest page-table entry of interest maps.
const LARGE: u64 = 2 << 20;

/// All that there are.
const PROTECTIONS: [Protection; 8] = [
    protection(false, false, false),
    protection(true, false, false),
    protection(false, true, false),
    protection(true, true, false),
    protection(false, false, true),
    protection(true, false, true),
    protection(false, true, true),
    protection(true, true, true),
];
const READ_WRITE: Protection = protection(true, true, false);

const fn protection(read: bool, write: bool, execute: bool) -> Protection {
    Protection {
        read,
        write,
        execute,
    }
}

impl Generator<'_> {
    fn protection(&mut self) -> Protection {
        match self.rng.bool() {
            true => READ_WRITE,
            false => self.choice(&PROTECTIONS, READ_WRITE),
        }
    }

    /// A mapping that ends near the end of the memory, or lies at its start.
    pub(super) fn map(&mut self) {
        let region = if self.rng.bool() { 4 } else { 2 };
        let page = self.shape.page;
        let length = self.shape.memory(region).map_or(0, |memory| memory.length);
        let pages = self.rng.u64(1..4);
        let last = length / page;
        let first = match self.rng.u32(0..4) {
            0 => 0,
            1 => self.rng.u64(0..8),
            _ => (last + self.rng.u64(0..3)).saturating_sub(pages),
        };
        let len = pages * page;
        let touch = self.rng.u64(0..len / 8) * 8;
        let asleep = self.surface == Surface::Portable && (self.dozing || self.disabled);
        let data = if self.rng.bool() && !asleep {
            self.bytes(8)
        } else {
            Vec::new()
        };
        self.push(Op::Map {
            asleep,
            region,
            offset: first * page,
            len,
            touch,
            data,
        });
    }

    pub(super) fn map_private(&mut self) {
        let protection = match self.surface {
            Surface::Kernel => self.protection(),
            Surface::Portable => READ_WRITE,
        };
        let region = self.choice(&[2, 4], 4);
        let offset = self.rng.u64(0..4) * self.shape.page;
        self.push(Op::MapPrivate {
            region,
            offset,
            protection,
        });
    }

    /// A mapping that is kept: small or large, of any region, across every edge.
    pub(super) fn keep(&mut self) {
        let slot = self.rng.u8(0..SLOTS);
        let region = match self.rng.u32(0..16) {
            0 => self.rng.u32(0..10),
            1 => 0,
            2..9 => 2,
            _ => 4,
        };
        let page = self.shape.page;
        let memory = self.shape.region(region);
        let (length, size) = memory.map_or((0, 0), |memory| (memory.length, memory.size));
        let len = match self.rng.u32(0..24) {
            0 => 0,
            1 => self.rng.u64(1..3 * page),
            2 => length,
            3 => length + page,
            4 => size,
            5 | 6 => LARGE + self.rng.u64(0..2) * page,
            7 => 1 << 40,
            _ => self.rng.u64(1..6) * page,
        };
        let last = length / page * page;
        let start = match self.rng.u32(0..24) {
            0 => last,
            1 => size,
            2 => (1 << 40) - page,
            3 => LARGE - page,
            4 => self.rng.u64(0..3 * page),
            5..9 => (last + self.rng.u64(0..3) * page).saturating_sub(len / page * page),
            9..14 => last.saturating_sub(len.div_ceil(page) * page),
            _ => 0,
        };
        let offset = start.min((1 << 40) - 1);
        let protection = self.protection();
        let populate = len <= POPULATED && self.rng.u32(0..4) == 0;
        // What was there before is gone in any case.
        if let Some(kept) = self.kept.get_mut(usize::from(slot)) {
            *kept = len;
        }
        self.push(Op::Keep {
            slot,
            region,
            offset,
            len,
            protection,
            populate,
        });
    }

    /// A touch of a mapping that is kept, most often near its ends.
    pub(super) fn touch(&mut self) {
        let slot = self.used_slot();
        let words = self.len_of(slot) / 8;
        let word = match self.rng.u32(0..4) {
            _ if words == 0 => 0,
            0 => self.rng.u64(0..words.min(64)),
            1 => words - 1 - self.rng.u64(0..words.min(64)),
            2 => (LARGE / 8).min(words - 1),
            _ => self.rng.u64(0..words),
        };
        let data = if self.rng.bool() {
            self.bytes(8)
        } else {
            Vec::new()
        };
        let directly = self.rng.u32(0..8) == 0;
        self.push(Op::Touch {
            slot,
            at: word * 8,
            data,
            directly,
        });
    }

    pub(super) fn protect(&mut self) {
        let slot = self.rng.u8(0..SLOTS);
        let protection = self.protection();
        self.push(Op::Protect { slot, protection });
    }

    pub(super) fn unmap(&mut self) {
        let slot = self.rng.u8(0..SLOTS);
        if let Some(kept) = self.kept.get_mut(usize::from(slot)) {
            *kept = 0;
        }
        self.push(Op::Unmap { slot });
    }

    /// Most often a slot that has a mapping, as far as it is known.
    fn used_slot(&mut self) -> u8 {
        let used: Vec<u8> = (0..SLOTS).filter(|slot| self.len_of(*slot) > 0).collect();
        match self.rng.u32(0..8) {
            0 => self.rng.u8(0..SLOTS),
            _ => self.choice(&used, 0),
        }
    }

    fn len_of(&self, slot: u8) -> u64 {
        self.kept.get(usize::from(slot)).copied().unwrap_or(0)
    }

    pub(super) fn dma(&mut self) {
        let slot = self.used_slot();
        if self.len_of(slot) > LARGE {
            // It would be mapped page by page.
            return;
        }
        let map = self.rng.u32(0..3) != 0;
        self.push(Op::Dma { slot, map });
    }
}
