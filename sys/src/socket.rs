//! Unix stream sockets that carry bytes and descriptors.
//!
//! [`Listener`] takes a path: a socket on which no server listens is replaced, a live socket is
//! not. [`Stream`] sends and receives with a timeout, and with descriptors beside the bytes;
//! received descriptors are close-on-exec, and if there are more than the receiver allows, all of
//! them are closed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::event::EventFd;
use crate::wait::{self, Wake};

mod leftovers;
mod listener;
mod stream;

pub use leftovers::Leftovers;
pub use listener::Listener;
pub use stream::{Descriptors, Peer, Stream};

/// Longest path of a Unix socket in bytes (`sun_path` holds 108 with the final zero; unix(7)).
pub const MAX_PATH: usize = 107;

/// Largest number of descriptors in one message, whatever the caller allows.
pub const MAX_FDS: usize = 64;

/// Error of a socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into a socket address.
    #[error("socket path {} has {len} bytes and a Unix socket allows {MAX_PATH}; choose a shorter path, for example under /tmp or $XDG_RUNTIME_DIR", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Length of the path in bytes.
        len: usize,
    },
    /// The directory of the path does not exist.
    #[error("socket path {}: its directory does not exist; create it with `mkdir -p {}`", path.display(), parent(path).display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// This user may not use the path's directory or the socket.
    #[error("socket path {}: {source}; use a directory that this user may write to, for example $XDG_RUNTIME_DIR", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Another server listens on the path.
    #[error("socket path {}: another server is listening; stop that server or choose another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The path is a socket, and this process may not connect to it to find out whether a server
    /// listens.
    #[error("socket path {}: the path is a socket, and this confined process can't connect to it to find a server; remove the socket if no server listens on it, or choose another path", path.display())]
    Untried {
        /// The path.
        path: PathBuf,
    },
    /// The path exists and is not a socket.
    #[error("socket path {}: the existing file is not a socket; remove the file or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The path is a socket that another user's server has left behind.
    #[error("socket path {}: the socket belongs to user {owner}, and no server is listening; remove the socket or choose another path", path.display())]
    OtherUsers {
        /// The path.
        path: PathBuf,
        /// Id of the user.
        owner: u32,
    },
    /// Another process holds a lock on the directory of the path.
    #[error("directory {}: another process keeps it locked (flock); end that process, which `lslocks` names, or choose another directory", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// A descriptor that the process was started with is no listening Unix socket.
    #[error(
        "descriptor {fd} is no listening Unix socket ({source}): check the service manager's socket unit, or the redirection of the shell"
    )]
    NotListening {
        /// The descriptor.
        fd: i32,
        /// Error of the kernel.
        source: io::Error,
    },
    /// No server listens on the path.
    #[error("socket path {}: no server is listening ({source}); start the server first", path.display())]
    NoServer {
        /// The path.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The peer sent more descriptors than one message may carry.
    #[error("a message carried more than {max} descriptors")]
    TooManyFds {
        /// Number of allowed descriptors.
        max: usize,
    },
    /// No descriptor is left for a client or for received descriptors.
    #[error(
        "{what}: {source}; raise this process's limit of open files, for example with `ulimit -n`"
    )]
    Exhausted {
        /// Operation that needed a descriptor.
        what: String,
        /// Error that the kernel returned.
        source: io::Error,
    },
    /// The peer did nothing until the timeout.
    #[error("the peer made no progress within {} s", after.as_secs_f32())]
    TimedOut {
        /// The timeout.
        after: Duration,
    },
    /// The stop event was triggered during the wait.
    #[error("stopped while waiting for the peer")]
    Stopped,
    /// The peer has closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// Another error of the kernel.
    #[error("{what}: {source}")]
    Io {
        /// Operation that failed.
        what: String,
        /// Error of the kernel.
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

/// Deadline and stop event of an exchange.
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

    /// Deadline of all exchanges made with this value, `after` from now.
    #[must_use]
    pub fn within(after: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(after).map(|d| (d, after)),
            stop: None,
        }
    }

    /// Same limit, with `stop` as stop event.
    #[must_use]
    pub fn or_stop(self, stop: Option<&'a EventFd>) -> Self {
        Self { stop, ..self }
    }

    /// True without a deadline and without a stop event.
    fn is_none(&self) -> bool {
        self.deadline.is_none() && self.stop.is_none()
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

/// Directory of `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
