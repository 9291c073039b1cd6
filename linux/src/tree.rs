//! A host's files: those of this machine, of a folder, or of a captured host's archive.
//!
//! Paths are relative to the host's root and have no leading slash: `sys/bus/pci/devices`.
//! Nothing is kept: what changes underneath shows at the next look.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::error::Error;

/// The longest file that is read, in bytes; what is behind is not looked at.
const LONGEST: u64 = 256 << 20;

/// A host's files.
#[derive(Debug)]
pub struct Tree {
    root: Root,
}

#[derive(Debug)]
enum Root {
    /// This machine.
    Live,
    /// A host's root in a folder.
    Host(PathBuf),
    /// A sysfs alone: nothing of `/proc` or `/lib`.
    Sysfs(PathBuf),
    Archive(Archive),
}

impl Tree {
    /// This machine.
    #[must_use]
    pub fn live() -> Self {
        Self { root: Root::Live }
    }

    /// A captured host: an archive, the folder that it was unpacked into, or any folder that
    /// has what sysfs has (`bus/pci`).
    ///
    /// # Errors
    /// [`Error::NoHost`] if it is none of these, [`Error::Io`] and [`Error::BadArchive`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let kind = fs::metadata(path).map_err(Error::io("open", path))?;
        if kind.is_file() {
            let archive = Archive::open(path)?;
            return Ok(Self {
                root: Root::Archive(archive),
            });
        }
        let root = if path.join("sys/bus").is_dir() {
            Root::Host(path.to_owned())
        } else if path.join("bus").is_dir() {
            if fs::canonicalize(path).is_ok_and(|path| path == Path::new("/sys")) {
                Root::Live
            } else {
                Root::Sysfs(path.to_owned())
            }
        } else {
            return Err(Error::NoHost(path.to_owned()));
        };
        Ok(Self { root })
    }

    /// It is this machine, not a picture of one.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.root, Root::Live)
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// The system's, `NotFound` for what the tree does not have.
    pub fn read(&self, path: &str) -> io::Result<Cow<'_, [u8]>> {
        if let Root::Archive(archive) = &self.root {
            return archive.read(path).map(Cow::Borrowed);
        }
        let file = fs::File::open(self.path(path)?)?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// A file's text without the white space around it; none if it can't be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Where a symbolic link leads, as it is written.
    ///
    /// # Errors
    /// The system's, `InvalidInput` if it is no link.
    pub fn link(&self, path: &str) -> io::Result<String> {
        match &self.root {
            Root::Archive(archive) => archive.link(path).map(str::to_owned),
            _ => {
                let target = fs::read_link(self.path(path)?)?;
                Ok(target.to_string_lossy().into_owned())
            }
        }
    }

    /// The last part of where a link leads: a driver's name, a group's number. None if there is
    /// no such link.
    #[must_use]
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = self.link(path).ok()?;
        let name = target.trim_end_matches('/').rsplit('/').next()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        if let Root::Archive(archive) = &self.root {
            return archive.list(path);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(path)?)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Something is there, behind links too.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        match &self.root {
            Root::Archive(archive) => archive.exists(path),
            _ => self.path(path).is_ok_and(|path| path.exists()),
        }
    }

    /// It is a folder, or a link to one.
    #[must_use]
    pub fn is_folder(&self, path: &str) -> bool {
        match &self.root {
            Root::Archive(archive) => archive.list(path).is_ok(),
            _ => self.path(path).is_ok_and(|path| path.is_dir()),
        }
    }

    /// Where a path is in the file system.
    ///
    /// # Errors
    /// `NotFound` for what the tree can't have, `Unsupported` in an archive.
    pub fn path(&self, path: &str) -> io::Result<PathBuf> {
        match &self.root {
            Root::Live => Ok(Path::new("/").join(path)),
            Root::Host(root) => Ok(root.join(path)),
            Root::Sysfs(root) => match path.strip_prefix("sys/") {
                Some(below) => Ok(root.join(below)),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            Root::Archive(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
