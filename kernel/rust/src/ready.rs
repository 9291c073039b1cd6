// SPDX-License-Identifier: GPL-2.0-only
//! Readiness: polls of registers with the lock held, and their verdicts.

use varia_module::Served;
use varia_spec::Errno;
use varia_variant::{self as variant, After, Before, Generation, Millis, Monotonic, Ready};

use crate::{
    abi::c_functions,
    counters::{Counter, Counters},
    state::{self, Instance, read, value, write},
    types::{
        MAX_REGISTERS, Poll, READY, READY_POLL, READY_SLEEP, REGISTER_BAR0, REGISTER_CONFIG,
        REGISTER_NONE, Register, Sample, State, Wait,
    },
};

fn from_c(wait: Wait) -> variant::Wait {
    variant::Wait {
        deadline: (wait.has_deadline != 0).then_some(Monotonic(wait.deadline)),
        extended: wait.extended != 0,
    }
}

/// Carries the variant's part of a wait back to C's.
fn to_c(wait: &mut Wait, now: variant::Wait) {
    wait.deadline = now.deadline.map_or(0, |deadline| deadline.0);
    wait.has_deadline = u32::from(now.deadline.is_some());
    wait.extended = u32::from(now.extended);
}

fn sampled(sample: Sample) -> variant::Sample {
    variant::Sample {
        now: Monotonic(sample.now),
        memory_enabled: sample.memory_enabled != 0,
    }
}

fn register(register: Option<variant::Register>) -> Register {
    let (kind, offset) = match register {
        None => (REGISTER_NONE, 0),
        Some(variant::Register::Bar0(offset)) => (REGISTER_BAR0, offset),
        Some(variant::Register::Config(offset)) => (REGISTER_CONFIG, u64::from(offset)),
    };
    Register {
        offset,
        kind,
        value: 0,
    }
}

/// Reason to fail an operation without a poll.
fn obstacle(sample: Sample) -> Option<Errno> {
    if sample.killed != 0 {
        Some(Errno::EINTR)
    } else if sample.suspended != 0 {
        Some(Errno::EIO)
    } else {
        None
    }
}

/// True if the variant is ready even with memory disabled, so that no sample can make a difference.
fn is_ready_anyway(variant: &Served) -> bool {
    let sample = variant::Sample {
        now: Monotonic(0),
        memory_enabled: false,
    };
    variant.ready_before(&mut variant::Wait::default(), sample) == Before::Ready
}

/// Counts the end of a poll, and of the wait if the operation has slept.
fn ended(counters: &Counters, wait: &mut Wait, sample: Sample, answer: Result<i32, Errno>) {
    match answer {
        Ok(READY_SLEEP) => {
            if wait.slept == 0 {
                counters.add(Counter::Waits);
            }
            wait.slept = 1;
            return;
        }
        Ok(READY) if sample.in_use != 0 => counters.add(Counter::LocksReady),
        _ => {}
    }
    if wait.slept != 0 {
        wait.slept = 0;
        counters.add(match answer {
            Ok(_) => Counter::WaitsReady,
            Err(Errno::ETIME) => Counter::WaitsTimedOut,
            Err(Errno::EINTR) => Counter::WaitsKilled,
            Err(_) => Counter::WaitsFailed,
        });
    }
}

/// Counts the end of a wait that its operation gives up, if it has slept.
pub(crate) fn given_up(counters: &Counters, wait: &mut Wait) {
    if wait.slept != 0 {
        wait.slept = 0;
        counters.add(Counter::WaitsFailed);
    }
}

fn before(
    instance: &Instance,
    wait: &mut Wait,
    sample: Sample,
) -> (Result<i32, Errno>, Option<Poll>) {
    let counters = &instance.counters;
    let mut now = from_c(*wait);
    let before = match obstacle(sample) {
        Some(errno) => Before::Failed(errno),
        None => instance.variant.ready_before(&mut now, sampled(sample)),
    };
    to_c(wait, now);
    let answer = match before {
        Before::Poll {
            generation,
            registers,
        } => {
            counters.add(Counter::Polls);
            if sample.in_use != 0 && sample.locked == 0 {
                counters.add(Counter::PollsUnlocked);
            }
            let poll = Poll {
                generation: generation.0,
                registers: registers.map(register),
            };
            return (Ok(READY_POLL), Some(poll));
        }
        Before::Ready => Ok(READY),
        Before::Failed(errno) => Err(errno),
    };
    ended(counters, wait, sample, answer);
    (answer, None)
}

fn after(instance: &Instance, wait: &mut Wait, sample: Sample, poll: Poll) -> Result<i32, Errno> {
    let counters = &instance.counters;
    let mut now = from_c(*wait);
    let values: [u32; MAX_REGISTERS] = poll.registers.map(|register| register.value);
    let generation = Generation(poll.generation);
    let after = instance
        .variant
        .ready_after(&mut now, generation, values, sampled(sample));
    to_c(wait, now);
    let answer = match after {
        After::Ready => Ok(READY),
        After::Failed(errno) => Err(errno),
        After::Sleep(Millis(sleep)) => {
            if sleep == 0 {
                counters.add(Counter::PollsRaced);
            }
            wait.sleep_ms = sleep;
            Ok(READY_SLEEP)
        }
    };
    ended(counters, wait, sample, answer);
    answer
}

c_functions! {
    /// 1 if the next poll reads BAR0, else 0.
    fn varia_polls_bar0(state: *const State) -> i32 {
        let enabled = variant::Sample { now: Monotonic(0), memory_enabled: true };
        // SAFETY: by the contract of all functions.
        let before = unsafe { state::variant(state) }
            .map(|variant| variant.ready_before(&mut variant::Wait::default(), enabled));
        i32::from(matches!(before, Ok(Before::Poll { registers, .. })
            if registers.iter().any(|register| matches!(register, Some(variant::Register::Bar0(_))))))
    }

    /// 1 if the device is ready whatever a sample would show, so that an operation may act with the
    /// lock held; 0 to take a sample. `suspended` as in a sample.
    fn varia_ready_now(state: *const State, suspended: u32) -> i32 {
        // SAFETY: by the contract of all functions.
        let Ok(instance) = (unsafe { state::instance(state) }) else {
            return 0;
        };
        let ready = suspended == 0 && is_ready_anyway(&instance.variant);
        if ready {
            instance.counters.add(Counter::LocksReady);
        }
        ready.into()
    }

    /// Decision before a poll: VARIA_READY, or VARIA_READY_POLL and the registers to read with the
    /// lock still held.
    fn varia_ready_before(
        state: *const State,
        wait: *mut Wait,
        sample: *const Sample,
        poll: *mut Poll,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            // SAFETY: by the contract of all functions.
            let (mut now, sample) = unsafe { (read(wait)?, read(sample)?) };
            let (answer, filled) = before(instance, &mut now, sample);
            // SAFETY: by the contract of all functions.
            unsafe { write(wait, now) }?;
            if let Some(filled) = filled {
                // SAFETY: by the contract of all functions.
                unsafe { write(poll, filled) }?;
            }
            answer
        })())
    }

    /// Decision after a poll, from the values in its registers: VARIA_READY or VARIA_READY_SLEEP.
    fn varia_ready_after(
        state: *const State,
        wait: *mut Wait,
        sample: *const Sample,
        poll: *const Poll,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            // SAFETY: by the contract of all functions.
            let (mut now, sample) = unsafe { (read(wait)?, read(sample)?) };
            // SAFETY: by the contract of all functions.
            let answer = after(instance, &mut now, sample, unsafe { read(poll) }?);
            // SAFETY: by the contract of all functions.
            unsafe { write(wait, now) }?;
            answer
        })())
    }
}
