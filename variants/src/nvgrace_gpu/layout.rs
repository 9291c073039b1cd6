//! Division of coherent memory into `usemem` and `resmem`.
//!
//! ```text
//! base                                          base + size
//! |------------- usemem, cached -------------|-- resmem --|   with the MIG bug
//! |------------------- usemem, cached -------------------|    without
//! ```
//!
//! Source: Linux 7.2 `nvgrace-gpu/main.c:nvgrace_gpu_init_nvdev_struct`. The form in which a VM gets
//! the two is the layout's: docs/layouts.md.

use varia_spec::nvidia::{MEMBLK_SIZE, RESMEM_MIN};
use varia_variant::{BarSize, Bytes, HostPhys, MemoryRegion, MemoryType, PageShift, Refusal};

/// The two regions. Immutable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Cached memory: BAR4 of the first layout.
    pub usemem: MemoryRegion,
    /// Uncached memory carved from the end: BAR2 of the first layout; only with the MIG bug.
    pub resmem: Option<MemoryRegion>,
}

impl Layout {
    /// Divides `size` of memory at `base`.
    ///
    /// With the MIG bug, `usemem` is rounded down to [`MEMBLK_SIZE`] and `resmem` takes the rest,
    /// from 1 GiB to under 1.5 GiB. The size of BAR4 is that of the memory *before* the rounding.
    pub fn new(
        base: HostPhys,
        size: Bytes,
        mig_bug: bool,
        page: PageShift,
    ) -> Result<Self, Refusal> {
        let page = Bytes(page.size());
        if !base.0.is_multiple_of(page.0) {
            return Err(Refusal::BaseNotPageAligned { base, page });
        }
        let beyond = Refusal::BeyondAddresses { base, size };
        if base.checked_add(size.0).is_none() {
            return Err(beyond);
        }
        let reserve = Bytes(if mig_bug { RESMEM_MIN } else { 0 });
        let too_small = Refusal::BelowReserve { size, reserve };
        let usable = size.0.checked_sub(reserve.0).ok_or(too_small)?;
        let length = if mig_bug {
            usable - usable % MEMBLK_SIZE
        } else {
            usable
        };
        if length == 0 {
            let least = Bytes(reserve.0 + MEMBLK_SIZE);
            return Err(Refusal::NothingUsable { size, least });
        }
        let usemem = region(base, length, usable, MemoryType::Cached)?.named("usemem");
        let resmem = if mig_bug {
            let rest = size.0 - length;
            let start = base.checked_add(length).ok_or(beyond)?;
            let resmem = region(start, rest, rest, MemoryType::WriteCombining)?;
            Some(resmem.named("resmem"))
        } else {
            None
        };
        Ok(Self { usemem, resmem })
    }
}

/// `length` bytes behind a BAR that would cover `covered` bytes.
fn region(
    base: HostPhys,
    length: u64,
    covered: u64,
    memory: MemoryType,
) -> Result<MemoryRegion, Refusal> {
    let too_large = Refusal::BarTooLarge {
        length: Bytes(covered),
    };
    let size = BarSize::covering(covered).ok_or(too_large)?;
    MemoryRegion::new(base, length, size, memory).map_err(|_| too_large)
}
