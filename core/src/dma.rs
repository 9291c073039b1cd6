//! Direct memory access: the user's memory as a device below reaches it.
//!
//! A [`Dma`] is what an IOMMU domain is to a physical function: I/O virtual addresses that the
//! user has mapped, each mapping with the access that a device has there. A device gets its `Dma`
//! by [`Device::attach`](crate::Device::attach), and checks its own bus master bit before it uses
//! the memory. [`Mappings`] is `vm-memory`'s `GuestMemory`, so that rust-vmm's crates work on it.
//!
//! A device reaches the mapped ranges and nothing else of a file, although the whole file is
//! mapped into this process. Memory without a descriptor can't be reached: an access to it fails,
//! as an access to an address that is not mapped does. A user may shrink a file which it has mapped:
//! the access that meets the hole goes nowhere, later ones fail, and [`Dma::is_lost`] tells.

mod files;

use std::collections::BTreeMap;
use std::iter::FusedIterator;
use std::os::fd::OwnedFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::vec;

use varia_spec::Errno;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use self::files::{FileId, Files, Part};

/// Maximum number of mappings at one time, as for the kernel's type1 (`dma_entry_limit`).
pub const MAX_MAPPINGS: usize = 65_535;

/// Access that a device has to mapped memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaAccess {
    /// The device may read.
    pub read: bool,
    /// The device may write.
    pub write: bool,
}

/// The user's memory, as far as it is mapped for a device.
#[derive(Debug, Default)]
pub struct Dma(RwLock<Mappings>);

/// The mappings, while they can't change.
#[derive(Debug, Default)]
pub struct Mappings {
    /// Mappings by their first I/O virtual address. None of them overlap.
    ranges: BTreeMap<u64, Mapping>,
    files: Files,
}

#[derive(Debug)]
struct Mapping {
    /// Bytes, at least one; the last has an address of 64 bits.
    len: u64,
    access: Permissions,
    /// The file and the offset of the first byte in it; `None` for memory that no device reaches.
    memory: Option<(FileId, u64)>,
}

impl Dma {
    /// Maps `len` bytes at the I/O virtual address `iova`: the bytes of `file` from an offset on,
    /// if there is a file.
    ///
    /// # Errors
    /// `EEXIST` for an overlap with another mapping, `EINVAL` for no bytes, an end beyond 64 bits
    /// or beyond the file's, `ENOSPC` for more than [`MAX_MAPPINGS`], `EIO` for a file that can't
    /// be mapped this way, `ENOMEM` if the address space of this process has no room.
    pub fn map(
        &self,
        iova: u64,
        len: u64,
        access: DmaAccess,
        file: Option<(OwnedFd, u64)>,
    ) -> Result<(), Errno> {
        let last = last(iova, len)?;
        let mut mappings = self.write();
        let below = mappings.ranges.range(..=last).next_back();
        if below.is_some_and(|(start, mapping)| mapping.last(*start) >= iova) {
            return Err(Errno::EEXIST);
        }
        if mappings.ranges.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOSPC);
        }
        let access = match (access.read, access.write) {
            (true, true) => Permissions::ReadWrite,
            (true, false) => Permissions::Read,
            (false, true) => Permissions::Write,
            (false, false) => Permissions::No,
        };
        let memory = match file {
            Some((fd, offset)) => {
                let writable = access.allow(Permissions::Write);
                let part = Part::new(fd, offset, len, writable)?;
                match access {
                    Permissions::No => None,
                    _ => Some((mappings.files.retain(part)?, offset)),
                }
            }
            None => None,
        };
        let mapping = Mapping {
            len,
            access,
            memory,
        };
        mappings.ranges.insert(iova, mapping);
        Ok(())
    }

    /// Removes every mapping that lies in `len` bytes from `iova`, and there may be none. Waits for
    /// accesses that are in progress.
    ///
    /// # Errors
    /// `EINVAL` for no bytes, an end beyond 64 bits, and a range that would cut a mapping in two:
    /// nothing is removed then.
    pub fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        let last = last(iova, len)?;
        let mut mappings = self.write();
        let ranges = &mappings.ranges;
        let crosses = |range: Option<(&u64, &Mapping)>, at: u64| {
            range.is_some_and(|(start, mapping)| mapping.last(*start) > at)
        };
        // from below into the range, or out of it
        let from_below = iova
            .checked_sub(1)
            .is_some_and(|before| crosses(ranges.range(..iova).next_back(), before));
        if from_below || crosses(ranges.range(..=last).next_back(), last) {
            return Err(Errno::EINVAL);
        }
        let inside = ranges.range(iova..=last).map(|(start, _)| *start);
        for start in inside.collect::<Vec<_>>() {
            let mapping = mappings.ranges.remove(&start);
            if let Some((file, _)) = mapping.and_then(|mapping| mapping.memory) {
                mappings.files.release(file);
            }
        }
        Ok(())
    }

    /// Removes all mappings. Waits for accesses that are in progress.
    pub fn clear(&self) {
        *self.write() = Mappings::default();
    }

    /// True if the user has taken back memory that it had mapped and that a device has accessed
    /// since: what the device read there was zeros.
    pub fn is_lost(&self) -> bool {
        self.mappings().is_lost()
    }

    /// The mappings, which don't change until the guard is dropped.
    pub fn mappings(&self) -> RwLockReadGuard<'_, Mappings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Mappings> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last of `len` bytes from `iova`, which may be the last address there is.
fn last(iova: u64, len: u64) -> Result<u64, Errno> {
    let last = len.checked_sub(1).and_then(|rest| iova.checked_add(rest));
    last.ok_or(Errno::EINVAL)
}

impl Mapping {
    /// The last address of this mapping, which begins at `start`.
    fn last(&self, start: u64) -> u64 {
        start + (self.len - 1)
    }
}

impl Mappings {
    /// Same as [`Dma::is_lost`].
    pub fn is_lost(&self) -> bool {
        self.files.are_lost()
    }

    /// The mapping that contains `at`, and the offset in it.
    fn find(&self, at: u64) -> Option<(&Mapping, u64)> {
        let (start, mapping) = self.ranges.range(..=at).next_back()?;
        let offset = at - start;
        (offset < mapping.len).then_some((mapping, offset))
    }

    /// The slices of memory behind `count` bytes at `addr`.
    fn slices(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<Vec<VolatileSlice<'_>>> {
        let mut slices = Vec::new();
        let (mut at, mut rest) = (addr.0, count as u64);
        while rest > 0 {
            let bad = Error::InvalidGuestAddress(GuestAddress(at));
            let Some((mapping, offset)) = self.find(at) else {
                return Err(bad);
            };
            let memory = mapping.memory.filter(|_| mapping.access.allow(access));
            let Some((file, first)) = memory else {
                return Err(bad);
            };
            let len = rest.min(mapping.len - offset);
            let slice = self.files.slice(file, first + offset, len as usize)?;
            slices.push(slice);
            rest -= len;
            at = match at.checked_add(len) {
                Some(next) => next,
                None if rest == 0 => break,
                None => return Err(Error::GuestAddressOverflow),
            };
        }
        Ok(slices)
    }
}

/// Slices of memory that all exist.
#[derive(Debug)]
struct Slices<'a>(vec::IntoIter<VolatileSlice<'a>>);

impl<'a> Iterator for Slices<'a> {
    type Item = MemoryResult<VolatileSlice<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

impl GuestMemory for Mappings {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.slices(addr, count, access).is_ok()
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<impl GuestMemorySliceIterator<'a, ()>> {
        Ok(Slices(self.slices(addr, count, access)?.into_iter()))
    }
}
