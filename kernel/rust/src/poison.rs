// SPDX-License-Identifier: GPL-2.0-only
//! The pages that have failed under a mapping: a list of fixed size, filled in atomic context.
//!
//! A place is reserved by fetch-add, so that no report waits for another. Two reports of the same
//! page at the same time can both get a place; the list is read as ranges, in which a page shows
//! once. A page without a place is not forgotten: the list keeps the lowest and the highest of these
//! pages, and counts every page from one to the other as failed.
//!
//! A page stays in the list until the device is unbound: no reset makes a failed page good that
//! anybody could tell of.

use core::sync::atomic::{AtomicU64, Ordering};

/// Pages that the list has room for.
pub const CAPACITY: usize = 512;

/// A region index and a page number in the region, in an order that keeps neighbours together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct Page(u64);

impl Page {
    /// Bits for a page number: a region has at most 2^40 bytes.
    const BITS: u32 = 40;

    /// Page `number` of region `index`; `None` beyond what a region can have.
    pub fn new(index: u32, number: u64) -> Option<Self> {
        // An empty place is 0.
        let index = u64::from(index).checked_add(1)?;
        (number >> Self::BITS == 0 && index >> (u64::BITS - Self::BITS) == 0)
            .then_some(Self(index << Self::BITS | number))
    }

    /// The last page that the region can have.
    pub const fn last(self) -> Self {
        Self(self.0 | ((1 << Self::BITS) - 1))
    }

    /// The region index.
    pub const fn index(self) -> u32 {
        (self.0 >> Self::BITS) as u32 - 1
    }

    /// The page's number in the region.
    pub const fn number(self) -> u64 {
        self.0 & ((1 << Self::BITS) - 1)
    }
}

/// Result of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reported {
    /// The page is new in the list.
    New,
    /// The page is in the list already.
    Known,
    /// The list has no room for the page.
    Overflow,
}

/// The list. All zero at first.
#[derive(Debug)]
pub struct PoisonList {
    reserved: AtomicU64,
    pages: [AtomicU64; CAPACITY],
    /// The complement of the lowest page without a place; 0 if there is none.
    lowest: AtomicU64,
    /// The highest page without a place; 0 if there is none.
    highest: AtomicU64,
}

impl PoisonList {
    /// An empty list.
    #[allow(
        clippy::new_without_default,
        reason = "the list is too large for a stack"
    )]
    pub const fn new() -> Self {
        Self {
            reserved: AtomicU64::new(0),
            pages: [const { AtomicU64::new(0) }; CAPACITY],
            lowest: AtomicU64::new(0),
            highest: AtomicU64::new(0),
        }
    }

    /// Remembers a page. It never waits.
    pub fn report(&self, page: Page) -> Reported {
        if self.contains(page.0) {
            return Reported::Known;
        }
        let place = self.reserved.fetch_add(1, Ordering::Relaxed);
        let place = usize::try_from(place).ok().and_then(|n| self.pages.get(n));
        match place {
            Some(slot) => {
                slot.store(page.0, Ordering::Relaxed);
                Reported::New
            }
            None => {
                self.lowest.fetch_max(!page.0, Ordering::Relaxed);
                self.highest.fetch_max(page.0, Ordering::Relaxed);
                Reported::Overflow
            }
        }
    }

    /// Pages without a place: the lowest and the highest.
    pub fn overflow(&self) -> Option<(Page, Page)> {
        let highest = self.highest.load(Ordering::Relaxed);
        // The lowest is written first; between the two it counts alone.
        let lowest = !self.lowest.load(Ordering::Relaxed);
        (lowest != u64::MAX).then(|| (Page(lowest), Page(highest.max(lowest))))
    }

    /// The first failed page among `first` to `last`, both of one region.
    pub fn first_in(&self, first: Page, last: Page) -> Option<Page> {
        if self.reserved.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let range = first.0..=last.0;
        let listed = self.known().filter(|page| range.contains(page)).min();
        let beside = self
            .overflow()
            .map(|(lowest, highest)| (lowest.0.max(first.0), highest.0))
            .filter(|(page, highest)| page <= highest && *page <= last.0)
            .map(|(page, _)| page);
        match (listed, beside) {
            (Some(listed), Some(beside)) => Some(Page(listed.min(beside))),
            (listed, beside) => listed.or(beside).map(Page),
        }
    }

    /// The first range of failed pages that begins at `from` (0 is the lowest) or later: its
    /// first page, how many, and where the next may begin.
    pub fn range(&self, from: u64) -> Option<(Page, u64, u64)> {
        let known = self.known().filter(|page| *page >= from);
        let first = Page(known.min()?);
        let mut beyond = first.0 + 1;
        while self.contains(beyond) && Page(beyond).index() == first.index() {
            beyond += 1;
        }
        Some((first, beyond - first.0, beyond))
    }

    fn contains(&self, page: u64) -> bool {
        self.known().any(|known| known == page)
    }

    fn known(&self) -> impl Iterator<Item = u64> + '_ {
        let used = self.reserved.load(Ordering::Relaxed);
        self.pages
            .iter()
            .take(usize::try_from(used).unwrap_or(CAPACITY))
            .map(|page| page.load(Ordering::Relaxed))
            .filter(|page| *page != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(index: u32, number: u64) -> Page {
        Page::new(index, number).expect("a page of a region")
    }

    fn ranges(list: &PoisonList) -> Vec<(u32, u64, u64)> {
        let (mut ranges, mut from) = (vec![], 0);
        while let Some((first, count, next)) = list.range(from) {
            ranges.push((first.index(), first.number(), count));
            from = next;
        }
        ranges
    }

    #[test]
    fn a_list_shows_each_page_once_in_ranges() {
        let list = PoisonList::new();
        assert_eq!(ranges(&list), []);
        for number in [7, 5, 5, 900, 6, 5] {
            list.report(page(4, number));
        }
        assert_eq!(list.report(page(4, 900)), Reported::Known);
        list.report(page(2, 8));
        assert_eq!(ranges(&list), [(2, 8, 1), (4, 5, 3), (4, 900, 1)]);
    }

    #[test]
    fn what_finds_no_room_is_told() {
        let list = PoisonList::new();
        for number in 0..CAPACITY as u64 {
            assert_eq!(list.report(page(4, 2 * number)), Reported::New);
        }
        assert_eq!(list.overflow(), None);
        assert_eq!(list.report(page(4, 1)), Reported::Overflow);
        assert_eq!(list.report(page(4, 0)), Reported::Known);
        assert_eq!(ranges(&list).len(), CAPACITY);
    }

    #[test]
    fn a_page_without_a_place_is_not_forgotten() {
        let list = PoisonList::new();
        let first = |from, to| list.first_in(page(4, from), page(4, to));
        assert_eq!(first(0, 1 << 30), None);
        for number in 0..CAPACITY as u64 {
            list.report(page(4, 2 * number));
        }
        assert_eq!(first(1, 1), None);
        let beyond = 2 * CAPACITY as u64;
        for number in [beyond + 9, beyond + 5, beyond + 7] {
            assert_eq!(list.report(page(4, number)), Reported::Overflow);
        }
        assert_eq!(
            list.overflow(),
            Some((page(4, beyond + 5), page(4, beyond + 9)))
        );
        assert_eq!(first(beyond, beyond + 4), None);
        assert_eq!(first(beyond, beyond + 6), Some(page(4, beyond + 5)));
        assert_eq!(first(beyond + 8, beyond + 8), Some(page(4, beyond + 8)));
        assert_eq!(first(beyond + 10, 1 << 30), None);
        assert_eq!(first(1, 1 << 30), Some(page(4, 2)));
        assert_eq!(list.first_in(page(2, 0), page(2, 1 << 30)), None);
    }

    #[test]
    fn a_range_ends_with_its_region() {
        let list = PoisonList::new();
        let last = (1 << Page::BITS) - 1;
        list.report(page(2, last));
        list.report(page(3, 0));
        assert_eq!(ranges(&list), [(2, last, 1), (3, 0, 1)]);
        assert_eq!(Page::new(2, last + 1), None);
        assert_eq!(Page::new(u32::MAX, 0), None);
    }

    #[test]
    fn reports_that_race_lose_nothing() {
        let list = PoisonList::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..100 {
                        list.report(page(4, number));
                    }
                });
            }
        });
        assert_eq!(ranges(&list), [(4, 0, 100)]);
    }
}
