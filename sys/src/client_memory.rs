//! Memory of a client, mapped into this process, that the client may take back.
//!
//! Whoever has another descriptor of a file can truncate it, and an access to a page that is no
//! longer in the file raises SIGBUS. A handler of this module then puts zero pages in the place of
//! the whole mapping, and marks the mapping as lost: the access goes on, and its caller asks
//! [`ClientMemory::is_lost`] afterwards. A SIGBUS elsewhere is passed on to the previous action.
//!
//! The memory is used through [`VolatileSlice`] alone, because its bytes change at any moment.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_int, c_void, sigaction, siginfo_t};
use varia_spec::errno::Errno;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// A range of a file, mapped.
#[derive(Debug)]
pub struct ClientMemory {
    // in this order: a range that is unmapped must not be watched
    watch: Watch,
    memory: MmapRegion,
}

impl ClientMemory {
    /// Maps `range` of `file`, shared, to be read, and written if `writable`.
    ///
    /// # Errors
    /// `ENOMEM` if the address space has no room, `EIO` if the file can't be mapped this way.
    pub fn map(file: File, range: Range<u64>, writable: bool) -> Result<Self, Errno> {
        install().map_err(|_| Errno::EIO)?;
        let length = range.end.checked_sub(range.start).ok_or(Errno::EIO)?;
        let size = usize::try_from(length).map_err(|_| Errno::ENOMEM)?;
        // memory that can be written can be read as well, on every architecture
        let protection = match writable {
            false => libc::PROT_READ,
            true => libc::PROT_READ | libc::PROT_WRITE,
        };
        let memory = MmapRegionBuilder::new(size)
            .with_file_offset(FileOffset::new(file, range.start))
            .with_mmap_prot(protection)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .build()
            .map_err(|error| match error {
                MmapRegionError::Mmap(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                    Errno::ENOMEM
                }
                _ => Errno::EIO,
            })?;
        let watch = Watch::new(memory.as_ptr() as usize, size, protection);
        Ok(Self { watch, memory })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.size()
    }

    /// Never true: an empty range can't be mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if a page was accessed that is no longer in the file. All bytes read as zeros from then
    /// on, and what is written goes nowhere.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.watch.0.lost.load(Ordering::Acquire)
    }

    /// The `len` bytes at `offset`; `None` if they are not all inside of the memory.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        self.memory.get_slice(offset, len).ok()
    }
}

/// A range of addresses that the handler knows. Never freed: a free one is used again.
#[derive(Debug)]
struct Known {
    /// First address; 0 while free.
    start: AtomicUsize,
    /// Bytes.
    len: AtomicUsize,
    /// Protection of the pages, as for `mmap`.
    protection: AtomicI32,
    lost: AtomicBool,
    next: *const Known,
}

// SAFETY: `next` is written before the value is shared, points to a value that is never freed, and
// is only read afterwards; all else is atomic.
unsafe impl Sync for Known {}
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for Known {}

/// The last of the known ranges, from which `next` leads to the others.
static KNOWN: AtomicPtr<Known> = AtomicPtr::new(ptr::null_mut());

/// Known ranges that are free. Held while a range is added.
static FREE: Mutex<Vec<&'static Known>> = Mutex::new(Vec::new());

/// Number of times that the handler has met lost memory.
static LOSSES: AtomicUsize = AtomicUsize::new(0);

/// Number of times that memory of any client was lost. As long as the number stays the same, memory
/// that was not lost is not lost.
#[must_use]
pub fn losses() -> usize {
    LOSSES.load(Ordering::Acquire)
}

/// A known range, free again on drop.
#[derive(Debug)]
struct Watch(&'static Known);

impl Watch {
    fn new(start: usize, len: usize, protection: c_int) -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let range = free.pop().unwrap_or_else(|| {
            let head = KNOWN.load(Ordering::Acquire);
            let range = Box::leak(Box::new(Known {
                start: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                protection: AtomicI32::new(0),
                lost: AtomicBool::new(false),
                next: head,
            }));
            KNOWN.store(range, Ordering::Release);
            range
        });
        range.lost.store(false, Ordering::Release);
        range.len.store(len, Ordering::Release);
        range.protection.store(protection, Ordering::Release);
        // last, for the handler takes a range with a start for a whole one
        range.start.store(start, Ordering::Release);
        Self(range)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.0);
    }
}

/// The known ranges from `head` on.
fn known(head: *const Known) -> impl Iterator<Item = &'static Known> {
    let mut next = head;
    std::iter::from_fn(move || {
        // SAFETY: null, or a value of `Box::leak`, which is never freed or changed but by atomics.
        let range = unsafe { next.as_ref() }?;
        next = range.next;
        Some(range)
    })
}

/// The action of SIGBUS before this module's.
struct Previous(sigaction);

// SAFETY: plain data; the pointer in it is the address of a handler, which belongs to no thread.
unsafe impl Send for Previous {}
// SAFETY: as above, and never changed.
unsafe impl Sync for Previous {}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    // SAFETY: all zeros are a value of this structure of integers and null pointers.
    let mut previous: sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action, and room for the present one.
    check(unsafe { sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) })?;
    // the handler may need it at once
    PREVIOUS.get_or_init(|| Previous(previous));
    // SAFETY: as above.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler does nothing but loads and stores of atomics and system calls, which a
    // signal's handler may do.
    check(unsafe { sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) })?;
    *installed = true;
    Ok(())
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The handler of SIGBUS.
extern "C" fn handle(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the address of this thread's errno, which the interrupted code may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid structure.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // a positive code is a fault of this thread's, and not a signal that was sent
    if code <= 0 || !replace(address) {
        if let Some(Previous(previous)) = PREVIOUS.get() {
            // SAFETY: an action that the kernel gave out. A fault happens again when this handler
            // returns, and meets the previous action.
            unsafe { sigaction(signal, previous, ptr::null_mut()) };
        }
        if code <= 0 {
            // SAFETY: a system call; the signal is pending until this handler returns.
            unsafe { libc::raise(signal) };
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Puts zero pages in the place of the known range with `address`; false if there is none.
fn replace(address: usize) -> bool {
    let holds = |range: &'static Known| {
        let start = range.start.load(Ordering::Acquire);
        let len = range.len.load(Ordering::Acquire);
        let protection = range.protection.load(Ordering::Acquire);
        let inside = start != 0 && address.wrapping_sub(start) < len;
        // Another thread may use a free range again. With the same start as before, what was read in
        // between belongs to it.
        let is_one = range.start.load(Ordering::Acquire) == start;
        (inside && is_one).then_some((range, start, len, protection))
    };
    let mut ranges = known(KNOWN.load(Ordering::Acquire));
    let Some((range, start, len, protection)) = ranges.find_map(holds) else {
        return false;
    };
    range.lost.store(true, Ordering::Release);
    LOSSES.fetch_add(1, Ordering::AcqRel);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range is a mapping of a `ClientMemory` that a thread of this process is using,
    // so it is mapped; no reference to its bytes exists. It is replaced as a whole, so that its
    // owner removes what is there then.
    let mapped = unsafe { libc::mmap(start as *mut c_void, len, protection, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    fn file(len: u64) -> File {
        let memory = rustix::fs::memfd_create("client", rustix::fs::MemfdFlags::CLOEXEC);
        let file = File::from(memory.unwrap());
        file.set_len(len).unwrap();
        file
    }

    fn map(file: &File, len: u64) -> ClientMemory {
        ClientMemory::map(file.try_clone().unwrap(), 0..len, true).unwrap()
    }

    #[test]
    fn memory_that_is_truncated_reads_as_zeros_and_is_lost() {
        let page = crate::mapping::page_size();
        let len = 4 * page;
        let file = file(len as u64);
        let (one, other) = (map(&file, len as u64), map(&file, page as u64));
        let whole = one.slice(0, len).unwrap();
        whole.write_obj(7_u64, 3 * page).unwrap();
        file.set_len(page as u64).unwrap();
        assert!(!one.is_lost());
        assert_eq!(whole.read_obj::<u64>(3 * page).unwrap(), 0);
        assert!(one.is_lost());
        whole.write_obj(7_u64, 2 * page).unwrap();
        assert_eq!(file.metadata().unwrap().len(), page as u64);
        // what is still there of another mapping is not touched
        assert!(!other.is_lost());
        other.slice(0, page).unwrap().write_obj(9_u64, 0).unwrap();
        assert!(!other.is_lost());
        // the range is used again for a mapping that is not lost
        drop(one);
        assert!(!map(&file, page as u64).is_lost());
    }

    #[test]
    fn threads_that_meet_lost_memory_together_all_go_on() {
        let len = 64 << 20;
        let file = file(len);
        let memory = map(&file, len);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let memory = &memory;
                scope.spawn(move || {
                    for at in (0..len as usize).step_by(4096) {
                        let slice = memory.slice(at, 4096).unwrap();
                        slice.write_obj(thread, 8 * thread).unwrap();
                    }
                });
            }
            file.set_len(0).unwrap();
        });
        // whichever came first, every page is gone now
        let _: u64 = memory.slice(0, 8).unwrap().read_obj(0).unwrap();
        assert!(memory.is_lost());
    }
}
