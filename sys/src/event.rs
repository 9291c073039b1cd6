//! Event counters (`eventfd`), with which a device signals an interrupt, and which tell a thread to
//! stop.
//!
//! An [`EventFd`] from a client keeps its flags, because the flags belong to the open file, which
//! the client shares. The descriptor is polled before each write or read, so that neither can block
//! on a descriptor in blocking mode.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};

use crate::time::timespec;

/// An event counter.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new counter at zero, non-blocking.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// A counter from a descriptor of a client; an error of kind `InvalidInput` if the descriptor
    /// is not an eventfd.
    ///
    /// `/proc/self/fd` tells the kind of descriptor; without a mounted `/proc` the kind is not
    /// checked.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let other = std::fs::read_link(link)
            .ok()
            .filter(|target| target.as_os_str() != "anon_inode:[eventfd]");
        if let Some(target) = other {
            let message = format!("{} is not an eventfd", target.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self(fd))
    }

    /// Add one to the counter. A full counter stays signalled, which is a success.
    pub fn trigger(&self) -> io::Result<()> {
        if !self.ready(PollFlags::OUT, Some(Duration::ZERO))? {
            return Ok(());
        }
        match retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Take the counter's value and set the counter to zero; zero if the counter was not triggered.
    pub fn drain(&self) -> io::Result<u64> {
        if !self.wait(Some(Duration::ZERO))? {
            return Ok(0);
        }
        let mut value = [0; 8];
        match retry_on_intr(|| rustix::io::read(&self.0, &mut value)) {
            Ok(_) => Ok(u64::from_ne_bytes(value)),
            Err(Errno::AGAIN) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// Wait until the counter is not zero, without changing it; `false` after `timeout`. `None`
    /// waits without a timeout.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        self.ready(PollFlags::IN, timeout)
    }

    /// A second handle on the same counter.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    fn ready(&self, flags: PollFlags, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.map(timespec);
        let mut fds = [PollFd::new(&self.0, flags)];
        let n = retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
        Ok(n > 0 && fds.iter().any(|f| f.revents().contains(flags)))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
