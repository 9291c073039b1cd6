// SPDX-License-Identifier: GPL-2.0-only
//! The functions as C calls them: a GH200 of 96 GiB from probe to fault, and bad arguments.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each call passes null or pointers to values of its own test, as the contract asks"
)]

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

#[test]
fn memory_that_the_cpu_can_not_reach_is_refused() {
    let state = probed(BASE, 96 * GIB);
    let end = BASE + 96 * GIB;
    let served = (OUTCOME_SERVE, String::new());
    assert_eq!(outcome_within(&state, 0, 0, end - 1), served);
    let (verdict, text) = outcome_within(&state, 0, 1 << 4, end - 2);
    assert_eq!(verdict, negative(Errno::EOVERFLOW));
    assert!(
        text.contains("at 0x59c0000000 ends beyond 0x59fffffffe"),
        "{text}"
    );
}

fn negative(errno: Errno) -> i32 {
    -errno.get()
}

#[test]
fn questions_come_in_order_and_end() {
    let mut names = Vec::new();
    let mut question: Question = zero();
    while unsafe { varia_question(names.len() as u32, &mut question) } == 0 {
        let end = question
            .name
            .iter()
            .position(|byte| *byte == 0)
            .expect("a NUL");
        let name = String::from_utf8(question.name[..end].to_vec()).expect("text");
        names.push((
            question.kind,
            name,
            question.vendor,
            question.id,
            question.offset,
        ));
    }
    let property = |name: &str| (QUESTION_PROPERTY, String::from(name), 0, 0, 0);
    assert_eq!(
        names,
        [
            property("nvidia,gpu-mem-base-pa"),
            property("nvidia,gpu-mem-size"),
            (QUESTION_DVSEC_OFFSET, String::new(), 0x1e98, 0, 0),
            (QUESTION_DVSEC_WORD, String::new(), 0x10de, 3, 0xa),
            (QUESTION_BAR_SIZE, String::new(), 0, 0, 0),
        ]
    );
}

#[test]
fn a_device_is_served_declined_or_refused_with_a_reason() {
    assert_eq!(
        outcome(&probed(BASE, 96 * GIB), 0),
        (OUTCOME_SERVE, String::new())
    );
    let declined = probed(BASE, 0);
    let (verdict, text) = outcome(&declined, 0);
    assert_eq!(verdict, OUTCOME_DECLINE);
    let needs_bar0 =
        [&probed(BASE, 96 * GIB), &declined].map(|state| unsafe { varia_needs_bar0(state) });
    assert_eq!(
        needs_bar0,
        [1, 0],
        "an open without the memory polls nothing"
    );
    assert!(text.contains("chip-to-chip link is down"), "{text}");
    let (verdict, text) = outcome(&probed(BASE, GIB), 0);
    assert_eq!(verdict, negative(Errno::EINVAL));
    assert!(text.contains("memory size 1 GiB"), "{text}");
    let (verdict, text) = outcome(&probed(BASE, 96 * GIB), negative(Errno::ETIME));
    assert_eq!(verdict, negative(Errno::ETIME));
    assert!(text.contains("not ready (ETIME)"), "{text}");
}

#[test]
fn strict_refuses_what_would_be_declined() {
    let answers = [
        answer(BASE),
        answer(0),
        absent(),
        absent(),
        answer(16 << 20),
    ];
    let environment = Environment {
        page_shift: 12,
        strict: 1,
        ..zero()
    };
    let mut state = zero();
    let result = unsafe { varia_probe(answers.as_ptr(), 5, &environment, &mut state) };
    assert_eq!(result, 0);
    let (verdict, text) = outcome(&state, 0);
    assert_eq!(verdict, negative(Errno::ENODEV));
    assert!(
        text.starts_with("not served: firmware reports a memory size of 0"),
        "{text}"
    );
    assert!(text.contains("the option strict"), "{text}");
}

#[test]
fn memory_that_another_part_of_the_kernel_has_claimed_is_named() {
    let (state, mut text) = (probed(BASE, 96 * GIB), [0; TEXT_LEN]);
    let (out, len) = (text.as_mut_ptr(), TEXT_LEN as u32);
    let claimed = |index| unsafe { varia_claimed(&state, index, out, len) };
    assert_eq!(claimed(0), negative(Errno::EINVAL));
    assert_eq!(claimed(2), negative(Errno::EBUSY));
    let text = std::ffi::CStr::from_bytes_until_nul(&text).expect("a NUL");
    let text = text.to_str().expect("text");
    assert!(
        text.starts_with("resmem of 1 GiB at 0x59c0000000 is claimed"),
        "{text}"
    );
}

#[test]
fn a_recovery_asks_for_a_new_check() {
    let state = probed(BASE, 96 * GIB);
    assert_eq!(told(&state, 1), (0, READY));
    assert_eq!(told(&state, 0), (1, READY), "no poll without a reset");
    unsafe { varia_recovered(&state) };
    assert_eq!(told(&state, 1), (0, READY), "a poll");
    let counts = ["polls", "recoveries", "resets"].map(|name| count(&state, name));
    assert_eq!(counts, [2, 1, 0]);
}

/// Reports a failed page of usemem as the kernel does for a process that maps it all.
fn fail_page(state: &State, page: u64) {
    let mut bytes = 0;
    let frame = (BASE >> 12) + page;
    assert_eq!(
        unsafe { varia_locate(state, frame, at(4, 0), 95 * GIB, &mut bytes) },
        0
    );
}

#[test]
fn poison_refused() {
    let state = probed(BASE, 96 * GIB);
    fail_page(&state, 3);
    let end = |direction, offset, count| {
        let (segments, end, done) = segments(&state, direction, at(4, offset), count);
        (segments, end, done)
    };
    let memory = |len, offset| (SEGMENT_MEMORY, len, offset);
    for direction in [READ, WRITE] {
        // The bytes before the page are served and counted; from the page on there is EIO.
        let before = end(direction, 0, 1 << 20);
        assert_eq!(before, (vec![memory(0x3000, 0)], 0, 0x3000));
        let across = end(direction, 0x2ffc, 8);
        assert_eq!(across, (vec![memory(4, 0x2ffc)], 0, 4));
        for offset in [0x3000, 0x3fff] {
            let (segments, end, done) = end(direction, offset, 1);
            assert_eq!((end, done), (negative(Errno::EIO), 0), "{offset:#x}");
            assert_eq!(
                segments,
                [(SEGMENT_CHECK, 0, offset)],
                "readiness comes first"
            );
        }
        let behind = end(direction, 0x4000, 64);
        assert_eq!(behind, (vec![memory(64, 0x4000)], 0, 64));
        let route = |offset, len| unsafe {
            varia_route(&state, direction, at(4, offset), len, &mut zero())
        };
        assert_eq!(
            (route(0, 0x3000), route(0, 0x3001)),
            (ROUTE_DIRECT, ROUTE_MEMORY)
        );
    }
    assert_eq!(count(&state, "accesses_failed"), 8);
    assert_eq!(count(&state, "accesses"), count(&state, "accesses_ended"));

    let fault =
        |order, address| unsafe { varia_fault(&state, address, order, 8 * GIB, 9 * GIB, at(4, 0)) };
    assert_eq!(fault(0, 8 * GIB + 0x3000), FAULT_FAILED_PAGE);
    assert_eq!(fault(9, 8 * GIB), FAULT_FALLBACK);
    assert_eq!(fault(0, 8 * GIB + 0x2000), (BASE >> 12) as i64 + 2);
    assert_eq!(fault(9, 8 * GIB + (2 << 20)), (BASE >> 12) as i64 + 512);
    assert_eq!(count(&state, "faults_failed"), 1);
}

#[test]
fn regions_are_described_in_bytes_and_pages() {
    let state = probed(BASE, 96 * GIB + 4096);
    let mut region: Region = zero();
    assert_eq!(
        unsafe { varia_region(&state, 2, &mut region) },
        REGION_MEMORY
    );
    let expected = Region {
        base: BASE + 95 * GIB,
        length: GIB + 4096,
        size: 2 * GIB,
        sparse: Sparse {
            id: 1,
            version: 1,
            next: 0,
            nr_areas: 1,
            reserved: 0,
            offset: 0,
            size: GIB + 4096,
        },
        first_frame: (BASE + 95 * GIB) >> 12,
        frames: (GIB >> 12) + 1,
        flags: 7,
        memory: MEMORY_WRITE_COMBINING,
    };
    assert_eq!(region, expected);
    assert_eq!(unsafe { varia_region(&state, 0, &mut region) }, REGION_BASE);
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

#[test]
fn an_access_is_clipped_and_cut_into_segments() {
    let state = probed(BASE, 96 * GIB);
    let end = 95 * GIB;
    let chunk = COPY_CHUNK as u64;
    assert_eq!(
        segments(&state, READ, at(4, end - 8), chunk + 10),
        (
            vec![
                (SEGMENT_MEMORY, 8, end - 8),
                (SEGMENT_ONES, chunk, end),
                (SEGMENT_ONES, 2, end + chunk),
            ],
            0,
            chunk + 10
        )
    );
    assert_eq!(
        segments(&state, WRITE, at(4, end - 8), 40 * GIB),
        (vec![(SEGMENT_MEMORY, 8, end - 8)], 0, 33 * GIB + 8),
        "what is dropped is counted"
    );
    assert_eq!(segments(&state, WRITE, at(4, end), 5), (vec![], 0, 5));
    // A segment that is not copied under the lock of the check is checked on its own.
    let padding = (SEGMENT_ONES, 5, end);
    assert_eq!(
        segments(&state, READ, at(4, end), 5).0,
        [(SEGMENT_CHECK, 0, end), padding]
    );
    assert_eq!(
        segments(&state, READ, at(2, 8), 8).0,
        [(SEGMENT_CHECK, 0, 8), (SEGMENT_MEMORY, 8, 8)]
    );
    let memory = |index, len| unsafe { varia_route(&state, READ, at(index, 0), len, &mut zero()) };
    assert_eq!((memory(0, 1), memory(7, 1)), (ROUTE_BASE, ROUTE_BASE));
    assert_eq!((memory(2, 1), memory(4, 0)), (ROUTE_MEMORY, ROUTE_MEMORY));
    assert_eq!(
        (memory(4, 2 << 20), memory(4, (2 << 20) + 1)),
        (ROUTE_DIRECT, ROUTE_MEMORY)
    );
    let none = (vec![(SEGMENT_CHECK, 0, 0)], 0, 0);
    assert_eq!(segments(&state, READ, at(2, 0), 0), none);
    assert_eq!(
        (count(&state, "accesses"), count(&state, "accesses_ended")),
        (6, 6)
    );

    let beyond = segments(&state, READ, at(4, 128 * GIB), 1);
    assert_eq!(beyond, (vec![], negative(Errno::EINVAL), 0));
    let base = segments(&state, READ, at(0, 0), 1);
    assert_eq!(base, (vec![], negative(Errno::ENXIO), 0));
    assert_eq!(
        (count(&state, "accesses"), count(&state, "accesses_refused")),
        (6, 2)
    );
}

#[test]
fn where_a_page_of_the_users_is_missing_the_bounce_buffer_brings_it_in() {
    let state = probed(BASE, 96 * GIB);
    let mut access = Access {
        position: at(4, 0),
        count: 4 << 20,
        ..zero()
    };
    let mut segment: Segment = zero();
    let mut seen = Vec::new();
    // {how many bytes of a segment are moved}
    for moved in [8192, 0, 4096, 262_144] {
        assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 1);
        seen.push((segment.offset, segment.len, segment.direct));
        access.result = moved;
    }
    assert_eq!(
        seen,
        [
            (0, 2 << 20, 1),
            (8192, 4096, 0),
            (8192, 4096, 0),
            (12_288, 2 << 20, 1),
        ]
    );
    // What was copied directly before is not copied again.
    (access, segment) = (zero(), zero());
    (access.position, access.count, access.done) = (at(4, 0), 2 << 20, 12_288);
    let mut seen = Vec::new();
    for _ in 0..2 {
        assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 1);
        seen.push((segment.offset, segment.len, segment.direct));
        access.result = segment.len as i32;
    }
    assert_eq!(seen, [(12_288, 4096, 0), (16_384, (2 << 20) - 16_384, 1)]);
    assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 0);
    assert_eq!(access.done, 2 << 20);
    // What is not cached always goes through the bounce buffer.
    (access, segment) = (zero(), zero());
    (access.position, access.count) = (at(2, 0), 8192);
    for _ in 0..2 {
        assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 1);
    }
    assert_eq!((segment.len, segment.direct), (4096, 0));
}

#[test]
fn an_access_ends_with_the_segment_that_fails_and_with_a_kill() {
    let state = probed(BASE, 96 * GIB);
    for (result, killed, errno) in [
        (negative(Errno::EFAULT), 0, Errno::EFAULT),
        (0, 1, Errno::EINTR),
    ] {
        let mut access = Access {
            position: at(4, 0),
            count: 8192,
            ..zero()
        };
        let mut segment: Segment = zero();
        let mut next = |access: &mut Access| unsafe { varia_next(&state, access, &mut segment) };
        assert_eq!((next(&mut access), next(&mut access)), (1, 1));
        (access.result, access.killed) = (result, killed);
        assert_eq!(next(&mut access), negative(errno));
    }
    assert_eq!(
        (count(&state, "accesses"), count(&state, "accesses_ended")),
        (2, 2)
    );
}

#[test]
fn configuration_space_is_kept_in_the_two_windows() {
    let state = probed(BASE, 96 * GIB);
    let mut segment: ConfigSegment = zero();
    let mut segments = Vec::new();
    let mut offset = 0x10;
    while offset < 0x30 {
        unsafe { varia_config_segment(&state, WRITE, at(7, offset), 0x30 - offset, &mut segment) };
        segments.push((offset, segment.len, segment.owner));
        offset += segment.len;
    }
    let (base, keep) = (OWNER_BASE, OWNER_KEEP);
    assert_eq!(
        segments,
        [
            (0x10, 8, base),
            (0x18, 8, keep),
            (0x20, 8, keep),
            (0x28, 8, base)
        ]
    );

    let keeps = |direction| {
        if direction == READ {
            ROUTE_LOAD
        } else {
            ROUTE_STORE
        }
    };
    let route =
        |direction, at, len| unsafe { varia_route(&state, direction, at, len, &mut zero()) };
    for direction in [READ, WRITE] {
        for (offset, len, expected) in [
            (
                0x18,
                16,
                if direction == READ {
                    ROUTE_LOAD
                } else {
                    ROUTE_SPLIT
                },
            ),
            (0x1b, 2, keeps(direction)),
            (0x20, 8, keeps(direction)),
            (0x17, 2, ROUTE_SPLIT),
            (0x20, 9, ROUTE_SPLIT),
            (0, 256, ROUTE_SPLIT),
            (0x10, 8, ROUTE_BASE),
            (0x28, 4, ROUTE_BASE),
            (0x18, 0, ROUTE_BASE),
        ] {
            let found = route(direction, at(7, offset), len);
            assert_eq!(found, expected, "{len} bytes at {offset:#x}");
        }
    }
    assert_eq!(route(READ, at(0, 0x18), 4), ROUTE_BASE);
    assert_eq!(count(&state, "config_writes"), 9);

    unsafe { varia_config_store(&state, at(7, 0x20), [0xff; 8].as_ptr(), 8) };
    let mut shown = [0; 8];
    unsafe { varia_config_load(&state, at(7, 0x20), shown.as_mut_ptr(), 8) };
    assert_eq!(u64::from_le_bytes(shown), !(128 * GIB - 1) | 0xc);
    assert_eq!(unsafe { varia_ioctl(&state, 0x3b6f) }, 0);
    unsafe { varia_config_load(&state, at(7, 0x20), shown.as_mut_ptr(), 8) };
    assert_eq!(u64::from_le_bytes(shown), 0xc);
}

#[test]
fn a_wait_survives_the_border_until_its_deadline() {
    let state = probed(BASE, 96 * GIB);
    let (mut wait, mut poll): (Wait, Poll) = (zero(), zero());
    let mut sample = Sample {
        memory_enabled: 1,
        ..zero()
    };
    assert_eq!(unsafe { varia_polls_bar0(&state) }, 1);
    let mut polls = 0;
    let end = loop {
        let before = unsafe { varia_ready_before(&state, &mut wait, &sample, &mut poll) };
        if before != READY_POLL {
            break before;
        }
        polls += 1;
        let registers = poll
            .registers
            .map(|register| (register.kind, register.offset));
        assert_eq!(
            registers,
            [(REGISTER_BAR0, 0x1498), (REGISTER_BAR0, 0x200bc)]
        );
        let after = unsafe { varia_ready_after(&state, &mut wait, &sample, &poll) };
        assert_eq!((after, wait.sleep_ms), (READY_SLEEP, 1000));
        sample.now += wait.sleep_ms + 1;
    };
    assert_eq!((polls, end), (30, negative(Errno::ETIME)));
}

#[test]
fn a_wait_ends_with_its_success_and_a_later_reset_begins_another() {
    let state = probed(BASE, 96 * GIB);
    let mut wait: Wait = zero();
    let mut polled = |now, value| {
        let sample = Sample {
            now,
            memory_enabled: 1,
            ..zero()
        };
        let mut poll: Poll = zero();
        let before = unsafe { varia_ready_before(&state, &mut wait, &sample, &mut poll) };
        assert_eq!(before, READY_POLL, "at {now} ms");
        for register in &mut poll.registers {
            register.value = value;
        }
        unsafe { varia_ready_after(&state, &mut wait, &sample, &poll) }
    };
    assert_eq!(polled(0, 0xff), READY);
    unsafe { varia_reset_done(&state) };
    assert_eq!(polled(40_000, 0), READY_SLEEP);
    assert_eq!(polled(69_000, 0), READY_SLEEP);
    assert_eq!(polled(70_000, 0xff), READY);
}

#[test]
fn a_reset_asks_for_a_new_look_and_a_look_in_between_does_not_hide_it() {
    let state = probed(BASE, 96 * GIB);
    let sample = Sample {
        memory_enabled: 1,
        ..zero()
    };
    let poll = |reset_meanwhile: bool| {
        let (mut wait, mut poll): (Wait, Poll) = (zero(), zero());
        let before = unsafe { varia_ready_before(&state, &mut wait, &sample, &mut poll) };
        if before != READY_POLL {
            return before;
        }
        for register in &mut poll.registers {
            register.value = 0xff;
        }
        if reset_meanwhile {
            unsafe { varia_reset_done(&state) };
        }
        unsafe { varia_ready_after(&state, &mut wait, &sample, &poll) }
    };
    assert_eq!(poll(true), READY_SLEEP);
    let polled = || ["polls", "polls_raced"].map(|name| count(&state, name));
    assert_eq!(polled(), [1, 1], "raced, so it is done again");
    assert_eq!(poll(false), READY);
    assert_eq!(polled(), [2, 1]);
    let now = |suspended| unsafe { varia_ready_now(&state, suspended) };
    assert_eq!((now(0), now(1), count(&state, "locks_ready")), (1, 0, 1));
    let (mut wait, mut unused): (Wait, Poll) = (zero(), zero());
    let again = unsafe { varia_ready_before(&state, &mut wait, &sample, &mut unused) };
    assert_eq!(again, READY);
    unsafe { varia_reset_done(&state) };
    assert_eq!((now(0), count(&state, "locks_ready")), (0, 1));
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

#[test]
fn honour_memory_enable_takes_a_sample_each_time_and_off_only_after_a_reset() {
    let refused = negative(Errno::EIO);
    for (option, off, on) in [(0, (1, READY), (1, READY)), (1, (0, refused), (0, READY))] {
        let state = probed_with(BASE, 96 * GIB, option);
        assert_eq!(told(&state, 0), (0, refused), "option {option}, not ready");
        assert_eq!(told(&state, 1), (0, READY), "option {option}, a poll");
        assert_eq!(told(&state, 0), off, "option {option}, ready, memory off");
        assert_eq!(told(&state, 1), on, "option {option}, on again");
        unsafe { varia_reset_done(&state) };
        assert_eq!(told(&state, 0), (0, refused), "option {option}, reset");
        let counts = ["polls", "polls_unlocked"].map(|name| count(&state, name));
        assert_eq!(counts, [1, 0], "option {option}: no poll with memory off");
    }
}

#[test]
fn mappings_and_faults_follow_the_region() {
    let state = probed(BASE, 96 * GIB);
    let mmap = |at, copy_on_write| unsafe { varia_mmap(&state, at, GIB, copy_on_write) };
    assert_eq!(
        mmap(at(2, 0), 0),
        MMAP_MEMORY | MMAP_WRITE_COMBINING | MMAP_ALLOW_UNCACHED
    );
    assert_eq!(mmap(at(4, 0), 0), MMAP_MEMORY);
    assert_eq!(mmap(at(0, 0), 0), MMAP_BASE);
    assert_eq!(mmap(at(2, 0), 1), negative(Errno::EINVAL));

    let fault =
        |order, address, at| unsafe { varia_fault(&state, address, order, 8 * GIB, 9 * GIB, at) };
    let first = (BASE + GIB) >> 12;
    let second = i64::try_from(first + 512).expect("a frame");
    assert_eq!(fault(9, 8 * GIB + (3 << 20), at(4, GIB)), second);
    assert_eq!(fault(30, 8 * GIB, at(4, GIB)), FAULT_FALLBACK);
    assert_eq!(fault(u32::MAX, 8 * GIB, at(4, GIB)), FAULT_FALLBACK);
    assert_eq!(fault(0, 9 * GIB, at(4, GIB)), FAULT_SIGBUS);
    assert_eq!(fault(0, 8 * GIB, at(0, GIB)), FAULT_SIGBUS);
    let counts = ["faults", "faults_fallback", "faults_outside"];
    assert_eq!(counts.map(|name| count(&state, name)), [5, 2, 2]);

    let mut bytes = 0;
    let located = unsafe { varia_locate(&state, first + 3, at(4, GIB), GIB, &mut bytes) };
    assert_eq!((located, bytes), (0, 3 << 12));
    let elsewhere = unsafe { varia_locate(&state, first, at(0, 0), GIB, &mut bytes) };
    assert_eq!(elsewhere, negative(Errno::EINVAL));
}

#[test]
fn a_fault_waits_once_and_without_the_locks_that_it_may_release() {
    for (of_mapping, first, tried, expected) in [
        (1, 1, 0, FAULT_WAIT_LATER),
        (0, 1, 0, FAULT_WAIT_RELEASED),
        (0, 0, 1, FAULT_WAIT_NONE),
        (1, 0, 0, FAULT_WAIT_HELD),
        (0, 0, 0, FAULT_WAIT_HELD),
    ] {
        let how = unsafe { varia_fault_wait(of_mapping, first, tried) };
        assert_eq!(how, expected, "{of_mapping} {first} {tried}");
    }
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let state = probed(BASE, 96 * GIB);
    let mut segment: ConfigSegment = zero();
    let invalid = negative(Errno::EINVAL);
    assert_eq!(unsafe { varia_question(0, ptr::null_mut()) }, invalid);
    assert_eq!(segments(&state, 2, at(4, 0), 1).1, invalid);
    assert_eq!(
        unsafe { varia_config_segment(&state, 2, at(7, 0), 1, &mut segment) },
        invalid
    );
    let environment = Environment {
        page_shift: 40,
        ..zero()
    };
    let (answers, mut out): ([Answer; 4], State) = (zero(), zero());
    let mut probe = |count, environment: &Environment| unsafe {
        varia_probe(answers.as_ptr(), count, environment, &mut out)
    };
    assert_eq!(probe(4, &environment), invalid);
    assert_eq!(probe(u32::MAX, &environment), invalid);
}

#[test]
fn null_is_refused_and_not_followed() {
    let state = probed(BASE, 96 * GIB);
    let invalid = negative(Errno::EINVAL);
    let null = ptr::null::<State>();
    let mut access: Access = zero();
    unsafe {
        assert_eq!(varia_question(0, ptr::null_mut()), invalid);
        assert_eq!(varia_outcome(null, 0, 0, 0, ptr::null_mut(), 0), invalid);
        assert_eq!(
            varia_outcome(&state, 0, 0, u64::MAX, ptr::null_mut(), 8),
            invalid
        );
        assert_eq!(varia_region(null, 4, ptr::null_mut()), REGION_BASE);
        assert_eq!(varia_region(&state, 4, ptr::null_mut()), REGION_BASE);
        assert_eq!(varia_next(null, &mut access, ptr::null_mut()), invalid);
        assert_eq!(
            varia_next(&state, ptr::null_mut(), ptr::null_mut()),
            invalid
        );
        access.position = at(4, 0);
        assert_eq!(varia_next(&state, &mut access, ptr::null_mut()), invalid);
        assert_eq!(
            varia_config_segment(&state, READ, at(7, 0), 1, ptr::null_mut()),
            invalid
        );
        assert_eq!(varia_config_load(&state, 0, ptr::null_mut(), 8), invalid);
        assert_eq!(varia_config_store(&state, 0, ptr::null(), 8), invalid);
        let ready = varia_ready_before(&state, ptr::null_mut(), ptr::null(), ptr::null_mut());
        assert_eq!(ready, invalid);
        assert_eq!(varia_mmap(null, at(4, 0), 4096, 0), invalid);
        assert_eq!(varia_fault(null, 0, 0, 0, 4096, at(4, 0)), FAULT_SIGBUS);
        assert_eq!(varia_locate(null, 0, 0, 0, ptr::null_mut()), invalid);
        assert_eq!((varia_needs_bar0(null), varia_polls_bar0(null)), (0, 0));
        assert_eq!(varia_ioctl(null, 0), invalid);
        assert_eq!(varia_file(0, ptr::null_mut(), 8), invalid);
        let line = varia_line(&state, 0, ptr::null_mut(), ptr::null_mut(), 8);
        assert_eq!(line, invalid);
        varia_count(null, 0);
        varia_config_done(null, WRITE, 1, 1, 1, 1);
        varia_opened(null);
        varia_reset_done(null);
        varia_recovered(null);
        assert_eq!(varia_claimed(null, 4, ptr::null_mut(), 8), invalid);
        assert_eq!(varia_claimed(&state, 4, ptr::null_mut(), 8), invalid);
    }
}
