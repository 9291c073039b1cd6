//! Memory on a node, and patterns in it.

use varia_spec::errno::Errno;
use varia_sys::mapping::{Mapping, page_size};
use varia_sys::numa;
use varia_units::Bytes;

use crate::Failure;
use crate::gpu::Node;

/// Memory of this process on one node. It is locked, so each page stays present, but not pinned: the
/// kernel may move a page to make room or to take memory away. It makes no large pages of these.
pub(crate) struct Pages {
    node: u32,
    pub(crate) memory: Mapping,
}

/// Word of a pattern: it tells its seed and its place.
pub(crate) fn word(seed: u64, index: u64) -> u64 {
    (seed << 56 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index
}

/// Bytes of a pattern from the word `first` on.
pub(crate) fn pattern(seed: u64, first: u64, len: usize) -> Vec<u8> {
    let words = (first..).flat_map(|index| word(seed, index).to_le_bytes());
    words.take(len).collect()
}

impl Pages {
    /// Allocates `length` bytes on a node.
    pub(crate) fn on(node: u32, length: Bytes) -> Result<Self, Failure> {
        let bad = |what: &str, errno| format!("{length} on node {node}: {what}: {errno}");
        let memory = Mapping::anonymous(length.0).map_err(|errno| bad("mmap", errno))?;
        numa::bind(&memory, node).map_err(|errno| bad("mbind", errno))?;
        match numa::keep_small(&memory) {
            // a kernel without large pages
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(bad("madvise", errno)),
        }
        numa::lock(&memory).map_err(|errno| bad("mlock", errno))?;
        Ok(Self { node, memory })
    }

    /// Offsets of all pages.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.memory.len()).step_by(page_size())
    }

    /// Checks that each page is on the node, and in the node's part of BAR4.
    pub(crate) fn check_place(&self, node: &Node) -> Result<(), Failure> {
        for offset in self.offsets() {
            let found = numa::node_of(&self.memory, offset);
            if found != Ok(self.node) {
                return Err(format!("a page of node {} is on node {found:?}", self.node));
            }
            let address = self.physical(offset)?;
            if !(node.range.0..node.range.1).contains(&address) {
                return Err(format!(
                    "a page of node {} is at {address:#x}, not in the GPU's memory",
                    self.node
                ));
            }
        }
        Ok(())
    }

    /// Physical address of a byte.
    pub(crate) fn physical(&self, offset: usize) -> Result<u64, Failure> {
        let address = numa::physical(&self.memory, offset);
        address.map_err(|errno| format!("/proc/self/pagemap: {errno}"))
    }

    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), Failure> {
        let read = self.memory.read(offset, bytes);
        read.map_err(|errno| format!("read of node {}: {errno}", self.node))
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.memory.write(offset, bytes);
        written.map_err(|errno| format!("write to node {}: {errno}", self.node))
    }

    /// Fills all pages with the pattern of a seed.
    pub(crate) fn write_pattern(&self, seed: u64) -> Result<(), Failure> {
        for offset in self.offsets() {
            let bytes = pattern(seed, offset as u64 / 8, page_size());
            self.write(offset, &bytes)?;
        }
        Ok(())
    }

    /// Checks that all pages hold the pattern of a seed.
    pub(crate) fn check_pattern(&self, seed: u64) -> Result<(), Failure> {
        self.check_pattern_from(0, seed)
    }

    /// Checks that the pages from an offset on hold the pattern of a seed.
    pub(crate) fn check_pattern_from(&self, first: usize, seed: u64) -> Result<(), Failure> {
        let mut seen = vec![0; page_size()];
        for offset in self.offsets().filter(|offset| *offset >= first) {
            self.read(offset, &mut seen)?;
            let expected = pattern(seed, offset as u64 / 8, page_size());
            if let Some(at) = seen.iter().zip(&expected).position(|(a, b)| a != b) {
                return Err(format!(
                    "node {}: byte {} holds {:#04x}, not {:#04x}",
                    self.node,
                    offset + at,
                    seen[at],
                    expected[at]
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_differ_by_seed_and_by_place() {
        let mut words: Vec<_> = (0..8)
            .flat_map(|seed| (0..1000).map(move |index| word(seed, index)))
            .collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 8000);
        assert_eq!(pattern(1, 3, 12)[..8], word(1, 3).to_le_bytes());
        assert_eq!(pattern(1, 3, 12).len(), 12);
    }
}
