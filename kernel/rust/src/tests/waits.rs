// SPDX-License-Identifier: GPL-2.0-only
//! Waits, mappings, and arguments without a meaning.

use super::*;

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
        let state = probed(BASE, 96 * GIB);
        let sample = Sample {
            memory_enabled: 1,
            ..zero()
        };
        let (mut wait, mut poll): (Wait, Poll) = (zero(), zero());
        let before = unsafe { varia_ready_before(&state, &mut wait, &sample, &mut poll) };
        assert_eq!(before, READY_POLL);
        let after = unsafe { varia_ready_after(&state, &mut wait, &sample, &poll) };
        assert_eq!(after, READY_SLEEP);
        let how = unsafe { varia_fault_wait(&state, &mut wait, of_mapping, first, tried) };
        assert_eq!(how, expected, "{of_mapping} {first} {tried}");
        // the fault goes on with its wait, or the wait has an end that is counted
        let goes_on = matches!(how, FAULT_WAIT_RELEASED | FAULT_WAIT_HELD);
        let counts = ["waits", "waits_failed"].map(|name| count(&state, name));
        assert_eq!(
            counts,
            [1, u64::from(!goes_on)],
            "{of_mapping} {first} {tried}"
        );
        assert_eq!(wait.slept, u32::from(goes_on));
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
