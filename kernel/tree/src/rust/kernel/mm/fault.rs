// SPDX-License-Identifier: GPL-2.0

//! Page faults of a mapping whose page frames a driver inserts.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use super::virt::VmaRef;
use crate::bindings;
use core::{
    marker::PhantomData,
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
    /// The locks of the fault were released. Only [`Fault::release_and`] makes this result.
    const RETRY: Self = Self(bindings::vm_fault_reason_VM_FAULT_RETRY);

    /// Result of a C function.
    pub(crate) const fn from_raw(raw: bindings::vm_fault_t) -> Self {
        Self(raw)
    }

    /// The number that C takes.
    pub(crate) const fn into_raw(self) -> bindings::vm_fault_t {
        self.0
    }

    /// True if page frames have been inserted.
    pub const fn is_inserted(self) -> bool {
        self.0 & bindings::vm_fault_reason_VM_FAULT_NOPAGE != 0
    }
}

/// A page fault that is being handled, with the lock of the mapping or of the memory map held.
///
/// # Invariants
///
/// `vmf` is valid for `'a`, and one of the two locks is held for reading.
pub struct Fault<'a> {
    vmf: NonNull<bindings::vm_fault>,
    _fault: PhantomData<&'a mut bindings::vm_fault>,
}

impl<'a> Fault<'a> {
    /// The fault behind a pointer of C.
    ///
    /// # Safety
    ///
    /// `vmf` is that of a fault handler that is being called, and its locks are held for `'a`
    /// unless [`Fault::release_and`] releases them.
    pub(crate) unsafe fn from_raw(vmf: NonNull<bindings::vm_fault>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            vmf,
            _fault: PhantomData,
        }
    }

    /// The pointer for C.
    pub(crate) fn as_ptr(&self) -> *mut bindings::vm_fault {
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
    /// Without [`Fault::may_release`] nothing is released, and the result is
    /// [`FaultResult::SIGBUS`].
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
