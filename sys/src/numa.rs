//! Memory of this process on a NUMA node of choice, where a page of it lies, and whether it may move.
//!
//! Source: Linux 7.2 `mm/mempolicy.c` (`mbind`), `mm/migrate.c` (`move_pages`),
//! `Documentation/admin-guide/mm/pagemap.rst`.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};
use varia_spec::errno::Errno;

use crate::errno;
use crate::mapping::{Mapping, page_size};

/// `MPOL_BIND`: pages come from the given nodes alone.
const BIND: libc::c_ulong = 2;
/// Nodes that a mask of this module has room for: more than any kernel has.
const NODES: usize = 1024;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;
/// Bits 0 to 54 of a page's entry: the page frame; bit 63: the page is present.
const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

/// Has the pages of an anonymous mapping come from `node` alone, from their first use on.
///
/// # Errors
/// `EINVAL` for a node that has no memory or does not exist.
pub fn bind(mapping: &Mapping, node: u32) -> Result<(), Errno> {
    let mut mask: [libc::c_ulong; NODES / WORD_BITS] = [0; NODES / WORD_BITS];
    let word = mask.get_mut(node as usize / WORD_BITS);
    *word.ok_or(Errno::EINVAL)? |= 1 << (node as usize % WORD_BITS);
    let start = mapping.address() as *mut libc::c_void;
    // SAFETY: the range is one mapping of this process, whose content a policy does not change; the
    // mask has as many bits as are said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start,
            mapping.len(),
            BIND,
            mask.as_ptr(),
            NODES + 1,
            0_usize,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(errno::last()),
    }
}

/// Keeps the pages of a mapping in memory, faulting in those that are not there. The kernel may still
/// move them.
///
/// # Errors
/// `ENOMEM` beyond the limit of locked memory, or if there is no memory.
pub fn lock(mapping: &Mapping) -> Result<(), Errno> {
    // SAFETY: the range is one mapping of this process; locking does not change its content.
    match unsafe { libc::mlock(mapping.address() as *const libc::c_void, mapping.len()) } {
        0 => Ok(()),
        _ => Err(errno::last()),
    }
}

/// Keeps the kernel from making large pages of a mapping's pages, for which it would move them.
///
/// # Errors
/// `EINVAL` for a kernel without large pages.
pub fn keep_small(mapping: &Mapping) -> Result<(), Errno> {
    let start = mapping.address() as *mut libc::c_void;
    // SAFETY: the range is one mapping of this process; the advice does not change its content.
    match unsafe { libc::madvise(start, mapping.len(), libc::MADV_NOHUGEPAGE) } {
        0 => Ok(()),
        _ => Err(errno::last()),
    }
}

/// A page that can't be moved: a pipe refers to it.
#[derive(Debug)]
pub struct Pinned {
    _ends: (OwnedFd, OwnedFd),
}

/// Pins the page at an offset of a mapping, until the result is dropped.
///
/// # Errors
/// `EINVAL` for an offset beyond the mapping, `EFAULT` for a page that can't be read, and errors of
/// making a pipe.
pub fn pin(mapping: &Mapping, offset: usize) -> Result<Pinned, Errno> {
    let page = page_of(mapping, offset)? as *mut libc::c_void;
    let ends = pipe_with(PipeFlags::CLOEXEC).map_err(errno::of_rustix)?;
    let part = libc::iovec {
        iov_base: page,
        iov_len: 1,
    };
    // SAFETY: one byte of a mapping of this process, which the kernel reads; one vector of this
    // function.
    match unsafe { libc::vmsplice(ends.1.as_raw_fd(), &raw const part, 1, 0) } {
        1 => Ok(Pinned { _ends: ends }),
        0.. => Err(Errno::EFAULT),
        _ => Err(errno::last()),
    }
}

/// Node of the page at an offset of a mapping.
///
/// # Errors
/// `ENOENT` for a page that is not present, `EINVAL` for an offset beyond the mapping.
pub fn node_of(mapping: &Mapping, offset: usize) -> Result<u32, Errno> {
    let page = page_of(mapping, offset)? as *mut libc::c_void;
    let mut status: libc::c_int = -1;
    // SAFETY: one page and one status of this function; without nodes nothing is moved.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1_usize,
            &raw const page,
            ptr::null::<libc::c_int>(),
            &raw mut status,
            0,
        )
    };
    match (result, u32::try_from(status)) {
        (0, Ok(node)) => Ok(node),
        (0, Err(_)) => Err(Errno::new(status.wrapping_neg()).unwrap_or(Errno::EIO)),
        _ => Err(errno::last()),
    }
}

/// Physical address of the byte at an offset of a mapping, as long as its page stays where it is.
///
/// # Errors
/// `ENOENT` for a page that is not present, `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` for an offset
/// beyond the mapping, and errors of reading `/proc/self/pagemap`.
pub fn physical(mapping: &Mapping, offset: usize) -> Result<u64, Errno> {
    let page = page_of(mapping, offset)?;
    let size = page_size() as u64;
    let file = File::open("/proc/self/pagemap").map_err(|error| errno::of_io(&error))?;
    let mut entry = [0; 8];
    file.read_exact_at(&mut entry, page / size * 8)
        .map_err(|error| errno::of_io(&error))?;
    let entry = u64::from_ne_bytes(entry);
    match (entry & PRESENT, entry & FRAME) {
        (0, _) => Err(Errno::ENOENT),
        (_, 0) => Err(Errno::EPERM),
        (_, frame) => Ok(frame * size + offset as u64 % size),
    }
}

/// Address of the page with an offset of a mapping.
fn page_of(mapping: &Mapping, offset: usize) -> Result<u64, Errno> {
    if offset >= mapping.len() {
        return Err(Errno::EINVAL);
    }
    let address = mapping.address() + offset as u64;
    Ok(address - address % page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_on_its_node_once_it_is_there() {
        let page = page_size();
        let mapping = Mapping::anonymous(2 * page as u64).unwrap();
        assert_eq!(node_of(&mapping, 0), Err(Errno::ENOENT));
        assert_eq!(node_of(&mapping, 2 * page), Err(Errno::EINVAL));
        assert_eq!(pin(&mapping, 2 * page).err(), Some(Errno::EINVAL));
        match bind(&mapping, 0) {
            // a kernel without NUMA
            Err(Errno::ENOSYS) => return,
            bound => bound.unwrap(),
        }
        assert_eq!(bind(&mapping, 1 << 20), Err(Errno::EINVAL));
        mapping.write(page + 5, &[7]).unwrap();
        assert_eq!(node_of(&mapping, page + 5), Ok(0));
        assert_eq!(node_of(&mapping, 0), Err(Errno::ENOENT), "the page before");
        let before = physical(&mapping, page + 5);
        if let Ok(address) = before {
            assert_eq!(address % page as u64, 5);
        }
    }
}
