// SPDX-License-Identifier: GPL-2.0-only
//! Configuration space: who owns which piece, and the bytes that the variant keeps.

use core::slice;

use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{ConfigOwner, ConfigPiece, Direction, Variant};

use crate::{
    abi::c_functions,
    counters::Counter,
    state::{self, direction, position, result, write},
    types::{CONFIG_CHUNK, OWNER_BASE, OWNER_BOTH, OWNER_KEEP, Piece, State},
};

const CONFIG: u32 = RegionIndex::CONFIG.0;

c_functions! {
    /// The first piece of an access to `len` (at least 1) bytes at a position in a region that
    /// vfio-pci-core serves, and its owner.
    fn varia_config_piece(
        state: *const State,
        way: u32,
        at: u64,
        len: u64,
        out: *mut Piece,
    ) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            let piece = match position(at) {
                (CONFIG, offset) => variant.config_piece(direction(way)?, offset, len),
                _ => ConfigPiece { len, owner: ConfigOwner::Base },
            };
            let most = u64::try_from(CONFIG_CHUNK).unwrap_or(u64::MAX);
            let (owner, len) = match piece.owner {
                ConfigOwner::Base => (OWNER_BASE, piece.len),
                ConfigOwner::Keep => (OWNER_KEEP, piece.len.min(most)),
                ConfigOwner::Both => (OWNER_BOTH, piece.len.min(most)),
            };
            let piece = Piece { len, owner, reserved: 0 };
            // SAFETY: `out` by the contract of all functions.
            unsafe { write(out, piece) }
        })())
    }

    /// Whether the variant alone keeps all of the `len` bytes at a position: 0 or 1.
    fn varia_config_kept(state: *const State, at: u64, len: u64) -> i32 {
        // SAFETY: by the contract of all functions.
        let Ok(variant) = (unsafe { state::variant(state) }) else {
            return 0;
        };
        let (CONFIG, mut offset) = position(at) else {
            return 0;
        };
        let mut left = len;
        while left > 0 {
            let piece = variant.config_piece(Direction::Read, offset, left);
            if piece.owner != ConfigOwner::Keep || piece.len == 0 {
                return 0;
            }
            offset = offset.saturating_add(piece.len);
            left = left.saturating_sub(piece.len);
        }
        i32::from(len > 0)
    }

    /// Counts a write of `len` bytes that ends after `done`, or with a negative errno, in `pieces`
    /// pieces, if it is of configuration space.
    fn varia_config_written(state: *const State, at: u64, len: u64, done: i64, pieces: u32) {
        if position(at).0 != CONFIG {
            return;
        }
        // SAFETY: by the contract of all functions.
        let Ok(instance) = (unsafe { state::instance(state) }) else {
            return;
        };
        instance.counters.add(Counter::ConfigWrites);
        if pieces > 1 {
            instance.counters.add(Counter::ConfigSplits);
        }
        if u64::try_from(done) != Ok(len) {
            instance.counters.add(Counter::ConfigShort);
        }
    }

    /// Fills in those of the `len` bytes at a position that the variant owns.
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
