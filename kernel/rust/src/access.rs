// SPDX-License-Identifier: GPL-2.0-only
//! Reads and writes of a region.

use varia_spec::Errno;
use varia_variant::{Begin, HostPhys, MemoryType, SegmentKind, memory::natural_width};

use crate::{
    abi::c_functions,
    counters::Counter,
    state::{self, Instance, direction, memory, memory_type, position, read, value, write},
    types::{
        Access, COPY_CHUNK, DIRECT_CHUNK, REGION_BASE, REGION_MEMORY, Region, SEGMENT_CHECK,
        SEGMENT_MEMORY, SEGMENT_ONES, Segment, State,
    },
};

/// Moves an access on, and counts it when it begins and ends.
fn next(instance: &Instance, asked: &mut Access) -> Result<Option<Segment>, Errno> {
    let counters = &instance.counters;
    if asked.begun == 0 {
        let check = begin(instance, asked).inspect_err(|_| {
            counters.add(Counter::AccessesRefused);
        })?;
        counters.add(Counter::Accesses);
        asked.begun = 1;
        if check.is_some() {
            return Ok(check);
        }
    } else {
        asked.done = asked.done.saturating_add(moved(asked));
    }
    let next = piece(instance, asked);
    if !matches!(next, Ok(Some(_))) {
        counters.add(Counter::AccessesEnded);
    }
    next
}

/// Bytes of the present piece that have been moved.
fn moved(asked: &Access) -> u64 {
    u64::try_from(asked.result).map_or(0, |moved| moved.min(asked.piece))
}

/// Whether memory can be copied straight to and from the user, in any width.
fn is_direct(memory: MemoryType) -> bool {
    memory == MemoryType::Cached
}

/// Clips an access; a piece without bytes if the device must be ready even for none.
fn begin(instance: &Instance, asked: &mut Access) -> Result<Option<Segment>, Errno> {
    let (index, offset) = position(asked.position);
    let region = memory(&instance.variant, index).ok_or(Errno::ENXIO)?;
    match region.begin(direction(asked.way)?, offset, asked.count) {
        Begin::Refuse(errno) => Err(errno),
        Begin::Serve { count, needs_ready } => {
            asked.count = count;
            // A direct piece checks before anything else happens, in the hold that it copies in.
            let first = region.segment(direction(asked.way)?, offset, count);
            let checks = count > 0
                && matches!(first.kind, SegmentKind::Memory(_, memory) if is_direct(memory));
            Ok((needs_ready && !checks).then_some(Segment {
                len: 0,
                at: 0,
                offset,
                index,
                kind: SEGMENT_CHECK,
                memory: 0,
                direct: 0,
            }))
        }
    }
}

/// The piece at the place that an access has reached; `None` at its end.
fn piece(instance: &Instance, asked: &mut Access) -> Result<Option<Segment>, Errno> {
    if let Some(errno) = asked.result.checked_neg().and_then(Errno::new) {
        return Err(errno);
    }
    if asked.killed != 0 {
        return Err(Errno::EINTR);
    }
    let left = asked.count.saturating_sub(asked.done);
    if left == 0 {
        return Ok(None);
    }
    let (index, offset) = position(asked.position.saturating_add(asked.done));
    let region = memory(&instance.variant, index).ok_or(Errno::ENXIO)?;
    let piece = region.segment(direction(asked.way)?, offset, left);
    let (kind, at, memory, direct) = match piece.kind {
        SegmentKind::Memory(at, memory) => {
            (SEGMENT_MEMORY, at.0, memory_type(memory), is_direct(memory))
        }
        SegmentKind::Ones => (SEGMENT_ONES, 0, 0, false),
        // It goes to the end of the access, and there is nothing to do for it.
        SegmentKind::Drop => {
            asked.done = asked.count;
            return Ok(None);
        }
    };
    // A page of the user's is missing where a direct piece ended; the bounce buffer brings it in.
    let missing = moved(asked) < asked.piece;
    let direct = direct && !missing;
    let most = if direct { DIRECT_CHUNK } else { COPY_CHUNK };
    let len = piece.len.min(most as u64);
    asked.piece = len;
    Ok(Some(Segment {
        len,
        at,
        offset,
        index,
        kind,
        memory,
        direct: u32::from(direct),
    }))
}

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

    /// Whether a position in the device's file is in a region of memory: 0 or 1.
    fn varia_is_memory(state: *const State, at: u64) -> i32 {
        // SAFETY: by the contract of all functions.
        let variant = unsafe { state::variant(state) };
        i32::from(variant.is_ok_and(|variant| memory(variant, position(at).0).is_some()))
    }

    /// The next piece of an access to a region of memory: 1 and the piece, 0 when all is done, or
    /// a negative errno with which the access ends. The piece before it has ended with
    /// `access->result`.
    fn varia_next(state: *const State, access: *mut Access, out: *mut Segment) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            // SAFETY: by the contract of all functions.
            let mut asked = unsafe { read(access) }?;
            let next = next(instance, &mut asked);
            // SAFETY: by the contract of all functions.
            unsafe { write(access, asked) }?;
            let Some(piece) = next? else {
                return Ok(0);
            };
            // SAFETY: by the contract of all functions.
            unsafe { write(out, piece) }?;
            Ok(1)
        })())
    }

    /// Bytes in the first naturally aligned piece of `len` bytes at `at`: 8, 4, 2 or 1.
    fn varia_width(at: u64, len: u64) -> u64 {
        natural_width(HostPhys(at), len)
    }
}
