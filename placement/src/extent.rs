//! Place and size of usemem: firmware's properties on the host itself, BAR4 in a VM.
//!
//! BAR4 is a power of two and the memory in it need not be: beyond the memory, reads return ones and
//! writes go nowhere. A [`Search`] finds the end.

use varia_spec::Errno;
use varia_spec::nvidia::property;
use varia_units::{Bytes, HostPhys, PageShift};

use crate::refusal::Refusal;

/// Memory of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Address of the first byte.
    pub base: HostPhys,
    /// Number of bytes.
    pub size: Bytes,
}

/// Place of usemem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Firmware's properties state the memory: this is the host itself.
    Firmware(Memory),
    /// The memory begins where BAR4 does, and its end is to be searched: this is a VM.
    Bar(Memory),
}

impl Extent {
    /// Decides from the two properties, as their lookup ended, and from BAR4 (base and size; a
    /// size of 0 if it does not exist).
    ///
    /// # Errors
    /// [`Refusal::NoMemory`], [`Refusal::HalfAProperty`], [`Refusal::LinkDown`],
    /// [`Refusal::BeyondAddresses`], [`Refusal::BarBelowBlock`].
    pub fn find(
        base: Result<u64, Errno>,
        size: Result<u64, Errno>,
        bar4: Memory,
        block: Bytes,
    ) -> Result<Self, Refusal> {
        match (base, size) {
            (Ok(_), Ok(0)) => Err(Refusal::LinkDown),
            (Ok(base), Ok(size)) => {
                let (base, size) = (HostPhys(base), Bytes(size));
                end(Memory { base, size })?;
                Ok(Self::Firmware(Memory { base, size }))
            }
            (Ok(_), Err(_)) => Err(Refusal::HalfAProperty {
                missing: property::MEM_SIZE,
            }),
            (Err(_), Ok(_)) => Err(Refusal::HalfAProperty {
                missing: property::MEM_BASE_PA,
            }),
            (Err(_), Err(_)) if bar4.size.0 == 0 => Err(Refusal::NoMemory),
            (Err(_), Err(_)) => {
                end(bar4)?;
                if bar4.size < block {
                    return Err(Refusal::BarBelowBlock {
                        bar: bar4.size,
                        block,
                    });
                }
                Ok(Self::Bar(bar4))
            }
        }
    }
}

/// Address behind the last byte.
pub(crate) fn end(memory: Memory) -> Result<u64, Refusal> {
    let Memory { base, size } = memory;
    base.0
        .checked_add(size.0)
        .ok_or(Refusal::BeyondAddresses { base, size })
}

/// Search for the end of the memory in a BAR: the caller tries the word at [`next`](Self::next), and
/// says whether it keeps what is written. Memory is a prefix of the BAR, in whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Search {
    page: PageShift,
    /// Pages that are known to be memory, from the first.
    kept: u64,
    /// The first page that is known not to be memory.
    lost: u64,
}

/// Bytes of the word that is tried.
const WORD: u64 = 8;

impl Search {
    /// Search in a BAR of `size` bytes.
    pub const fn new(size: Bytes, page: PageShift) -> Self {
        Self {
            page,
            kept: 0,
            lost: size.0 >> page.get(),
        }
    }

    /// Search that stands where [`state`](Self::state) says. Values that no search has mean that it has
    /// ended.
    pub const fn resume(page: PageShift, (kept, lost): (u64, u64)) -> Self {
        Self { page, kept, lost }
    }

    /// Pages that are memory, and the first page that is known not to be.
    pub const fn state(self) -> (u64, u64) {
        (self.kept, self.lost)
    }

    /// Offset of the word to try next, the last one of a page; `None` at the end.
    ///
    /// Page 0 comes last but decides whether the memory responds at all; before that each try halves
    /// what is left.
    pub fn next(self) -> Option<u64> {
        let page = self.middle()?;
        let end = page.checked_add(1)?.checked_mul(self.page.size())?;
        end.checked_sub(WORD)
    }

    /// Page that is tried next.
    const fn middle(self) -> Option<u64> {
        match self.lost.checked_sub(self.kept) {
            None | Some(0) => None,
            Some(left) => Some(self.kept + (left - 1) / 2),
        }
    }

    /// Search with the outcome of the word at [`next`](Self::next).
    #[must_use]
    pub const fn tried(self, keeps: bool) -> Self {
        match self.middle() {
            None => self,
            Some(page) if keeps => Self {
                kept: page + 1,
                ..self
            },
            Some(page) => Self { lost: page, ..self },
        }
    }

    /// Memory that was found from `base` on.
    ///
    /// # Errors
    /// [`Refusal::Silent`] if there is none.
    pub fn found(self, base: HostPhys) -> Result<Memory, Refusal> {
        match self.kept.checked_mul(self.page.size()) {
            None | Some(0) => Err(Refusal::Silent { base }),
            Some(size) => Ok(Memory {
                base,
                size: Bytes(size),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Bytes = Bytes(128 << 20);
    const NONE: Memory = Memory {
        base: HostPhys(0),
        size: Bytes(0),
    };
    const BAR: Memory = Memory {
        base: HostPhys(1 << 40),
        size: Bytes(1 << 30),
    };

    #[test]
    fn firmware_comes_before_the_bar_and_half_of_it_is_refused() {
        let (none, base) = (Err(Errno::EINVAL), Ok(0x42_0000_0000));
        let find = |base, size, bar| Extent::find(base, size, bar, BLOCK);
        let size = Bytes(95 << 30);
        let memory = Memory {
            base: HostPhys(0x42_0000_0000),
            size,
        };
        assert_eq!(find(base, Ok(size.0), BAR), Ok(Extent::Firmware(memory)));
        assert_eq!(find(none, none, BAR), Ok(Extent::Bar(BAR)));
        assert_eq!(find(none, none, NONE), Err(Refusal::NoMemory));
        assert_eq!(find(base, Ok(0), BAR), Err(Refusal::LinkDown));
        let missing = property::MEM_SIZE;
        assert_eq!(
            find(base, none, BAR),
            Err(Refusal::HalfAProperty { missing })
        );
        assert_eq!(
            find(base, none, NONE),
            Err(Refusal::HalfAProperty { missing })
        );
        let missing = property::MEM_BASE_PA;
        assert_eq!(
            find(none, Ok(4096), BAR),
            Err(Refusal::HalfAProperty { missing })
        );
        let beyond = Refusal::BeyondAddresses {
            base: HostPhys(u64::MAX - 1),
            size: Bytes(2),
        };
        assert_eq!(find(Ok(u64::MAX - 1), Ok(2), BAR), Err(beyond));
    }

    #[test]
    fn a_bar_below_a_block_is_refused_with_both_sizes() {
        let bar = Bytes(64 << 20);
        let small = Memory { size: bar, ..BAR };
        let none = Err(Errno::ENOENT);
        assert_eq!(
            Extent::find(none, none, small, BLOCK),
            Err(Refusal::BarBelowBlock { bar, block: BLOCK })
        );
        let refusal = Refusal::BarBelowBlock { bar, block: BLOCK };
        assert_eq!(
            std::format!("{refusal}"),
            "BAR4 has 64 MiB, a memory block of this kernel has 128 MiB: give the device at least one block of memory"
        );
    }

    /// Runs a search over a BAR whose first `memory` bytes are memory; the size and the tries.
    fn search(bar: u64, memory: u64, page: PageShift) -> (Result<Memory, Refusal>, u32) {
        let mut search = Search::new(Bytes(bar), page);
        let mut tries = 0;
        while let Some(offset) = search.next() {
            assert!(offset + WORD <= bar, "{offset:#x} is beyond {bar:#x}");
            search = search.tried(offset + WORD <= memory);
            search = Search::resume(page, search.state());
            tries += 1;
        }
        (search.found(HostPhys(bar)), tries)
    }

    #[test]
    fn every_end_is_found_with_few_tries() {
        let pages = [PageShift::KIB_4, PageShift::KIB_16, PageShift::KIB_64];
        for page in pages {
            for bar in (17..40).map(|shift| 1_u64 << shift) {
                let count = bar / page.size();
                let some = [0, 1, 2, count / 3, count / 2, count - 1, count];
                for memory in some.map(|pages| pages.min(count) * page.size()) {
                    let base = HostPhys(bar);
                    let (found, tries) = search(bar, memory, page);
                    let size = Bytes(memory);
                    let expected = match memory {
                        0 => Err(Refusal::Silent { base }),
                        _ => Ok(Memory { base, size }),
                    };
                    assert_eq!(found, expected, "{bar:#x} {memory:#x}");
                    assert!(tries <= 40, "{tries} tries in {bar:#x}");
                }
            }
        }
    }

    #[test]
    fn a_state_that_no_search_has_ends_the_search() {
        for state in [(5, 3), (u64::MAX, 0), (u64::MAX - 1, u64::MAX)] {
            let search = Search::resume(PageShift::KIB_64, state);
            assert_eq!(search.next(), None, "{state:?}");
        }
    }
}
