//! The user's memory that came without a descriptor, reached through the user itself.
//!
//! A device uses a [`Transaction`]: what it reads comes from the user page by page, what it writes
//! stays here until [`Transaction::commit`], which sends the bytes in the order in which the device
//! wrote them. Writes to memory with a descriptor stay here as well, so that the user sees neither
//! an index before the data behind it nor a part of what is done again. The user may be slow, or may want something itself meanwhile, so a transaction runs
//! on a thread of its own ([`Dma::later`](super::Dma::later)), and a change of the mappings cancels
//! it: the device then begins again. A transaction whose first byte is sent is no longer cancelled,
//! because what the device would read again may be what it has written: the rest is sent after the
//! change, as far as the mappings still allow.

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
const MOST_PAGES: usize = 8192;

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
    /// As [`read`](Self::read); with `EINTR` the user may have written the bytes or not.
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

/// Copies of the user's pages. They are only added.
#[derive(Debug, Default)]
pub(super) struct Pages(OnceLock<Box<Page>>);

#[derive(Debug)]
struct Page {
    /// First address.
    start: u64,
    memory: MmapRegion,
    /// Bytes of the user; `None` if the device may not read them.
    original: Option<Vec<u8>>,
    next: Pages,
}

impl Page {
    fn last(&self) -> u64 {
        self.start + (self.memory.size() as u64 - 1)
    }

    /// The bytes from `start` to `last` from the first that has changed to the last one, with the
    /// address of the first; `None` if none has.
    fn change(&self, start: u64, last: u64) -> Result<Option<(u64, Vec<u8>)>, Errno> {
        let offset = (start - self.start) as usize;
        let mut bytes = vec![0; (last - start + 1) as usize];
        let memory = self.memory.as_volatile_slice();
        memory
            .read_slice(&mut bytes, offset)
            .map_err(|_| Errno::EIO)?;
        let Some(original) = &self.original else {
            return Ok(Some((start, bytes)));
        };
        let before = original.get(offset..offset + bytes.len());
        let changed = |(new, old): (&u8, &u8)| new != old;
        let mut pairs = bytes.iter().zip(before.unwrap_or_default());
        let Some(first) = pairs.clone().position(changed) else {
            return Ok(None);
        };
        let end = pairs
            .rposition(changed)
            .map_or(bytes.len(), |last| last + 1);
        let changed = bytes.get(first..end).unwrap_or_default().to_vec();
        Ok(Some((start + first as u64, changed)))
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
    /// Sends what was written. Nothing is sent without this call.
    ///
    /// # Errors
    /// `EINTR` if the mappings are about to change and nothing has been sent: the transaction is to
    /// be made again. `EFAULT` if a change of the mappings during the call has taken memory away
    /// that was still to be written. Another error if the user refused a part or can't be asked.
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
        let mut changes = Vec::new();
        for (start, len) in writes.into_iter().rev() {
            self.pages.changes(start, len, &mut changes)?;
        }
        let is_cancelled = || self.dma.is_changing();
        if is_cancelled() {
            return Err(Errno::EINTR);
        }
        let mut mappings = self.mappings;
        for (at, bytes) in changes {
            while let Err(errno) = send(&*self.remote, &mappings, at, &bytes, &is_cancelled) {
                if errno != Errno::EINTR {
                    return Err(errno);
                }
                // the change goes first, and may need the user's reply to it
                drop(mappings);
                mappings = self.dma.mappings();
            }
        }
        Ok(())
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the slices of `len` bytes at `at` of a mapping that begins at `start`: of copies,
    /// but for a file's pages that have not been written.
    fn slices_of<'a>(
        &'a self,
        (start, mapping): (u64, &Mapping),
        (at, len): (u64, u64),
        writes: bool,
        slices: &mut Vec<VolatileSlice<'a>>,
    ) -> Result<(), Errno> {
        let end = at + (len - 1);
        let mut at = at;
        loop {
            let first = (at - at % PAGE).max(start);
            let last = (at | (PAGE - 1)).min(mapping.last(start));
            let until = last.min(end);
            let len = (until - at + 1) as usize;
            let slice = match self.pages.find(at) {
                None if !writes && mapping.memory.is_some() => {
                    self.mappings.slice_of_file((start, mapping), at, len)?
                }
                copied => {
                    let page = match copied {
                        Some(page) => page,
                        None => self.fetch((start, mapping), first, last)?,
                    };
                    let slice = page.memory.get_slice((at - page.start) as usize, len);
                    slice.map_err(|_| Errno::EIO)?
                }
            };
            slices.push(slice);
            match until.checked_add(1) {
                Some(next) if until < end => at = next,
                _ => return Ok(()),
            }
        }
    }

    /// Copies a page of the user, if the device may read it.
    fn fetch(&self, of: (u64, &Mapping), first: u64, last: u64) -> Result<&Page, Errno> {
        let len = (last - first + 1) as usize;
        let memory: MmapRegion = MmapRegion::new(len).map_err(|_| Errno::ENOMEM)?;
        let mut original = None;
        if of.1.access.allow(Permissions::Read) {
            let mut bytes = vec![0; len];
            if of.1.memory.is_some() {
                let slice = self.mappings.slice_of_file(of, first, len)?;
                slice.read_slice(&mut bytes, 0).map_err(|_| Errno::EFAULT)?;
            } else {
                let cancelled = || self.dma.is_changing();
                self.remote.read(first, &mut bytes, &cancelled)?;
            }
            let slice = memory.as_volatile_slice();
            slice.write_slice(&bytes, 0).map_err(|_| Errno::EIO)?;
            original = Some(bytes);
        }
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
            let of = (start, mapping);
            let found = match mapping.memory {
                // nothing is copied yet: a long range is one slice
                Some(_) if !writes && self.pages.is_empty() => {
                    let slice = self.mappings.slice_of_file(of, at, len as usize);
                    slice.map(|slice| slices.push(slice))
                }
                _ => self.slices_of(of, (at, len), writes, &mut slices),
            };
            if let Err(errno) = found {
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

/// Writes bytes where the mappings have them now: to a file, or through the user.
fn send(
    remote: &dyn Remote,
    mappings: &Mappings,
    at: u64,
    bytes: &[u8],
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(), Errno> {
    let ranges = mappings.ranges(GuestAddress(at), bytes.len(), Permissions::Write);
    let mut rest = bytes;
    for (start, mapping, at, len) in ranges.map_err(|_| Errno::EFAULT)? {
        let (part, others) = rest.split_at_checked(len as usize).ok_or(Errno::EIO)?;
        rest = others;
        if mapping.memory.is_none() {
            remote.write(at, part, is_cancelled)?;
            continue;
        }
        let slice = mappings.slice_of_file((start, mapping), at, part.len())?;
        slice.write_slice(part, 0).map_err(|_| Errno::EFAULT)?;
    }
    Ok(())
}

impl Pages {
    fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    /// Appends the bytes that have changed in `len` bytes at `start`, with their first addresses.
    fn changes(
        &self,
        start: u64,
        len: u64,
        changes: &mut Vec<(u64, Vec<u8>)>,
    ) -> Result<(), Errno> {
        let end = start + (len - 1);
        let mut at = start;
        loop {
            let page = self.find(at).ok_or(Errno::EIO)?;
            let last = page.last().min(end);
            changes.extend(page.change(at, last)?);
            match last.checked_add(1) {
                Some(next) if last < end => at = next,
                _ => return Ok(()),
            }
        }
    }

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
