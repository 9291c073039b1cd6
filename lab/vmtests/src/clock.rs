//! Clock of a runtime and of the silicon below, which moves only by the sleeps of the runtime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use varia_variant::{Millis, Monotonic};

/// Milliseconds since some moment.
#[derive(Debug, Default)]
pub struct SleepClock(AtomicU64);

impl varia_serve::Clock for SleepClock {
    fn now(&self) -> Monotonic {
        Monotonic(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Millis) {
        self.0.fetch_add(time.0, Ordering::SeqCst);
    }
}

impl varia_silicon::Clock for SleepClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}
