// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of a device's file.

use super::{
    Driver,
    Opened,
    Unlocked,
    OFFSET_SHIFT, //
};
use crate::{
    bindings,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use core::marker::PhantomData;

/// Direction of an access, as the user sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the device to the user.
    Read,
    /// From the user to the device.
    Write,
}

/// A read or write of the device's file, with the user's buffer.
pub struct Transfer<'a, T: Driver> {
    dev: &'a Opened<T>,
    direction: Direction,
    user: UserPtr,
    len: usize,
    position: u64,
    unlocked: Unlocked,
}

impl<'a, T: Driver> Transfer<'a, T> {
    /// An access to `len` bytes at a position.
    pub(super) fn new(
        dev: &'a Opened<T>,
        direction: Direction,
        (user, len): (UserPtr, usize),
        position: u64,
        unlocked: Unlocked,
    ) -> Self {
        Self {
            dev,
            direction,
            user,
            len,
            position,
            unlocked,
        }
    }

    /// The device.
    pub fn device(&self) -> &'a Opened<T> {
        self.dev
    }

    /// The direction.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Number of bytes in the user's buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Index of the region.
    pub fn region(&self) -> u32 {
        u32::try_from(self.position >> OFFSET_SHIFT).unwrap_or(u32::MAX)
    }

    /// Offset in the region.
    pub fn offset(&self) -> u64 {
        self.position & ((1 << OFFSET_SHIFT) - 1)
    }

    /// Token of the operation, to sleep with.
    pub fn unlocked(&mut self) -> &mut Unlocked {
        &mut self.unlocked
    }

    /// Has `vfio_pci_core` carry out the whole access.
    pub fn base(&mut self) -> Result<usize> {
        self.base_part(0, self.len)
    }

    /// Has `vfio_pci_core` carry out `len` bytes from byte `at` of the buffer on.
    pub fn base_part(&mut self, at: usize, len: usize) -> Result<usize> {
        let end = at.checked_add(len).ok_or(EINVAL)?;
        if end > self.len {
            return Err(EINVAL);
        }
        let vdev = self.dev.vdev();
        let mut position = (self.position + at as u64) as bindings::loff_t;
        let user = self.user.wrapping_byte_add(at);
        // SAFETY: The device is open. The core checks the user's addresses. No `memory_lock` is
        // held: its guard would borrow the token in `self`.
        let done = unsafe {
            match self.direction {
                Direction::Read => {
                    bindings::vfio_pci_core_read(vdev, user.as_mut_ptr().cast(), len, &mut position)
                }
                Direction::Write => bindings::vfio_pci_core_write(
                    vdev,
                    user.as_const_ptr().cast(),
                    len,
                    &mut position,
                ),
            }
        };
        usize::try_from(done).map_err(|_| Error::from_errno(done as c_int))
    }

    fn slice(&self, at: usize, len: usize) -> Result<UserSlice> {
        let end = at.checked_add(len).ok_or(EINVAL)?;
        if end > self.len {
            return Err(EINVAL);
        }
        Ok(UserSlice::new(self.user.wrapping_byte_add(at), len))
    }

    /// Copies to the user from byte `at` of the buffer on; may fault. `EFAULT` if the buffer is not
    /// the user's.
    pub fn store(&mut self, at: usize, bytes: &[u8]) -> Result {
        self.slice(at, bytes.len())?.writer().write_slice(bytes)
    }

    /// Copies from the user from byte `at` of the buffer on; may fault. `EFAULT` if the buffer is
    /// not
    /// the user's.
    pub fn load(&mut self, at: usize, out: &mut [u8]) -> Result {
        self.slice(at, out.len())?.reader().read_slice(out)
    }

    /// The token to lock with, and the part of the user's buffer to copy with the lock held.
    pub fn split(&mut self, at: usize, len: usize) -> Result<(&mut Unlocked, UserBuffer<'_>)> {
        let end = at.checked_add(len).ok_or(EINVAL)?;
        if end > self.len {
            return Err(EINVAL);
        }
        let buffer = UserBuffer {
            user: self.user.wrapping_byte_add(at),
            len,
            direction: self.direction,
            _transfer: PhantomData,
        };
        Ok((&mut self.unlocked, buffer))
    }
}

/// A part of the user's buffer that can be copied without page faults alone.
pub struct UserBuffer<'a> {
    user: UserPtr,
    len: usize,
    direction: Direction,
    _transfer: PhantomData<&'a ()>,
}

impl UserBuffer<'_> {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies between the buffer and memory, up to the first page of the user's that is missing;
    /// returns the number of bytes.
    ///
    /// # Safety
    ///
    /// `memory` names as many bytes as the buffer, valid for reads and writes, with no Rust
    /// reference to them.
    pub(super) unsafe fn copy_inatomic(&self, memory: *mut u8) -> usize {
        // SAFETY: By the safety requirements; the user's addresses are checked by the copies.
        let left = unsafe {
            match self.direction {
                Direction::Read => {
                    bindings::copy_to_user_inatomic(self.user.as_mut_ptr(), memory.cast(), self.len)
                }
                Direction::Write => bindings::copy_from_user_inatomic(
                    memory.cast(),
                    self.user.as_const_ptr(),
                    self.len,
                ),
            }
        };
        self.len - left.min(self.len)
    }
}
