//! Memory with an inaccessible end, for system calls that are to meet a bad address.
//!
//! [`Guarded`] is a range of anonymous memory, followed by a range of the same size that can't be
//! accessed. A call gets an address in the range, chosen by [`Pointer`], so that the kernel may
//! read or write exactly as far as a test allows, and a kernel that goes further gets a fault
//! instead of other memory of this process.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use varia_spec::errno::Errno;

use crate::errno;
use crate::vfio::{Device, Request};

/// Size of the accessible range, and of the inaccessible range behind it: a multiple of every page
/// size.
const ROOM: usize = 1 << 20;
/// First number of a device file's ioctls: `VFIO_DEVICE_GET_INFO`.
const FIRST_DEVICE_IOCTL: u8 = 7;
/// `VFIO_DEVICE_FEATURE`, the offset of its `flags`, and the mask of the feature's index.
const FEATURE: u8 = 17;
const FEATURE_FLAGS: usize = 4;
const FEATURE_INDEX: u32 = 0xffff;
/// `VFIO_DEVICE_FEATURE_GET`, `_SET` and `_PROBE`.
const FEATURE_WAYS: u32 = 7 << 16;
const FEATURE_GET: u32 = 1 << 16;
/// `VFIO_DEVICE_FEATURE_DMA_BUF`, which returns a descriptor.
const DMA_BUF: u32 = 11;
/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`, and the offset of the address in its argument that the
/// kernel writes to: behind {argsz, flags u32; iova, length, page_size u64}.
const LOGGING_REPORT: u32 = 8;
const LOGGING_BITMAP: usize = 32;

/// Address that a system call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    /// Address with room for all bytes.
    Good,
    /// Address with room for this many bytes before the end.
    Cut(usize),
    /// Address of read-only memory.
    ReadOnly,
    /// Null.
    Null,
}

/// Return value of an ioctl.
#[derive(Debug)]
pub enum Returned {
    /// A number.
    Number(i32),
    /// A descriptor that the kernel has created.
    Descriptor(OwnedFd),
}

/// Accessible memory, followed by inaccessible memory.
#[derive(Debug)]
pub struct Guarded {
    start: NonNull<u8>,
}

impl Guarded {
    /// Maps the memory.
    ///
    /// Errors: errors of `mmap` and `mprotect`.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: the address is null, so the kernel chooses an unused range and no existing
        // object is affected.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                2 * ROOM,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )
        };
        let start = NonNull::new(start.map_err(errno::of_rustix)?.cast()).ok_or(Errno::EFAULT)?;
        let guarded = Self { start };
        guarded.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
        Ok(guarded)
    }

    /// Calls a VFIO ioctl of a device by its number (`VFIO_BASE` + `number`), with `argument` at
    /// `pointer`. If all of the argument can be read back, `argument` then holds the kernel's
    /// changes.
    ///
    /// Errors: error of the ioctl; `EINVAL` without a call if the number is not a device's ioctl, the
    /// argument does not fit, or a cut is longer than the memory.
    pub fn ioctl(
        &mut self,
        device: &Device,
        number: u8,
        argument: &mut [u8],
        pointer: Pointer,
    ) -> Result<Returned, Errno> {
        if number < FIRST_DEVICE_IOCTL {
            return Err(Errno::EINVAL);
        }
        let feature = (number == FEATURE).then(|| feature_flags(argument));
        if feature.is_some_and(|flags| flags & FEATURE_INDEX == LOGGING_REPORT) {
            // An address inside of an argument is not ours to pass on.
            if let Some(address) = argument.get_mut(LOGGING_BITMAP..LOGGING_BITMAP + 8) {
                address.fill(0);
            }
        }
        let fd = device.as_fd().as_raw_fd();
        let number = Request::of(number).number();
        let at = self.place(argument, pointer)?;
        // SAFETY: `fd` is open during the call. The kernel reads and writes from `at` on, which is
        // in our own memory or null, and what it goes on to is inaccessible; the one argument that
        // holds another address to write to has been cleared above.
        let value = self.at(pointer, || unsafe { libc::ioctl(fd, number as _, at) })?;
        if pointer == Pointer::Good {
            self.copy_out(0, argument);
        }
        let value: c_int = value?;
        let wants = |flags| flags & (FEATURE_INDEX | FEATURE_WAYS) == DMA_BUF | FEATURE_GET;
        if feature.is_some_and(wants) {
            // SAFETY: the kernel has just made this descriptor for us.
            return Ok(Returned::Descriptor(unsafe { OwnedFd::from_raw_fd(value) }));
        }
        Ok(Returned::Number(value))
    }

    /// Reads `len` bytes at `position` of `fd` to `pointer`; returns the bytes read.
    ///
    /// Errors: errors of `pread`, and `EINVAL` if the length does not fit.
    pub fn read(
        &mut self,
        fd: impl AsFd,
        position: u64,
        len: usize,
        pointer: Pointer,
    ) -> Result<Vec<u8>, Errno> {
        let position = i64::try_from(position).map_err(|_| Errno::EINVAL)?;
        let mut data = vec![0; len];
        let at = self.place(&data, pointer)?;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the kernel writes from `at` on, in our own memory, and reports a fault as an
        // error where that ends.
        let count = self.at(pointer, || unsafe { libc::pread(fd, at, len, position) })??;
        data.truncate(usize::try_from(count).map_err(|_| Errno::EIO)?);
        let offset = match pointer {
            Pointer::Cut(room) => ROOM - room,
            _ => 0,
        };
        let room = ROOM - offset;
        let readable = data.len().min(room);
        self.copy_out(offset, data.get_mut(..readable).unwrap_or_default());
        Ok(data)
    }

    /// Writes `data` at `position` of `fd`, from `pointer`; returns the number of bytes.
    ///
    /// Errors: same as [`read`](Self::read).
    pub fn write(
        &mut self,
        fd: impl AsFd,
        position: u64,
        data: &[u8],
        pointer: Pointer,
    ) -> Result<usize, Errno> {
        let position = i64::try_from(position).map_err(|_| Errno::EINVAL)?;
        let at = self.place(data, pointer)?;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the kernel reads from `at` on, in our own memory, and reports a fault as an
        // error where that ends.
        let count = self.at(pointer, || unsafe {
            libc::pwrite(fd, at, data.len(), position)
        })??;
        usize::try_from(count).map_err(|_| Errno::EIO)
    }

    /// Puts as many of `bytes` as fit at the address of `pointer`; returns the address.
    fn place(&mut self, bytes: &[u8], pointer: Pointer) -> Result<*mut c_void, Errno> {
        let (offset, room) = match pointer {
            Pointer::Good | Pointer::ReadOnly => (0, ROOM),
            Pointer::Cut(room) => (ROOM.checked_sub(room).ok_or(Errno::EINVAL)?, room),
            Pointer::Null => return Ok(std::ptr::null_mut()),
        };
        if bytes.len() > ROOM {
            return Err(Errno::EINVAL);
        }
        // SAFETY: `offset` is not beyond the accessible bytes.
        let at = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: the range has `room` accessible bytes from `at` on, which nobody else knows of,
        // so they do not overlap `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len().min(room)) };
        Ok(at.cast())
    }

    /// Makes a call with the protection that `pointer` needs; returns the call's value or error.
    fn at<T: PartialOrd + Default>(
        &self,
        pointer: Pointer,
        call: impl FnOnce() -> T,
    ) -> Result<Result<T, Errno>, Errno> {
        let read_only = pointer == Pointer::ReadOnly;
        if read_only {
            self.protect(MprotectFlags::READ)?;
        }
        let value = call();
        let value = if value < T::default() {
            Err(errno::last())
        } else {
            Ok(value)
        };
        if read_only {
            self.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
        }
        Ok(value)
    }

    fn protect(&self, flags: MprotectFlags) -> Result<(), Errno> {
        // SAFETY: the range is the accessible half of our own mapping, and no reference into it
        // exists.
        unsafe { mprotect(self.start.as_ptr().cast(), ROOM, flags) }.map_err(errno::of_rustix)
    }

    /// Copies the bytes from `offset` on to `to`, which fit by the callers' checks.
    fn copy_out(&self, offset: usize, to: &mut [u8]) {
        if offset.checked_add(to.len()).is_none_or(|end| end > ROOM) {
            return;
        }
        // SAFETY: the range is inside the accessible half (checked above), and no call is under
        // way that writes to it.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.as_ptr().add(offset),
                to.as_mut_ptr(),
                to.len(),
            );
        };
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the range is the one that mmap returned, nothing else removes it, and no
        // reference into it exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), 2 * ROOM) };
    }
}

/// `flags` of a `struct vfio_device_feature`; 0 if the argument is too short.
fn feature_flags(argument: &[u8]) -> u32 {
    let flags = argument.get(FEATURE_FLAGS..).and_then(|b| b.first_chunk());
    flags.map_or(0, |flags| u32::from_ne_bytes(*flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_read_stops_where_the_memory_ends() {
        let file = file(b"0123456789");
        let mut memory = Guarded::new().unwrap();
        assert_eq!(
            memory.read(&file, 2, 8, Pointer::Good).unwrap(),
            b"23456789"
        );
        assert_eq!(memory.read(&file, 2, 8, Pointer::Cut(3)).unwrap(), b"234");
        for pointer in [Pointer::Null, Pointer::ReadOnly, Pointer::Cut(0)] {
            let error = memory.read(&file, 0, 8, pointer).unwrap_err();
            assert_eq!(error, Errno::EFAULT, "{pointer:?}");
        }
    }

    #[test]
    fn a_write_from_memory_that_can_be_read_succeeds() {
        let file = file(&[0; 8]);
        let mut memory = Guarded::new().unwrap();
        for pointer in [Pointer::Good, Pointer::ReadOnly, Pointer::Cut(4)] {
            assert_eq!(
                memory.write(&file, 1, b"abcd", pointer),
                Ok(4),
                "{pointer:?}"
            );
        }
        let error = memory.write(&file, 0, b"abcd", Pointer::Null).unwrap_err();
        assert_eq!(error, Errno::EFAULT);
        assert_eq!(
            memory.read(&file, 0, 8, Pointer::Good).unwrap(),
            b"\0abcd\0\0\0"
        );
    }

    #[test]
    fn a_length_beyond_the_memory_is_refused() {
        let mut memory = Guarded::new().unwrap();
        let file = file(b"");
        let error = memory.read(&file, 0, ROOM + 1, Pointer::Good).unwrap_err();
        assert_eq!(error, Errno::EINVAL);
        let error = memory.write(&file, 0, b"x", Pointer::Cut(ROOM + 1));
        assert_eq!(error, Err(Errno::EINVAL));
    }
}
