//! A captured host: a tar archive of files, folders and symbolic links, held in memory.
//!
//! Anything that makes and unpacks tar archives can be used on it. Links are followed within
//! the archive; one that leads out of it leads nowhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor};
use std::ops::Range;
use std::path::Path;

use tar::EntryType;

use crate::error::Error;

/// How many links are followed before a path is given up, as many as Linux does.
const LINKS: usize = 40;

/// A captured host's files.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File(Range<usize>),
    Link(String),
}

impl Archive {
    /// Reads an archive's table of contents.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let bad = |error: io::Error| Error::BadArchive {
            path: path.to_owned(),
            why: error.to_string(),
        };
        let entries = contents(&bytes).map_err(bad)?;
        let archive = Self { bytes, entries };
        if !archive.exists("sys/bus") {
            return Err(Error::NoHost(path.to_owned()));
        }
        Ok(archive)
    }

    pub(crate) fn read(&self, path: &str) -> io::Result<&[u8]> {
        match self.resolve(path) {
            Some((_, Entry::File(range))) => self
                .bytes
                .get(range.clone())
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            Some((_, Entry::Folder)) => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn link(&self, path: &str) -> io::Result<&str> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (folder, _) = self.resolve(folder).ok_or(io::ErrorKind::NotFound)?;
        match self.entries.get(&join(&folder, name)) {
            Some(Entry::Link(target)) => Ok(target),
            Some(_) => Err(io::ErrorKind::InvalidInput.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    pub(crate) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let folder = match self.resolve(path) {
            Some((folder, Entry::Folder)) => folder,
            Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let prefix = if folder.is_empty() {
            folder
        } else {
            folder + "/"
        };
        let mut names = Vec::new();
        let mut from = prefix.clone();
        while let Some((path, _)) = self.entries.range(from..).next() {
            let Some(rest) = path.strip_prefix(&prefix) else {
                break;
            };
            from = match rest.split_once('/') {
                None => {
                    names.push(rest.to_owned());
                    format!("{path}\0")
                }
                // to what is behind everything in that folder: `0` follows `/`
                Some((name, _)) => format!("{prefix}{name}0"),
            };
        }
        Ok(names)
    }

    /// The entry that a path comes to once links are followed, and its own path.
    fn resolve(&self, path: &str) -> Option<(String, &Entry)> {
        let mut wanted: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut at = String::new();
        let mut links = 0;
        while let Some(name) = wanted.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = join(&at, &name);
            if let Some(Entry::Link(target)) = self.entries.get(&next) {
                links += 1;
                if links > LINKS {
                    return None;
                }
                if target.starts_with('/') {
                    at.clear();
                }
                wanted.extend(target.split('/').rev().map(str::to_owned));
            } else {
                at = next;
            }
        }
        if at.is_empty() {
            return Some((at, &Entry::Folder));
        }
        let entry = self.entries.get(&at)?;
        Some((at, entry))
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// What is in a tar archive; the folders on the way to each entry are added.
fn contents(bytes: &[u8]) -> io::Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    let mut archive = tar::Archive::new(Cursor::new(bytes));
    for found in archive.entries()? {
        let found = found?;
        let path = String::from_utf8_lossy(&found.path_bytes()).into_owned();
        let parts: Vec<_> = path
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        if parts.is_empty() {
            continue;
        }
        if parts.contains(&"..") {
            let message = format!("{path:?} leads out of the archive");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let path = parts.join("/");
        let entry = match found.header().entry_type() {
            EntryType::Directory => Entry::Folder,
            EntryType::Symlink => {
                let target = found.link_name_bytes().unwrap_or_default();
                Entry::Link(String::from_utf8_lossy(&target).into_owned())
            }
            EntryType::Regular => {
                let outside = || io::Error::from(io::ErrorKind::UnexpectedEof);
                let start = usize::try_from(found.raw_file_position()).map_err(|_| outside())?;
                let size = usize::try_from(found.size()).map_err(|_| outside())?;
                let end = start.checked_add(size).ok_or_else(outside)?;
                if end > bytes.len() {
                    return Err(outside());
                }
                Entry::File(start..end)
            }
            // a captured host has no devices
            _ => continue,
        };
        for (end, _) in path.match_indices('/') {
            let folder = path.get(..end).unwrap_or_default();
            if !entries.contains_key(folder) {
                entries.insert(folder.to_owned(), Entry::Folder);
            }
        }
        entries.insert(path, entry);
    }
    Ok(entries)
}

/// Writes such an archive. Owners and times are left out: the same host gives the same bytes.
pub(crate) struct Writer<W: io::Write> {
    tar: tar::Builder<W>,
}

impl<W: io::Write> Writer<W> {
    pub(crate) fn new(to: W) -> Self {
        Self {
            tar: tar::Builder::new(to),
        }
    }

    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = header(EntryType::Regular, 0o644);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, path, bytes)
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = header(EntryType::Symlink, 0o777);
        self.tar.append_link(&mut header, path, target)
    }

    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        let mut header = header(EntryType::Directory, 0o755);
        self.tar.append_data(&mut header, path, io::empty())
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }
}

fn header(kind: EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}
