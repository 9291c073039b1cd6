//! A captured host: a tar archive of files, directories and symbolic links, held in memory.
//!
//! Ordinary tar programs can write and unpack such an archive. Links are followed within the
//! archive; a link that leads out of the archive is broken.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Cursor};
use std::ops::Range;
use std::path::Path;

use tar::EntryType;

use crate::error::Error;

/// Limit of followed links per path, as in Linux.
const LINKS: usize = 40;

/// Longest path in bytes, as in Linux.
const PATH_MAX: usize = 4096;

/// First bytes of compressed files, the name of the format, and the program that unpacks it.
const COMPRESSED: [(&[u8], &str, &str); 4] = [
    (&[0x1f, 0x8b], "gzip", "gunzip"),
    (b"\xfd7zXZ", "xz", "unxz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "unzstd"),
    (b"BZh", "bzip2", "bunzip2"),
];

/// Files of a captured host.
#[derive(Debug)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Names in the directory, in the archive's order.
    Folder(Vec<String>),
    File(Range<usize>),
    Link(String),
}

impl Archive {
    /// Reads an archive's table of contents.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let compressed = COMPRESSED
            .iter()
            .find(|(magic, ..)| bytes.starts_with(magic));
        if let Some((_, how, program)) = compressed {
            return Err(Error::Compressed {
                path: path.to_owned(),
                how,
                program,
            });
        }
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
            Some((_, Entry::Folder(_))) => Err(io::ErrorKind::IsADirectory.into()),
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
        match self.resolve(path) {
            Some((_, Entry::Folder(names))) => {
                let mut names = names.clone();
                names.sort_unstable();
                Ok(names)
            }
            Some(_) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Resolves the links of a path: the entry, and the entry's own path.
    fn resolve(&self, path: &str) -> Option<(String, &Entry)> {
        // parts of the path that are not resolved yet, the next part at the end
        let mut wanted: Vec<&str> = path.rsplit('/').collect();
        let mut at = String::with_capacity(2 * path.len());
        let mut links = 0;
        while let Some(name) = wanted.pop() {
            let end = at.len();
            match name {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ if at.is_empty() => at.push_str(name),
                _ => {
                    at.push('/');
                    at.push_str(name);
                }
            }
            if let Some(Entry::Link(target)) = self.entries.get(&at) {
                links += 1;
                if links > LINKS {
                    return None;
                }
                at.truncate(if target.starts_with('/') { 0 } else { end });
                wanted.extend(target.rsplit('/'));
            }
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

/// Entries of a tar archive, with the parent directories of each entry.
fn contents(bytes: &[u8]) -> io::Result<HashMap<String, Entry>> {
    let mut entries = HashMap::with_capacity(bytes.len() / 1024);
    entries.insert(String::new(), Entry::Folder(Vec::new()));
    let mut archive = tar::Archive::new(Cursor::new(bytes));
    for found in archive.entries_with_seek()? {
        let found = found?;
        let raw = found.path_bytes();
        let path = plain(&String::from_utf8_lossy(&raw))?;
        if path.is_empty() {
            continue;
        }
        let entry = match found.header().entry_type() {
            EntryType::Directory => Entry::Folder(Vec::new()),
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
            // device nodes, sockets and the like do not occur in a captured host
            _ => continue,
        };
        insert(&mut entries, path, entry);
    }
    Ok(entries)
}

/// Removes `./`, `//` and slashes at either end from a path.
fn plain(path: &str) -> io::Result<String> {
    if path.len() > PATH_MAX || path.split('/').any(|part| part == "..") {
        let path: String = path.chars().take(100).collect();
        let message = format!("{path:?} is not a path of a host");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/') {
        if !matches!(part, "" | ".") {
            if !plain.is_empty() {
                plain.push('/');
            }
            plain.push_str(part);
        }
    }
    Ok(plain)
}

/// Adds an entry and its parent directories. The entry replaces an entry of the same name; a
/// directory keeps its contents.
fn insert(entries: &mut HashMap<String, Entry>, path: String, entry: Entry) {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    if !matches!(entries.get(folder), Some(Entry::Folder(_))) {
        insert(entries, folder.to_owned(), Entry::Folder(Vec::new()));
    }
    let (known, keep) = match entries.get(&path) {
        None => (false, false),
        Some(Entry::Folder(_)) => (true, matches!(entry, Entry::Folder(_))),
        Some(_) => (true, false),
    };
    if let (false, Some(Entry::Folder(names))) = (known, entries.get_mut(folder)) {
        names.push(name.to_owned());
    }
    if !keep {
        entries.insert(path, entry);
    }
}

/// Writer of a captured host. Owners and times are left out, so that the same host gives the same
/// bytes.
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
