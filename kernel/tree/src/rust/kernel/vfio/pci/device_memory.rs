// SPDX-License-Identifier: GPL-2.0

//! Device memory outside every BAR.

use super::{
    MemoryReady,
    UserBuffer, //
};
use crate::{
    bindings,
    page::PAGE_SHIFT,
    prelude::*,
    str::CString,
    sync::atomic::{
        ordering::{
            Acquire,
            Full, //
        },
        Atomic, //
    }, //
};
use core::ptr;

/// Caching of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// Write-back.
    Cached,
    /// Uncached, with write combining.
    WriteCombining,
}

/// The last physical address that the CPU can reach.
pub fn last_physical_address() -> u64 {
    // SAFETY: Always safe to call.
    unsafe { bindings::last_physical_address() }
}

/// True if the kernel uses a part of the range as RAM.
pub fn is_system_ram(base: u64, length: u64) -> bool {
    // SAFETY: Always safe to call; the table of resources has a lock of its own.
    let overlap = unsafe {
        bindings::region_intersects(
            base,
            length as usize,
            bindings::IORESOURCE_SYSTEM_RAM as usize,
            bindings::IORES_DESC_NONE as usize,
        )
    };
    overlap != bindings::REGION_DISJOINT as c_int
}

/// Device memory: a range of physical memory that is claimed in the kernel's table of resources,
/// and is no RAM.
///
/// # Invariants
///
/// - `base..base + length` is claimed by this value, in its name, and does not overflow.
/// - `mapping` is null, or one of the whole range that `memremap` has returned; then it stays.
pub struct DeviceMemory {
    /// Mapping for the kernel's own accesses; null as long as there is none. There are no
    /// references into it. Accesses that race, race on the device's memory, as those of other users
    /// do.
    mapping: Atomic<*mut c_void>,
    base: u64,
    length: u64,
    // The table of resources refers to it until the range is released.
    _name: CString,
}

impl DeviceMemory {
    /// Claims a range under the name of a device; `EBUSY` if the kernel has a part of it as RAM, or
    /// another part of the kernel has claimed a part of it.
    pub fn new(dev: &crate::pci::Device, base: u64, length: u64) -> Result<Self> {
        base.checked_add(length).ok_or(EOVERFLOW)?;
        if is_system_ram(base, length) {
            return Err(EBUSY);
        }
        let name = CString::try_from(AsRef::<crate::device::Device>::as_ref(dev).name())?;
        // SAFETY: The name lives until the range is released, or for good if that never happens.
        let claim = unsafe { bindings::request_mem_region(base, length, name.as_char_ptr()) };
        if claim.is_null() {
            return Err(EBUSY);
        }
        // INVARIANT: Just claimed.
        Ok(Self {
            mapping: Atomic::new(ptr::null_mut()),
            base,
            length,
            _name: name,
        })
    }

    /// First address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// True if `1 << order` page frames from `frame` on are in the range, and the first is aligned
    /// to their number.
    pub(super) fn has_frames(&self, frame: usize, order: u32) -> bool {
        let Some(count) = 1_usize.checked_shl(order) else {
            return false;
        };
        let (first, all) = self.frames();
        let Some(before) = frame.checked_sub(first) else {
            return false;
        };
        frame % count == 0 && all >= count && before <= all - count
    }

    /// Page frames that are whole in the range: the first, and how many.
    pub(super) fn frames(&self) -> (usize, usize) {
        let first = self.base.div_ceil(1 << PAGE_SHIFT);
        let end = (self.base + self.length) >> PAGE_SHIFT;
        (first as usize, end.saturating_sub(first) as usize)
    }

    /// True once the memory is mapped for the kernel's own accesses.
    pub fn is_mapped(&self) -> bool {
        !self.mapping.load(Acquire).is_null()
    }

    /// Maps the memory for the kernel's own accesses, unless it is mapped. Of two racing maps one
    /// is kept: true for it. The memory is mapped for the other as well.
    pub fn map(&self, caching: Caching) -> Result<bool> {
        if self.is_mapped() {
            return Ok(false);
        }
        let flags = match caching {
            Caching::Cached => bindings::MEMREMAP_WB,
            Caching::WriteCombining => bindings::MEMREMAP_WC,
        };
        // SAFETY: By the type invariant the range is claimed; it is no RAM.
        let address =
            unsafe { bindings::memremap(self.base, self.length as usize, flags as usize) };
        if address.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Just mapped, and only in the place of a null.
        if self
            .mapping
            .cmpxchg(ptr::null_mut(), address, Full)
            .is_err()
        {
            // SAFETY: Just mapped, and nothing else knows the address.
            unsafe { bindings::memunmap(address) };
            return Ok(false);
        }
        Ok(true)
    }

    /// Address of `len` bytes at `offset`; `ENXIO` if the memory is not mapped.
    fn at(&self, offset: u64, len: usize) -> Result<*mut u8> {
        let end = offset.checked_add(len as u64).ok_or(EINVAL)?;
        let mapped = self.mapping.load(Acquire);
        if mapped.is_null() {
            return Err(ENXIO);
        }
        if end > self.length {
            return Err(EINVAL);
        }
        // SAFETY: The mapping has `length` bytes.
        Ok(unsafe { mapped.cast::<u8>().add(offset as usize) })
    }

    /// Copies to or from the user, up to the first page of the user's that is missing; returns the
    /// number of bytes. For cached memory, in any width.
    pub fn copy_user(
        &self,
        _ready: &MemoryReady<'_>,
        offset: u64,
        user: UserBuffer<'_>,
    ) -> Result<usize> {
        let at = self.at(offset, user.len())?;
        // SAFETY: `at` names as many bytes of device memory.
        Ok(unsafe { user.copy_inatomic(at) })
    }

    /// Copies from the memory, in any width.
    pub fn read(&self, _ready: &MemoryReady<'_>, offset: u64, out: &mut [u8]) -> Result {
        let at = self.at(offset, out.len())?;
        // SAFETY: `at` names as many bytes of device memory, which overlaps no Rust object.
        unsafe { ptr::copy_nonoverlapping(at, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies to the memory, in any width.
    pub fn write(&self, _ready: &MemoryReady<'_>, offset: u64, data: &[u8]) -> Result {
        let at = self.at(offset, data.len())?;
        // SAFETY: `at` names as many bytes of device memory, which overlaps no Rust object.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), at, data.len()) };
        Ok(())
    }

    /// Reads in accesses of `width` bytes (1, 2, 4 or 8), each ordered after the one before.
    /// `EINVAL`
    /// if address or length is no multiple of the width.
    pub fn read_ordered(
        &self,
        _ready: &MemoryReady<'_>,
        offset: u64,
        width: usize,
        out: &mut [u8],
    ) -> Result {
        let mut at = self.ordered(offset, width, out.len())?;
        for bytes in out.chunks_exact_mut(width) {
            // SAFETY: `at` is inside the mapping and aligned, by `ordered`.
            let value = unsafe {
                match width {
                    8 => bindings::readq(at),
                    4 => bindings::readl(at).into(),
                    2 => bindings::readw(at).into(),
                    _ => bindings::readb(at).into(),
                }
            };
            for (byte, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *byte = from;
            }
            at = at.wrapping_byte_add(width);
        }
        Ok(())
    }

    /// Writes as [`DeviceMemory::read_ordered`] reads.
    pub fn write_ordered(
        &self,
        _ready: &MemoryReady<'_>,
        offset: u64,
        width: usize,
        data: &[u8],
    ) -> Result {
        let mut at = self.ordered(offset, width, data.len())?;
        for bytes in data.chunks_exact(width) {
            let mut value = [0; 8];
            for (to, byte) in value.iter_mut().zip(bytes) {
                *to = *byte;
            }
            let value = u64::from_le_bytes(value);
            // SAFETY: `at` is inside the mapping and aligned, by `ordered`.
            unsafe {
                match width {
                    8 => bindings::writeq(value, at),
                    4 => bindings::writel(value as u32, at),
                    2 => bindings::writew(value as u16, at),
                    _ => bindings::writeb(value as u8, at),
                }
            }
            at = at.wrapping_byte_add(width);
        }
        Ok(())
    }

    /// Address for accesses of `width` bytes.
    fn ordered(&self, offset: u64, width: usize, len: usize) -> Result<*mut c_void> {
        let aligned = matches!(width, 1 | 2 | 4 | 8) && len % width == 0;
        if !aligned {
            return Err(EINVAL);
        }
        let at = self.at(offset, len)?;
        if at.addr() % width != 0 {
            return Err(EINVAL);
        }
        Ok(at.cast())
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let mapping = *self.mapping.get_mut();
        // SAFETY: By the type invariants.
        unsafe {
            if !mapping.is_null() {
                bindings::memunmap(mapping);
            }
            bindings::__release_region(&raw mut bindings::iomem_resource, self.base, self.length);
        }
    }
}
