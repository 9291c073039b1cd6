// SPDX-License-Identifier: GPL-2.0-only
//! Mappings, page faults, and where a poisoned page frame is mapped.

use varia_spec::Errno;
use varia_variant::{Fault, FaultRequest, Mapping, MemoryType, MmapRequest, PageFrame};

use crate::{
    abi::c_functions,
    counters::Counter,
    poison::{Page, Reported},
    state::{self, Instance, memory, position, result, value, write},
    types::{
        FAULT_FALLBACK, FAULT_SIGBUS, MMAP_ALLOW_UNCACHED, MMAP_BASE, MMAP_MEMORY,
        MMAP_WRITE_COMBINING, State,
    },
};

/// Attributes of an accepted mapping, for C.
fn how(mapping: Mapping) -> i32 {
    let memory = match mapping.memory {
        MemoryType::Cached => MMAP_MEMORY,
        MemoryType::WriteCombining => MMAP_MEMORY | MMAP_WRITE_COMBINING,
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
        let answer = memory(&instance.variant, index)
            .map_or(Fault::Sigbus, |region| region.fault(request));
        instance.counters.add(Counter::Faults);
        match answer {
            Fault::Insert(first) => first.0.cast_signed(),
            Fault::Fallback => {
                instance.counters.add(Counter::FaultsFallback);
                FAULT_FALLBACK
            }
            Fault::Sigbus => {
                instance.counters.add(Counter::FaultsOutside);
                FAULT_SIGBUS
            }
        }
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
