// SPDX-License-Identifier: GPL-2.0-only
//! Mappings, page faults, and where a poisoned page frame is mapped.

use varia_spec::Errno;
use varia_variant::{FaultRequest, MmapRequest, PageFrame};

use crate::{
    abi::c_functions,
    counters::{self, Counter},
    poison::{Page, Reported},
    state::{self, Instance, memory, memory_type, position, read, result, value, write},
    types::{
        FAULT_FALLBACK, FAULT_INSERT, FAULT_SIGBUS, Fault, Mapping, REGION_BASE, REGION_MEMORY,
        State,
    },
};

fn fault(instance: &Instance, request: Fault) -> varia_variant::Fault {
    let (index, offset) = position(request.position);
    let Some(region) = memory(&instance.variant, index) else {
        return varia_variant::Fault::Sigbus;
    };
    let Ok(order) = u32::try_from(request.order) else {
        return varia_variant::Fault::Fallback;
    };
    region.fault(FaultRequest {
        page: instance.page,
        order,
        address: request.address,
        start: request.start,
        end: request.end,
        offset,
    })
}

/// Where a mapping of `len` bytes from the position `at` on shows a failed page, which is remembered.
fn locate(instance: &Instance, frame: PageFrame, at: u64, len: u64) -> Result<u64, Errno> {
    let (index, offset) = position(at);
    let counters = &instance.counters;
    counters.add(Counter::PoisonQuestions);
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
    /// Whether `len` bytes at a position in the device's file may be mapped, and how:
    /// VARIA_REGION_*.
    fn varia_mmap(
        state: *const State,
        at: u64,
        len: u64,
        copy_on_write: u32,
        out: *mut Mapping,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            let (index, offset) = position(at);
            let Some(region) = memory(&instance.variant, index) else {
                return Ok(REGION_BASE);
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
            let mapping = mapping?;
            let mapping = Mapping {
                memory: memory_type(mapping.memory),
                allow_uncached: u32::from(mapping.allow_uncached),
            };
            // SAFETY: `out` by the contract of all functions.
            unsafe { write(out, mapping) }?;
            Ok(REGION_MEMORY)
        })())
    }

    /// What backs a fault: VARIA_FAULT_*, and the first page frame to insert.
    fn varia_fault(
        state: *const State,
        request: *const Fault,
        frame: *mut u64,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            // SAFETY: by the contract of all functions.
            let request = unsafe { read(request) }?;
            instance.counters.add(Counter::Faults);
            let answer = match fault(instance, request) {
                varia_variant::Fault::Insert(first) => {
                    // SAFETY: `frame` by the contract of all functions.
                    unsafe { write(frame, first.0) }?;
                    FAULT_INSERT
                }
                varia_variant::Fault::Fallback => FAULT_FALLBACK,
                varia_variant::Fault::Sigbus => FAULT_SIGBUS,
            };
            if let Some(counter) = counters::of_fault(answer) {
                instance.counters.add(counter);
            }
            Ok(answer)
        })())
    }

    /// How many bytes from the start of a mapping of `len` bytes at a position in the device's
    /// file a page frame that has failed is mapped. It is remembered. Atomic context.
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
