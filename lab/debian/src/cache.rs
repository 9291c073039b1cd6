//! The lab's folder in the user's cache, its lock, and folders that appear whole.
//!
//! Everything the lab fetches lives under `$XDG_CACHE_HOME/varia` (`~/.cache/varia`).
//! A folder is filled under a temporary name and then renamed, so a run that is
//! interrupted leaves nothing that looks complete; what it does leave is swept away by
//! the next one that holds the lock.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};

/// The prefix of folders that are being filled.
const UNFINISHED: &str = ".new-";

/// The lab's folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// Keeps other processes from fetching at the same time; released when dropped.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

impl Cache {
    /// Opens the folder in the user's cache, creating it if need be.
    ///
    /// # Errors
    /// [`Error::Missing`] when neither `XDG_CACHE_HOME` nor `HOME` is set to an
    /// absolute path, or [`Error::Io`].
    pub fn open() -> Result<Self> {
        let absolute = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .ok_or_else(|| {
                Error::missing(
                    "neither XDG_CACHE_HOME nor HOME is an absolute path",
                    "set one: the lab keeps what it fetches there",
                )
            })?;
        Self::at(base.join("varia"))
    }

    /// Opens a folder of the caller's choice.
    ///
    /// # Errors
    /// [`Error::Io`] if it can't be created.
    pub fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).map_err(Error::file("create", &root))?;
        Ok(Self { root })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock, waiting for whoever has it; says so when it has to wait.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file can't be opened or locked.
    pub fn lock(&self) -> Result<CacheLock> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(Error::file("open", &path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            eprintln!(
                "another process is filling {}; waiting for it",
                self.root.display()
            );
            flock(&file, FlockOperation::LockExclusive)
                .map_err(|errno| Error::file("lock", &path)(errno.into()))?;
        }
        self.sweep();
        Ok(CacheLock { _file: file })
    }

    /// Fills the folder `name` (relative to the cache) with `fill`, unless it is there;
    /// it appears whole or not at all. `_lock` shows that no other process fills it.
    ///
    /// # Errors
    /// Those of `fill`, and [`Error::Io`].
    pub fn fill<E: From<Error>>(
        &self,
        _lock: &CacheLock,
        name: &str,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<PathBuf, E> {
        let target = self.root.join(name);
        if target.is_dir() {
            return Ok(target);
        }
        let unfinished = self
            .root
            .join(format!("{UNFINISHED}{}", std::process::id()));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(&unfinished).map_err(Error::file("create", &unfinished))?;
        if let Err(error) = fill(&unfinished) {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        fs::rename(&unfinished, &target).map_err(Error::file("rename to", &target))?;
        Ok(target)
    }

    /// Removes what interrupted runs left. A failure here is harmless: the names are
    /// never used.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_fails_to_fill_is_not_there() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache::at(scratch.path().join("varia")).unwrap();
        let lock = cache.lock().unwrap();
        let result = cache.fill(&lock, "sets/x", |path| {
            fs::write(path.join("half"), "made").unwrap();
            Err(Error::missing("interrupted", ""))
        });
        assert!(result.is_err());
        assert!(!cache.root().join("sets/x").exists());
        let path = cache.fill(&lock, "sets/x", |path| {
            assert!(!path.join("half").exists());
            fs::write(path.join("whole"), "made").map_err(Error::file("write", path))
        });
        assert!(path.unwrap().join("whole").exists());
    }

    #[test]
    fn the_lock_sweeps_what_an_interrupted_run_left() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache::at(scratch.path().to_path_buf()).unwrap();
        let left = scratch.path().join(".new-1");
        fs::create_dir_all(left.join("root")).unwrap();
        let _lock = cache.lock().unwrap();
        assert!(!left.exists());
    }
}
