//! Files behind the user's mappings: one memory mapping and one descriptor for each.
//!
//! A file is known by its device and inode numbers and by the access that it is mapped for. All
//! ranges of a file share one memory mapping of the whole file, so that neither the limit of open
//! files nor `vm.max_map_count` limits the number of ranges. A file that has grown since is mapped
//! again, in full, under the lock that no device holds then.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{OFlags, fcntl_getfl};
use varia_spec::Errno;
use varia_sys::client_memory::{ClientMemory, losses};
use varia_sys::mapping::page_size;
use vm_memory::guest_memory::{Error, Result as MemoryResult};
use vm_memory::{GuestAddress, VolatileSlice};

/// Files by their identity.
#[derive(Debug, Default)]
pub(super) struct Files {
    shared: BTreeMap<FileId, Shared>,
    /// Value of [`losses`] at which no file was lost.
    none_lost_at: AtomicUsize,
}

/// Identity of a file that is mapped for one access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    writable: bool,
}

/// A file that ranges of the user's mappings share.
#[derive(Debug)]
struct Shared {
    /// Offset in the file of the first byte of `memory`.
    start: u64,
    memory: ClientMemory,
    /// Number of the user's mappings that lie in the file.
    ranges: usize,
}

/// Bytes of a file that the user may map.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    id: FileId,
    /// Length of the whole file in bytes.
    length: u64,
    range: Range<u64>,
}

impl Part {
    /// `len` bytes from `offset` of a descriptor that the user sent, to be read, and written if
    /// `writable`.
    ///
    /// # Errors
    /// `EINVAL` if the end lies beyond 64 bits or beyond the end of the file; `EIO` if `offset` is
    /// not a multiple of the page size, or if the descriptor does not permit the access.
    pub(super) fn new(fd: OwnedFd, offset: u64, len: u64, writable: bool) -> Result<Self, Errno> {
        let mode = fcntl_getfl(&fd).map_err(|_| Errno::EIO)?;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|_| Errno::EIO)?;
        let length = metadata.len();
        let end = offset.checked_add(len).filter(|end| *end <= length);
        let range = offset..end.ok_or(Errno::EINVAL)?;
        let permitted = match mode & OFlags::RWMODE {
            OFlags::RDWR => true,
            OFlags::RDONLY => !writable,
            _ => false,
        };
        let aligned = offset.is_multiple_of(page_size() as u64);
        if !permitted || !aligned || mode.contains(OFlags::PATH) {
            return Err(Errno::EIO);
        }
        let id = FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
            writable,
        };
        Ok(Self {
            file,
            id,
            length,
            range,
        })
    }
}

impl Files {
    /// Makes a part of a file reachable, until [`release`](Self::release) with the identity that
    /// this returns.
    ///
    /// # Errors
    /// `ENOMEM` if the address space has no room, `EIO` if the file can't be mapped.
    pub(super) fn retain(&mut self, part: Part) -> Result<FileId, Errno> {
        let id = part.id;
        match self.shared.get_mut(&id) {
            Some(shared) => {
                let mapped = shared.range();
                if part.range.start < mapped.start || part.range.end > mapped.end {
                    (shared.start, shared.memory) = map(part, Some(mapped))?;
                }
                shared.ranges += 1;
            }
            None => {
                let (start, memory) = map(part, None)?;
                let shared = Shared {
                    start,
                    memory,
                    ranges: 1,
                };
                self.shared.insert(id, shared);
            }
        }
        Ok(id)
    }

    /// Ends one use of a file. The last one unmaps and closes the file.
    pub(super) fn release(&mut self, id: FileId) {
        if let Some(shared) = self.shared.get_mut(&id) {
            shared.ranges -= 1;
            if shared.ranges == 0 {
                self.shared.remove(&id);
            }
        }
    }

    /// Memory of `len` bytes from `offset` of a file.
    pub(super) fn slice(
        &self,
        id: FileId,
        offset: u64,
        len: usize,
    ) -> MemoryResult<VolatileSlice<'_>> {
        let shared = self
            .shared
            .get(&id)
            .filter(|shared| !shared.memory.is_lost());
        let start = |shared: &Shared| offset.wrapping_sub(shared.start) as usize;
        let slice = shared.and_then(|shared| shared.memory.slice(start(shared), len));
        slice.ok_or(Error::InvalidGuestAddress(GuestAddress(offset)))
    }

    /// True if the user has taken back memory that a device has accessed.
    pub(super) fn are_lost(&self) -> bool {
        // asked after each message of a user with any number of files
        let losses = losses();
        if self.none_lost_at.load(Ordering::Relaxed) == losses {
            return false;
        }
        let lost = self.shared.values().any(|shared| shared.memory.is_lost());
        if !lost {
            self.none_lost_at.store(losses, Ordering::Relaxed);
        }
        lost
    }
}

impl Shared {
    /// Bytes of the file that are mapped.
    fn range(&self) -> Range<u64> {
        self.start..self.start + self.memory.len() as u64
    }
}

/// Maps the whole file, or if that fails, the smallest range with both the part and the bytes that
/// are mapped already. Returns the offset of the first byte, and the memory.
fn map(part: Part, mapped: Option<Range<u64>>) -> Result<(u64, ClientMemory), Errno> {
    let Part {
        file,
        id,
        length,
        range,
    } = part;
    let least = mapped.map_or(range.clone(), |mapped| {
        mapped.start.min(range.start)..mapped.end.max(range.end)
    });
    let attempt = |file: File, range: Range<u64>| {
        let start = range.start;
        Ok((start, ClientMemory::map(file, range, id.writable)?))
    };
    let again = file.try_clone();
    attempt(file, 0..length).or_else(|errno: Errno| match again {
        Ok(file) => attempt(file, least),
        Err(_) => Err(errno),
    })
}
