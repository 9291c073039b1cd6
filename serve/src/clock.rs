//! Time for readiness waits, so that tests need not sleep.

use std::{
    thread,
    time::{Duration, Instant},
};

use varia_variant::{Millis, Monotonic};

/// A clock that waits can sleep on.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Monotonic;
    /// Sleeps.
    fn sleep(&self, time: Millis);
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, time: Millis) {
        thread::sleep(Duration::from_millis(time.0));
    }
}
