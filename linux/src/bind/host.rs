//! The machine that devices are bound on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tree::Tree;

/// A machine: its files, what can be written to it, and what a crash leaves.
pub trait Host {
    /// Its files.
    fn tree(&self) -> &Tree;

    /// Writes an attribute of sysfs, in one call.
    ///
    /// # Errors
    /// What the kernel answers.
    fn write(&mut self, path: &str, text: &str) -> io::Result<()>;

    /// Loads a module and what it needs.
    ///
    /// # Errors
    /// What the loader said.
    fn load(&mut self, module: &str) -> Result<(), String>;

    /// A file that was saved.
    ///
    /// # Errors
    /// The system's; none of it for a file that is not there.
    fn saved(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Saves a file, in full or not at all, and on no account later than this returns.
    ///
    /// # Errors
    /// The system's.
    fn save(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a saved file.
    ///
    /// # Errors
    /// The system's; none for a file that is not there.
    fn forget(&mut self, name: &str) -> io::Result<()>;

    /// The path of a saved file, for messages.
    fn place(&self, name: &str) -> PathBuf;
}

/// This machine, and the folder that its saved files are in. One at a time holds the folder.
#[derive(Debug)]
pub struct Live {
    tree: Tree,
    state: PathBuf,
    _lock: Option<File>,
}

impl Live {
    /// The folder for saved files unless another is named. Its contents last until the machine
    /// is switched off, as bindings do.
    pub const STATE: &'static str = "/run/varia";

    /// This machine; waits until no other command holds the folder.
    ///
    /// # Errors
    /// The system's, for the folder.
    pub fn new(state: &Path) -> io::Result<Self> {
        fs::create_dir_all(state)?;
        let lock = File::create(state.join("lock"))?;
        lock.lock()?;
        Ok(Self {
            tree: Tree::live(),
            state: state.to_owned(),
            _lock: Some(lock),
        })
    }

    /// A host that is only looked at, this machine or a captured one.
    #[must_use]
    pub fn to_look_at(tree: Tree, state: &Path) -> Self {
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
        // where it is installed, for a root without it in $PATH
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
        let new = self.state.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(new, self.state.join(name))
    }

    fn forget(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.state.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }
}
