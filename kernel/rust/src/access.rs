// SPDX-License-Identifier: GPL-2.0-only
//! Reads and writes of a region.

use varia_spec::Errno;
use varia_variant::{HostPhys, SegmentKind, memory::natural_width};

use crate::{
    abi::c_functions,
    counters::Counter,
    state::{self, direction, memory, memory_type, result, write},
    types::{
        Begin, COPY_CHUNK, REGION_BASE, REGION_MEMORY, Region, SEGMENT_DROP, SEGMENT_MEMORY,
        SEGMENT_ONES, Segment, State,
    },
};

c_functions! {
    /// What stands behind a region index: VARIA_REGION_*, and the region if it is memory.
    fn varia_region(state: *const State, index: u32, out: *mut Region) -> i32 {
        // SAFETY: by the contract of all functions.
        let region = unsafe { state::instance(state) }
            .ok()
            .and_then(|instance| Some((memory(&instance.variant, index)?, instance.page)));
        let Some((region, page)) = region else {
            return REGION_BASE;
        };
        // SAFETY: `out` by the contract of all functions.
        match unsafe { write(out, state::describe(region, page)) } {
            Ok(()) => REGION_MEMORY,
            Err(_) => REGION_BASE,
        }
    }

    /// Starts a read or write of `count` bytes at `offset` of a region of memory.
    fn varia_begin(
        state: *const State,
        index: u32,
        way: u32,
        offset: u64,
        count: u64,
        out: *mut Begin,
    ) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            let region = memory(&instance.variant, index).ok_or(Errno::ENXIO)?;
            match region.begin(direction(way)?, offset, count) {
                varia_variant::Begin::Refuse(errno) => {
                    instance.counters.add(Counter::AccessesRefused);
                    Err(errno)
                }
                varia_variant::Begin::Serve { count, needs_ready } => {
                    instance.counters.add(Counter::Accesses);
                    let begin = Begin {
                        count,
                        needs_ready: u32::from(needs_ready),
                        reserved: 0,
                    };
                    // SAFETY: `out` by the contract of all functions.
                    unsafe { write(out, begin) }
                }
            }
        })())
    }

    /// The first piece of what varia_begin() has clipped.
    fn varia_segment(
        state: *const State,
        index: u32,
        way: u32,
        offset: u64,
        count: u64,
        out: *mut Segment,
    ) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            let region = memory(variant, index).ok_or(Errno::ENXIO)?;
            let piece = region.segment(direction(way)?, offset, count);
            let (kind, at, memory) = match piece.kind {
                SegmentKind::Memory(at, memory) => (SEGMENT_MEMORY, at.0, memory_type(memory)),
                SegmentKind::Ones => (SEGMENT_ONES, 0, 0),
                SegmentKind::Drop => (SEGMENT_DROP, 0, 0),
            };
            let len = match piece.kind {
                SegmentKind::Drop => piece.len,
                _ => piece.len.min(COPY_CHUNK as u64),
            };
            let segment = Segment { len, at, kind, memory };
            // SAFETY: `out` by the contract of all functions.
            unsafe { write(out, segment) }
        })())
    }

    /// Bytes in the first naturally aligned piece of `len` bytes at `at`: 8, 4, 2 or 1.
    fn varia_width(at: u64, len: u64) -> u64 {
        natural_width(HostPhys(at), len)
    }
}
