// SPDX-License-Identifier: GPL-2.0-only
//! The functions as C calls them: a GH200 of 96 GiB from probe to fault, and bad arguments.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each call passes null or pointers to values of its own test, as the contract asks"
)]

mod accesses;
mod outcomes;
mod sentences;
mod waits;

use std::{mem::zeroed, ptr};

use varia_spec::Errno;

use crate::{access::*, config::*, counters::*, mapping::*, probe::*, ready::*, show::*, types::*};

const GIB: u64 = 1 << 30;
const BASE: u64 = 0x42_0000_0000;

/// A struct of integers, all zero.
fn zero<T>() -> T {
    unsafe { zeroed() }
}

fn answer(value: u64) -> Answer {
    Answer { value, ..zero() }
}

fn absent() -> Answer {
    Answer { errno: 2, ..zero() }
}

/// A function with `size` bytes of memory at `base` and the MIG bug.
fn probed(base: u64, size: u64) -> State {
    probed_with(base, size, 0)
}

/// The same with the option `honour_memory_enable`.
fn probed_with(base: u64, size: u64, honour_memory_enable: u32) -> State {
    let answers = [
        answer(base),
        answer(size),
        absent(),
        absent(),
        answer(16 << 20),
    ];
    let environment = Environment {
        page_shift: 12,
        honour_memory_enable,
        ..zero()
    };
    let mut state = zero();
    let result = unsafe { varia_probe(answers.as_ptr(), 5, &environment, &mut state) };
    assert_eq!(result, 0);
    state
}

fn outcome(state: &State, waited: i32) -> (i32, String) {
    outcome_within(state, waited, 0, u64::MAX)
}

fn outcome_within(state: &State, waited: i32, ram: u32, last: u64) -> (i32, String) {
    let (mut text, len) = ([0; TEXT_LEN], TEXT_LEN as u32);
    let verdict = unsafe { varia_outcome(state, waited, ram, last, text.as_mut_ptr(), len) };
    let end = text.iter().position(|byte| *byte == 0).expect("a NUL");
    (
        verdict,
        String::from_utf8(text[..end].to_vec()).expect("text"),
    )
}

fn negative(errno: Errno) -> i32 {
    -errno.get()
}

/// Results for an operation with the lock held and memory enabled or not: that it may act at once, and
/// what it is told after a sample.
fn told(state: &State, memory_enabled: u32) -> (i32, i32) {
    let sample = Sample {
        memory_enabled,
        in_use: 1,
        locked: 1,
        ..zero()
    };
    let (mut wait, mut poll): (Wait, Poll) = (zero(), zero());
    let now = unsafe { varia_ready_now(state, 0) };
    let before = unsafe { varia_ready_before(state, &mut wait, &sample, &mut poll) };
    if before != READY_POLL {
        return (now, before);
    }
    for register in &mut poll.registers {
        register.value = 0xff;
    }
    let after = unsafe { varia_ready_after(state, &mut wait, &sample, &poll) };
    (now, after)
}

/// A count of a device.
fn count(state: &State, name: &str) -> u64 {
    let (file, mut cursor, mut text) = (0, 0, [0; TEXT_LEN]);
    while unsafe { varia_line(state, file, &mut cursor, text.as_mut_ptr(), TEXT_LEN as u32) } == 1 {
        let line = std::ffi::CStr::from_bytes_until_nul(&text).expect("a NUL");
        let (found, value) = line
            .to_str()
            .expect("text")
            .split_once(' ')
            .expect("a pair");
        if found == name {
            return value.parse().expect("a number");
        }
    }
    panic!("there is no count {name}")
}

/// The position of an offset in a region.
const fn at(index: u64, offset: u64) -> u64 {
    index << OFFSET_SHIFT | offset
}

/// The segments of an access that goes well: (kind, length, place in the region), and how it ends.
fn segments(
    state: &State,
    direction: u32,
    position: u64,
    count: u64,
) -> (Vec<(u32, u64, u64)>, i32, u64) {
    let mut access = Access {
        position,
        count,
        direction,
        ..zero()
    };
    let (mut segments, mut segment): (_, Segment) = (Vec::new(), zero());
    loop {
        let more = unsafe { varia_next(state, &mut access, &mut segment) };
        if more != 1 {
            return (segments, more, access.done);
        }
        segments.push((segment.kind, segment.len, segment.offset));
        access.result = segment.len as i32;
    }
}
