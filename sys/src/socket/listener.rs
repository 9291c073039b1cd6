//! The listening socket of a server.

use std::ffi::OsStr;
use std::fs::{File, remove_file, symlink_metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, bind, getsockname, listen};

use rustix::net::sockopt::socket_acceptconn;
use rustix::process::geteuid;

use super::leftovers::{Identity, Leftovers, listens};
use super::{SocketError, Stream, address, parent, socket};
use crate::event::EventFd;
use crate::wait::{self, Wake};

/// Queue length of clients that wait to be accepted. A client whose connection finds the queue full
/// waits in `connect`.
const BACKLOG: i32 = 128;

/// Timeout for another server that starts in the same directory. It holds the lock for as long as
/// it binds one socket.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A listening socket, whose path is removed on drop.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// A descriptor that is closed to accept a client if no other descriptor is left.
    spare: Mutex<Option<OwnedFd>>,
    path: PathBuf,
    /// Identity of the socket file, so that `drop` removes this server's file only.
    identity: Option<Identity>,
}

impl Listener {
    /// Listen on `path`. A socket file of this user on which no server listens is replaced; another
    /// user's, and a file that is no socket, is left alone.
    ///
    /// A lock on the directory keeps apart two servers that start on one path at the same time.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_with(path, None, &Leftovers::default())
    }

    /// Same as [`bind`](Self::bind), for a process that may no longer connect to sockets: of the
    /// socket files at `path`, `leftovers` alone are replaced.
    pub fn bind_knowing(path: &Path, leftovers: &Leftovers) -> Result<Self, SocketError> {
        Self::bind_with(path, None, leftovers)
    }

    /// Same as [`bind`](Self::bind); no other user can connect, whatever the umask is.
    pub fn bind_private(path: &Path) -> Result<Self, SocketError> {
        Self::bind_with(path, Some(Mode::RUSR | Mode::WUSR), &Leftovers::default())
    }

    fn bind_with(
        path: &Path,
        mode: Option<Mode>,
        leftovers: &Leftovers,
    ) -> Result<Self, SocketError> {
        let address = address(path)?;
        let _lock = lock(parent(path), LOCK_TIMEOUT)?;
        let fd = socket()?;
        if let Some(mode) = mode {
            // `bind` gives the file the mode of the socket, less the umask
            fchmod(&fd, mode).map_err(|e| SocketError::path(path, e))?;
        }
        match bind(&fd, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address, leftovers)?;
                bind(&fd, &address).map_err(|e| SocketError::path(path, e))?;
            }
            Err(e) => return Err(SocketError::path(path, e)),
        }
        let identity = Identity::of(path);
        listen(&fd, BACKLOG).map_err(|e| SocketError::path(path, e))?;
        let spare = Mutex::new(fd.try_clone().ok());
        Ok(Self {
            fd,
            spare,
            path: path.to_path_buf(),
            identity,
        })
    }

    /// Use a listening socket that the process was started with, as of systemd's socket activation.
    /// The socket's path is not removed on drop.
    ///
    /// # Errors
    /// [`SocketError::NotListening`] if the descriptor is no listening Unix socket.
    pub fn inherited(fd: i32) -> Result<Self, SocketError> {
        let not_listening = |source: Errno| SocketError::NotListening {
            fd,
            source: source.into(),
        };
        // descriptors 0 to 2 belong to the standard library
        if fd < 3 {
            return Err(not_listening(Errno::BADF));
        }
        // SAFETY: the descriptor is only borrowed here, and `fcntl` reports one that is not open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = fcntl_getfd(borrowed).map_err(not_listening)?;
        let listens = socket_acceptconn(borrowed).map_err(not_listening)?;
        let path = getsockname(borrowed).map_err(not_listening)?;
        let path = SocketAddrUnix::try_from(path).map_err(not_listening)?;
        if !listens {
            return Err(not_listening(Errno::INVAL));
        }
        fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).map_err(not_listening)?;
        let fd = fcntl_dupfd_cloexec(borrowed, 3).map_err(not_listening)?;
        let spare = Mutex::new(fd.try_clone().ok());
        let path = path.path_bytes().map(OsStr::from_bytes).unwrap_or_default();
        Ok(Self {
            fd,
            spare,
            path: path.into(),
            identity: None,
        })
    }

    /// Path that clients connect to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next client; returns `None` if `stop` was triggered or `timeout` passed before
    /// a client came.
    ///
    /// Errors: [`SocketError::Exhausted`] if no descriptor is left for the client, whose connection
    /// is closed. The listener can be used further; wait a moment first, as a client that could not
    /// be closed either is still queued.
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
            match accept_with(&self.fd, SocketFlags::CLOEXEC) {
                Ok(fd) => return Ok(Some(Stream::from_fd(fd))),
                // the client left before it was accepted
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.turn_away();
                    return Err(SocketError::Exhausted {
                        what: what(),
                        source: e.into(),
                    });
                }
                Err(e) => return Err(SocketError::io(what(), e)),
            }
        }
    }

    /// Closes the connection of the next client, by way of the spare descriptor.
    fn turn_away(&self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        drop(spare.take());
        drop(accept_with(
            &self.fd,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        ));
        *spare = self.fd.try_clone().ok();
    }
}

/// Locks a directory; `None` if its file system or this user can't.
fn lock(directory: &Path, timeout: Duration) -> Result<Option<File>, SocketError> {
    let Ok(file) = File::open(directory) else {
        return Ok(None);
    };
    let begin = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::AGAIN) if begin.elapsed() < timeout => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::AGAIN) => {
                return Err(SocketError::Locked {
                    directory: directory.into(),
                });
            }
            Err(Errno::INTR) => {}
            Err(_) => return Ok(None),
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
        if self.identity.is_some() && Identity::of(&self.path) == self.identity {
            let _ = remove_file(&self.path);
        }
    }
}

/// Removes the socket file at `path`, which a server of this user has left behind, if no server
/// listens on the socket.
fn remove_stale(
    path: &Path,
    address: &SocketAddrUnix,
    leftovers: &Leftovers,
) -> Result<(), SocketError> {
    let io = |e| SocketError::io(format!("socket path {}", path.display()), e);
    let found = Identity::of(path);
    let metadata = symlink_metadata(path).map_err(io)?;
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.into() });
    }
    match listens(path, address)? {
        Some(true) => return Err(SocketError::InUse { path: path.into() }),
        Some(false) => {}
        None if leftovers.contain(found) => {}
        None => return Err(SocketError::Untried { path: path.into() }),
    }
    let owner = metadata.uid();
    if owner != geteuid().as_raw() {
        return Err(SocketError::OtherUsers {
            path: path.into(),
            owner,
        });
    }
    // the file that was tried, and not one that came since
    if Identity::of(path) != found {
        return Err(SocketError::InUse { path: path.into() });
    }
    remove_file(path)
        .map_err(|e| SocketError::path(path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_stays_locked_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path(), LOCK_TIMEOUT).unwrap().unwrap();
        let refused = lock(folder.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(refused, SocketError::Locked { .. }), "{refused}");
        drop(held);
        assert!(lock(folder.path(), LOCK_TIMEOUT).unwrap().is_some());
    }

    #[test]
    fn a_private_socket_is_the_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = Listener::bind_private(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
