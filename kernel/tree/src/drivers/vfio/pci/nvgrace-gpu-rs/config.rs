// SPDX-License-Identifier: GPL-2.0-only

//! Reads and writes of configuration space, in segments of the variant and of `vfio_pci_core`.

use kernel::{
    prelude::*,
    vfio::pci::{
        Direction,
        Transfer, //
    }, //
};
use varia_variant::{
    ConfigOwner,
    ConfigSegment,
    Variant, //
};

use crate::{
    access::direction,
    events::Counter,
    state::State,
    NvgraceGpu, //
};

/// Most bytes in a segment of the variant's.
const CONFIG_CHUNK: usize = 16;

/// First segment of an access, of [`CONFIG_CHUNK`] bytes at most if the variant owns or shares it.
/// Adjacent segments that the variant keeps are read as one and written one by one.
fn first(state: &State, way: varia_variant::Direction, offset: u64, len: u64) -> ConfigSegment {
    let mut segment = state.variant.config_segment(way, offset, len);
    if segment.owner == ConfigOwner::Base {
        return segment;
    }
    let most = len.min(CONFIG_CHUNK as u64);
    let read = way == varia_variant::Direction::Read;
    while read && segment.owner == ConfigOwner::Keep && segment.len < most {
        let next = offset.saturating_add(segment.len);
        let left = len.saturating_sub(segment.len);
        let other = state.variant.config_segment(way, next, left);
        if other.owner != ConfigOwner::Keep || other.len == 0 {
            break;
        }
        segment.len = segment.len.saturating_add(other.len);
    }
    segment.len = segment.len.min(most);
    segment
}

/// A read or write.
pub(crate) fn transfer(transfer: &mut Transfer<'_, NvgraceGpu>) -> Result<usize> {
    let dev = transfer.device();
    let state = &dev.data().state;
    let writes = transfer.direction() == Direction::Write;
    if writes {
        state.count(Counter::ConfigWrites);
    }
    let len = transfer.len();
    if len == 0 {
        return transfer.base();
    }
    let way = direction(transfer.direction());
    let whole = first(state, way, transfer.offset(), len as u64);
    if whole.len >= len as u64 {
        match whole.owner {
            ConfigOwner::Base => return transfer.base(),
            // The variant's own bytes need no device.
            ConfigOwner::Keep if writes => return segment(transfer, state, 0, whole),
            ConfigOwner::Keep | ConfigOwner::Both => {}
        }
    }
    let _power = dev.resume()?;
    if whole.len >= len as u64 && whole.owner == ConfigOwner::Keep {
        return segment(transfer, state, 0, whole);
    }
    split(transfer, state, way)
}

/// Segments in rising order; a failure ends the access.
fn split(
    transfer: &mut Transfer<'_, NvgraceGpu>,
    state: &State,
    way: varia_variant::Direction,
) -> Result<usize> {
    let len = transfer.len();
    let (mut done, mut segments) = (0, 0);
    let mut last = Ok(0);
    while done < len {
        let offset = transfer.offset().saturating_add(done as u64);
        let next = first(state, way, offset, (len - done) as u64);
        last = segment(transfer, state, done, next);
        match last {
            Ok(0) | Err(_) => break,
            Ok(moved) => done += moved,
        }
        segments += 1;
    }
    if way == varia_variant::Direction::Write {
        if segments > 1 {
            state.count(Counter::ConfigSplits);
        }
        if done != len {
            state.count(Counter::ConfigShort);
        }
        if done > 0 {
            return Ok(done);
        }
    }
    last.map(|_| done)
}

/// Carries out one segment from byte `at` of the buffer on; returns the number of bytes.
fn segment(
    transfer: &mut Transfer<'_, NvgraceGpu>,
    state: &State,
    at: usize,
    segment: ConfigSegment,
) -> Result<usize> {
    let len = segment.len as usize;
    if segment.owner == ConfigOwner::Base {
        return transfer.base_part(at, len);
    }
    let offset = transfer.offset().saturating_add(at as u64);
    let mut bytes = [0; CONFIG_CHUNK];
    let mut bytes = bytes.get_mut(..len).ok_or(EINVAL)?;
    let writes = transfer.direction() == Direction::Write;
    if writes {
        transfer.load(at, bytes)?;
    }
    if segment.owner == ConfigOwner::Both {
        let moved = transfer.base_part(at, len)?;
        bytes = bytes.get_mut(..moved).ok_or(EINVAL)?;
        if bytes.is_empty() {
            return Ok(0);
        }
    }
    if writes {
        state.variant.config_store(offset, bytes);
        return Ok(bytes.len());
    }
    if segment.owner == ConfigOwner::Both {
        transfer.load(at, bytes)?;
    }
    state.variant.config_load(offset, bytes);
    transfer.store(at, bytes)?;
    Ok(bytes.len())
}
