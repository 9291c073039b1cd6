// SPDX-License-Identifier: GPL-2.0-only
//! Mappings, page faults, and where a poisoned page frame is mapped.

use varia_spec::Errno;
use varia_variant::{FaultRequest, MmapRequest, PageFrame};

use crate::{
    abi::c_functions,
    state::{self, memory, memory_type, page_shift, read, result, value, write},
    types::{FAULT_FALLBACK, FAULT_INSERT, FAULT_SIGBUS, Fault, Mapping, State},
};

c_functions! {
    /// Whether `len` bytes at `offset` of a region of memory may be mapped, and how.
    fn varia_mmap(
        state: *const State,
        index: u32,
        offset: u64,
        len: u64,
        copy_on_write: u32,
        out: *mut Mapping,
    ) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            let region = memory(variant, index).ok_or(Errno::ENXIO)?;
            let mapping = region.mmap(MmapRequest {
                offset,
                len,
                copy_on_write: copy_on_write != 0,
            })?;
            let mapping = Mapping {
                memory: memory_type(mapping.memory),
                allow_uncached: u32::from(mapping.allow_uncached),
            };
            // SAFETY: `out` by the contract of all functions.
            unsafe { write(out, mapping) }
        })())
    }

    /// What backs a fault: VARIA_FAULT_*, and the first page frame to insert.
    fn varia_fault(
        state: *const State,
        index: u32,
        request: *const Fault,
        frame: *mut u64,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            // SAFETY: by the contract of all functions.
            let request = unsafe { read(request) }?;
            let Some(region) = memory(variant, index) else {
                return Ok(FAULT_SIGBUS);
            };
            let fault = region.fault(FaultRequest {
                page: page_shift(request.page_shift)?,
                order: request.order,
                address: request.address,
                start: request.start,
                end: request.end,
                offset: request.offset,
            });
            match fault {
                varia_variant::Fault::Insert(first) => {
                    // SAFETY: `frame` by the contract of all functions.
                    unsafe { write(frame, first.0) }?;
                    Ok(FAULT_INSERT)
                }
                varia_variant::Fault::Fallback => Ok(FAULT_FALLBACK),
                varia_variant::Fault::Sigbus => Ok(FAULT_SIGBUS),
            }
        })())
    }

    /// How many bytes from the start of a mapping of `offset` onwards a page frame is mapped.
    fn varia_locate(
        state: *const State,
        index: u32,
        page: u32,
        frame: u64,
        offset: u64,
        out: *mut u64,
    ) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            let region = memory(variant, index).ok_or(Errno::EINVAL)?;
            let bytes = region.locate(page_shift(page)?, PageFrame(frame), offset)?;
            // SAFETY: `out` by the contract of all functions.
            unsafe { write(out, bytes) }
        })())
    }
}
