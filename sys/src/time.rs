//! Durations as the kernel takes them.

use std::time::Duration;

use rustix::event::Timespec;

/// `duration` as a timespec; one too long to express becomes the longest.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::MAX,
        tv_nsec: 0,
    })
}
