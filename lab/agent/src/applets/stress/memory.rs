//! Threads that use the device's memory.

use std::time::Duration;

use varia_spec::Errno;
use varia_sys::mapping::{Access, page_size};
use varia_sys::vfio::position;

use super::actor::Actor;
use super::target::{COMMON, OWN, OWN_STRIDE, TAIL, Target};
use super::{Memory, pattern};

/// Lengths of accesses, in bytes.
const LENGTHS: [u64; 10] = [1, 2, 3, 8, 64, 255, 4096, 4099, 16384, 65536];
/// Error of a touch where there would be a SIGBUS.
const TOUCH: [Errno; 1] = [Errno::EFAULT];
/// The most pages of a mapping.
const PAGES: u64 = 1024;

/// A region and an offset where the pattern is, at least `len` bytes before its end unless the end
/// is that of the memory.
fn place(actor: &mut Actor, target: &Target) -> (Memory, u64) {
    let which = actor.rng.usize(0..target.memory.len());
    let memory = target.memory[which];
    let offset = if actor.rng.u8(0..4) == 0 {
        actor.rng.u64(memory.length - TAIL..memory.length)
    } else {
        actor.rng.u64(0..COMMON)
    };
    (memory, offset)
}

/// Number of bytes from `offset` that are pattern, at most `len`.
fn inside(memory: Memory, offset: u64, len: u64) -> u64 {
    let end = if offset < COMMON { COMMON } else { memory.size };
    len.min(end - offset)
}

/// Reads, across the end of the memory too.
pub(super) fn read(actor: &mut Actor, target: &Target) {
    while actor.goes_on() {
        let (memory, offset) = place(actor, target);
        let len = actor.rng.choice(LENGTHS).unwrap_or(8);
        let len = inside(memory, offset, len);
        // Not what the device gives: a byte that was not written must show.
        let mut bytes = vec![0xee; len as usize];
        let at = position(memory.region, offset);
        let read = || target.device().read_at(at, &mut bytes);
        let Some(count) = actor.attempt("a read", target.unready(), read) else {
            continue;
        };
        if count as u64 != len {
            actor.violated(&format!("{count} of {len} bytes at {offset:#x} were read"));
        }
        let real = memory.length.saturating_sub(offset).min(len) as usize;
        let (real, padding) = bytes.split_at(real);
        if let Some((at, byte)) = pattern::foreign(memory.region, offset, real) {
            let region = memory.region;
            actor.violated(&format!("region {region} at {at:#x} reads {byte:#x}"));
        }
        if padding.iter().any(|byte| *byte != 0xff) {
            actor.violated(&format!("the padding reads {padding:x?}"));
        }
    }
}

/// Writes the pattern, across the end of the memory too.
pub(super) fn write(actor: &mut Actor, target: &Target) {
    while actor.goes_on() {
        let (memory, offset) = place(actor, target);
        let len = actor.rng.choice(LENGTHS).unwrap_or(8);
        let len = inside(memory, offset, len);
        let mut bytes = vec![0; len as usize];
        pattern::fill(memory.region, offset, actor.rng.u8(..), &mut bytes);
        let at = position(memory.region, offset);
        let write = || target.device().write_at(at, &bytes);
        let wrote = actor.attempt("a write", target.unready(), write);
        if let Some(count) = wrote.filter(|count| *count as u64 != len) {
            actor.violated(&format!(
                "{count} of {len} bytes at {offset:#x} were written"
            ));
        }
        actor.rest(Duration::from_millis(2));
    }
}

/// Writes where no other thread does, and reads the bytes back.
pub(super) fn own(actor: &mut Actor, target: &Target) {
    let start = OWN + OWN_STRIDE * actor.number;
    while actor.goes_on() {
        let memory = target.memory[actor.rng.usize(0..target.memory.len())];
        let len = actor.rng.choice(LENGTHS).unwrap_or(8);
        let offset = start + actor.rng.u64(0..OWN_STRIDE - len);
        let written: Vec<u8> = (0..len).map(|_| actor.rng.u8(..)).collect();
        let at = position(memory.region, offset);
        let write = || target.device().write_at(at, &written);
        if actor.attempt("a write", target.unready(), write) != Some(written.len()) {
            continue;
        }
        let mut read = vec![!written[0]; written.len()];
        let again = || target.device().read_at(at, &mut read);
        if actor
            .attempt("a read back", target.unready(), again)
            .is_some()
            && read != written
        {
            let region = memory.region;
            actor.violated(&format!(
                "a write to region {region} at {offset:#x} was lost"
            ));
        }
    }
}

/// Touches the first page of a mapping that stays, so that it is wanted again soon whenever it has
/// been taken away.
pub(super) fn touch(actor: &mut Actor, target: &Target) {
    while actor.goes_on() {
        let Some(lasting) = target.lasting.first() else {
            return actor.violated("there is no mapping that stays");
        };
        actor.attempt("a touch", &TOUCH, || lasting.mapping.touch(0));
        actor.rest(Duration::from_millis(1));
    }
}

/// Maps and touches, and touches mappings that stay.
pub(super) fn fault(actor: &mut Actor, target: &Target) {
    while actor.goes_on() {
        if actor.rng.bool() {
            touch_lasting(actor, target);
        } else {
            map_and_touch(actor, target);
        }
    }
}

fn touch_lasting(actor: &mut Actor, target: &Target) {
    let lasting = &target.lasting[actor.rng.usize(0..target.lasting.len())];
    let at = actor.rng.usize(0..lasting.mapping.len());
    if let Some(byte) = actor.attempt("a touch", &TOUCH, || lasting.mapping.touch(at)) {
        check(actor, lasting.region, lasting.offset + at as u64, &[byte]);
    }
}

fn map_and_touch(actor: &mut Actor, target: &Target) {
    let (memory, offset) = place(actor, target);
    let page = page_size() as u64;
    let start = offset / page * page;
    let most = inside(memory, start, PAGES * page).min(memory.length - start) / page;
    let len = actor.rng.u64(1..=most.max(1)) * page;
    let map = || {
        let at = position(memory.region, start);
        target.device().map(at, len, Access::ReadWrite)
    };
    let Some(mapping) = actor.attempt("a mapping", &[], map) else {
        return;
    };
    for _ in 0..4 {
        let at = actor.rng.u64(0..len - 8);
        let mut bytes = vec![0; 8];
        let peek = || mapping.peek(at as usize, &mut bytes);
        let Some(count) = actor.attempt("a touch", &TOUCH, peek) else {
            continue;
        };
        bytes.truncate(count);
        check(actor, memory.region, start + at, &bytes);
        pattern::fill(memory.region, start + at, actor.rng.u8(..), &mut bytes);
        actor.attempt("a store", &TOUCH, || mapping.poke(at as usize, &bytes));
    }
}

fn check(actor: &Actor, region: u32, offset: u64, bytes: &[u8]) {
    if let Some((at, byte)) = pattern::foreign(region, offset, bytes) {
        actor.violated(&format!(
            "a mapping of region {region} at {at:#x} shows {byte:#x}"
        ));
    }
}
