//! Direct memory access: the user's memory as a device below reaches it.
//!
//! A [`Dma`] is what an IOMMU domain is to a physical function: I/O virtual addresses that the
//! user has mapped, each mapping with what the device may do there. A device gets it by
//! [`Device::attach`](crate::Device::attach), and looks at its own bus master bit before it uses
//! it. [`Mappings`] is `vm-memory`'s `GuestMemory`, so that rust-vmm's crates work on it.
//!
//! Memory without a descriptor can't be reached: an access to it fails, as one to an address that
//! is not mapped does. A user that shrinks a file which it has mapped takes its own server down
//! (SIGBUS); a memfd that is sealed against shrinking can't be shrunk.

use std::collections::BTreeMap;
use std::fs::File;
use std::iter::FusedIterator;
use std::os::fd::OwnedFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::vec;

use varia_spec::Errno;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemory, GuestMemoryMmap, MmapRegion, Permissions,
    VolatileMemory, VolatileSlice,
};

/// What a device may do with mapped memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaAccess {
    /// It may read.
    pub read: bool,
    /// It may write.
    pub write: bool,
}

/// The user's memory, as far as it is mapped for a device.
#[derive(Debug, Default)]
pub struct Dma(RwLock<Mappings>);

/// The mappings, while they can't change.
#[derive(Debug, Default)]
pub struct Mappings(BTreeMap<u64, Mapping>);

#[derive(Debug)]
struct Mapping {
    len: u64,
    access: Permissions,
    /// `None` for memory without a descriptor.
    memory: Option<MmapRegion>,
}

impl Dma {
    /// Maps `len` bytes at the I/O virtual address `iova`: those of `file` from an offset on, if
    /// there is a file.
    ///
    /// # Errors
    /// `EEXIST` for an overlap with another mapping, `EINVAL` for no bytes, an end beyond 64 bits
    /// or beyond the file's, `EIO` for a file that can't be mapped this way.
    pub fn map(
        &self,
        iova: u64,
        len: u64,
        access: DmaAccess,
        file: Option<(OwnedFd, u64)>,
    ) -> Result<(), Errno> {
        let end = iova.checked_add(len).filter(|end| *end > iova);
        let end = end.ok_or(Errno::EINVAL)?;
        let mut mappings = self.write();
        let below = mappings.0.range(..end).next_back();
        if below.is_some_and(|(start, mapping)| start + mapping.len > iova) {
            return Err(Errno::EEXIST);
        }
        let access = match (access.read, access.write) {
            (true, true) => Permissions::ReadWrite,
            (true, false) => Permissions::Read,
            (false, true) => Permissions::Write,
            (false, false) => Permissions::No,
        };
        let memory = match file {
            Some((fd, offset)) => Some(map_file(fd, offset, len, access)?),
            None => None,
        };
        let mapping = Mapping {
            len,
            access,
            memory,
        };
        mappings.0.insert(iova, mapping);
        Ok(())
    }

    /// Takes away every mapping that lies in `len` bytes from `iova`. Waits for accesses that are
    /// under way.
    pub fn unmap(&self, iova: u64, len: u64) {
        let end = iova.saturating_add(len);
        let inside = |start: u64, mapping: &Mapping| start >= iova && start + mapping.len <= end;
        self.write()
            .0
            .retain(|start, mapping| !inside(*start, mapping));
    }

    /// Takes away all mappings.
    pub fn clear(&self) {
        self.write().0.clear();
    }

    /// The mappings, held: they don't change until the guard is dropped.
    pub fn mappings(&self) -> RwLockReadGuard<'_, Mappings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Mappings> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn map_file(fd: OwnedFd, offset: u64, len: u64, access: Permissions) -> Result<MmapRegion, Errno> {
    let file = File::from(fd);
    let there = file.metadata().map_err(|_| Errno::EIO)?.len();
    let end = offset.checked_add(len).ok_or(Errno::EINVAL)?;
    if end > there {
        return Err(Errno::EINVAL);
    }
    // a mapping that can be written can be read as well, on every architecture
    let prot = match access {
        Permissions::No => libc::PROT_NONE,
        Permissions::Read => libc::PROT_READ,
        Permissions::Write | Permissions::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    };
    let size = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    MmapRegionBuilder::new(size)
        .with_file_offset(FileOffset::new(file, offset))
        .with_mmap_prot(prot)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(|_| Errno::EIO)
}

impl Mappings {
    /// The mapping that contains `at`, and where in it.
    fn find(&self, at: u64) -> Option<(&Mapping, u64)> {
        let (start, mapping) = self.0.range(..=at).next_back()?;
        let offset = at - start;
        (offset < mapping.len).then_some((mapping, offset))
    }

    /// The pieces of memory behind `count` bytes at `addr`.
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
            let Some(memory) = mapping
                .memory
                .as_ref()
                .filter(|_| mapping.access.allow(access))
            else {
                return Err(bad);
            };
            let len = rest.min(mapping.len - offset);
            slices.push(memory.get_slice(offset as usize, len as usize)?);
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

/// Pieces of memory that all exist.
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
