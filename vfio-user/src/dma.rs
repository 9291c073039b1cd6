//! The memory ranges that a client has mapped.

use std::collections::BTreeMap;

use varia_spec::errno::Errno;

/// Maximum number of mappings at one time: `max_dma_maps` by default.
pub const MAX_MAPS: usize = 65535;

/// The mappings of one client, none of which overlap.
#[derive(Debug, Default)]
pub struct DmaTable {
    /// Length in bytes by first address. The sum of the two does not overflow.
    maps: BTreeMap<u64, u64>,
}

impl DmaTable {
    /// Add a mapping.
    ///
    /// Errors: `EINVAL` for no bytes or an address that overflows, `EEXIST` for
    /// an overlap, `ENOSPC` for more than [`MAX_MAPS`].
    pub fn map(&mut self, addr: u64, size: u64) -> Result<(), Errno> {
        let end = addr.checked_add(size).ok_or(Errno::EINVAL)?;
        if size == 0 {
            return Err(Errno::EINVAL);
        }
        let before = self.maps.range(..end).next_back();
        if before.is_some_and(|(a, s)| a + s > addr) {
            return Err(Errno::EEXIST);
        }
        if self.maps.len() >= MAX_MAPS {
            return Err(Errno::ENOSPC);
        }
        self.maps.insert(addr, size);
        Ok(())
    }

    /// Remove all mappings that lie in a range, and return them.
    ///
    /// The specification wants the range of exactly one mapping. As the kernel's
    /// type1v2 does, ranges that hold several or none are taken as well: with a
    /// virtual IOMMU, QEMU unmaps its whole address space at once. `EINVAL` when
    /// the range would cut a mapping in two, or overflows.
    pub fn unmap(&mut self, addr: u64, size: u64) -> Result<Vec<(u64, u64)>, Errno> {
        // the last byte, so that a range may end where the address space does
        let last = size
            .checked_sub(1)
            .and_then(|n| addr.checked_add(n))
            .ok_or(Errno::EINVAL)?;
        let cut = |at: u64| {
            let before = self.maps.range(..at).next_back();
            before.is_some_and(|(a, s)| a + s > at)
        };
        if cut(addr) || last.checked_add(1).is_some_and(cut) {
            return Err(Errno::EINVAL);
        }
        let gone: Vec<_> = self
            .maps
            .range(addr..=last)
            .map(|(a, s)| (*a, *s))
            .collect();
        for (a, _) in &gone {
            self.maps.remove(a);
        }
        Ok(gone)
    }

    /// Remove a mapping that the device refused.
    pub fn take_back(&mut self, addr: u64) {
        self.maps.remove(&addr);
    }

    /// Remove all mappings, and return them.
    pub fn unmap_all(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.maps).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_refused_and_neighbours_are_not() {
        let mut t = DmaTable::default();
        t.map(0x2000, 0x1000).unwrap();
        t.map(0x1000, 0x1000).unwrap();
        t.map(0x3000, 0x1000).unwrap();
        for (addr, size) in [
            (0x1fff, 1),
            (0x0, 0x1001),
            (0x3fff, 2),
            (0, 0x10000),
            (0x2800, 1),
        ] {
            assert_eq!(t.map(addr, size), Err(Errno::EEXIST), "{addr:#x}+{size:#x}");
        }
        t.map(0x4000, 1).unwrap();
    }

    #[test]
    fn empty_and_overflowing_ranges_are_refused() {
        let mut t = DmaTable::default();
        assert_eq!(t.map(0x1000, 0), Err(Errno::EINVAL));
        assert_eq!(t.map(u64::MAX, 2), Err(Errno::EINVAL));
        assert_eq!(t.unmap(0x1000, 0), Err(Errno::EINVAL));
        assert_eq!(t.unmap(u64::MAX, 2), Err(Errno::EINVAL));
    }

    #[test]
    fn unmap_takes_whole_mappings_only() {
        let mut t = DmaTable::default();
        for addr in [0x1000, 0x2000, 0x4000] {
            t.map(addr, 0x1000).unwrap();
        }
        assert_eq!(t.unmap(0x1800, 0x1000), Err(Errno::EINVAL));
        assert_eq!(t.unmap(0x1000, 0x1800), Err(Errno::EINVAL));
        assert_eq!(t.unmap(0x8000, 0x1000), Ok(vec![]));
        assert_eq!(t.unmap(0x2000, 0x1000), Ok(vec![(0x2000, 0x1000)]));
        assert_eq!(
            t.unmap(1, u64::MAX),
            Ok(vec![(0x1000, 0x1000), (0x4000, 0x1000)])
        );
        assert_eq!(t.unmap_all(), vec![]);
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        let mut t = DmaTable::default();
        for i in 0..MAX_MAPS as u64 {
            t.map(i * 2, 1).unwrap();
        }
        assert_eq!(t.map(u64::MAX - 1, 1), Err(Errno::ENOSPC));
        assert_eq!(t.unmap_all().len(), MAX_MAPS);
    }
}
