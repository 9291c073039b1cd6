//! Files of a host: this machine, a directory, or the archive of a captured host.
//!
//! Paths are relative to the host's root and have no leading slash: `sys/bus/pci/devices`. Nothing
//! is cached: each read sees the current contents.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::error::Error;

/// Largest part of a file that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// Directory of the ACPI tables.
pub(crate) const TABLES: &str = "sys/firmware/acpi/tables";

/// Files of a host.
#[derive(Debug)]
pub struct Tree {
    root: Root,
    /// Directory of the ACPI tables, if it is not below the root.
    tables: Option<PathBuf>,
}

#[derive(Debug)]
enum Root {
    /// This machine.
    Live,
    /// A directory with a host's root.
    Host(PathBuf),
    /// A sysfs alone, without `/proc` and `/lib`.
    Sysfs(PathBuf),
    Archive(Archive),
}

impl Tree {
    /// Files of this machine.
    #[must_use]
    pub fn live() -> Self {
        Self {
            root: Root::Live,
            tables: None,
        }
    }

    /// Opens a captured host: an archive, the directory that an archive was unpacked into, or any
    /// directory with the contents of sysfs (`bus/pci`).
    ///
    /// # Errors
    /// [`Error::NoHost`] if the path is not a host, [`Error::Io`] and [`Error::BadArchive`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let kind = fs::metadata(path).map_err(Error::io("open", path))?;
        if kind.is_file() {
            let archive = Archive::open(path)?;
            return Ok(Self {
                root: Root::Archive(archive),
                tables: None,
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
        Ok(Self { root, tables: None })
    }

    /// The same files, with the ACPI tables of another directory in place of
    /// `sys/firmware/acpi/tables`, which a container runtime hides.
    #[must_use]
    pub fn with_tables(self, tables: PathBuf) -> Self {
        Self {
            tables: Some(tables),
            ..self
        }
    }

    /// True for this machine, false for a captured host.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.root, Root::Live)
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// Error of the system, `NotFound` if the tree does not have the file.
    pub fn read(&self, path: &str) -> io::Result<Cow<'_, [u8]>> {
        if let Root::Archive(archive) = &self.root {
            return archive.read(path).map(Cow::Borrowed);
        }
        let file = fs::File::open(self.path(path)?)?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// Text of a file without surrounding white space; `None` if the file can't be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Target of a symbolic link, as written in the link.
    ///
    /// # Errors
    /// Error of the system, `InvalidInput` if the path is not a link.
    pub fn link(&self, path: &str) -> io::Result<String> {
        match &self.root {
            Root::Archive(archive) => archive.link(path).map(str::to_owned),
            _ => {
                let target = fs::read_link(self.path(path)?)?;
                Ok(target.to_string_lossy().into_owned())
            }
        }
    }

    /// Last part of a link's target: a driver's name, a group's number. `None` if the link does not
    /// exist.
    #[must_use]
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = self.link(path).ok()?;
        let name = target.trim_end_matches('/').rsplit('/').next()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// Error of the system.
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

    /// True if the path exists, with links followed.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        match &self.root {
            Root::Archive(archive) => archive.exists(path),
            _ => self.path(path).is_ok_and(|path| path.exists()),
        }
    }

    /// True for a directory, or a link to a directory.
    #[must_use]
    pub fn is_folder(&self, path: &str) -> bool {
        match &self.root {
            Root::Archive(archive) => archive.list(path).is_ok(),
            _ => self.path(path).is_ok_and(|path| path.is_dir()),
        }
    }

    /// Path in the file system of this machine.
    ///
    /// # Errors
    /// `NotFound` if the tree can't have the path, `Unsupported` in an archive.
    pub fn path(&self, path: &str) -> io::Result<PathBuf> {
        if let (Some(tables), Some(below)) = (&self.tables, path.strip_prefix(TABLES)) {
            return Ok(tables.join(below.trim_start_matches('/')));
        }
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
