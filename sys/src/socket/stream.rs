//! An end of a connection: bytes, and descriptors beside the bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    connect, recvmsg, send, sendmsg, shutdown,
};

use super::{Limit, MAX_FDS, SocketError, address, socket};
use crate::wait;

/// Process at the other end of a connection, as the kernel saw it connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id in this process's pid namespace; 0 for a process outside the namespace.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

impl Peer {
    /// True if the process has ended or is ending, so that its descriptors are about to be closed;
    /// `None` if that can't be told: a process outside this pid namespace, or no `/proc`.
    #[must_use]
    pub fn is_ending(&self) -> Option<bool> {
        if self.pid <= 0 {
            return None;
        }
        let stat = match std::fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Path::new("/proc/self/stat").exists().then_some(true);
            }
            // ESRCH: the process ended between the kernel's two steps
            Err(error) => return (error.raw_os_error() == Some(libc::ESRCH)).then_some(true),
        };
        // proc(5): the name, which may hold anything, is in parentheses; `flags` is the seventh
        // field behind it
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?;
        let flags: u32 = fields.nth(5)?.parse().ok()?;
        Some(matches!(state, "Z" | "X") || flags & PF_EXITING != 0)
    }
}

/// `PF_EXITING` of a process's flags (Linux `include/linux/sched.h`).
const PF_EXITING: u32 = 1 << 2;

/// Descriptors that came with received bytes.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// The descriptors, in the order of the message.
    pub fds: Vec<OwnedFd>,
    /// True if descriptors were lost, because this process may not have more files open.
    pub lost: bool,
    /// True if there were more descriptors than allowed. All of them have been closed.
    pub excess: bool,
}

/// An end of a connection.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    /// Held while bytes are sent, so that those of two threads do not mix.
    sending: Mutex<()>,
}

impl Stream {
    pub(super) fn from_fd(fd: OwnedFd) -> Self {
        Self {
            fd,
            sending: Mutex::default(),
        }
    }

    /// Connect to the server on `path`.
    pub fn connect(path: &Path) -> Result<Self, SocketError> {
        let address = address(path)?;
        let fd = socket()?;
        match connect(&fd, &address) {
            Ok(()) => Ok(Self::from_fd(fd)),
            Err(e @ (Errno::NOENT | Errno::CONNREFUSED)) => Err(SocketError::NoServer {
                path: path.into(),
                source: e.into(),
            }),
            Err(e) => Err(SocketError::path(path, e)),
        }
    }

    /// Two streams connected to each other.
    pub fn pair() -> Result<(Self, Self), SocketError> {
        let flags = SocketFlags::CLOEXEC;
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| SocketError::io("socketpair", e))?;
        Ok((Self::from_fd(a), Self::from_fd(b)))
    }

    /// Receive up to `buf.len()` bytes, and append the descriptors that came with the bytes to
    /// `descriptors`, which then holds at most `max_fds`: if there would be more, all are closed
    /// and [`Descriptors::excess`] is set. Returns the number of bytes; at least 1 unless `buf` is
    /// empty. Without a deadline and a stop event this is one system call.
    ///
    /// Errors: [`SocketError::Closed`] at the end of the stream, [`SocketError::TimedOut`],
    /// [`SocketError::Stopped`].
    pub fn recv(
        &self,
        buf: &mut [u8],
        descriptors: &mut Descriptors,
        max_fds: usize,
        limit: &Limit<'_>,
    ) -> Result<usize, SocketError> {
        let wait = match limit.is_none() {
            true => RecvFlags::empty(),
            false => RecvFlags::DONTWAIT,
        };
        loop {
            match self.recv_once(buf, descriptors, max_fds, wait) {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => limit.readable(self)?,
                Err(e) => return Err(e),
            }
        }
    }

    /// Same as [`recv`](Self::recv), without waiting: `None` if there are no bytes now.
    pub fn try_recv(
        &self,
        buf: &mut [u8],
        descriptors: &mut Descriptors,
        max_fds: usize,
    ) -> Result<Option<usize>, SocketError> {
        self.recv_once(buf, descriptors, max_fds, RecvFlags::DONTWAIT)
    }

    fn recv_once(
        &self,
        buf: &mut [u8],
        descriptors: &mut Descriptors,
        max_fds: usize,
        wait: RecvFlags,
    ) -> Result<Option<usize>, SocketError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let wanted = !buf.is_empty();
        let mut iov = [IoSliceMut::new(buf)];
        let flags = RecvFlags::CMSG_CLOEXEC | wait;
        let message = match recvmsg(&self.fd, &mut iov, &mut control, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(e) => return Err(SocketError::io("receive", e)),
        };
        let mut came = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(part) = part {
                came.extend(part);
            }
        }
        let truncated = message.flags.contains(ReturnFlags::CTRUNC);
        // the kernel truncates if `space` or the table of descriptors is full
        let full = truncated && came.len() >= MAX_FDS;
        if full || descriptors.fds.len() + came.len() > max_fds {
            descriptors.excess = true;
            descriptors.fds.clear();
        } else {
            descriptors.lost |= truncated;
            descriptors.fds.append(&mut came);
        }
        if message.bytes == 0 && wanted {
            return Err(SocketError::Closed);
        }
        Ok(Some(message.bytes))
    }

    /// Send all of `bytes`, with `fds` beside the first byte. Threads send one after another.
    ///
    /// Errors: [`SocketError::TimedOut`] if the peer does not take the bytes,
    /// [`SocketError::Closed`], [`SocketError::TooManyFds`], [`SocketError::Stopped`].
    pub fn send(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        limit: &Limit<'_>,
    ) -> Result<(), SocketError> {
        self.send_all(bytes, fds, || limit.writable(self))
    }

    /// Same as [`send`](Self::send), with a limit of `time` for the peer, which begins once the
    /// peer lets this wait.
    pub fn send_within(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        time: Duration,
    ) -> Result<(), SocketError> {
        let mut limit = None;
        self.send_all(bytes, fds, || {
            let limit = limit.get_or_insert_with(|| Limit::within(time));
            limit.writable(self)
        })
    }

    fn send_all(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        mut writable: impl FnMut() -> Result<(), SocketError>,
    ) -> Result<(), SocketError> {
        if fds.len() > MAX_FDS {
            return Err(SocketError::TooManyFds { max: MAX_FDS });
        }
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = bytes;
        let mut fds = fds;
        while !rest.is_empty() {
            match self.send_once(rest, fds) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    fds = &[];
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => writable()?,
                Err(e) => return Err(SocketError::io("send", e)),
            }
        }
        Ok(())
    }

    /// Sends some of `bytes` without waiting, and returns their number.
    fn send_once(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if fds.is_empty() {
            return send(&self.fd, bytes, flags);
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOBIG);
        }
        sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags)
    }

    /// End the connection in both directions, also for other holders of the socket.
    pub fn shutdown(&self) {
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    /// Ends the connection in both directions and drops what the peer has sent: without unread
    /// bytes the peer reads all that was sent to it, and then the end, not a reset.
    pub fn finish(&self) {
        self.shutdown();
        let mut rest = [0; 4096];
        // the peer can send no more, so this ends
        while let Ok(Some(1..)) = self.try_recv(&mut rest, &mut Descriptors::default(), 0) {}
    }

    /// End the sending direction: the peer reads the end of the stream.
    pub fn shutdown_write(&self) {
        let _ = shutdown(&self.fd, Shutdown::Write);
    }

    /// True if the peer has closed its end, even if bytes of the peer are still unread.
    #[must_use]
    pub fn peer_gone(&self) -> bool {
        wait::hung_up(self)
    }

    /// Process at the other end.
    pub fn peer(&self) -> Result<Peer, SocketError> {
        let mut cred = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the descriptor is open; `cred` and `len` are valid for writes,
        // and `len` is the size of `cred`, which any bytes make a valid value of.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut cred).cast(),
                &raw mut len,
            )
        };
        if result < 0 {
            return Err(SocketError::io(
                "peer credentials",
                io::Error::last_os_error(),
            ));
        }
        Ok(Peer {
            pid: cred.pid,
            uid: cred.uid,
        })
    }

    /// A second handle on the same connection.
    pub fn try_clone(&self) -> Result<Self, SocketError> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|e| SocketError::io("duplicate descriptor", e))?;
        Ok(Self::from_fd(fd))
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        stream.fd
    }
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Self {
        Self::from_fd(fd)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
