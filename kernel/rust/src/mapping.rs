// SPDX-License-Identifier: GPL-2.0-only
//! Mappings, page faults, and where a poisoned page frame is mapped.

use varia_spec::Errno;
use varia_variant::{Fault, FaultRequest, Mapping, MemoryType, MmapRequest, PageFrame};

use crate::{
    abi::c_functions,
    counters::Counter,
    poison::{Page, Reported},
    ready,
    state::{self, Instance, memory, position, result, value, write},
    types::{
        FAULT_FAILED_PAGE, FAULT_FALLBACK, FAULT_SIGBUS, FAULT_WAIT_HELD, FAULT_WAIT_LATER,
        FAULT_WAIT_NONE, FAULT_WAIT_RELEASED, MMAP_ALLOW_UNCACHED, MMAP_BASE, MMAP_MEMORY,
        MMAP_WRITE_COMBINING, State, Wait,
    },
};

/// Attributes of an accepted mapping, for C.
fn how(mapping: Mapping) -> i32 {
    let memory = match mapping.memory {
        MemoryType::Cached => MMAP_MEMORY,
        MemoryType::WriteCombining | MemoryType::Registers => MMAP_MEMORY | MMAP_WRITE_COMBINING,
    };
    if mapping.allow_uncached {
        memory | MMAP_ALLOW_UNCACHED
    } else {
        memory
    }
}

/// Position of a failed page in a mapping of `len` bytes from the position `at` on. Adds the page
/// to the list.
fn locate(instance: &Instance, frame: PageFrame, at: u64, len: u64) -> Result<u64, Errno> {
    let (index, offset) = position(at);
    let counters = &instance.counters;
    counters.add(Counter::PoisonLookups);
    let region = memory(&instance.variant, index).ok_or(Errno::EINVAL)?;
    let bytes = region.locate(instance.page, frame, offset, len)?;
    counters.add(Counter::PoisonFound);
    let number = offset.saturating_add(bytes) >> instance.page.get();
    if let Some(page) = Page::new(index, number) {
        match instance.poison.report(page) {
            Reported::New => counters.add(Counter::PoisonEntries),
            Reported::Overflow => counters.add(Counter::PoisonOverflow),
            Reported::Known => {}
        }
    }
    Ok(bytes)
}

/// Page frames for a fault in the memory of region `index`, none of which may have failed.
fn fault(instance: &Instance, index: u32, request: FaultRequest) -> Fault {
    let Some(region) = memory(&instance.variant, index) else {
        return Fault::Sigbus;
    };
    let fault = region.fault(request);
    let Fault::Insert(frame) = fault else {
        return fault;
    };
    let first = frame.0.saturating_sub(instance.page.frame(region.base()).0);
    let pages = 1_u64.checked_shl(request.order).unwrap_or(u64::MAX);
    let offset = first.saturating_mul(instance.page.size());
    let bytes = pages.saturating_mul(instance.page.size());
    match instance.failed(index, offset, bytes) {
        Some(_) => fault.with_failed_page(request.order),
        None => fault,
    }
}

c_functions! {
    /// Attributes of a mapping of `len` bytes at a position in the device's file: bits
    /// VARIA_MMAP_*, or a negative errno if the mapping is refused.
    fn varia_mmap(state: *const State, at: u64, len: u64, copy_on_write: u32) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            let (index, offset) = position(at);
            let Some(region) = memory(&instance.variant, index) else {
                return Ok(MMAP_BASE);
            };
            let mapping = region.mmap(MmapRequest {
                offset,
                len,
                copy_on_write: copy_on_write != 0,
            });
            instance.counters.add(match mapping {
                Ok(_) => Counter::Mmaps,
                Err(_) => Counter::MmapsRefused,
            });
            mapping.map(how)
        })())
    }

    /// First page frame to insert for a fault at an address, of `1 << order` pages, or
    /// VARIA_FAULT_*. The mapping is from `start` to `end`, and `at` is the position in the
    /// device's file that `start` maps.
    fn varia_fault(
        state: *const State,
        address: u64,
        order: u32,
        start: u64,
        end: u64,
        at: u64,
    ) -> i64 {
        // SAFETY: by the contract of all functions.
        let Ok(instance) = (unsafe { state::instance(state) }) else {
            return FAULT_SIGBUS;
        };
        let (index, offset) = position(at);
        let page = instance.page;
        let request = FaultRequest { page, order, address, start, end, offset };
        instance.counters.add(Counter::Faults);
        match fault(instance, index, request) {
            Fault::Insert(first) => first.0.cast_signed(),
            Fault::Fallback => {
                instance.counters.add(Counter::FaultsFallback);
                FAULT_FALLBACK
            }
            Fault::Sigbus => {
                instance.counters.add(Counter::FaultsOutside);
                FAULT_SIGBUS
            }
            Fault::Failed => {
                instance.counters.add(Counter::FaultsFailed);
                FAULT_FAILED_PAGE
            }
        }
    }

    /// How a fault waits for a device that is not ready: VARIA_FAULT_WAIT_*. `of_mapping` is nonzero
    /// if the fault holds the lock of its mapping alone, `first` if it may release its locks and be
    /// tried again, `tried` if that has been done. A wait that has begun ends here unless the fault
    /// goes on with it.
    fn varia_fault_wait(
        state: *const State,
        wait: *mut Wait,
        of_mapping: u32,
        first: u32,
        tried: u32,
    ) -> i32 {
        let how = match (of_mapping, first, tried) {
            // Linux counts no try for the lock of a mapping: a wait here would be followed by another.
            (1.., 1.., _) => FAULT_WAIT_LATER,
            (0, 1.., _) => FAULT_WAIT_RELEASED,
            // The wait is over: the device is ready at this poll, or the fault fails.
            (_, 0, 1..) => FAULT_WAIT_NONE,
            (_, 0, 0) => FAULT_WAIT_HELD,
        };
        // SAFETY: by the contract of all functions.
        let (instance, wait) = unsafe { (state::instance(state), state::exclusive(wait)) };
        if let (FAULT_WAIT_LATER | FAULT_WAIT_NONE, Ok(instance), Ok(wait)) = (how, instance, wait) {
            ready::given_up(&instance.counters, wait);
        }
        how
    }

    /// Position of a failed page frame in a mapping of `len` bytes at a position in the device's
    /// file, in bytes from the start of the mapping. Adds the page to the list. Atomic context.
    fn varia_locate(
        state: *const State,
        frame: u64,
        at: u64,
        len: u64,
        out: *mut u64,
    ) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            let bytes = locate(instance, PageFrame(frame), at, len)?;
            // SAFETY: `out` by the contract of all functions.
            unsafe { write(out, bytes) }
        })())
    }
}
