//! The host: its files, and changes of its drivers.

use std::io;
use std::path::{Path, PathBuf};

use varia_linux::Tree;
use varia_linux::bind::{self, Host};

/// A host whose devices are handed out.
pub trait Machine: Send {
    /// Files of the host.
    fn tree(&self) -> &Tree;

    /// Calls `act` with the host locked against other commands that change drivers.
    ///
    /// # Errors
    /// Error of the system for the directory of the saved files.
    fn locked(&mut self, act: &mut dyn FnMut(&mut dyn Host)) -> io::Result<()>;
}

/// This machine, or a directory with the files of a host.
#[derive(Debug)]
pub struct Live {
    tree: Tree,
    root: Option<PathBuf>,
    state: PathBuf,
}

impl Live {
    /// This machine, or the host in a directory; `state` is the directory of the saved files.
    ///
    /// # Errors
    /// The directory is not a host.
    pub fn new(root: Option<&Path>, state: &Path) -> Result<Self, varia_linux::Error> {
        Ok(Self {
            tree: open(root)?,
            root: root.map(Path::to_owned),
            state: state.to_owned(),
        })
    }
}

fn open(root: Option<&Path>) -> Result<Tree, varia_linux::Error> {
    root.map_or_else(|| Ok(Tree::live()), Tree::open)
}

impl Machine for Live {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn locked(&mut self, act: &mut dyn FnMut(&mut dyn Host)) -> io::Result<()> {
        let mut host = bind::Live::new(&self.state)?;
        if self.root.is_some() {
            let tree = open(self.root.as_deref()).map_err(io::Error::other)?;
            host = host.on(tree);
        }
        act(&mut host);
        Ok(())
    }
}
