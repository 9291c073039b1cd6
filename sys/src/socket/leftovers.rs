//! Sockets that servers have left behind.

use std::fs::{read_dir, symlink_metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;

use super::{SocketError, address};

/// Identity of a file: the file system may give the inode number of a removed file to the next one,
/// which has another time of creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// `None` if the file system does not know the time.
    created: Option<SystemTime>,
}

impl Identity {
    /// Identity of the file at `path`, of the link if it is a symbolic link.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = symlink_metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            created: metadata.created().ok(),
        })
    }
}

/// Sockets of this user on which no server listened at one time, and so never again: a server that
/// starts makes a new file. A process that may no longer connect to sockets replaces these.
#[derive(Clone, Debug, Default)]
pub struct Leftovers(Vec<Identity>);

impl Leftovers {
    /// The sockets in a directory; none of a directory that can't be read. Tries to connect to each
    /// socket of this user.
    #[must_use]
    pub fn find(directory: &Path) -> Self {
        let mut found = Vec::new();
        for entry in read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_own = symlink_metadata(&path).is_ok_and(|metadata| {
                metadata.file_type().is_socket() && metadata.uid() == geteuid().as_raw()
            });
            let (Some(identity), true) = (Identity::of(&path), is_own) else {
                continue;
            };
            let listens = address(&path).map(|address| listens(&path, &address));
            if matches!(listens, Ok(Ok(Some(false)))) && Identity::of(&path) == Some(identity) {
                found.push(identity);
            }
        }
        Self(found)
    }

    pub(super) fn contain(&self, identity: Option<Identity>) -> bool {
        identity.is_some_and(|identity| self.0.contains(&identity))
    }
}

/// True if a server listens on the socket at `path`; `None` if this process may not connect.
pub(super) fn listens(path: &Path, address: &SocketAddrUnix) -> Result<Option<bool>, SocketError> {
    let probe = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| SocketError::io("make a Unix socket", e))?;
    match connect(&probe, address) {
        // AGAIN: the queue of clients is full, so a server listens
        Ok(()) | Err(Errno::AGAIN) => Ok(Some(true)),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(Some(false)),
        // a filter of system calls, and not the socket's mode (ACCESS)
        Err(Errno::PERM) => Ok(None),
        Err(e) => Err(SocketError::path(path, e)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_without_a_server_are_found_and_no_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        drop(UnixListener::bind(path("left")).unwrap());
        let _served = UnixListener::bind(path("served")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink(path("left"), path("link")).unwrap();
        let found = Leftovers::find(folder.path());
        for (name, is_found) in [
            ("left", true),
            ("served", false),
            ("file", false),
            ("link", false),
            ("none", false),
        ] {
            let identity = Identity::of(&path(name));
            assert_eq!(found.contain(identity), is_found, "{name}");
        }
        // another file of the same name
        std::fs::remove_file(path("left")).unwrap();
        drop(UnixListener::bind(path("left")).unwrap());
        assert!(!found.contain(Identity::of(&path("left"))));
        assert!(Leftovers::find(&path("none")).0.is_empty());
    }
}
