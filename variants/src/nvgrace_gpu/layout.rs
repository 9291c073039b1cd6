//! How coherent memory is divided into `usemem` and `resmem`.
//!
//! ```text
//! base                                          base + size
//! |------------- usemem, cached -------------|-- resmem --|   with the MIG bug
//! |------------------- usemem, cached -------------------|    without
//! ```
//!
//! Source: Linux 7.2 `nvgrace-gpu/main.c:nvgrace_gpu_init_nvdev_struct`.

use varia_spec::nvidia::{MEMBLK_SIZE, RESMEM_MIN};
use varia_variant::{BarSize, HostPhys, MemoryRegion, MemoryType, PageShift, Refusal};

/// The two regions. Immutable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Cached memory, BAR4.
    pub usemem: MemoryRegion,
    /// Uncached memory carved from the end, BAR2; only with the MIG bug.
    pub resmem: Option<MemoryRegion>,
}

impl Layout {
    /// Divides `size` bytes at `base`.
    ///
    /// With the MIG bug, `usemem` is rounded down to [`MEMBLK_SIZE`] and `resmem` takes the rest,
    /// from 1 GiB to under 1.5 GiB. The size of BAR4 is that of the memory *before* the rounding.
    pub fn new(base: HostPhys, size: u64, mig_bug: bool, page: PageShift) -> Result<Self, Refusal> {
        if !base.0.is_multiple_of(page.size()) {
            return Err(Refusal::BaseNotPageAligned {
                base: base.0,
                page: page.size(),
            });
        }
        if base.checked_add(size).is_none() {
            return Err(Refusal::BeyondAddresses { base: base.0, size });
        }
        let reserve = if mig_bug { RESMEM_MIN } else { 0 };
        let usable = size
            .checked_sub(reserve)
            .ok_or(Refusal::BelowReserve { size, reserve })?;
        let nothing = Refusal::NothingUsable {
            size,
            least: reserve + MEMBLK_SIZE,
        };
        if usable == 0 {
            return Err(nothing);
        }
        if !mig_bug {
            let usemem = region(base, usable, usable, MemoryType::Cached)?;
            return Ok(Self {
                usemem: usemem.named("usemem"),
                resmem: None,
            });
        }
        let length = usable - usable % MEMBLK_SIZE;
        if length == 0 {
            return Err(nothing);
        }
        let usemem = region(base, length, usable, MemoryType::Cached)?;
        let rest = size - length;
        let start = base
            .checked_add(length)
            .ok_or(Refusal::BeyondAddresses { base: base.0, size })?;
        let resmem = region(start, rest, rest, MemoryType::WriteCombining)?;
        Ok(Self {
            usemem: usemem.named("usemem"),
            resmem: Some(resmem.named("resmem")),
        })
    }
}

/// `length` bytes behind a BAR that would cover `covered` bytes.
fn region(
    base: HostPhys,
    length: u64,
    covered: u64,
    memory: MemoryType,
) -> Result<MemoryRegion, Refusal> {
    let too_large = Refusal::BarTooLarge { length: covered };
    let size = BarSize::covering(covered).ok_or(too_large)?;
    MemoryRegion::new(base, length, size, memory).map_err(|_| too_large)
}
