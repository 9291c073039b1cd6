//! A range of a descriptor mapped into this process: a region of a VFIO device,
//! or memory that a vfio-user server shared.
//!
//! Other holders of the descriptor can change the bytes at any moment, so no reference to the bytes
//! is ever made: [`Mapping::read`] and [`Mapping::write`] use volatile accesses, each naturally
//! aligned and at most 8 bytes wide, in ascending order of address. An access that starts at a
//! multiple of 8 and is 1, 2, 4 or 8 bytes long is one machine access, as registers require.
//!
//! An access to a page that cannot be faulted in (a VFIO region with memory decoding off, a file
//! that ends earlier) is a SIGBUS that ends the process. Where a page may be missing, call
//! [`Mapping::touch`] first, or use [`Mapping::peek`] and [`Mapping::poke`]: these let the kernel
//! make the access by copying through a pipe, and a fault returns `EFAULT`. The kernel chooses the
//! width of its accesses, so `peek` and `poke` are for memory, not for registers.

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use rustix::pipe::{PipeFlags, pipe_with};
use varia_spec::errno::Errno;

use crate::errno;

/// Bytes that go through a pipe at once: the smallest capacity of a pipe.
const PIPE_CHUNK: usize = 4096;

/// Permitted accesses to a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// Requested protection of a mapping's pages, as for `mmap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// `PROT_READ`.
    pub read: bool,
    /// `PROT_WRITE`.
    pub write: bool,
    /// `PROT_EXEC`.
    pub execute: bool,
}

impl From<Access> for Protection {
    fn from(access: Access) -> Self {
        Self {
            read: true,
            write: access == Access::ReadWrite,
            execute: false,
        }
    }
}

/// Page size of this machine in bytes, a power of two.
///
/// The C library has the number from the process's start. `rustix::param::page_size` opens a file
/// for the number where `prctl` is refused, and panics without a free descriptor.
#[must_use]
pub fn page_size() -> usize {
    // SAFETY: a system parameter, which is read from the C library's own memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // the kernel's smallest, on a system that does not know: checks are then made by the kernel
    usize::try_from(size).unwrap_or(4096)
}

/// Destination of writes to a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// To the file or device.
    Shared,
    /// To a private copy.
    Private,
}

/// A mapping of a descriptor, removed on drop.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    access: Access,
}

// SAFETY: the mapping is not tied to the thread that made it, and it is removed
// only by `drop`, which has it exclusively.
unsafe impl Send for Mapping {}
// SAFETY: through `&self` the bytes are reached by volatile accesses and by the
// kernel only, never by references. Two racing accesses may tear, as accesses
// by another process may; no value of ours depends on them.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Map `len` bytes from `offset` of `fd`. `offset` must be a multiple of the
    /// page size.
    ///
    /// Errors: errors of `mmap`; `EINVAL` if the length is zero or does not fit the address space.
    pub fn new(
        fd: impl AsFd,
        offset: u64,
        len: u64,
        access: Access,
        share: Share,
    ) -> Result<Self, Errno> {
        Self::with(fd, offset, len, access.into(), share, false)
    }

    /// Same as [`new`](Self::new), with any protection, and with the pages faulted in at once if
    /// `populate` (`MAP_POPULATE`; a failure to fault them in is no error).
    ///
    /// An access that the protection does not allow, other than by [`peek`](Self::peek) and
    /// [`poke`](Self::poke), is a SIGSEGV that ends the process.
    pub fn with(
        fd: impl AsFd,
        offset: u64,
        len: u64,
        protection: Protection,
        share: Share,
        populate: bool,
    ) -> Result<Self, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        if len == 0 || isize::try_from(len).is_err() {
            return Err(Errno::EINVAL);
        }
        let mut prot = ProtFlags::empty();
        prot.set(ProtFlags::READ, protection.read);
        prot.set(ProtFlags::WRITE, protection.write);
        prot.set(ProtFlags::EXEC, protection.execute);
        let mut flags = match share {
            Share::Shared => MapFlags::SHARED,
            Share::Private => MapFlags::PRIVATE,
        };
        flags.set(MapFlags::POPULATE, populate);
        let access = match protection.write {
            true => Access::ReadWrite,
            false => Access::ReadOnly,
        };
        // SAFETY: the address is null, so the kernel chooses an unused range and
        // no existing object is affected.
        let start = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) }
            .map_err(errno::of_rustix)?;
        let start = NonNull::new(start.cast()).ok_or(Errno::EFAULT)?;
        Ok(Self { start, len, access })
    }

    /// Maps `len` bytes of memory of this process alone, zero and not yet present, readable and
    /// writable.
    ///
    /// Errors: errors of `mmap`; `EINVAL` if the length is zero or does not fit the address space.
    pub fn anonymous(len: u64) -> Result<Self, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        if len == 0 || isize::try_from(len).is_err() {
            return Err(Errno::EINVAL);
        }
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the address is null, so the kernel chooses an unused range and no existing object
        // is affected.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE) }
            .map_err(errno::of_rustix)?;
        let start = NonNull::new(start.cast()).ok_or(Errno::EFAULT)?;
        let access = Access::ReadWrite;
        Ok(Self { start, len, access })
    }

    /// Gives all pages another protection (`mprotect`).
    pub fn protect(&mut self, protection: Protection) -> Result<(), Errno> {
        let mut flags = MprotectFlags::empty();
        flags.set(MprotectFlags::READ, protection.read);
        flags.set(MprotectFlags::WRITE, protection.write);
        flags.set(MprotectFlags::EXEC, protection.execute);
        // SAFETY: the range is our own mapping, and no reference into it exists.
        unsafe { mprotect(self.start.as_ptr().cast(), self.len, flags) }
            .map_err(errno::of_rustix)?;
        self.access = match protection.write {
            true => Access::ReadWrite,
            false => Access::ReadOnly,
        };
        Ok(())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: an empty mapping cannot be created.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte in this process, for an ioctl that takes an address (`MAP_DMA`).
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Copy the bytes from `offset` on into `buf`; `EINVAL` if they are not all inside the mapping.
    pub fn read(&self, offset: usize, buf: &mut [u8]) -> Result<(), Errno> {
        let mut at = self.at(offset, buf.len())?;
        let mut rest = buf;
        while !rest.is_empty() {
            let width = widest(at as usize, rest.len());
            let (piece, tail) = rest.split_at_mut_checked(width).ok_or(Errno::EINVAL)?;
            match <&mut [u8; 8]>::try_from(&mut *piece) {
                // SAFETY: `at()` checked the range, `widest` the alignment.
                Ok(word) => *word = unsafe { at.cast::<u64>().read_volatile() }.to_ne_bytes(),
                Err(_) => read_piece(at, piece),
            }
            // SAFETY: still inside the range checked by `at()`, or one past it.
            at = unsafe { at.add(width) };
            rest = tail;
        }
        Ok(())
    }

    /// Store `data` from `offset` on; `EINVAL` if `data` does not fit into the mapping, `EACCES` if
    /// the mapping is read-only.
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), Errno> {
        let mut at = self.at(offset, data.len())?;
        if self.access == Access::ReadOnly {
            return Err(Errno::EACCES);
        }
        let mut rest = data;
        while !rest.is_empty() {
            let width = widest(at as usize, rest.len());
            let (piece, tail) = rest.split_at_checked(width).ok_or(Errno::EINVAL)?;
            match <[u8; 8]>::try_from(piece) {
                // SAFETY: `at()` checked the range, `widest` the alignment, and
                // the mapping is writable.
                Ok(word) => unsafe { at.cast::<u64>().write_volatile(u64::from_ne_bytes(word)) },
                Err(_) => write_piece(at, piece),
            }
            // SAFETY: still inside the range checked by `at()`, or one past it.
            at = unsafe { at.add(width) };
            rest = tail;
        }
        Ok(())
    }

    /// Fault in the page of `offset` by reading one byte; `EFAULT` if the page cannot be faulted
    /// in, `EINVAL` if `offset` lies outside the mapping.
    pub fn touch(&self, offset: usize) -> Result<u8, Errno> {
        let mut byte = [0];
        self.peek(offset, &mut byte)?;
        let [byte] = byte;
        Ok(byte)
    }

    /// Same as [`read`](Self::read), with faults reported; returns the number of bytes read, or
    /// `EFAULT` if the first byte cannot be read.
    pub fn peek(&self, offset: usize, buf: &mut [u8]) -> Result<usize, Errno> {
        let start = self.at(offset, buf.len())?;
        let (read_end, write_end) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(errno::of_rustix)?;
        let mut done = 0;
        for piece in buf.chunks_mut(PIPE_CHUNK) {
            // SAFETY: `at()` checked the range; the kernel reads it and reports a
            // fault as an error.
            let copied = unsafe {
                libc::write(
                    write_end.as_raw_fd(),
                    start.add(done).cast::<c_void>(),
                    piece.len(),
                )
            };
            let copied = match usize::try_from(copied) {
                Ok(copied) => copied,
                Err(_) if done > 0 => return Ok(done),
                Err(_) => return Err(errno::last()),
            };
            let got = rustix::io::read(&read_end, &mut *piece).map_err(errno::of_rustix)?;
            done += got;
            if copied < piece.len() {
                break;
            }
        }
        Ok(done)
    }

    /// Same as [`write`](Self::write), with faults reported; returns the number of bytes written,
    /// or `EFAULT` if the first byte cannot be written.
    pub fn poke(&self, offset: usize, data: &[u8]) -> Result<usize, Errno> {
        let start = self.at(offset, data.len())?;
        if self.access == Access::ReadOnly {
            return Err(Errno::EACCES);
        }
        let (read_end, write_end) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(errno::of_rustix)?;
        let mut done = 0;
        for piece in data.chunks(PIPE_CHUNK) {
            rustix::io::write(&write_end, piece).map_err(errno::of_rustix)?;
            // SAFETY: `at()` checked the range and the mapping is writable; the
            // kernel writes it and reports a fault as an error.
            let copied = unsafe {
                libc::read(
                    read_end.as_raw_fd(),
                    start.add(done).cast::<c_void>(),
                    piece.len(),
                )
            };
            match usize::try_from(copied) {
                Ok(copied) if copied == piece.len() => done += copied,
                Ok(copied) => return Ok(done + copied),
                Err(_) if done > 0 => return Ok(done),
                Err(_) => return Err(errno::last()),
            }
        }
        Ok(done)
    }

    /// Has the kernel read `len` bytes at `position` of `fd` into the mapping, at `offset`, as into
    /// a buffer; returns the number of bytes, or `EFAULT` if the mapping can't be written.
    pub fn fill_from(
        &self,
        fd: impl AsFd,
        position: u64,
        offset: usize,
        len: usize,
    ) -> Result<usize, Errno> {
        let start = self.at(offset, len)?;
        let position = i64::try_from(position).map_err(|_| Errno::EINVAL)?;
        if self.access == Access::ReadOnly {
            return Err(Errno::EACCES);
        }
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: `at()` checked the range and the mapping is writable; the kernel writes it and
        // reports a fault as an error.
        let copied = unsafe { libc::pread(fd, start.cast::<c_void>(), len, position) };
        usize::try_from(copied).map_err(|_| errno::last())
    }

    /// Address of `offset`, if `len` bytes from there are inside the mapping.
    fn at(&self, offset: usize, len: usize) -> Result<*mut u8, Errno> {
        match offset.checked_add(len) {
            // SAFETY: offset <= self.len, so the result is inside the mapping or
            // one past its end.
            Some(end) if end <= self.len => Ok(unsafe { self.start.as_ptr().add(offset) }),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that mmap returned, nothing else removes
        // it, and no reference to it exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Widest access, 1, 2, 4 or 8 bytes, that is aligned at `address` and not
/// longer than `len`.
fn widest(address: usize, len: usize) -> usize {
    [8, 4, 2]
        .into_iter()
        .find(|w| address.is_multiple_of(*w) && len >= *w)
        .unwrap_or(1)
}

/// Read a segment of 4, 2 or 1 bytes; `at` is aligned for the segment and inside a mapping.
fn read_piece(at: *mut u8, piece: &mut [u8]) {
    match piece {
        [a, b, c, d] => {
            // SAFETY: the caller checked range and alignment.
            [*a, *b, *c, *d] = unsafe { at.cast::<u32>().read_volatile() }.to_ne_bytes();
        }
        [a, b] => {
            // SAFETY: the caller checked range and alignment.
            [*a, *b] = unsafe { at.cast::<u16>().read_volatile() }.to_ne_bytes();
        }
        [a] => {
            // SAFETY: the caller checked the range.
            *a = unsafe { at.read_volatile() };
        }
        _ => {}
    }
}

/// Write a segment of 4, 2 or 1 bytes; `at` is aligned for the segment and inside a writable
/// mapping.
fn write_piece(at: *mut u8, piece: &[u8]) {
    match *piece {
        [a, b, c, d] => {
            let value = u32::from_ne_bytes([a, b, c, d]);
            // SAFETY: the caller checked range, alignment and access.
            unsafe { at.cast::<u32>().write_volatile(value) };
        }
        [a, b] => {
            let value = u16::from_ne_bytes([a, b]);
            // SAFETY: the caller checked range, alignment and access.
            unsafe { at.cast::<u16>().write_volatile(value) };
        }
        [a] => {
            // SAFETY: the caller checked range and access.
            unsafe { at.write_volatile(a) };
        }
        _ => {}
    }
}
