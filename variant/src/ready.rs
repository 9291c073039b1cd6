//! Readiness after a reset: generations, and a wait that belongs to one operation.
//!
//! A reset can finish at any moment, on any CPU, while another operation is polling whether the
//! device is ready after an earlier one. So readiness is not a flag but a pair of counters: every
//! reset raises `reset`, and a poll that succeeds raises `ready` to the value that `reset` had
//! *before* the registers were read. Ready means equal. A late success can never hide a newer
//! reset.

use core::sync::atomic::{AtomicU64, Ordering};

use varia_spec::Errno;

use varia_units::{Millis, Monotonic};

/// The most registers that one poll reads.
pub const MAX_REGISTERS: usize = 2;

/// A little-endian u32 that tells whether the device is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// At this offset in BAR0.
    Bar0(u64),
    /// At this offset in the device's own configuration space.
    Config(u16),
}

/// The registers of one poll, in the order in which they are read.
pub type StatusRegisters = [Option<Register>; MAX_REGISTERS];

/// What a poll read, in the same order; 0 where there was nothing to read.
pub type Values = [u32; MAX_REGISTERS];

/// What the runtime sampled in the present lock hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The time.
    pub now: Monotonic,
    /// Whether memory is enabled in the command register and the device is in D0.
    pub memory_enabled: bool,
}

/// The number of resets that a poll had seen when it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Generation(pub u64);

/// One operation's wait for readiness, by value on that operation's stack: one deadline over all
/// its retries. What its fields mean is the variant's affair.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wait {
    /// When to give up; `None` before the first poll.
    pub deadline: Option<Monotonic>,
    /// A phase of the wait that has been reached and moved the deadline.
    pub extended: bool,
}

/// Before a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// Nothing to wait for: act, in this lock hold.
    Ready,
    /// Read these registers, in this lock hold.
    Poll {
        /// To be handed back with the values.
        generation: Generation,
        /// What to read.
        registers: StatusRegisters,
    },
    /// The operation fails.
    Failed(Errno),
}

/// After a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Act, in this lock hold.
    Ready,
    /// Drop the lock, sleep this long (killable; 0 is just dropping it), and begin again with the
    /// same wait.
    Sleep(Millis),
    /// The operation fails.
    Failed(Errno),
}

/// What is known of a device's readiness, to be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// How readiness is found out, in a word.
    pub method: &'static str,
    /// Resets so far, and one for the device's start.
    pub reset: Generation,
    /// The newest of them after which the device was found ready; 0 is none.
    pub ready: Generation,
}

/// Whether a device can be used: what a variant whose device has to be waited for decides beside
/// [`Variant`](crate::Variant). By default a device is always ready.
///
/// A runtime asks inside the lock hold in which it acts, for each operation that touches memory.
pub trait Ready {
    /// The first half of a check: nothing to do, registers to read, or an error.
    ///
    /// Call it inside the lock hold that sampled `sample`. `wait` belongs to one operation.
    fn ready_before(&self, wait: &mut Wait, sample: Sample) -> Before {
        let _ = (wait, sample);
        Before::Ready
    }

    /// The second half: judges the registers that [`Before::Poll`] named, read in the same lock
    /// hold.
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

    /// What is known, to be shown; `None` where the device is always ready.
    fn readiness(&self) -> Option<Status> {
        None
    }
}

/// How often the device was reset, and which reset it is known to be ready after.
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
    /// A device of which nothing is known yet: not ready.
    pub const fn new() -> Self {
        Self {
            reset: AtomicU64::new(1),
            ready: AtomicU64::new(0),
        }
    }

    /// A reset has finished.
    pub fn reset_done(&self) {
        self.reset.fetch_add(1, Ordering::Release);
    }

    /// Begins a poll; load this before any register is read.
    pub fn poll(&self) -> Generation {
        Generation(self.reset.load(Ordering::Acquire))
    }

    /// The newest generation that was found ready.
    pub fn newest_ready(&self) -> Generation {
        Generation(self.ready.load(Ordering::Acquire))
    }

    /// A poll that began at `generation` found the device ready.
    pub fn found_ready(&self, generation: Generation) {
        self.ready.fetch_max(generation.0, Ordering::AcqRel);
    }

    /// Whether no reset has finished since a successful poll began.
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
