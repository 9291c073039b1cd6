// SPDX-License-Identifier: GPL-2.0

//! Page frames without a `struct page`, registered so that a memory failure finds who maps them.
//!
//! C header: [`include/linux/memory-failure.h`](srctree/include/linux/memory-failure.h)

use crate::{
    bindings,
    error::to_result,
    mm::virt::VmaRef,
    prelude::*,
    types::Opaque, //
};
use core::marker::PhantomData;

/// Place of page frames in mappings.
pub trait PfnLocator: 'static {
    /// Offset in the file, in pages, at which `vma` maps `frame`; `ENOENT` or another error if the
    /// mapping does not have the frame.
    ///
    /// Called in atomic context: it can't sleep.
    fn locate(vma: &VmaRef, frame: usize) -> Result<usize>;
}

/// A range of page frames that is registered as long as this value lives.
///
/// # Invariants
///
/// `space` is registered, and does not move.
#[pin_data(PinnedDrop)]
pub struct PfnSpace<L: PfnLocator> {
    #[pin]
    space: Opaque<bindings::pfn_address_space>,
    _locator: PhantomData<L>,
}

// SAFETY: Nothing can be done with a registration but to drop it, from any thread.
unsafe impl<L: PfnLocator> Send for PfnSpace<L> {}
// SAFETY: As above.
unsafe impl<L: PfnLocator> Sync for PfnSpace<L> {}

impl<L: PfnLocator> PfnSpace<L> {
    /// Registers `count` frames from `first` on, at least one, which processes map by `mapping`.
    /// `EOPNOTSUPP` if the kernel does not handle memory failures.
    ///
    /// # Safety
    ///
    /// `mapping` is valid until the registration is dropped.
    pub unsafe fn new(
        first: usize,
        count: usize,
        mapping: *mut bindings::address_space,
    ) -> impl PinInit<Self, Error> {
        // INVARIANT: Registered by the initialiser, which fails otherwise, and pinned.
        try_pin_init!(Self {
            space <- Opaque::try_ffi_init(move |slot: *mut bindings::pfn_address_space| {
                let last = count.checked_sub(1).and_then(|more| first.checked_add(more));
                let mut space: bindings::pfn_address_space = pin_init::zeroed();
                space.node.start = first;
                space.node.last = last.ok_or(EINVAL)?;
                space.mapping = mapping;
                space.pfn_to_vma_pgoff = Some(Self::locate_callback);
                // SAFETY: `slot` is valid for writes, and pinned until the drop unregisters it.
                unsafe {
                    slot.write(space);
                    to_result(bindings::register_pfn_address_space(slot))
                }
            }),
            _locator: PhantomData,
        })
    }

    /// # Safety
    ///
    /// The memory-failure handling calls this with a mapping that it has locked.
    unsafe extern "C" fn locate_callback(
        vma: *mut bindings::vm_area_struct,
        frame: c_ulong,
        offset: *mut c_ulong,
    ) -> c_int {
        // SAFETY: The memory-failure handling calls this with a mapping that it has locked.
        match L::locate(unsafe { VmaRef::from_raw(vma) }, frame) {
            Ok(pages) => {
                // SAFETY: `offset` is valid for writes.
                unsafe { offset.write(pages) };
                0
            }
            Err(error) => error.to_errno(),
        }
    }
}

#[pinned_drop]
impl<L: PfnLocator> PinnedDrop for PfnSpace<L> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant.
        unsafe { bindings::unregister_pfn_address_space(self.space.get()) };
    }
}
