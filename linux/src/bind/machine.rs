//! The machine whose devices are bound.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::persistent::UNFINISHED;
use crate::tree::Tree;

/// A machine: its files, writes to sysfs, and saved files that survive a crash.
pub trait Host {
    /// Files of the machine.
    fn tree(&self) -> &Tree;

    /// Writes an attribute of sysfs, in one call.
    ///
    /// # Errors
    /// Error of the kernel.
    fn write(&mut self, path: &str, text: &str) -> io::Result<()>;

    /// Loads a module and its dependencies.
    ///
    /// # Errors
    /// Output of the loader.
    fn load(&mut self, module: &str) -> Result<(), String>;

    /// Contents of a saved file; `None` if the file does not exist.
    ///
    /// # Errors
    /// Error of the system.
    fn saved(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Saves a file, completely or not at all; the file is on disk when the call returns.
    ///
    /// # Errors
    /// Error of the system.
    fn save(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a saved file. A missing file is no error.
    ///
    /// # Errors
    /// Error of the system.
    fn forget(&mut self, name: &str) -> io::Result<()>;

    /// Writes a file of the machine's configuration, or removes it for `None`, completely or not at
    /// all; the change is on disk when the call returns. The path is relative to the root, and its
    /// directory is created if absent.
    ///
    /// # Errors
    /// Error of the system.
    fn configure(&mut self, path: &str, bytes: Option<&[u8]>) -> io::Result<()>;

    /// Path of a saved file, for messages.
    fn place(&self, name: &str) -> PathBuf;
}

/// This machine, with the directory of its saved files. The lock on the directory is held by one
/// command at a time.
#[derive(Debug)]
pub struct Live {
    tree: Tree,
    state: PathBuf,
    _lock: Option<File>,
}

impl Live {
    /// Default directory of saved files. Its contents last until the machine is switched off, as
    /// bindings do.
    pub const STATE: &'static str = "/run/varia";

    /// This machine; waits for the lock on the directory.
    ///
    /// # Errors
    /// Error of the system for the directory.
    pub fn new(state: &Path) -> io::Result<Self> {
        fs::create_dir_all(state)?;
        // whoever could open it could hold it, and stop the next start's bindings
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(state.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(Self {
            tree: Tree::live(),
            state: state.to_owned(),
            _lock: Some(lock),
        })
    }

    /// The host in another tree, with the same lock and saved files.
    #[must_use]
    pub fn on(self, tree: Tree) -> Self {
        Self { tree, ..self }
    }

    /// A host that is read and not changed, this machine or a captured host.
    #[must_use]
    pub fn to_read(tree: Tree, state: &Path) -> Self {
        Self {
            tree,
            state: state.to_owned(),
            _lock: None,
        }
    }
}

impl Host for Live {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        let path = self.tree.path(path)?;
        let mut file = File::options().write(true).open(path)?;
        file.write_all(text.as_bytes())
    }

    fn load(&mut self, module: &str) -> Result<(), String> {
        let run = |program: &&str| Command::new(program).args(["--", module]).output();
        // modprobe is outside PATH for some root users
        let output = ["modprobe", "/usr/sbin/modprobe", "/sbin/modprobe"]
            .iter()
            .map(run)
            .find(|output| !matches!(output, Err(e) if e.kind() == io::ErrorKind::NotFound))
            .ok_or("modprobe is not installed: install kmod")?
            .map_err(|error| format!("modprobe can't be started: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let text: Vec<_> = text.split_whitespace().collect();
        Err(match text.is_empty() {
            true => format!("modprobe ends with {}", output.status),
            false => text.join(" "),
        })
    }

    fn saved(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.state.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        replace(&self.state.join(name), bytes)
    }

    fn forget(&mut self, name: &str) -> io::Result<()> {
        remove(&self.state.join(name))
    }

    fn configure(&mut self, path: &str, bytes: Option<&[u8]>) -> io::Result<()> {
        let path = self.tree.path(path)?;
        let folder = path.parent().unwrap_or(&path);
        match bytes {
            Some(bytes) => {
                fs::create_dir_all(folder)?;
                replace(&path, bytes)
            }
            None => {
                remove(&path)?;
                File::open(folder)?.sync_all()
            }
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }
}

/// Writes a file, completely or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(UNFINISHED);
    let new = PathBuf::from(new);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Removes a file. A missing file is no error.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
