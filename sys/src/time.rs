//! Durations in the kernel's format.

use std::time::Duration;

use rustix::event::Timespec;

/// `duration` as a timespec; a duration too long for a timespec becomes the longest timespec.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::MAX,
        tv_nsec: 0,
    })
}
