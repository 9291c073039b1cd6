//! Readiness after a reset: generations, and a wait that belongs to one operation.
//!
//! A reset can finish at any moment, on any CPU, while another operation polls the readiness after
//! an earlier reset. So readiness is not a flag but a pair of counters: every reset raises `reset`,
//! and a poll that succeeds raises `ready` to the value that `reset` had *before* the registers
//! were read. Ready means equal. A late success can never hide a newer
//! reset.

use core::sync::atomic::{AtomicU64, Ordering};

use varia_spec::Errno;

use varia_units::{Millis, Monotonic};

/// The most registers that one poll reads.
pub const MAX_REGISTERS: usize = 2;

/// A little-endian u32 that shows readiness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// Register at this offset in BAR0.
    Bar0(u64),
    /// Register at this offset in the device's own configuration space.
    Config(u16),
}

/// Registers of one poll, in the order in which they are read.
pub type StatusRegisters = [Option<Register>; MAX_REGISTERS];

/// Values of one poll, in the same order; 0 without a register.
pub type Values = [u32; MAX_REGISTERS];

/// State that the runtime sampled with the lock held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The time.
    pub now: Monotonic,
    /// True if memory is enabled in the command register and the device is in D0.
    pub memory_enabled: bool,
}

/// Number of resets at the start of a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Generation(pub u64);

/// Wait of one operation for readiness, by value on the stack of the operation: one deadline over
/// all retries. The variant alone interprets the fields.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wait {
    /// Deadline of the wait; `None` before the first poll.
    pub deadline: Option<Monotonic>,
    /// True once the wait has reached the phase that moves the deadline.
    pub extended: bool,
}

/// Decision before a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// Ready: act, with the lock still held.
    Ready,
    /// Read these registers, with the lock still held.
    Poll {
        /// Generation to pass back with the values.
        generation: Generation,
        /// Registers to read.
        registers: StatusRegisters,
    },
    /// The operation fails.
    Failed(Errno),
}

/// Decision after a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Ready: act, with the lock still held.
    Ready,
    /// Drop the lock, sleep this long (killable; 0 is just dropping it), and begin again with the
    /// same wait.
    Sleep(Millis),
    /// The operation fails.
    Failed(Errno),
}

/// Readiness of a device, for display.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Readiness method in one word.
    pub method: &'static str,
    /// Number of resets so far, plus one for the start of the device.
    pub reset: Generation,
    /// The newest reset after which a poll found the device ready; 0 before the first.
    pub ready: Generation,
}

/// Decisions on readiness, for a variant whose device has to be waited for. By default a device is
/// always ready.
///
/// For each operation that touches memory, a runtime calls these methods with the lock held under
/// which it then acts.
pub trait Ready {
    /// First half of a check: ready, registers to read, or an error.
    ///
    /// To be called with the lock held under which `sample` was taken. `wait` belongs to one
    /// operation.
    fn ready_before(&self, wait: &mut Wait, sample: Sample) -> Before {
        let _ = (wait, sample);
        Before::Ready
    }

    /// Second half of a check: judges the registers that [`Before::Poll`] named, read with the same
    /// lock held.
    fn ready_after(
        &self,
        wait: &mut Wait,
        generation: Generation,
        values: Values,
        sample: Sample,
    ) -> After {
        let _ = (wait, generation, values, sample);
        After::Ready
    }

    /// Readiness for display; `None` if the device is always ready.
    fn readiness(&self) -> Option<Status> {
        None
    }
}

/// Number of resets, and the newest reset after which the device was ready.
#[derive(Debug)]
pub struct Generations {
    reset: AtomicU64,
    ready: AtomicU64,
}

impl Default for Generations {
    fn default() -> Self {
        Self::new()
    }
}

impl Generations {
    /// Generations of a new device, which is not ready.
    pub const fn new() -> Self {
        Self {
            reset: AtomicU64::new(1),
            ready: AtomicU64::new(0),
        }
    }

    /// Counts a reset that has finished.
    pub fn reset_done(&self) {
        self.reset.fetch_add(1, Ordering::Release);
    }

    /// Generation for a poll; to be loaded before any register is read.
    pub fn poll(&self) -> Generation {
        Generation(self.reset.load(Ordering::Acquire))
    }

    /// Newest generation that a poll found ready.
    pub fn newest_ready(&self) -> Generation {
        Generation(self.ready.load(Ordering::Acquire))
    }

    /// Records that a poll that began at `generation` found the device ready.
    pub fn found_ready(&self, generation: Generation) {
        self.ready.fetch_max(generation.0, Ordering::AcqRel);
    }

    /// True if no reset has finished since a successful poll began.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) == self.reset.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_device_is_not_ready() {
        assert!(!Generations::new().is_ready());
    }

    #[test]
    fn a_successful_look_makes_ready_until_the_next_reset() {
        let generations = Generations::new();
        generations.found_ready(generations.poll());
        assert!(generations.is_ready());
        generations.reset_done();
        assert!(!generations.is_ready());
    }

    #[test]
    fn a_late_success_does_not_hide_a_newer_reset() {
        let generations = Generations::new();
        let early = generations.poll();
        generations.reset_done();
        generations.found_ready(early);
        assert!(!generations.is_ready());
    }

    #[test]
    fn an_older_success_does_not_undo_a_newer_one() {
        let generations = Generations::new();
        let early = generations.poll();
        generations.reset_done();
        generations.found_ready(generations.poll());
        generations.found_ready(early);
        assert!(generations.is_ready());
    }

    #[test]
    fn no_reset_is_lost_between_racing_looks_and_resets() {
        let generations = Generations::new();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        generations.found_ready(generations.poll());
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..20_000 {
                    generations.reset_done();
                }
            });
        });
        generations.reset_done();
        assert!(!generations.is_ready());
        assert_eq!(generations.poll(), Generation(20_002));
    }
}
