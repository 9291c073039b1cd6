//! The directory of a running host: sockets, console, and a lock that one host holds.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
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
        let existed = path.exists();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| format!("{shown}: {error}"))?;
        if named.is_none() {
            check_private(&path)?;
        }
        let path = fs::canonicalize(&path).map_err(|error| format!("{shown}: {error}"))?;
        let (mut lock, holder) = take_lock(&path)?;
        // files of a host that was killed; those of others are left alone
        let is_ours = holder.trim().parse::<u32>().is_ok();
        for name in [CONSOLE, EARLY] {
            let file = path.join(name);
            if file.symlink_metadata().is_err() {
                continue;
            }
            if !is_ours {
                let _ = fs::remove_file(path.join(LOCK));
                let text = format!(
                    "{} is there already, and no host has made it: give another --directory",
                    file.display()
                );
                return Err(text.into());
            }
            fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self {
            path,
            is_own: !existed || is_ours,
            _lock: lock,
        })
    }

    /// Makes a file of the directory.
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let made = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes));
        made.map_err(|error| format!("{}: {error}", path.display()).into())
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

/// The lock of a directory, and the text that the last holder left there.
fn take_lock(directory: &Path) -> Result<(File, String), Failure> {
    let path = directory.join(LOCK);
    let shown = path.display();
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let options = options
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut lock = options
            .open(&path)
            .map_err(|error| format!("{shown}: {error}"))?;
        let mut holder = String::new();
        lock.read_to_string(&mut holder)
            .map_err(|error| format!("{shown}: {error}: give another --directory"))?;
        if !holder.trim().bytes().all(|byte| byte.is_ascii_digit()) {
            let text = format!(
                "{shown} is there already, and no host has made it: give another --directory"
            );
            return Err(text.into());
        }
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let text = format!(
                    "another host (process {}) holds the directory {}: end that host, or give \
                     another --directory",
                    holder.trim(),
                    directory.display()
                );
                return Err(text.into());
            }
            locked => locked?,
        }
        // the host before may have removed the file meanwhile
        let identity = |file: &fs::Metadata| (file.dev(), file.ino());
        let named = fs::symlink_metadata(&path).ok();
        if named.as_ref().map(identity) == Some(identity(&lock.metadata()?)) {
            lock.rewind()?;
            return Ok((lock, holder));
        }
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
    fn files_that_no_host_has_made_stay_as_they_are() {
        for name in [CONSOLE, EARLY, LOCK] {
            let folder = tempfile::tempdir().expect("a folder");
            let other = folder.path().join("other");
            fs::write(&other, "mine").expect("a file");
            let path = folder.path().join(name);
            for is_link in [false, true] {
                match is_link {
                    true => std::os::unix::fs::symlink(&other, &path).expect("a link"),
                    false => fs::write(&path, "mine").expect("a file"),
                }
                let Err(refusal) = Held::take(Some(folder.path())) else {
                    panic!("{name} was taken");
                };
                let text = refusal.to_string();
                assert!(text.contains(name), "{text}");
                assert_eq!(fs::read(&path).expect("a file"), b"mine", "{name}");
                fs::remove_file(&path).expect("a file");
                assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
            }
        }
    }

    #[test]
    fn what_a_killed_host_left_is_taken_over_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("host");
        fs::create_dir(&path).expect("a folder");
        for (name, text) in [(LOCK, "4194304\n"), (CONSOLE, "old"), (EARLY, "old")] {
            fs::write(path.join(name), text).expect("a file");
        }
        let held = Held::take(Some(&path)).expect("a directory");
        held.create(CONSOLE, b"new").expect("a file");
        assert_eq!(fs::read(held.console()).expect("a file"), b"new");
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
