//! The user's memory that came without a descriptor, reached through the user itself.
//!
//! A device uses a [`Transaction`]: what it reads comes from the user page by page, what it writes
//! stays here until [`Transaction::commit`], which sends the bytes in the order in which the device
//! wrote them. The user may be slow, or may want something itself meanwhile, so a transaction runs
//! on a thread of its own ([`Dma::later`](super::Dma::later)), and a change of the mappings cancels
//! it: the device then begins again.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLockReadGuard};

use varia_spec::Errno;
use vm_memory::guest_memory::{Error, Result as MemoryResult};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, MmapRegion, Permissions, VolatileMemory,
    VolatileSlice,
};

use super::{Dma, Mapping, Mappings, Slices};

/// Bytes that are read from the user at a time.
const PAGE: u64 = 4096;

/// Maximum number of pages that a transaction holds.
const MOST_PAGES: usize = 4096;

/// Job for the thread of a user.
pub type Job = Box<dyn FnOnce() + Send>;

/// Way to the memory of a user that the user reads and writes itself.
pub trait Remote: fmt::Debug + Send + Sync {
    /// Reads the user's memory at an I/O virtual address.
    ///
    /// # Errors
    /// `EINTR` once `cancelled` is true; `EIO` if the user can't be asked; the user's error.
    fn read(&self, iova: u64, data: &mut [u8], cancelled: &dyn Fn() -> bool) -> Result<(), Errno>;

    /// Writes the user's memory at an I/O virtual address.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, iova: u64, data: &[u8], cancelled: &dyn Fn() -> bool) -> Result<(), Errno>;

    /// Makes reads and writes that wait ask `cancelled` again.
    fn wake(&self);

    /// Runs a job on the user's thread, behind those that came before.
    ///
    /// # Errors
    /// `EAGAIN` if there is no thread.
    fn run(&self, job: Job) -> Result<(), Errno>;
}

/// The user's memory with the memory that is reached through the user.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub(super) mappings: RwLockReadGuard<'a, Mappings>,
    pub(super) dma: &'a Dma,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) pages: Pages,
    pub(super) log: Mutex<Log>,
}

/// What a transaction has done.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// First address and length of what was written, in order.
    writes: Vec<(u64, u64)>,
    error: Option<Errno>,
}

/// Pages that have come from the user. They are only added.
#[derive(Debug, Default)]
pub(super) struct Pages(OnceLock<Box<Page>>);

#[derive(Debug)]
struct Page {
    /// First address.
    start: u64,
    memory: MmapRegion,
    /// Bytes that came from the user; `None` if the device may not read them.
    original: Option<Vec<u8>>,
    next: Pages,
}

impl Page {
    fn last(&self) -> u64 {
        self.start + (self.memory.size() as u64 - 1)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // one after another: a long list must not be a deep recursion
        let mut next = self.0.take();
        while let Some(mut page) = next {
            next = page.next.0.take();
        }
    }
}

impl Transaction<'_> {
    fn is_cancelled(&self) -> bool {
        self.dma.is_changing()
    }

    /// Sends what was written. Nothing is sent without this call.
    ///
    /// # Errors
    /// `EINTR` if the mappings are about to change: the transaction is to be made again; another
    /// error if the user refused a part of it or can't be asked.
    pub fn commit(self) -> Result<(), Errno> {
        let log = std::mem::take(&mut *self.log());
        if let Some(errno) = log.error {
            return Err(errno);
        }
        // what was written several times is sent once, at its last place
        let mut writes = Vec::new();
        for write in log.writes.into_iter().rev() {
            if !writes.contains(&write) {
                writes.push(write);
            }
        }
        for (start, len) in writes.into_iter().rev() {
            let end = start + (len - 1);
            let mut at = start;
            loop {
                let page = self.pages.find(at).ok_or(Errno::EIO)?;
                let last = page.last().min(end);
                self.send(page, at, last)?;
                match last.checked_add(1) {
                    Some(next) if last < end => at = next,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Sends the bytes of a page from `start` to `last` that have changed.
    fn send(&self, page: &Page, start: u64, last: u64) -> Result<(), Errno> {
        let offset = (start - page.start) as usize;
        let mut bytes = vec![0; (last - start + 1) as usize];
        let memory = page.memory.as_volatile_slice();
        memory
            .read_slice(&mut bytes, offset)
            .map_err(|_| Errno::EIO)?;
        let (mut first, mut end) = (0, bytes.len());
        if let Some(original) = &page.original {
            let before = original.get(offset..offset + bytes.len());
            let changed = |(new, old): (&u8, &u8)| new != old;
            let mut pairs = bytes.iter().zip(before.unwrap_or_default());
            let Some(begin) = pairs.clone().position(changed) else {
                return Ok(());
            };
            first = begin;
            end = pairs.rposition(changed).map_or(end, |last| last + 1);
        }
        let changed = bytes.get(first..end).unwrap_or_default();
        let at = start + first as u64;
        self.remote.write(at, changed, &|| self.is_cancelled())
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the slices of `len` bytes at `at` of a mapping without a descriptor that begins at
    /// `start`.
    fn slices_of<'a>(
        &'a self,
        start: u64,
        mapping: &Mapping,
        at: u64,
        len: u64,
        slices: &mut Vec<VolatileSlice<'a>>,
    ) -> Result<(), Errno> {
        let end = at + (len - 1);
        let mut at = at;
        loop {
            let page = match self.pages.find(at) {
                Some(page) => page,
                None => {
                    let first = (at - at % PAGE).max(start);
                    let last = (at | (PAGE - 1)).min(mapping.last(start));
                    self.fetch(first, last, mapping.access.allow(Permissions::Read))?
                }
            };
            let last = page.last().min(end);
            let slice = page
                .memory
                .get_slice((at - page.start) as usize, (last - at + 1) as usize);
            slices.push(slice.map_err(|_| Errno::EIO)?);
            match last.checked_add(1) {
                Some(next) if last < end => at = next,
                _ => return Ok(()),
            }
        }
    }

    /// Reads a page from the user, if the device may read it.
    fn fetch(&self, first: u64, last: u64, readable: bool) -> Result<&Page, Errno> {
        let len = (last - first + 1) as usize;
        let memory: MmapRegion = MmapRegion::new(len).map_err(|_| Errno::ENOMEM)?;
        let original = match readable {
            true => {
                let mut bytes = vec![0; len];
                let cancelled = || self.is_cancelled();
                self.remote.read(first, &mut bytes, &cancelled)?;
                let slice = memory.as_volatile_slice();
                slice.write_slice(&bytes, 0).map_err(|_| Errno::EIO)?;
                Some(bytes)
            }
            false => None,
        };
        let page = Page {
            start: first,
            memory,
            original,
            next: Pages::default(),
        };
        self.pages.add(page).ok_or(Errno::ENOMEM)
    }

    fn slices(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<Vec<VolatileSlice<'_>>> {
        let mut slices = Vec::new();
        let writes = access.allow(Permissions::Write);
        let ranges = self.mappings.ranges(addr, count, access)?;
        for (start, mapping, at, len) in ranges {
            if let Some((file, first)) = mapping.memory {
                let offset = first + (at - start);
                let slice = self.mappings.files.slice(file, offset, len as usize)?;
                slices.push(slice);
                continue;
            }
            if let Err(errno) = self.slices_of(start, mapping, at, len, &mut slices) {
                self.log().error.get_or_insert(errno);
                return Err(Error::InvalidGuestAddress(GuestAddress(at)));
            }
            if writes {
                self.log().writes.push((at, len));
            }
        }
        Ok(slices)
    }
}

impl Pages {
    fn find(&self, at: u64) -> Option<&Page> {
        let mut next = self.0.get();
        while let Some(page) = next {
            if (page.start..=page.last()).contains(&at) {
                return Some(page);
            }
            next = page.next.0.get();
        }
        None
    }

    /// Adds a page; `None` if there are too many.
    fn add(&self, page: Page) -> Option<&Page> {
        let mut list = self;
        for _ in 0..MOST_PAGES {
            match list.0.get() {
                Some(page) => list = &page.next,
                None => return Some(list.0.get_or_init(|| Box::new(page))),
            }
        }
        None
    }
}

impl GuestMemory for Transaction<'_> {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.mappings.ranges(addr, count, access).is_ok()
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<impl vm_memory::guest_memory::GuestMemorySliceIterator<'a, ()>> {
        Ok(Slices(self.slices(addr, count, access)?.into_iter()))
    }
}
