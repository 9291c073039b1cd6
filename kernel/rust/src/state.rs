// SPDX-License-Identifier: GPL-2.0-only
//! The state of the module's variant in storage that C provides.

use core::{
    mem::{align_of, needs_drop, size_of},
    ptr,
};

use varia_module::Served;
use varia_spec::{
    Errno,
    vfio::{RegionIndex, region_cap},
};
use varia_variant::{Direction, MemoryType, PageShift, Region, Variant};

use crate::{
    counters::Counters,
    poison::{Page, PoisonList},
    types::{
        self, MEMORY_CACHED, MEMORY_WRITE_COMBINING, OFFSET_SHIFT, READ, REGIONS, State, WRITE,
    },
};

const _: () = assert!(size_of::<Instance>() <= size_of::<State>());
const _: () = assert!(align_of::<Instance>() <= align_of::<State>());
const _: () = assert!(!needs_drop::<Instance>(), "C only frees the storage");

/// State of one device.
#[derive(Debug)]
pub(crate) struct Instance {
    /// The variant.
    pub(crate) variant: Served,
    /// The kernel's base page size.
    pub(crate) page: PageShift,
    /// Counts of events.
    pub(crate) counters: Counters,
    /// List of failed pages.
    pub(crate) poison: PoisonList,
}

impl Instance {
    /// Bytes from `offset` of region `index` up to the first failed page among `len` bytes; `None` if
    /// none of these pages has failed.
    pub(crate) fn failed(&self, index: u32, offset: u64, len: u64) -> Option<u64> {
        let shift = self.page.get();
        let last = offset.saturating_add(len.saturating_sub(1));
        let first = Page::new(index, offset >> shift)?;
        // What lies beyond the pages of any region has not failed.
        let last = Page::new(index, last >> shift).unwrap_or(first.last());
        let failed = self.poison.first_in(first, last)?;
        Some((failed.number() << shift).saturating_sub(offset))
    }
}

/// Fills in the storage. It is too large to be built on a kernel's stack.
///
/// # Safety
/// `storage` is null or names a `State` that no other code reads yet.
pub(crate) unsafe fn store(
    storage: *mut State,
    variant: Served,
    page: PageShift,
) -> Result<(), Errno> {
    if storage.is_null() {
        return Err(Errno::EINVAL);
    }
    let instance = storage.cast::<Instance>();
    // SAFETY: not null, the caller's own; large and aligned enough by the assertions above. Zero
    // bytes are counters and a list at their beginning: atomic integers and nothing else.
    unsafe {
        ptr::addr_of_mut!((*instance).counters).write_bytes(0, 1);
        ptr::addr_of_mut!((*instance).poison).write_bytes(0, 1);
        ptr::addr_of_mut!((*instance).page).write(page);
        ptr::addr_of_mut!((*instance).variant).write(variant);
    }
    Ok(())
}

/// State in the storage.
///
/// # Safety
/// `storage` is null or names a state that [`store`] has filled and that outlives `'a`.
pub(crate) unsafe fn instance<'a>(storage: *const State) -> Result<&'a Instance, Errno> {
    // SAFETY: null or filled, by the contract; shared, because all methods take `&self`.
    unsafe { storage.cast::<Instance>().as_ref() }.ok_or(Errno::EINVAL)
}

/// The variant in its storage.
///
/// # Safety
/// As for [`instance`].
pub(crate) unsafe fn variant<'a>(storage: *const State) -> Result<&'a Served, Errno> {
    // SAFETY: by the same contract.
    unsafe { instance(storage) }.map(|instance| &instance.variant)
}

/// The region index and the offset in a position in the device's file.
pub(crate) fn position(position: u64) -> (u32, u64) {
    let index = u32::try_from(position >> OFFSET_SHIFT).unwrap_or(u32::MAX);
    (index, position & ((1 << OFFSET_SHIFT) - 1))
}

/// The memory behind a region index; `None` where the base serves it.
pub(crate) fn memory(variant: &Served, index: u32) -> Option<varia_variant::MemoryRegion> {
    if !usize::try_from(index).is_ok_and(|index| index < REGIONS) {
        return None;
    }
    match variant.region(RegionIndex(index)) {
        Region::Memory(region) => Some(region),
        Region::Base | Region::Absent | Region::Registers(_) | Region::Composed(_) => None,
    }
}

/// `ENOTTY` unless vfio-pci-core may serve `VFIO_DEVICE_IOEVENTFD`: an eventfd can't write to
/// memory outside the BARs (Linux 7.2 `nvgrace-gpu/main.c:nvgrace_gpu_ioctl`).
pub(crate) fn ioeventfd(variant: &Served) -> Result<(), Errno> {
    if (0..RegionIndex::COUNT).any(|index| memory(variant, index).is_some()) {
        Err(Errno::ENOTTY)
    } else {
        Ok(())
    }
}

/// Reads a struct of the caller.
///
/// # Safety
/// `pointer` is null or names a value.
pub(crate) unsafe fn read<T: Copy>(pointer: *const T) -> Result<T, Errno> {
    if pointer.is_null() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not null, so it names a value, by the contract.
    Ok(unsafe { pointer.read() })
}

/// Struct of the caller, to be changed in place.
///
/// # Safety
/// `pointer` is null or names a value that is the caller's own and outlives `'a`.
pub(crate) unsafe fn exclusive<'a, T: Copy>(pointer: *mut T) -> Result<&'a mut T, Errno> {
    // SAFETY: null or a value that no other code reads or writes, by the contract.
    unsafe { pointer.as_mut() }.ok_or(Errno::EINVAL)
}

/// Writes a struct of the caller.
///
/// # Safety
/// `pointer` is null or names room for a value that is the caller's own.
pub(crate) unsafe fn write<T: Copy>(pointer: *mut T, value: T) -> Result<(), Errno> {
    if pointer.is_null() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not null, so it names room for a value, by the contract.
    unsafe { pointer.write(value) };
    Ok(())
}

/// 0 or a negative errno.
pub(crate) fn result(outcome: Result<(), Errno>) -> i32 {
    value(outcome.map(|()| 0))
}

/// A number or a negative errno.
pub(crate) fn value(outcome: Result<i32, Errno>) -> i32 {
    match outcome {
        Ok(value) => value,
        Err(errno) => -errno.get(),
    }
}

/// A direction from C.
pub(crate) fn direction_from(number: u32) -> Result<Direction, Errno> {
    match number {
        READ => Ok(Direction::Read),
        WRITE => Ok(Direction::Write),
        _ => Err(Errno::EINVAL),
    }
}

/// A page shift from C.
pub(crate) fn page_shift(shift: u32) -> Result<PageShift, Errno> {
    PageShift::new(shift).ok_or(Errno::EINVAL)
}

/// A memory type for C.
pub(crate) fn memory_type(memory: MemoryType) -> u32 {
    match memory {
        MemoryType::Cached => MEMORY_CACHED,
        MemoryType::WriteCombining | MemoryType::Registers => MEMORY_WRITE_COMBINING,
    }
}

/// A region for C, in pages of the given size.
pub(crate) fn describe(region: varia_variant::MemoryRegion, page: PageShift) -> types::Region {
    let info = region.info();
    let [area] = info.areas;
    types::Region {
        base: region.base().0,
        length: region.length(),
        size: info.size,
        sparse: types::Sparse {
            id: region_cap::SPARSE_MMAP,
            version: region_cap::VERSION,
            next: 0,
            nr_areas: 1,
            reserved: 0,
            offset: area.offset,
            size: area.size,
        },
        first_frame: page.frame(region.base()).0,
        frames: region.length() >> page.get(),
        flags: info.flags,
        memory: memory_type(region.memory()),
    }
}
