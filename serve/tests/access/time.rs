//! Clock of a device and of its runtime.

use std::sync::Arc;
use std::time::Duration;

use varia_silicon::ManualClock;
use varia_silicon::clock::Clock as _;
use varia_variant::{Millis, Monotonic};

/// A clock that advances only by sleeping.
#[derive(Clone, Debug, Default)]
pub(crate) struct Time(pub(crate) Arc<ManualClock>);

impl varia_serve::Clock for Time {
    fn now(&self) -> Monotonic {
        Monotonic(self.0.now().as_millis() as u64)
    }

    fn sleep(&self, time: Millis) {
        self.0.advance(Duration::from_millis(time.0));
    }
}

impl varia_silicon::Clock for Time {
    fn now(&self) -> Duration {
        self.0.now()
    }
}
