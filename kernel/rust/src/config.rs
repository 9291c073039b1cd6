// SPDX-License-Identifier: GPL-2.0-only
//! Configuration space: owners of segments, and the bytes that the variant keeps.

use core::slice;

use varia_module::Served;
use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{ConfigOwner, ConfigSegment, Direction, Variant};

use crate::{
    abi::c_functions,
    access,
    counters::Counter,
    state::{self, direction_from, position, result, write},
    types::{
        self, CONFIG_CHUNK, OWNER_BASE, OWNER_BOTH, OWNER_KEEP, ROUTE_BASE, ROUTE_DIRECT,
        ROUTE_LOAD, ROUTE_MEMORY, ROUTE_SPLIT, ROUTE_STORE, Segment, State, WRITE,
    },
};

const CONFIG: u32 = RegionIndex::CONFIG.0;

/// First segment of an access to configuration space, of VARIA_CONFIG_CHUNK at most if the variant
/// owns or shares it. Adjacent segments that the variant keeps are read as one and written one by
/// one.
fn first(variant: &Served, direction: Direction, offset: u64, len: u64) -> ConfigSegment {
    let mut segment = variant.config_segment(direction, offset, len);
    if segment.owner == ConfigOwner::Base {
        return segment;
    }
    let most = len.min(CONFIG_CHUNK as u64);
    while direction == Direction::Read && segment.owner == ConfigOwner::Keep && segment.len < most {
        let next = offset.saturating_add(segment.len);
        let other = variant.config_segment(direction, next, len.saturating_sub(segment.len));
        if other.owner != ConfigOwner::Keep || other.len == 0 {
            break;
        }
        segment.len = segment.len.saturating_add(other.len);
    }
    segment.len = segment.len.min(most);
    segment
}

/// The route of an access to configuration space.
fn route(variant: &Served, direction: Direction, offset: u64, len: u64) -> i32 {
    if len == 0 {
        return ROUTE_BASE;
    }
    let segment = first(variant, direction, offset, len);
    match segment.owner {
        _ if segment.len < len => ROUTE_SPLIT,
        ConfigOwner::Base => ROUTE_BASE,
        ConfigOwner::Keep if direction == Direction::Read => ROUTE_LOAD,
        ConfigOwner::Keep => ROUTE_STORE,
        ConfigOwner::Both => ROUTE_SPLIT,
    }
}

c_functions! {
    /// Route of an access to `len` bytes at a position in the device's file: VARIA_ROUTE_*, and the
    /// segment of VARIA_ROUTE_DIRECT. Counts a write of configuration space.
    fn varia_route(
        state: *const State,
        direction: u32,
        at: u64,
        len: u64,
        out: *mut Segment,
    ) -> i32 {
        // SAFETY: by the contract of all functions.
        let (Ok(instance), Ok(direction)) = (unsafe { state::instance(state) }, direction_from(direction)) else {
            return ROUTE_BASE;
        };
        let (index, offset) = position(at);
        if index != CONFIG {
            let Some(region) = state::memory(&instance.variant, index) else {
                return ROUTE_BASE;
            };
            let whole = access::whole(instance, &region, direction, index, offset, len);
            // SAFETY: `out` by the contract of all functions.
            let direct = whole.is_some_and(|segment| unsafe { write(out, segment) }.is_ok());
            return if direct { ROUTE_DIRECT } else { ROUTE_MEMORY };
        }
        if direction == Direction::Write {
            instance.counters.add(Counter::ConfigWrites);
        }
        route(&instance.variant, direction, offset, len)
    }

    /// First segment of an access to `len` (at least 1) bytes at a position in configuration space,
    /// and the owner of the segment.
    fn varia_config_segment(
        state: *const State,
        direction: u32,
        at: u64,
        len: u64,
        out: *mut types::ConfigSegment,
    ) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            let segment = first(variant, direction_from(direction)?, position(at).1, len);
            let owner = match segment.owner {
                ConfigOwner::Base => OWNER_BASE,
                ConfigOwner::Keep => OWNER_KEEP,
                ConfigOwner::Both => OWNER_BOTH,
            };
            let segment = types::ConfigSegment { len: segment.len, owner, reserved: 0 };
            // SAFETY: `out` by the contract of all functions.
            unsafe { write(out, segment) }
        })())
    }

    /// Result of an access of `len` bytes to configuration space, of which `done` bytes in
    /// `segments` segments are done: bytes, or a negative errno. `last` is the result of the last segment. A
    /// write is counted, and returns the bytes that it has changed even if a later segment failed.
    fn varia_config_done(
        state: *const State,
        direction: u32,
        len: u64,
        done: i64,
        last: i64,
        segments: u32,
    ) -> i64 {
        if direction == WRITE {
            // SAFETY: by the contract of all functions.
            if let Ok(instance) = unsafe { state::instance(state) } {
                if segments > 1 {
                    instance.counters.add(Counter::ConfigSplits);
                }
                if u64::try_from(done) != Ok(len) {
                    instance.counters.add(Counter::ConfigShort);
                }
            }
        }
        if last < 0 && (direction != WRITE || done == 0) { last } else { done }
    }

    /// Replaces those of the `len` bytes at a position that the variant owns.
    fn varia_config_load(state: *const State, at: u64, out: *mut u8, len: u32) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            if out.is_null() {
                return Err(Errno::EINVAL);
            }
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            // SAFETY: not null; `len` bytes of the caller's own, by the contract of all functions.
            variant.config_load(position(at).1, unsafe { slice::from_raw_parts_mut(out, len) });
            Ok(())
        })())
    }

    /// Keeps those of the `len` bytes at a position that the variant owns.
    fn varia_config_store(state: *const State, at: u64, data: *const u8, len: u32) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            if data.is_null() {
                return Err(Errno::EINVAL);
            }
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            // SAFETY: not null; `len` bytes of the caller's own, by the contract of all functions.
            variant.config_store(position(at).1, unsafe { slice::from_raw_parts(data, len) });
            Ok(())
        })())
    }
}
