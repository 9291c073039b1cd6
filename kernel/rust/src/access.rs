// SPDX-License-Identifier: GPL-2.0-only
//! Reads and writes of a region.

use varia_spec::Errno;
use varia_variant::{Begin, Direction, MemoryRegion, MemoryType, SegmentKind, memory::natural_run};

use crate::{
    abi::c_functions,
    counters::Counter,
    state::{
        self, Instance, direction_from, exclusive, memory, memory_type, position, value, write,
    },
    types::{
        Access, COPY_CHUNK, DIRECT_CHUNK, REGION_BASE, REGION_MEMORY, Region, SEGMENT_CHECK,
        SEGMENT_MEMORY, SEGMENT_ONES, Segment, State,
    },
};

/// Advances an access, and counts its begin and end.
fn next(instance: &Instance, asked: &mut Access) -> Result<Option<Segment>, Errno> {
    let counters = &instance.counters;
    let next = if asked.begun == 0 {
        let first = begin(instance, asked).inspect_err(|_| {
            counters.add(Counter::AccessesRefused);
        })?;
        counters.add(Counter::Accesses);
        asked.begun = 1;
        Ok(first)
    } else {
        if asked.held != 0 {
            counters.add(if asked.segment == 0 {
                Counter::Checks
            } else {
                Counter::Copies
            });
        }
        asked.held = 0;
        asked.done = asked.done.saturating_add(moved(asked));
        further(instance, asked)
    };
    if !matches!(next, Ok(Some(_))) {
        counters.add(Counter::AccessesEnded);
    }
    next
}

/// Bytes of the present segment that have been moved.
fn moved(asked: &Access) -> u64 {
    u64::try_from(asked.result).map_or(0, |moved| moved.min(asked.segment))
}

/// True if memory of this type can be copied directly to and from the user, in any width.
fn is_direct(memory: MemoryType) -> bool {
    memory == MemoryType::Cached
}

/// Clips an access and returns its first segment, without bytes if only readiness is checked. If
/// bytes were copied directly before, the segment after those bytes.
fn begin(instance: &Instance, asked: &mut Access) -> Result<Option<Segment>, Errno> {
    let (index, offset) = position(asked.position);
    let region = memory(&instance.variant, index).ok_or(Errno::ENXIO)?;
    let direction = direction_from(asked.direction)?;
    match region.begin(direction, offset, asked.count) {
        Begin::Refuse(errno) => Err(errno),
        Begin::Serve { count, needs_ready } => {
            asked.count = count;
            if asked.done != 0 {
                // It was ready, and a page of the user's is missing.
                return reached(instance, asked, false);
            }
            let first = segment(instance, &region, direction, index, offset, count, true);
            // A direct segment checks readiness with the lock held under which it copies.
            let checks = matches!(&first, Next::Segment(first) if first.direct != 0);
            if !needs_ready || checks {
                return take(instance, asked, first);
            }
            asked.segment = 0;
            Ok(Some(Segment {
                len: 0,
                offset,
                index,
                kind: SEGMENT_CHECK,
                memory: 0,
                width: 0,
                direct: 0,
                reserved: 0,
            }))
        }
    }
}

/// The segment behind the present one; `None` at the end of the access.
fn further(instance: &Instance, asked: &mut Access) -> Result<Option<Segment>, Errno> {
    if let Some(errno) = asked.result.checked_neg().and_then(Errno::new) {
        return Err(errno);
    }
    if asked.done >= asked.count {
        return Ok(None);
    }
    if asked.killed != 0 {
        return Err(Errno::EINTR);
    }
    // A page of the user's is missing where a direct segment ended; the bounce buffer brings it in.
    let missing = moved(asked) < asked.segment;
    reached(instance, asked, !missing)
}

/// The segment at the place that an access has reached. `straight` if it may be a direct one.
fn reached(
    instance: &Instance,
    asked: &mut Access,
    straight: bool,
) -> Result<Option<Segment>, Errno> {
    let (index, offset) = position(asked.position.saturating_add(asked.done));
    let region = memory(&instance.variant, index).ok_or(Errno::ENXIO)?;
    let left = asked.count.saturating_sub(asked.done);
    let direction = direction_from(asked.direction)?;
    let next = segment(instance, &region, direction, index, offset, left, straight);
    take(instance, asked, next)
}

/// Bytes at the place that an access has reached.
enum Next {
    /// A segment.
    Segment(Segment),
    /// The rest of the access needs no act.
    Done,
    /// A failed page.
    Failed,
}

/// Makes a segment the present one. Without a segment the access is done, and at a failed page it
/// ends with the bytes before that page, or with `EIO` if there are none.
fn take(instance: &Instance, asked: &mut Access, next: Next) -> Result<Option<Segment>, Errno> {
    match next {
        Next::Segment(segment) => {
            asked.segment = segment.len;
            Ok(Some(segment))
        }
        Next::Done => {
            asked.done = asked.count;
            Ok(None)
        }
        Next::Failed => {
            instance.counters.add(Counter::AccessesFailed);
            if asked.done == 0 {
                Err(Errno::EIO)
            } else {
                Ok(None)
            }
        }
    }
}

/// Bytes at an offset of a region with `left` bytes left. `straight` if the segment may be a direct
/// one.
fn segment(
    instance: &Instance,
    region: &MemoryRegion,
    direction: Direction,
    index: u32,
    offset: u64,
    left: u64,
    straight: bool,
) -> Next {
    if left == 0 {
        return Next::Done;
    }
    let segment = region.segment(direction, offset, left);
    let segment = segment.up_to(instance.failed(index, offset, segment.len));
    let (kind, memory, direct) = match segment.kind {
        SegmentKind::Memory(_, memory) => (SEGMENT_MEMORY, memory, straight && is_direct(memory)),
        SegmentKind::Ones => (SEGMENT_ONES, MemoryType::Cached, false),
        // It goes to the end of the access.
        SegmentKind::Drop => return Next::Done,
        SegmentKind::Failed => return Next::Failed,
    };
    let most = if direct { DIRECT_CHUNK } else { COPY_CHUNK };
    let len = segment.len.min(most as u64);
    let (width, len) = match segment.kind {
        SegmentKind::Memory(at, MemoryType::WriteCombining) => natural_run(at, len),
        _ => (0, len),
    };
    Next::Segment(Segment {
        len,
        offset,
        index,
        kind,
        memory: memory_type(memory),
        width: width as u32,
        direct: u32::from(direct),
        reserved: 0,
    })
}

/// The one segment of an access that is copied directly from its beginning to its end.
pub(crate) fn whole(
    instance: &Instance,
    region: &MemoryRegion,
    direction: Direction,
    index: u32,
    offset: u64,
    count: u64,
) -> Option<Segment> {
    match segment(instance, region, direction, index, offset, count, true) {
        Next::Segment(segment) if segment.direct != 0 && segment.len == count => Some(segment),
        _ => None,
    }
}

c_functions! {
    /// Kind of a region: VARIA_REGION_*, and the region if it is memory.
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

    /// Next segment of an access to a region of memory: 1 and the segment, 0 at the end of the
    /// access, or a negative errno with which the access fails. `access->result` is the result of
    /// the segment before.
    fn varia_next(state: *const State, access: *mut Access, out: *mut Segment) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            // SAFETY: by the contract of all functions.
            let Some(segment) = next(instance, unsafe { exclusive(access) }?)? else {
                return Ok(0);
            };
            // SAFETY: by the contract of all functions.
            unsafe { write(out, segment) }?;
            Ok(1)
        })())
    }

    /// Counts an access that was copied directly with the lock held once. `whole` is 1 if all bytes
    /// were copied; if it is 0, the access continues with varia_next.
    fn varia_direct(state: *const State, whole: u32) {
        // SAFETY: by the contract of all functions.
        let Ok(instance) = (unsafe { state::instance(state) }) else {
            return;
        };
        instance.counters.add(Counter::Copies);
        if whole != 0 {
            instance.counters.add(Counter::Accesses);
            instance.counters.add(Counter::AccessesEnded);
        }
    }
}
