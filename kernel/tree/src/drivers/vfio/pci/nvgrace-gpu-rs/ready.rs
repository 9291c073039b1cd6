// SPDX-License-Identifier: GPL-2.0-only

//! Readiness: polls with `memory_lock` held, and their verdicts.

use kernel::{
    prelude::*,
    vfio::pci::{
        Check,
        Locked,
        MemoryGuard,
        MemoryReady,
        Opened,
        Unlocked, //
    }, //
};
use varia_spec::Errno;
use varia_variant::{
    After,
    Before,
    Millis,
    Monotonic,
    Ready,
    Register,
    Sample, //
};

use crate::{
    events::Counter,
    state::{
        to_error,
        State, //
    },
    NvgraceGpu, //
};

/// Wait of one operation.
#[derive(Default)]
pub(crate) struct Wait {
    wait: varia_variant::Wait,
    slept: bool,
    /// A read or write has resumed the device; a fault fails if the device is suspended.
    of_fault: bool,
}

impl Wait {
    /// Wait of a page fault.
    pub(crate) fn of_fault() -> Self {
        Self {
            of_fault: true,
            ..Self::default()
        }
    }

    /// Counts the end of a wait that its operation gives up, if it has slept.
    pub(crate) fn given_up(&mut self, state: &State) {
        if core::mem::take(&mut self.slept) {
            state.count(Counter::WaitsFailed);
        }
    }

    /// Counts the end of a wait, if it has slept.
    fn ended(&mut self, state: &State, error: Option<Error>) {
        if !core::mem::take(&mut self.slept) {
            return;
        }
        state.count(match error {
            None => Counter::WaitsReady,
            Some(error) if error == to_error(Errno::ETIME) => Counter::WaitsTimedOut,
            Some(error) if error == EINTR => Counter::WaitsKilled,
            Some(_) => Counter::WaitsFailed,
        });
    }
}

/// True if the variant is ready even with memory disabled, so that no sample can make a difference.
fn is_ready_anyway(state: &State) -> bool {
    let sample = Sample {
        now: Monotonic(0),
        memory_enabled: false,
    };
    state.variant.ready_before(&mut Default::default(), sample) == Before::Ready
}

/// One check of an open device, with the lock held.
pub(crate) fn check(
    dev: &Opened<NvgraceGpu>,
    memory: &MemoryGuard<'_>,
    wait: &mut Wait,
) -> Result<Check> {
    let state = &dev.data().state;
    let suspended = wait.of_fault && memory.is_suspended();
    if !suspended && is_ready_anyway(state) {
        return Ok(Check::Ready);
    }
    if suspended && !memory.is_killed() {
        return Err(EIO);
    }
    let enabled = memory.enabled();
    let sample = Sample {
        now: state.now(),
        memory_enabled: enabled.is_some(),
    };
    poll(state, wait, sample, memory.is_killed(), |register| {
        match (register, enabled) {
            // A missing register reads as all ones, as on the bus.
            (Register::Bar0(offset), Some(enabled)) => dev
                .bar(0)
                .map_or(u32::MAX, |bar| bar.read32(enabled, offset)),
            (Register::Bar0(_), None) => u32::MAX,
            (Register::Config(offset), _) => {
                dev.pci().read_config_dword(offset).unwrap_or(u32::MAX)
            }
        }
    })
}

/// One poll: reads the registers that the variant names, and judges their values.
pub(crate) fn poll(
    state: &State,
    wait: &mut Wait,
    sample: Sample,
    killed: bool,
    read: impl Fn(Register) -> u32,
) -> Result<Check> {
    if killed {
        return Err(EINTR);
    }
    let (generation, registers) = match state.variant.ready_before(&mut wait.wait, sample) {
        Before::Ready => return Ok(Check::Ready),
        Before::Failed(errno) => return Err(to_error(errno)),
        Before::Poll {
            generation,
            registers,
        } => (generation, registers),
    };
    state.count(Counter::Polls);
    let values = registers.map(|register| register.map_or(0, &read));
    let verdict = state
        .variant
        .ready_after(&mut wait.wait, generation, values, sample);
    match verdict {
        After::Ready => Ok(Check::Ready),
        After::Failed(errno) => Err(to_error(errno)),
        After::Sleep(Millis(milliseconds)) => {
            if milliseconds == 0 {
                state.count(Counter::PollsRaced);
            }
            if !core::mem::replace(&mut wait.slept, true) {
                state.count(Counter::Waits);
            }
            Ok(Check::Sleep(milliseconds as u32))
        }
    }
}

/// Takes the lock with the device ready, waiting for it if need be.
pub(crate) fn lock<'a>(
    dev: &Opened<NvgraceGpu>,
    unlocked: &'a mut Unlocked,
    wait: &mut Wait,
) -> Result<MemoryReady<'a>> {
    let state = &dev.data().state;
    let locked = dev.lock_ready(unlocked, wait);
    wait.ended(state, locked.as_ref().err().copied());
    if locked.is_ok() {
        state.count(Counter::LocksReady);
    }
    locked
}

/// Takes the lock with the device ready, if it is ready at the first poll.
pub(crate) fn lock_once<'a>(
    dev: &Opened<NvgraceGpu>,
    unlocked: &'a mut Unlocked,
    wait: &mut Wait,
) -> Result<Locked<'a>> {
    let state = &dev.data().state;
    let locked = dev.lock_once(unlocked, wait);
    match &locked {
        Ok(Locked::Ready(_)) => {
            wait.ended(state, None);
            state.count(Counter::LocksReady);
        }
        Ok(Locked::Sleep(_)) => {}
        Err(error) => wait.ended(state, Some(*error)),
    }
    locked
}
