//! Durations and points of time in milliseconds.

/// A duration in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Millis(pub u64);

/// A point of time in milliseconds from an arbitrary start, never going back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The point of time `delay` later; saturates at the end of time.
    pub const fn after(self, delay: Millis) -> Self {
        Self(self.0.saturating_add(delay.0))
    }
}
