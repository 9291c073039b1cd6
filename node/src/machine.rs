//! The host: its files, and changes of its drivers.

use std::io;
use std::path::{Path, PathBuf};

use varia_linux::Tree;
use varia_linux::bind::{self, Host};
use varia_linux::users::unseen;

/// A host whose devices are handed out.
pub trait Machine: Send {
    /// Files of the host.
    fn tree(&self) -> &Tree;

    /// Reason why it is not known which devices are in use.
    fn unseen(&self) -> Option<String> {
        unseen(self.tree())
    }

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
    tables: Option<PathBuf>,
    state: PathBuf,
}

impl Live {
    /// This machine, or the host in a directory; `tables` is the directory of the ACPI tables if it
    /// is another one, and `state` the directory of the saved files.
    ///
    /// # Errors
    /// The directory is not a host.
    pub fn new(
        root: Option<&Path>,
        tables: Option<&Path>,
        state: &Path,
    ) -> Result<Self, varia_linux::Error> {
        Ok(Self {
            tree: open(root, tables)?,
            root: root.map(Path::to_owned),
            tables: tables.map(Path::to_owned),
            state: state.to_owned(),
        })
    }
}

fn open(root: Option<&Path>, tables: Option<&Path>) -> Result<Tree, varia_linux::Error> {
    let tree = root.map_or_else(|| Ok(Tree::live()), Tree::open)?;
    Ok(match tables {
        Some(tables) => tree.with_tables(tables.to_owned()),
        None => tree,
    })
}

impl Machine for Live {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn locked(&mut self, act: &mut dyn FnMut(&mut dyn Host)) -> io::Result<()> {
        let mut host = bind::Live::new(&self.state)?;
        if self.root.is_some() || self.tables.is_some() {
            let tree =
                open(self.root.as_deref(), self.tables.as_deref()).map_err(io::Error::other)?;
            host = host.on(tree);
        }
        act(&mut host);
        Ok(())
    }
}
