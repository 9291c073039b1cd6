//! Initial RAM file systems: `newc` cpio archives, and what goes into a lab machine's.
//!
//! The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst:
//! records of a 110-byte header in hexadecimal text, a name and contents, each padded to
//! 4 bytes, a record named `TRAILER!!!` at the end. Archives follow one another; one
//! with ACPI tables under `kernel/firmware/acpi/` has to come first, uncompressed.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;
const REGULAR: u32 = 0o100_000;

/// A cpio archive being written. Paths have no leading slash; the folders on the way are
/// added by themselves.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file with these permissions.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> &mut Self {
        self.parents(path);
        self.record(path, REGULAR | (mode & 0o7777), (0, 0), contents);
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.parents(path);
        self.record(path, SYMLINK, (0, 0), target.as_bytes());
        self
    }

    /// Adds an empty folder.
    pub fn folder(&mut self, path: &str) -> &mut Self {
        self.parents(&format!("{}/", path.trim_end_matches('/')));
        self
    }

    /// Adds a character device; needs no privilege, being only a record.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        self.parents(path);
        self.record(path, CHARACTER_DEVICE, (major, minor), &[]);
        self
    }

    /// Ends the archive, padded so that another can follow.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let Some(folder) = path.get(..end) else {
                continue;
            };
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.record(folder, DIRECTORY, (0, 0), &[]);
            }
        }
    }

    fn record(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inodes += 1;
        // The format has 32 bits for a size. Larger contents can't be described; the
        // machine builder refuses them before they get here.
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let fields = [
            self.inodes,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The archive in front: ACPI tables (AML with header) that the kernel adds at boot.
#[must_use]
pub fn acpi_tables(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = Archive::new();
    for (index, table) in tables.iter().enumerate() {
        archive.file(
            &format!("kernel/firmware/acpi/table{index}.aml"),
            0o644,
            table,
        );
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_aligned_and_folders_come_once_and_first() {
        let mut archive = Archive::new();
        archive
            .file("a/b/one", 0o755, b"12345")
            .file("a/b/two", 0o644, b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 5, "a, a/b, two files and the trailer");
        assert!(starts.iter().all(|start| start % 4 == 0));
        assert_eq!(bytes.len() % 512, 0);
    }
}
