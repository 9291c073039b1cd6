//! Waiting for a descriptor, for a request to stop, or for time to pass.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::event::EventFd;
use crate::time::timespec;

/// Reason for the end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The descriptor can be used without blocking; or its peer is gone, which the next use of the
    /// descriptor reports.
    Ready,
    /// The stop event was triggered.
    Stop,
    /// The timeout passed.
    Timeout,
}

/// Wait until `fd` can be read. `stop` wins over `fd` if both are ready.
pub fn readable(
    fd: impl AsFd,
    stop: Option<&EventFd>,
    timeout: Option<Duration>,
) -> io::Result<Wake> {
    wait(fd, PollFlags::IN, stop, timeout)
}

/// Wait until `fd` can be written. `stop` wins over `fd` if both are ready.
pub fn writable(
    fd: impl AsFd,
    stop: Option<&EventFd>,
    timeout: Option<Duration>,
) -> io::Result<Wake> {
    wait(fd, PollFlags::OUT, stop, timeout)
}

/// True if the other end of a stream socket is closed; `false` if the kernel does not report it.
pub(crate) fn hung_up(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::RDHUP)];
    let now = timespec(Duration::ZERO);
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|f| f.revents().intersects(gone))
}

fn wait(
    fd: impl AsFd,
    flags: PollFlags,
    stop: Option<&EventFd>,
    timeout: Option<Duration>,
) -> io::Result<Wake> {
    let deadline = timeout.and_then(|t| std::time::Instant::now().checked_add(t));
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(std::time::Instant::now()));
        let left = left.map(timespec);
        let mut fds = vec![PollFd::new(&fd, flags)];
        fds.extend(stop.map(|s| PollFd::new(s, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(Wake::Timeout),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let stopped = fds.get(1).is_some_and(|f| !f.revents().is_empty());
        return Ok(if stopped { Wake::Stop } else { Wake::Ready });
    }
}
