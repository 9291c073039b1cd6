// SPDX-License-Identifier: GPL-2.0-only
//! Readiness: a look at registers, in one lock hold, and what to do then.

use varia_spec::Errno;
use varia_variant::{self as variant, After, Before, Generation, Millis, Monotonic, Variant};

use crate::{
    abi::c_functions,
    state::{self, read, value, write},
    types::{
        Look, MAX_REGISTERS, READY, READY_LOOK, READY_SLEEP, REGISTER_BAR0, REGISTER_CONFIG,
        REGISTER_NONE, Register, Sample, State, Wait,
    },
};

fn from_c(wait: Wait) -> variant::Wait {
    variant::Wait {
        deadline: (wait.has_deadline != 0).then_some(Monotonic(wait.deadline)),
        extended: wait.extended != 0,
    }
}

fn to_c(wait: variant::Wait) -> Wait {
    Wait {
        deadline: wait.deadline.map_or(0, |deadline| deadline.0),
        has_deadline: u32::from(wait.deadline.is_some()),
        extended: u32::from(wait.extended),
    }
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

c_functions! {
    /// Whether the next look at readiness reads BAR0: 0 or 1.
    fn varia_looks_at_bar0(state: *const State) -> i32 {
        let enabled = variant::Sample { now: Monotonic(0), memory_enabled: true };
        // SAFETY: by the contract of all functions.
        let before = unsafe { state::variant(state) }
            .map(|variant| variant.ready_before(&mut variant::Wait::default(), enabled));
        i32::from(matches!(before, Ok(Before::Look { registers, .. })
            if registers.iter().any(|register| matches!(register, Some(variant::Register::Bar0(_))))))
    }

    /// Before a look: VARIA_READY, or VARIA_READY_LOOK and what to read in this lock hold.
    fn varia_ready_before(
        state: *const State,
        wait: *mut Wait,
        sample: *const Sample,
        look: *mut Look,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            // SAFETY: by the contract of all functions.
            let mut now = from_c(unsafe { read(wait) }?);
            // SAFETY: by the contract of all functions.
            let sample = sampled(unsafe { read(sample) }?);
            let before = variant.ready_before(&mut now, sample);
            // SAFETY: by the contract of all functions.
            unsafe { write(wait, to_c(now)) }?;
            match before {
                Before::Ready => Ok(READY),
                Before::Failed(errno) => Err(errno),
                Before::Look { generation, registers } => {
                    let filled = Look {
                        generation: generation.0,
                        sleep_ms: 0,
                        registers: registers.map(register),
                    };
                    // SAFETY: by the contract of all functions.
                    unsafe { write(look, filled) }?;
                    Ok(READY_LOOK)
                }
            }
        })())
    }

    /// After a look, with the values in its registers: VARIA_READY or VARIA_READY_SLEEP.
    fn varia_ready_after(
        state: *const State,
        wait: *mut Wait,
        sample: *const Sample,
        look: *mut Look,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            // SAFETY: by the contract of all functions.
            let mut now = from_c(unsafe { read(wait) }?);
            // SAFETY: by the contract of all functions.
            let sample = sampled(unsafe { read(sample) }?);
            // SAFETY: by the contract of all functions.
            let mut judged = unsafe { read(look) }?;
            let values: [u32; MAX_REGISTERS] = judged.registers.map(|register| register.value);
            let generation = Generation(judged.generation);
            let after = variant.ready_after(&mut now, generation, values, sample);
            // SAFETY: by the contract of all functions.
            unsafe { write(wait, to_c(now)) }?;
            match after {
                After::Ready => Ok(READY),
                After::Failed(errno) => Err::<i32, Errno>(errno),
                After::Sleep(Millis(sleep)) => {
                    judged.sleep_ms = sleep;
                    // SAFETY: by the contract of all functions.
                    unsafe { write(look, judged) }?;
                    Ok(READY_SLEEP)
                }
            }
        })())
    }
}
