//! Unix stream sockets that carry bytes and descriptors.
//!
//! [`Listener`] takes a path: a socket that nobody answers on is replaced, a
//! live one is not. [`Stream`] sends and receives with a time limit, and with
//! descriptors beside the bytes; received descriptors are close-on-exec, and
//! more of them than the receiver asked for is an error, with all of them
//! closed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::event::EventFd;
use crate::wait::{self, Wake};

mod listener;
mod stream;

pub use listener::Listener;
pub use stream::{Descriptors, Peer, Stream};

/// The longest path a Unix socket can have, in bytes (`sun_path` holds 108 with
/// its final zero; unix(7)).
pub const MAX_PATH: usize = 107;

/// The most descriptors that one message can bring, whatever the caller allows.
pub const MAX_FDS: usize = 64;

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
    /// No descriptor is left for a client or for what a message brought.
    #[error(
        "{what}: {source}; raise this process's limit of open files, for example with `ulimit -n`"
    )]
    Exhausted {
        /// Operation that needed a descriptor.
        what: String,
        /// Error that the kernel returned.
        source: io::Error,
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

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
