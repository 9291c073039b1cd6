//! Conversions from the operating system's error types to [`varia_spec::errno::Errno`].

use std::io;

use varia_spec::errno::Errno;

/// Error number inside an [`io::Error`]; `EIO` if the error carries no number.
#[must_use]
pub fn of_io(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .and_then(Errno::new)
        .unwrap_or(Errno::EIO)
}

/// Error number of a failed system call of `rustix`.
pub(crate) fn of_rustix(error: rustix::io::Errno) -> Errno {
    Errno::new(error.raw_os_error()).unwrap_or(Errno::EIO)
}

/// Error number of the last failed call of this thread.
pub(crate) fn last() -> Errno {
    of_io(&io::Error::last_os_error())
}
