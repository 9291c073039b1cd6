// SPDX-License-Identifier: GPL-2.0

//! Page faults of a mapping whose page frames a driver inserts.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use super::virt::VmaRef;
use crate::{
    bindings,
    page::PAGE_SHIFT, //
};
use core::{
    cell::Cell,
    ptr::NonNull, //
};

/// Result of a fault, as the memory manager takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct FaultResult(bindings::vm_fault_t);

impl FaultResult {
    /// The fault is to be tried again with a smaller order.
    pub const FALLBACK: Self = Self(bindings::vm_fault_reason_VM_FAULT_FALLBACK);
    /// Nothing backs the address.
    pub const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);
    /// The page of the address has failed.
    pub const HWPOISON: Self = Self(bindings::vm_fault_reason_VM_FAULT_HWPOISON);
    /// The locks of the fault were released. It does not tell the memory manager so: [`handle`]
    /// does, whatever the handler's result is.
    const RETRY: Self = Self(bindings::vm_fault_reason_VM_FAULT_RETRY);

    /// Result of a C function.
    ///
    /// # Safety
    ///
    /// `raw` is what a function returned that inserts page frames.
    pub unsafe fn from_raw(raw: bindings::vm_fault_t) -> Self {
        Self(raw)
    }

    /// True if page frames have been inserted.
    pub const fn is_inserted(self) -> bool {
        self.0 & bindings::vm_fault_reason_VM_FAULT_NOPAGE != 0
    }
}

/// Handles a fault at `1 << order` pages with `handler`; returns what the memory manager takes.
///
/// The memory manager is told to try again if, and only if, the locks of this fault were released.
/// It takes no request for a smaller order from a fault at one page.
///
/// # Safety
///
/// The memory manager has called a fault handler with `vmf`, at this order, and the result is the
/// handler's.
pub unsafe fn handle(
    vmf: NonNull<bindings::vm_fault>,
    order: u32,
    handler: impl FnOnce(Fault<'_>) -> FaultResult,
) -> bindings::vm_fault_t {
    let released = Cell::new(false);
    // INVARIANT: By the safety requirements.
    let result = handler(Fault {
        vmf,
        order,
        released: &released,
    });
    match result {
        _ if released.get() => FaultResult::RETRY.0,
        FaultResult::RETRY => FaultResult::SIGBUS.0,
        FaultResult::FALLBACK if order == 0 => FaultResult::SIGBUS.0,
        result => result.0,
    }
}

/// A page fault that is being handled, with the lock of the mapping or of the memory map held.
///
/// # Invariants
///
/// `vmf` is valid for `'a`, is a fault at `1 << order` pages, and one of the two locks is held for
/// reading. `released` belongs to the call of [`handle`] for this fault.
pub struct Fault<'a> {
    vmf: NonNull<bindings::vm_fault>,
    order: u32,
    released: &'a Cell<bool>,
}

impl Fault<'_> {
    /// The pointer for C.
    pub fn as_ptr(&self) -> *mut bindings::vm_fault {
        self.vmf.as_ptr()
    }

    fn flags(&self) -> bindings::fault_flag {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).flags }
    }

    /// The mapping.
    pub fn vma(&self) -> &VmaRef {
        // SAFETY: By the type invariant the mapping is valid and one of its locks is held.
        unsafe { VmaRef::from_raw((*self.as_ptr()).__bindgen_anon_1.vma) }
    }

    /// Address of the fault, at the beginning of its page.
    pub fn address(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).__bindgen_anon_1.address }
    }

    /// True if `1 << order` page frames can be inserted for the fault: the order is 0 or that of
    /// the fault, and the mapping has the whole block of the address.
    pub fn takes(&self, order: u32) -> bool {
        if order != 0 && order != self.order {
            return false;
        }
        let Some(size) = 1_usize.checked_shl(order + PAGE_SHIFT as u32) else {
            return false;
        };
        let (vma, start) = (self.vma(), self.address() & !(size - 1));
        start >= vma.start() && start.checked_add(size).is_some_and(|end| end <= vma.end())
    }

    /// True if the fault holds the lock of its mapping alone.
    pub fn is_vma_locked(&self) -> bool {
        self.flags() & bindings::fault_flag_FAULT_FLAG_VMA_LOCK != 0
    }

    /// True if the fault has been tried before with the lock of the memory map.
    pub fn was_tried(&self) -> bool {
        self.flags() & bindings::fault_flag_FAULT_FLAG_TRIED != 0
    }

    /// True if the fault may release its locks, wait, and be tried again.
    pub fn may_release(&self) -> bool {
        self.flags() & bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY != 0
            && self.flags() & bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT == 0
            && !self.was_tried()
    }

    /// Releases the locks, calls `wait`, and has the fault tried again. Neither the fault nor its
    /// mapping can be used afterwards, so the fault is taken by value. The mapping's file outlives
    /// `wait`.
    ///
    /// The fault is tried again whatever the handler then returns. Without [`Fault::may_release`]
    /// nothing is released, and the result is [`FaultResult::SIGBUS`].
    pub fn release_and(self, wait: impl FnOnce()) -> FaultResult {
        if !self.may_release() {
            return FaultResult::SIGBUS;
        }
        // SAFETY: By the type invariant the mapping is valid, and so is its file, which a driver's
        // mapping has.
        let file = unsafe {
            let vma = (*self.as_ptr()).__bindgen_anon_1.vma;
            bindings::get_file((*vma).vm_file)
        };
        // SAFETY: By the type invariant the lock is held. `self` is consumed, so nothing relies on
        // the lock afterwards.
        unsafe { bindings::release_fault_lock(self.as_ptr()) };
        self.released.set(true);
        wait();
        // SAFETY: The reference was taken above.
        unsafe { bindings::fput(file) };
        FaultResult::RETRY
    }
}

impl VmaRef {
    /// Offset of the mapping's start in its file, in pages.
    pub fn page_offset(&self) -> usize {
        // SAFETY: By the type invariants at least a read lock is held.
        unsafe { (*self.as_ptr()).vm_pgoff }
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.end() - self.start()
    }

    /// True if a write to the mapping would want a copy of the page.
    pub fn copies_on_write(&self) -> bool {
        use super::virt::flags::{MAYWRITE, SHARED};
        self.flags() & (SHARED | MAYWRITE) == MAYWRITE
    }
}
