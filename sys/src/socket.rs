//! Unix stream sockets that carry bytes and descriptors.
//!
//! [`Listener`] takes a path: a socket that nobody answers on is replaced, a
//! live one is not. [`Stream`] sends and receives with a time limit, and with
//! descriptors beside the bytes; received descriptors are close-on-exec, and
//! more of them than the receiver asked for is an error, with all of them
//! closed.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg, shutdown, socket_with,
};

use crate::event::EventFd;
use crate::wait::{self, Wake};

/// The longest path a Unix socket can have, in bytes (`sun_path` holds 108 with
/// its final zero; unix(7)).
pub const MAX_PATH: usize = 107;

/// The most descriptors that one message can bring, whatever the caller allows.
pub const MAX_FDS: usize = 64;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 8;

/// What went wrong with a socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into a socket address.
    #[error("socket path {} has {len} bytes and a Unix socket allows {MAX_PATH}; choose a shorter one, for example under /tmp or $XDG_RUNTIME_DIR", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The directory of the path does not exist.
    #[error("socket path {}: its directory does not exist; create it with `mkdir -p {}`", path.display(), parent(path).display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path's directory, or the socket, may not be used by this user.
    #[error("socket path {}: {source}; use a directory that this user may write to, for example $XDG_RUNTIME_DIR", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another server answers on the path.
    #[error("socket path {}: another server is listening there; stop it or choose another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The path exists and is not a socket.
    #[error("socket path {}: a file that is not a socket is there; remove it or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Nobody listens on the path.
    #[error("socket path {}: nobody is listening ({source}); start the server first", path.display())]
    NoServer {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The peer sent more descriptors than one message may bring.
    #[error("a message brought more than {max} descriptors")]
    TooManyFds {
        /// How many are allowed.
        max: usize,
    },
    /// The peer did nothing for too long.
    #[error("the peer did not go on within {} s", after.as_secs_f32())]
    TimedOut {
        /// The time limit.
        after: Duration,
    },
    /// The stop event was triggered meanwhile.
    #[error("stopped while waiting for the peer")]
    Stopped,
    /// The peer has closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// Another error of the kernel.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SocketError {
    fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io {
                what: what.into(),
                source,
            },
        }
    }

    fn path(path: &Path, error: Errno) -> Self {
        let path = path.to_path_buf();
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::NoDirectory { path },
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Permission {
                path,
                source: error.into(),
            },
            _ => Self::io(format!("socket path {}", path.display()), error),
        }
    }
}

/// A socket that clients connect to. Its path is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the socket file, so that `drop` removes ours only.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listen on `path`. A socket file on which nobody listens is replaced.
    ///
    /// Two servers that start on one path at the same time are kept apart by a
    /// lock on its directory.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let address = address(path)?;
        let _lock = File::open(parent(path))
            .ok()
            .filter(|dir| flock(dir, FlockOperation::LockExclusive).is_ok());
        let fd = socket()?;
        match bind(&fd, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                bind(&fd, &address).map_err(|e| SocketError::path(path, e))?;
            }
            Err(e) => return Err(SocketError::path(path, e)),
        }
        let identity = std::fs::symlink_metadata(path)
            .ok()
            .map(|m| (m.dev(), m.ino()));
        listen(&fd, BACKLOG).map_err(|e| SocketError::path(path, e))?;
        Ok(Self {
            fd,
            path: path.to_path_buf(),
            identity,
        })
    }

    /// The path that clients connect to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client; `None` when `stop` was triggered or `timeout` passed
    /// before one came.
    pub fn accept(
        &self,
        stop: Option<&EventFd>,
        timeout: Option<Duration>,
    ) -> Result<Option<Stream>, SocketError> {
        let what = || format!("accept on {}", self.path.display());
        loop {
            let wake = wait::readable(self, stop, timeout);
            match wake.map_err(|e| SocketError::io(what(), e))? {
                Wake::Ready => {}
                Wake::Stop | Wake::Timeout => return Ok(None),
            }
            match accept_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(fd) => return Ok(Some(Stream { fd })),
                // a client that has gone again before it was accepted
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(e) => return Err(SocketError::io(what(), e)),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = std::fs::symlink_metadata(&self.path)
            .ok()
            .map(|m| (m.dev(), m.ino()));
        if now.is_some() && now == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The process at the other end of a connection, as the kernel saw it connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id in our own pid namespace; 0 for a process outside it.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
}

impl Stream {
    /// Connect to the server on `path`.
    pub fn connect(path: &Path) -> Result<Self, SocketError> {
        let address = address(path)?;
        let fd = socket()?;
        match connect(&fd, &address) {
            Ok(()) => Ok(Self { fd }),
            Err(e @ (Errno::NOENT | Errno::CONNREFUSED)) => Err(SocketError::NoServer {
                path: path.into(),
                source: e.into(),
            }),
            Err(e) => Err(SocketError::path(path, e)),
        }
    }

    /// Two streams connected to each other.
    pub fn pair() -> Result<(Self, Self), SocketError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| SocketError::io("socketpair", e))?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Receive up to `buf.len()` bytes, and the descriptors that came with them,
    /// which are appended to `fds`. Returns how many bytes; at least 1 unless
    /// `buf` is empty.
    ///
    /// Errors: [`SocketError::Closed`] at the end of the stream,
    /// [`SocketError::TooManyFds`] when `fds` would hold more than `max_fds`
    /// (those that came are closed), [`SocketError::TimedOut`],
    /// [`SocketError::Stopped`].
    pub fn recv(
        &self,
        buf: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        max_fds: usize,
        limit: &Limit<'_>,
    ) -> Result<usize, SocketError> {
        loop {
            limit.readable(self)?;
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let mut iov = [IoSliceMut::new(buf)];
            let message = match recvmsg(&self.fd, &mut iov, &mut control, flags) {
                Ok(message) => message,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(e) => return Err(SocketError::io("receive", e)),
            };
            let mut came = Vec::new();
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(part) = part {
                    came.extend(part);
                }
            }
            let truncated = message.flags.contains(ReturnFlags::CTRUNC);
            if truncated || fds.len() + came.len() > max_fds {
                return Err(SocketError::TooManyFds {
                    max: max_fds.min(MAX_FDS),
                });
            }
            fds.append(&mut came);
            if message.bytes == 0 && !buf.is_empty() {
                return Err(SocketError::Closed);
            }
            return Ok(message.bytes);
        }
    }

    /// Send all of `bytes`, with `fds` beside the first of them.
    ///
    /// Errors: [`SocketError::TimedOut`] when the peer does not take them,
    /// [`SocketError::Closed`], [`SocketError::TooManyFds`],
    /// [`SocketError::Stopped`].
    pub fn send(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        limit: &Limit<'_>,
    ) -> Result<(), SocketError> {
        if fds.len() > MAX_FDS {
            return Err(SocketError::TooManyFds { max: MAX_FDS });
        }
        let mut rest = bytes;
        let mut fds = fds;
        while !rest.is_empty() {
            limit.writable(self)?;
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(SocketError::TooManyFds { max: MAX_FDS });
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.fd, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    fds = &[];
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => return Err(SocketError::io("send", e)),
            }
        }
        Ok(())
    }

    /// End the connection in both directions, whoever else holds it.
    pub fn shutdown(&self) {
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    /// End our direction: the peer reads the end of the stream.
    pub fn shutdown_write(&self) {
        let _ = shutdown(&self.fd, Shutdown::Write);
    }

    /// Whether the peer has closed its end, even if bytes of it are still to be
    /// read.
    #[must_use]
    pub fn peer_gone(&self) -> bool {
        wait::hung_up(self)
    }

    /// The process at the other end.
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
        Ok(Self { fd })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How long an exchange may take, and what ends it early.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limit<'a> {
    deadline: Option<(Instant, Duration)>,
    stop: Option<&'a EventFd>,
}

impl<'a> Limit<'a> {
    /// No limit.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// All exchanges made with this value end `after` from now.
    #[must_use]
    pub fn within(after: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(after).map(|d| (d, after)),
            stop: None,
        }
    }

    /// As `self`, and end when `stop` is triggered.
    #[must_use]
    pub fn or_stop(self, stop: Option<&'a EventFd>) -> Self {
        Self { stop, ..self }
    }

    fn readable(&self, stream: &Stream) -> Result<(), SocketError> {
        self.check(wait::readable(stream, self.stop, self.left()))
    }

    fn writable(&self, stream: &Stream) -> Result<(), SocketError> {
        self.check(wait::writable(stream, self.stop, self.left()))
    }

    fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|(d, _)| d.saturating_duration_since(Instant::now()))
    }

    fn check(&self, wake: io::Result<Wake>) -> Result<(), SocketError> {
        match wake {
            Ok(Wake::Ready) => Ok(()),
            Ok(Wake::Stop) => Err(SocketError::Stopped),
            Ok(Wake::Timeout) => {
                let after = self.deadline.map(|(_, after)| after).unwrap_or_default();
                Err(SocketError::TimedOut { after })
            }
            Err(e) => Err(SocketError::io("wait for the peer", e)),
        }
    }
}

fn socket() -> Result<OwnedFd, SocketError> {
    let flags = SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|e| SocketError::io("make a Unix socket", e))?;
    Ok(fd)
}

fn address(path: &Path) -> Result<SocketAddrUnix, SocketError> {
    let len = path.as_os_str().as_bytes().len();
    if len > MAX_PATH {
        return Err(SocketError::PathTooLong {
            path: path.into(),
            len,
        });
    }
    SocketAddrUnix::new(path).map_err(|e| SocketError::path(path, e))
}

/// Remove the socket file at `path` if nobody listens on it.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    let io = |e| SocketError::io(format!("socket path {}", path.display()), e);
    let meta = std::fs::symlink_metadata(path).map_err(io)?;
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.into() });
    }
    let probe = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| SocketError::io("make a Unix socket", e))?;
    match connect(&probe, address) {
        // AGAIN: its queue of clients is full, so somebody listens
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::InUse { path: path.into() }),
        Err(Errno::CONNREFUSED | Errno::NOENT) => std::fs::remove_file(path)
            .map_err(|e| SocketError::path(path, Errno::from_io_error(&e).unwrap_or(Errno::IO))),
        Err(e) => Err(SocketError::path(path, e)),
    }
}

/// The directory that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
