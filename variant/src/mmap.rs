//! Mappings of a memory region, and page frames for their faults.
//!
//! Page size and order are inputs: Grace hosts run kernels with 4 KiB and with 64 KiB pages.

use varia_spec::Errno;

use crate::memory::{MemoryRegion, MemoryType};
use varia_units::{PageFrame, PageShift};

/// A request to map part of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MmapRequest {
    /// Offset in the region in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// A private mapping that can be or become writable, so that a write would want a copy
    /// (`is_cow_mapping` in Linux).
    pub copy_on_write: bool,
}

/// Attributes of an accepted mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Memory type of the pages.
    pub memory: MemoryType,
    /// True if a hypervisor may let its guest map the memory uncached (`VM_ALLOW_ANY_UNCACHED`).
    pub allow_uncached: bool,
}

/// A page fault in an accepted mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRequest {
    /// The base page size.
    pub page: PageShift,
    /// Log2 of the pages that the fault would like to map at once; 0 is one page.
    pub order: u32,
    /// The address of the fault.
    pub address: u64,
    /// The first address of the mapping, page aligned.
    pub start: u64,
    /// The first address beyond the mapping, page aligned.
    pub end: u64,
    /// Offset in the region, in bytes, that `start` maps.
    pub offset: u64,
}

/// Result of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Insert `1 << order` pages from this frame, once the device is ready.
    Insert(PageFrame),
    /// Does not fit at this order; the caller tries a smaller one.
    Fallback,
    /// No memory backs the address.
    Sigbus,
    /// The page of the address has failed.
    Failed,
}

impl Fault {
    /// The fault where a page that it would map has failed: a smaller order may map the others, and a
    /// single page can't be mapped (poison-refused).
    pub const fn with_failed_page(self, order: u32) -> Self {
        match self {
            Self::Insert(_) if order > 0 => Self::Fallback,
            Self::Insert(_) => Self::Failed,
            other => other,
        }
    }
}

impl MemoryRegion {
    /// Attributes of a mapping, if it may exist.
    ///
    /// `EOVERFLOW` if the mapping ends beyond 64 bits, `EINVAL` if it reaches beyond the memory or
    /// would copy on write: page-frame mappings can't be copied, and a touch would hit a kernel
    /// BUG (shared-only).
    pub const fn mmap(&self, request: MmapRequest) -> Result<Mapping, Errno> {
        let Some(end) = request.offset.checked_add(request.len) else {
            return Err(Errno::EOVERFLOW);
        };
        if end > self.length() || request.copy_on_write {
            return Err(Errno::EINVAL);
        }
        let memory = self.memory();
        Ok(Mapping {
            memory,
            allow_uncached: matches!(memory, MemoryType::WriteCombining),
        })
    }

    /// The page frame that backs a fault at the order asked for.
    pub const fn fault(&self, request: FaultRequest) -> Fault {
        let Some(span) = request.page.order_size(request.order) else {
            return Fault::Fallback;
        };
        if request.address < request.start || request.address >= request.end {
            return Fault::Sigbus;
        }
        let first = request.address & !(span - 1);
        let beyond = match first.checked_add(span) {
            Some(beyond) => beyond > request.end,
            None => true,
        };
        if first < request.start || beyond {
            return if request.order == 0 {
                Fault::Sigbus
            } else {
                Fault::Fallback
            };
        }
        let Some(offset) = request.offset.checked_add(first - request.start) else {
            return Fault::Sigbus;
        };
        match offset.checked_add(span) {
            Some(end) if end <= self.length() => {}
            _ if request.order > 0 => return Fault::Fallback,
            _ => return Fault::Sigbus,
        }
        let Some(at) = self.base().checked_add(offset) else {
            return Fault::Sigbus;
        };
        if at.0 & (span - 1) & !(request.page.size() - 1) != 0 {
            return Fault::Fallback;
        }
        Fault::Insert(request.page.frame(at))
    }

    /// Position of a failed page frame in a mapping of `len` bytes of the region from `offset` on,
    /// in bytes from the start of the mapping.
    ///
    /// `EFAULT` if the frame is not among the region's whole pages, or not in the mapping: the
    /// kernel kills each process that is reported to map a failed page (poison-in-mapping).
    pub const fn locate(
        &self,
        page: PageShift,
        frame: PageFrame,
        offset: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        let Some(index) = frame.0.checked_sub(page.frame(self.base()).0) else {
            return Err(Errno::EFAULT);
        };
        if index >= self.length() / page.size() {
            return Err(Errno::EFAULT);
        }
        match (index * page.size()).checked_sub(offset) {
            Some(bytes) if bytes < len => Ok(bytes),
            _ => Err(Errno::EFAULT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use varia_units::{BarSize, HostPhys};

    const MIB: u64 = 1 << 20;

    fn region(base: u64, length: u64, memory: MemoryType) -> MemoryRegion {
        let size = BarSize::covering(length).expect("above zero");
        MemoryRegion::new(HostPhys(base), length, size, memory).expect("a good region")
    }

    #[test]
    fn a_mapping_ends_where_the_memory_ends() {
        let region = region(0, 3 * MIB, MemoryType::Cached);
        let mmap = |offset, len| {
            region
                .mmap(MmapRequest {
                    offset,
                    len,
                    copy_on_write: false,
                })
                .map(|_| ())
        };
        assert_eq!(mmap(0, 3 * MIB), Ok(()));
        assert_eq!(mmap(3 * MIB - 4096, 4096), Ok(()));
        assert_eq!(mmap(3 * MIB - 4096, 8192), Err(Errno::EINVAL));
        assert_eq!(mmap(3 * MIB, 4096), Err(Errno::EINVAL));
        assert_eq!(mmap(u64::MAX - 4095, 8192), Err(Errno::EOVERFLOW));
    }

    #[test]
    fn shared_only() {
        let region = region(0, 3 * MIB, MemoryType::Cached);
        let request = MmapRequest {
            offset: 0,
            len: 4096,
            copy_on_write: true,
        };
        assert_eq!(region.mmap(request), Err(Errno::EINVAL));
    }

    #[test]
    fn a_failed_page_is_mapped_by_no_order() {
        let insert = Fault::Insert(PageFrame(512));
        assert_eq!(insert.with_failed_page(9), Fault::Fallback);
        assert_eq!(insert.with_failed_page(0), Fault::Failed);
        for other in [Fault::Fallback, Fault::Sigbus] {
            assert_eq!(other.with_failed_page(0), other);
        }
    }

    #[test]
    fn only_uncached_memory_may_be_uncached_in_a_guest() {
        for (memory, allow_uncached) in [
            (MemoryType::Cached, false),
            (MemoryType::WriteCombining, true),
        ] {
            let request = MmapRequest {
                offset: 0,
                len: 4096,
                copy_on_write: false,
            };
            let mapping = region(0, MIB, memory).mmap(request);
            assert_eq!(
                mapping,
                Ok(Mapping {
                    memory,
                    allow_uncached
                })
            );
        }
    }

    #[test]
    fn faults_take_the_largest_order_that_fits_address_frame_and_mapping() {
        let region = region(0x4000_0000, 8 * MIB, MemoryType::Cached);
        let fault = |order, address, start, end, offset| {
            let page = PageShift::KIB_4;
            region.fault(FaultRequest {
                page,
                order,
                address,
                start,
                end,
                offset,
            })
        };
        let start = 0x7f00_0000_0000;
        let end = start + 8 * MIB;
        assert_eq!(
            fault(0, start + 5000, start, end, 0),
            Fault::Insert(PageFrame(0x40001))
        );
        assert_eq!(
            fault(9, start + 3 * MIB, start, end, 0),
            Fault::Insert(PageFrame(0x40000 + 512))
        );
        // The frame is not aligned to the order: the mapping starts 4 KiB into the region.
        assert_eq!(
            fault(9, start + 3 * MIB, start, end - 4096, 4096),
            Fault::Fallback
        );
        // The aligned block starts before the mapping, or ends beyond it.
        assert_eq!(
            fault(9, start + 4096, start + 4096, end, 4096),
            Fault::Fallback
        );
        assert_eq!(
            fault(9, end - 3 * MIB, start, end - MIB - MIB / 2, 0),
            Fault::Insert(PageFrame(0x40000 + 1024))
        );
        assert_eq!(
            fault(9, end - 2 * MIB + 1, start, end - MIB, 0),
            Fault::Fallback
        );
        // A block and a page that end where the mapping ends.
        assert_eq!(
            fault(9, end - 1, start, end, 0),
            Fault::Insert(PageFrame(0x40000 + 3 * 512))
        );
        assert_eq!(
            fault(0, end - 1, start, end, 0),
            Fault::Insert(PageFrame(0x40000 + 4 * 512 - 1))
        );
        assert_eq!(fault(60, start, start, end, 0), Fault::Fallback);
        assert_eq!(fault(0, end, start, end, 0), Fault::Sigbus);
        assert_eq!(fault(0, start - 1, start, end, 0), Fault::Sigbus);
    }

    #[test]
    fn the_same_fault_follows_the_page_size() {
        let region = region(0x4000_0000, 1024 * MIB, MemoryType::Cached);
        let start = 0x7f00_0000_0000;
        for (page, order, frame) in [
            (PageShift::KIB_64, 0, 0x4001),
            (PageShift::KIB_16, 0, 0x10007),
            (PageShift::KIB_64, 13, 0x4000),
        ] {
            let request = FaultRequest {
                page,
                order,
                address: start + 0x1f000,
                start,
                end: start + 1024 * MIB,
                offset: 0,
            };
            assert_eq!(region.fault(request), Fault::Insert(PageFrame(frame)));
        }
    }

    #[test]
    fn a_tail_that_is_not_a_whole_page_is_never_inserted() {
        let region = region(0, 3 * MIB + 100, MemoryType::Cached);
        let request = FaultRequest {
            page: PageShift::KIB_4,
            order: 0,
            address: 3 * MIB,
            start: 0,
            end: 4 * MIB,
            offset: 0,
        };
        assert_eq!(region.fault(request), Fault::Sigbus);
    }

    #[test]
    fn a_failed_page_is_located_in_the_mappings_that_reach_it() {
        let region = region(0x4000_0000, 3 * MIB + 100, MemoryType::Cached);
        let locate =
            |frame, offset| region.locate(PageShift::KIB_4, PageFrame(frame), offset, 4 * MIB);
        assert_eq!(locate(0x40000, 0), Ok(0));
        assert_eq!(locate(0x40003, 0x1000), Ok(0x2000));
        assert_eq!(locate(0x40003, 0x3000), Ok(0));
        assert_eq!(locate(0x402ff, 0), Ok(3 * MIB - 4096));
        assert_eq!(locate(0x3ffff, 0), Err(Errno::EFAULT));
        assert_eq!(locate(0x40300, 0), Err(Errno::EFAULT));
        assert_eq!(locate(u64::MAX, 0), Err(Errno::EFAULT));
        assert_eq!(locate(0x40003, 0x4000), Err(Errno::EFAULT));
    }

    #[test]
    fn poison_in_mapping() {
        let region = region(0x4000_0000, 3 * MIB, MemoryType::Cached);
        let locate = |frame, len| region.locate(PageShift::KIB_4, PageFrame(frame), 0x2000, len);
        assert_eq!(locate(0x40005, 0x4000), Ok(0x3000));
        assert_eq!(locate(0x40006, 0x4000), Err(Errno::EFAULT));
        assert_eq!(locate(0x402ff, 0x4000), Err(Errno::EFAULT));
    }
}
