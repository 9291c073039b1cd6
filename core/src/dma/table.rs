//! The user's mappings, by their I/O virtual addresses.
//!
//! Every visit of a mapping goes through this module, where the tests count: removing 65,535
//! mappings, or all of a user that leaves, visits each of them a fixed number of times.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use vm_memory::Permissions;

use super::files::FileId;

/// Mappings by their first I/O virtual address. None of them overlap.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<u64, Mapping>);

#[derive(Debug)]
pub(super) struct Mapping {
    /// Bytes, at least one; the last has an address of 64 bits.
    pub(super) len: u64,
    pub(super) access: Permissions,
    /// The file and the offset of the first byte in it; `None` for memory without a descriptor.
    pub(super) memory: Option<(FileId, u64)>,
}

impl Mapping {
    /// The last address of this mapping, which begins at `start`.
    pub(super) fn last(&self, start: u64) -> u64 {
        start + (self.len - 1)
    }
}

impl Table {
    /// Number of mappings.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Adds a mapping that begins at `start` and overlaps no other.
    pub(super) fn insert(&mut self, start: u64, mapping: Mapping) {
        self.0.insert(start, mapping);
    }

    /// Takes out the mapping that begins at `start`.
    pub(super) fn remove(&mut self, start: u64) -> Option<Mapping> {
        self.0.remove(&start).inspect(|_| visits::count())
    }

    /// The last mapping that begins at `at` or before.
    pub(super) fn before(&self, at: u64) -> Option<(u64, &Mapping)> {
        let found = self.0.range(..=at).next_back();
        let found = found.map(|(start, mapping)| (*start, mapping));
        found.inspect(|_| visits::count())
    }

    /// The mappings that begin in a range.
    pub(super) fn inside(
        &self,
        range: RangeInclusive<u64>,
    ) -> impl Iterator<Item = (u64, &Mapping)> {
        let found = self
            .0
            .range(range)
            .map(|(start, mapping)| (*start, mapping));
        found.inspect(|_| visits::count())
    }
}

/// Visits of the table's mappings by this thread.
#[cfg(test)]
mod visits {
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        COUNT.set(COUNT.get() + 1);
    }

    /// The number since the last call.
    pub(super) fn take() -> usize {
        COUNT.take()
    }
}

#[cfg(not(test))]
mod visits {
    pub(super) fn count() {}
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use varia_sys::memory::SharedMemory;

    use super::super::{Dma, DmaAccess};
    use super::visits;

    const PAGE: u64 = 4096;
    const MANY: usize = 4000;
    const BOTH: DmaAccess = DmaAccess {
        read: true,
        write: true,
    };

    /// Maps every second page, and returns the number of visits.
    fn fill(dma: &Dma, memory: &SharedMemory) -> usize {
        visits::take();
        for page in 0..MANY as u64 {
            let fd: OwnedFd = memory.as_fd().try_clone_to_owned().unwrap();
            dma.map(2 * page * PAGE, PAGE, BOTH, Some((fd, page * PAGE)))
                .unwrap();
        }
        assert_eq!(dma.size().0, MANY);
        visits::take()
    }

    #[test]
    fn many_mappings_are_made_and_removed_in_one_pass() {
        let memory = SharedMemory::anonymous("ram", MANY as u64 * PAGE).unwrap();
        let dma = Dma::default();
        // beside the sum of the sizes, which is asked for once
        assert!(fill(&dma, &memory) <= 2 * MANY);
        dma.unmap(0, u64::MAX).unwrap();
        let all_at_once = visits::take();
        assert!(all_at_once <= 2 * MANY + 2, "{all_at_once}");
        assert_eq!(dma.size(), (0, 0));

        fill(&dma, &memory);
        dma.clear();
        let left = visits::take();
        assert!(left <= MANY, "{left}");
        assert_eq!(dma.size(), (0, 0));

        fill(&dma, &memory);
        for page in 0..MANY as u64 {
            dma.unmap(2 * page * PAGE, PAGE).unwrap();
        }
        let one_by_one = visits::take();
        assert!(one_by_one <= 4 * MANY, "{one_by_one}");
        assert_eq!(dma.size(), (0, 0));
    }
}
