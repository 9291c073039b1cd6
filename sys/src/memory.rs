//! Memory that a server shares with its clients: a memfd or a file.
//!
//! The server itself reads and writes through `pread` and `pwrite`, not through a mapping of its
//! own. The page cache is coherent with every shared mapping that a client makes of the same file,
//! so server and client see the same bytes; and a client that truncates a backing file gives the
//! server an error instead of a SIGBUS. A memfd is sealed, so that no client can truncate it.
//!
//! Two accesses of the same bytes from two threads, or from a thread and a
//! client's mapping, can tear, as they can on the memory of a real device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, SealFlags, fallocate, memfd_create};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use varia_units::Bytes;

use crate::socket::parent;

/// Bytes written at a time by [`SharedMemory::fill`].
const FILL_CHUNK: usize = 1 << 16;

/// Error of shared memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The range does not lie inside the memory.
    #[error(
        "{} at offset {offset:#x} reach beyond the end of the memory, which has {}",
        Bytes(*.len), Bytes(*.size)
    )]
    OutOfRange {
        /// First byte of the access.
        offset: u64,
        /// Number of bytes of the access.
        len: u64,
        /// Length of the memory in bytes.
        size: u64,
    },
    /// The file behind the memory became shorter while the memory was in use.
    #[error(
        "the file behind this memory ends before offset {offset:#x}: the file was truncated while \
         in use; restore its size"
    )]
    Truncated {
        /// First missing byte.
        offset: u64,
    },
    /// The descriptor is not open for reading and writing at any offset.
    #[error("{}: open the file for reading and writing (O_RDWR without O_APPEND)", name.display())]
    NotReadWrite {
        /// Name of the file.
        name: PathBuf,
    },
    /// The file to open does not exist.
    #[error("{}: no such file; create it with `truncate -s {need} {}`", path.display(), path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Needed size in bytes.
        need: u64,
    },
    /// The file cannot be created, because its directory does not exist.
    #[error("{}: its directory does not exist; create it with `mkdir -p {}`", path.display(), parent(path).display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The file may not be opened for reading and writing.
    #[error("{}: cannot be opened for reading and writing ({source}); the device's memory is writable, so give this user write permission on it", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The path is a directory, a socket or another object without bytes.
    #[error("{}: not a regular file; name a regular file for device memory", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is shorter than the needed size.
    #[error(
        "{what} has {} and {} are needed; enlarge the file with `truncate -s {need}` or request less \
         memory", Bytes(*.size), Bytes(*.need)
    )]
    TooSmall {
        /// Path of the file, or "the descriptor".
        what: String,
        /// Size of the file in bytes.
        size: u64,
        /// Needed size in bytes.
        need: u64,
    },
    /// The length is zero or larger than a file can be.
    #[error("a memory of {} cannot be created; use 1 byte or more, and less than 8 EiB", Bytes(*.len))]
    BadLength {
        /// The requested length.
        len: u64,
    },
    /// Another error of the kernel.
    #[error("{what}: {source}")]
    Io {
        /// Operation that failed.
        what: String,
        /// Error of the kernel.
        source: io::Error,
    },
}

impl MemoryError {
    fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// A range of a memfd or of a file, shared between the server and its clients.
///
/// `Send` and `Sync`: all methods take `&self`.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    base: u64,
    len: u64,
    /// [`create_file`](Self::create_file) found no file.
    created: bool,
}

impl SharedMemory {
    /// A new sparse memfd of `len` bytes, all zero, named `name` in
    /// `/proc/<pid>/maps`.
    ///
    /// The memfd is sealed: no receiver of the descriptor can change its size or its seals.
    pub fn anonymous(name: &str, len: u64) -> Result<Self, MemoryError> {
        check_length(len)?;
        let what = || format!("memfd {name} of {}", Bytes(len));
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|e| MemoryError::io(what(), e))?;
        rustix::fs::ftruncate(&fd, len).map_err(|e| MemoryError::io(what(), e))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(|e| MemoryError::io(what(), e))?;
        Ok(Self {
            fd,
            base: 0,
            len,
            created: false,
        })
    }

    /// The first `len` bytes of the existing file at `path`, which must be writable and at least
    /// `len` bytes long.
    pub fn open_file(path: &Path, len: u64) -> Result<Self, MemoryError> {
        check_length(len)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| open_error(path, len, source))?;
        Self::of_file(path, file, len)
    }

    /// `len` bytes from `offset` of the existing file at `path`, which must be
    /// writable and long enough.
    pub fn part_of_file(path: &Path, offset: u64, len: u64) -> Result<Self, MemoryError> {
        let need = offset
            .checked_add(len)
            .ok_or(MemoryError::BadLength { len })?;
        let whole = Self::open_file(path, need)?;
        Ok(Self {
            base: offset,
            len,
            ..whole
        })
    }

    /// Same as [`open_file`](Self::open_file), but creates an absent file, sparse and all zero. An
    /// existing file keeps its bytes and its length.
    pub fn create_file(path: &Path, len: u64) -> Result<Self, MemoryError> {
        check_length(len)?;
        match OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
        {
            Ok(file) => {
                file.set_len(len).map_err(|e| {
                    MemoryError::io(format!("{}: set length {len}", path.display()), e)
                })?;
                let memory = Self::of_file(path, file, len)?;
                Ok(Self {
                    created: true,
                    ..memory
                })
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Self::open_file(path, len),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(MemoryError::NoDirectory { path: path.into() })
            }
            Err(e) => Err(open_error(path, len, e)),
        }
    }

    /// True if [`create_file`](Self::create_file) made the file of this memory, and `path` still
    /// names that file.
    #[must_use]
    pub fn is_created_at(&self, path: &Path) -> bool {
        let named = std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let own = rustix::fs::fstat(&self.fd).map(|file| (file.st_dev, file.st_ino));
        self.created && named.ok().zip(own.ok()).is_some_and(|(a, b)| a == b)
    }

    /// `len` bytes from `offset` of a descriptor of a peer.
    ///
    /// A regular file or memfd must be long enough now, and may be truncated later.
    pub fn from_fd(fd: OwnedFd, offset: u64, len: u64) -> Result<Self, MemoryError> {
        check_length(len)?;
        let need = offset
            .checked_add(len)
            .ok_or(MemoryError::BadLength { len })?;
        check_length(need)?;
        let size = file_size(fd.as_fd(), "the descriptor")?;
        if let Some(size) = size.filter(|size| *size < need) {
            return Err(MemoryError::TooSmall {
                what: "the descriptor's file".into(),
                size,
                need,
            });
        }
        Ok(Self {
            fd,
            base: offset,
            len,
            created: false,
        })
    }

    /// The first `len` bytes of the open file `fd`, which must be a regular file that is open for
    /// reading and writing, and at least `len` bytes long. `name` names the file in errors.
    ///
    /// # Errors
    /// [`MemoryError::NotAFile`], [`MemoryError::NotReadWrite`], [`MemoryError::TooSmall`].
    pub fn of_descriptor(name: &Path, fd: OwnedFd, len: u64) -> Result<Self, MemoryError> {
        check_length(len)?;
        let flags = rustix::fs::fcntl_getfl(&fd)
            .map_err(|e| MemoryError::io(format!("flags of {}", name.display()), e))?;
        let memory = Self::of_file(name, File::from(fd), len)?;
        // appended bytes would go to the end of the file
        if flags & OFlags::RWMODE != OFlags::RDWR || flags.contains(OFlags::APPEND) {
            return Err(MemoryError::NotReadWrite { name: name.into() });
        }
        Ok(memory)
    }

    fn of_file(path: &Path, file: File, need: u64) -> Result<Self, MemoryError> {
        let fd = OwnedFd::from(file);
        let name = path.display().to_string();
        match file_size(fd.as_fd(), &name)? {
            None => Err(MemoryError::NotAFile { path: path.into() }),
            Some(size) if size < need => Err(MemoryError::TooSmall {
                what: name,
                size,
                need,
            }),
            Some(_) => Ok(Self {
                fd,
                base: 0,
                len: need,
                created: false,
            }),
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never true: a memory has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Position of the memory in the file of [`as_fd`](Self::as_fd), in bytes.
    #[must_use]
    pub fn fd_offset(&self) -> u64 {
        self.base
    }

    /// Bytes of storage that the whole file occupies now; less than the file's length while the
    /// file is sparse.
    pub fn allocated(&self) -> Result<u64, MemoryError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| MemoryError::io("fstat", e))?;
        Ok(u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512))
    }

    /// Fill `buf` with the bytes from `offset` on.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = self.start(offset, buf.len() as u64)?;
        let mut rest = buf;
        while !rest.is_empty() {
            let done = retry_on_intr(|| pread(&self.fd, &mut *rest, at))
                .map_err(|e| MemoryError::io("read device memory", e))?;
            if done == 0 {
                return Err(MemoryError::Truncated {
                    offset: at - self.base,
                });
            }
            at += done as u64;
            rest = rest.get_mut(done..).unwrap_or_default();
        }
        Ok(())
    }

    /// Store `data` from `offset` on.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        let mut at = self.start(offset, data.len() as u64)?;
        let mut rest = data;
        while !rest.is_empty() {
            let done = retry_on_intr(|| pwrite(&self.fd, rest, at))
                .map_err(|e| MemoryError::io("write device memory", e))?;
            if done == 0 {
                return Err(MemoryError::Truncated {
                    offset: at - self.base,
                });
            }
            at += done as u64;
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(())
    }

    /// Set `len` bytes from `offset` on to `byte`. Zero frees the storage if the file system can
    /// punch holes.
    pub fn fill(&self, offset: u64, len: u64, byte: u8) -> Result<(), MemoryError> {
        if byte == 0 {
            return self.discard(offset, len);
        }
        self.fill_by_writing(offset, len, byte)
    }

    /// Make `len` bytes from `offset` on read as zero, and free their storage if the file system
    /// can punch holes.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), MemoryError> {
        let at = self.start(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(&self.fd, mode, at, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                self.fill_by_writing(offset, len, 0)
            }
            Err(e) => Err(MemoryError::io("discard device memory", e)),
        }
    }

    fn fill_by_writing(&self, offset: u64, len: u64, byte: u8) -> Result<(), MemoryError> {
        self.start(offset, len)?;
        let chunk = [byte; FILL_CHUNK];
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).map_or(FILL_CHUNK, |n| n.min(FILL_CHUNK));
            self.write(offset + done, chunk.get(..n).unwrap_or(&chunk))?;
            done += n as u64;
        }
        Ok(())
    }

    /// A second handle on the same bytes.
    pub fn try_clone(&self) -> Result<Self, MemoryError> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|e| MemoryError::io("duplicate descriptor", e))?;
        Ok(Self {
            fd,
            base: self.base,
            len: self.len,
            created: self.created,
        })
    }

    /// A handle on `len` of these bytes, from `offset` on.
    pub fn slice(&self, offset: u64, len: u64) -> Result<Self, MemoryError> {
        check_length(len)?;
        let base = self.start(offset, len)?;
        Ok(Self {
            base,
            len,
            ..self.try_clone()?
        })
    }

    /// Position of `offset` in the file, if the range is inside the memory.
    fn start(&self, offset: u64, len: u64) -> Result<u64, MemoryError> {
        match offset.checked_add(len) {
            // base + len was checked when the memory was made
            Some(end) if end <= self.len => Ok(self.base + offset),
            _ => Err(MemoryError::OutOfRange {
                offset,
                len,
                size: self.len,
            }),
        }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check_length(len: u64) -> Result<(), MemoryError> {
    if len == 0 || i64::try_from(len).is_err() {
        return Err(MemoryError::BadLength { len });
    }
    Ok(())
}

/// Size of a regular file, `None` for other objects.
fn file_size(fd: BorrowedFd<'_>, name: &str) -> Result<Option<u64>, MemoryError> {
    let stat = rustix::fs::fstat(fd).map_err(|e| MemoryError::io(format!("fstat {name}"), e))?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    Ok(regular.then(|| u64::try_from(stat.st_size).unwrap_or(0)))
}

fn open_error(path: &Path, need: u64, source: io::Error) -> MemoryError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound => MemoryError::Missing { path, need },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            MemoryError::NotWritable { path, source }
        }
        io::ErrorKind::IsADirectory => MemoryError::NotAFile { path },
        _ => MemoryError::io(path.display().to_string(), source),
    }
}
