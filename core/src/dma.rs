//! Direct memory access: the user's memory as a device below reaches it.
//!
//! A [`Dma`] is what an IOMMU domain is to a physical function: I/O virtual addresses that the
//! user has mapped, each mapping with the access that a device has there. A device gets its `Dma`
//! by [`Device::attach`](crate::Device::attach), and checks its own bus master bit before it uses
//! the memory. [`Mappings`] is `vm-memory`'s `GuestMemory`, so that rust-vmm's crates work on it.
//!
//! A device reaches the mapped ranges and nothing else of a file, although the whole file is
//! mapped into this process. Memory without a descriptor is reached through the user ([`Remote`]), in
//! a [`Transaction`]; to [`Mappings`] alone it can't be reached: the access fails, and
//! [`Mappings::missed`] tells. A user may shrink a file which it has mapped:
//! the access that meets the hole goes nowhere, later ones fail, and [`Dma::is_lost`] tells.

mod files;
mod remote;
mod table;

pub use remote::{Job, Remote, Transaction};

use std::iter::FusedIterator;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::vec;

use varia_spec::Errno;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use self::files::{Files, Part};
use self::table::{Mapping, Table};

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
pub struct Dma {
    mappings: RwLock<Mappings>,
    /// Way to memory without a descriptor.
    remote: Mutex<Option<Arc<dyn Remote>>>,
    /// Number of changes of the mappings that wait for accesses in progress.
    changing: AtomicUsize,
}

/// The mappings, while they can't change.
#[derive(Debug, Default)]
pub struct Mappings {
    table: Table,
    files: Files,
    missed: AtomicBool,
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
        let before = mappings.table.before(last);
        if before.is_some_and(|(start, mapping)| mapping.last(start) >= iova) {
            return Err(Errno::EEXIST);
        }
        if mappings.table.count() >= MAX_MAPPINGS {
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
        mappings.table.insert(iova, mapping);
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
        let table = &mappings.table;
        let crosses = |found: Option<(u64, &Mapping)>, at: u64| {
            found.is_some_and(|(start, mapping)| mapping.last(start) > at)
        };
        // from below into the range, or out of it
        let below = iova.checked_sub(1);
        let from_below = below.is_some_and(|below| crosses(table.before(below), below));
        if from_below || crosses(table.before(last), last) {
            return Err(Errno::EINVAL);
        }
        let starts: Vec<_> = table.inside(iova..=last).map(|(start, _)| start).collect();
        for start in starts {
            let mapping = mappings.table.remove(start);
            if let Some((file, _)) = mapping.and_then(|mapping| mapping.memory) {
                mappings.files.release(file);
            }
        }
        Ok(())
    }

    /// Removes all mappings and returns their number. Waits for accesses that are in progress.
    pub fn clear(&self) -> usize {
        let removed = std::mem::take(&mut *self.write());
        removed.table.count()
    }

    /// Number of mappings, and the sum of their lengths in bytes.
    pub fn size(&self) -> (usize, u64) {
        let mappings = self.mappings();
        let all = mappings.table.inside(0..=u64::MAX);
        let lengths = all.map(|(_, mapping)| mapping.len);
        let sum = lengths.fold(0, u64::saturating_add);
        (mappings.table.count(), sum)
    }

    /// True if the user has taken back memory that it had mapped and that a device has accessed
    /// since: what the device read there was zeros.
    pub fn is_lost(&self) -> bool {
        self.mappings().is_lost()
    }

    /// The mappings, which don't change until the guard is dropped.
    pub fn mappings(&self) -> RwLockReadGuard<'_, Mappings> {
        self.mappings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the way to memory without a descriptor, or takes it away.
    pub fn set_remote(&self, remote: Option<Arc<dyn Remote>>) {
        *self.remote.lock().unwrap_or_else(PoisonError::into_inner) = remote;
    }

    /// The way to memory without a descriptor.
    fn remote(&self) -> Option<Arc<dyn Remote>> {
        let remote = self.remote.lock();
        remote.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a transaction with all of the user's memory; `None` without a way to the user. A
    /// caller that the user waits for has to reply to the user first: [`later`](Self::later).
    pub fn transaction(&self) -> Option<Transaction<'_>> {
        Some(Transaction {
            remote: self.remote()?,
            mappings: self.mappings(),
            dma: self,
            pages: remote::Pages::default(),
            log: Mutex::default(),
        })
    }

    /// Runs a job on a thread that may wait for the user. The user's request is replied to
    /// meanwhile.
    ///
    /// # Errors
    /// `ENODEV` without a way to the user; the errors of [`Remote::run`].
    pub fn later(&self, job: Job) -> Result<(), Errno> {
        self.remote().ok_or(Errno::ENODEV)?.run(job)
    }

    /// True if a change of the mappings waits for accesses in progress.
    fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst) > 0
    }

    /// The mappings, to be changed. Cancels transactions, which would wait for a user that waits
    /// for this change.
    fn write(&self) -> RwLockWriteGuard<'_, Mappings> {
        self.changing.fetch_add(1, Ordering::SeqCst);
        if let Some(remote) = self.remote() {
            remote.wake();
        }
        let mappings = self.mappings.write();
        self.changing.fetch_sub(1, Ordering::SeqCst);
        mappings.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last of `len` bytes from `iova`, which may be the last address there is.
fn last(iova: u64, len: u64) -> Result<u64, Errno> {
    let last = len.checked_sub(1).and_then(|rest| iova.checked_add(rest));
    last.ok_or(Errno::EINVAL)
}

impl Mappings {
    /// Same as [`Dma::is_lost`].
    pub fn is_lost(&self) -> bool {
        self.files.are_lost()
    }

    /// The mapping that contains `at`, and the offset in it.
    fn find(&self, at: u64) -> Option<(&Mapping, u64)> {
        let (start, mapping) = self.table.before(at)?;
        let offset = at - start;
        (offset < mapping.len).then_some((mapping, offset))
    }

    /// True if an access has met memory without a descriptor since the last call.
    pub fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::SeqCst)
    }

    /// The parts of mappings behind `count` bytes at `addr`: each mapping with its first address,
    /// and the first address and the length of the part.
    fn ranges(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<Vec<(u64, &Mapping, u64, u64)>> {
        let mut ranges = Vec::new();
        let (mut at, mut rest) = (addr.0, count as u64);
        while rest > 0 {
            let found = self.find(at).filter(|(m, _)| m.access.allow(access));
            let Some((mapping, offset)) = found else {
                return Err(Error::InvalidGuestAddress(GuestAddress(at)));
            };
            let len = rest.min(mapping.len - offset);
            ranges.push((at - offset, mapping, at, len));
            rest -= len;
            at = match at.checked_add(len) {
                Some(next) => next,
                None if rest == 0 => break,
                None => return Err(Error::GuestAddressOverflow),
            };
        }
        Ok(ranges)
    }

    /// The slice of `len` bytes at `at` of a mapping with a descriptor, which begins at `start`.
    fn slice_of_file(
        &self,
        (start, mapping): (u64, &Mapping),
        at: u64,
        len: usize,
    ) -> Result<VolatileSlice<'_>, Errno> {
        let (file, first) = mapping.memory.ok_or(Errno::EIO)?;
        let slice = self.files.slice(file, first + (at - start), len);
        slice.map_err(|_| Errno::EFAULT)
    }

    /// The slices of memory behind `count` bytes at `addr`.
    fn slices(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<Vec<VolatileSlice<'_>>> {
        let mut slices = Vec::new();
        for (start, mapping, at, len) in self.ranges(addr, count, access)? {
            let Some((file, first)) = mapping.memory else {
                self.missed.store(true, Ordering::SeqCst);
                return Err(Error::InvalidGuestAddress(GuestAddress(at)));
            };
            let slice = self.files.slice(file, first + (at - start), len as usize)?;
            slices.push(slice);
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
