//! The directory of a running host: sockets, console, and a lock that one host holds.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{Failure, device::runtime_directory, fleet::check_private};

const LOCK: &str = "lock";
/// File of the console's text.
pub(crate) const CONSOLE: &str = "console.log";
/// File of the program that firmware runs first.
pub(crate) const EARLY: &str = "early.efi";

/// A directory that this process holds. Its files are removed on drop, and the directory too if it
/// was made here.
pub(crate) struct Held {
    path: PathBuf,
    is_own: bool,
    _lock: File,
}

/// Default path of a host's directory.
pub(crate) fn default() -> PathBuf {
    runtime_directory().join("varia-host")
}

impl Held {
    /// Takes the directory, or the default one.
    pub(crate) fn take(named: Option<&Path>) -> Result<Self, Failure> {
        let path = named.map_or_else(default, Path::to_owned);
        let shown = path.display();
        let is_own = !path.exists();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| format!("{shown}: {error}"))?;
        if named.is_none() {
            check_private(&path)?;
        }
        let path = fs::canonicalize(&path).map_err(|error| format!("{shown}: {error}"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let opened = options.mode(0o600).open(path.join(LOCK));
        let mut lock = opened.map_err(|error| format!("{shown}/{LOCK}: {error}"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(path.join(LOCK)).unwrap_or_default();
                let holder = holder.trim();
                let text = format!(
                    "another host (process {holder}) holds the directory {shown}: end that host, or \
                     give another --directory"
                );
                return Err(text.into());
            }
            locked => locked?,
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self {
            path,
            is_own,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.path.join(CONSOLE)
    }

    pub(crate) fn early(&self) -> PathBuf {
        self.path.join(EARLY)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for name in [CONSOLE, EARLY, LOCK] {
            // one that was not made is not there
            let _ = fs::remove_file(self.path.join(name));
        }
        if self.is_own {
            // what somebody else put there stays
            let _ = fs::remove_dir(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("host");
        let held = Held::take(Some(&path)).expect("a directory");
        fs::write(held.console(), "text").expect("a file");
        let Err(refusal) = Held::take(Some(&path)) else {
            panic!("it was held twice");
        };
        let text = refusal.to_string();
        let pid = std::process::id().to_string();
        assert!(
            text.contains(&pid) && text.contains("--directory"),
            "{text}"
        );
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_was_there_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Held::take(Some(folder.path())).expect("a directory"));
        let left = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 0);
    }
}
