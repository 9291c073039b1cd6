// SPDX-License-Identifier: GPL-2.0-only
//! A variant's state in storage that C provides, and which variant a number names.

use core::mem::{align_of, needs_drop, size_of};

use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{Direction, MemoryType, PageShift, Probe, Region, Variant};
use varia_variants::{AnyVariant, NvgraceGpu};

use crate::types::{self, MEMORY_CACHED, MEMORY_WRITE_COMBINING, NVGRACE_GPU, READ, State, WRITE};

const _: () = assert!(size_of::<AnyVariant>() <= size_of::<State>());
const _: () = assert!(align_of::<AnyVariant>() <= align_of::<State>());
const _: () = assert!(!needs_drop::<AnyVariant>(), "C only frees the storage");

/// What the variant with this number asks.
pub(crate) fn questions(variant: u32) -> Result<&'static [varia_variant::Question], Errno> {
    match variant {
        NVGRACE_GPU => Ok(NvgraceGpu::QUESTIONS),
        _ => Err(Errno::EINVAL),
    }
}

/// Builds the variant with this number.
pub(crate) fn build(
    variant: u32,
    answers: &[varia_variant::Answer],
    environment: varia_variant::Environment,
) -> Result<AnyVariant, Errno> {
    match variant {
        NVGRACE_GPU => Ok(AnyVariant::NvgraceGpu(NvgraceGpu::probe(
            answers,
            environment,
        ))),
        _ => Err(Errno::EINVAL),
    }
}

/// Puts a variant into its storage.
///
/// # Safety
/// `storage` is null or names a `State` that nobody else looks at yet.
pub(crate) unsafe fn store(storage: *mut State, variant: AnyVariant) -> Result<(), Errno> {
    if storage.is_null() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not null, the caller's own; large and aligned enough by the assertions above.
    unsafe { storage.cast::<AnyVariant>().write(variant) };
    Ok(())
}

/// The variant in its storage.
///
/// # Safety
/// `storage` is null or names a state that [`store`] has filled and that outlives `'a`.
pub(crate) unsafe fn variant<'a>(storage: *const State) -> Result<&'a AnyVariant, Errno> {
    // SAFETY: null or filled, by the contract; shared, because all methods take `&self`.
    unsafe { storage.cast::<AnyVariant>().as_ref() }.ok_or(Errno::EINVAL)
}

/// The memory behind a region index; `None` where the base serves it.
pub(crate) fn memory(variant: &AnyVariant, index: u32) -> Option<varia_variant::MemoryRegion> {
    match variant.region(RegionIndex(index)) {
        Region::Memory(region) => Some(region),
        Region::Base => None,
    }
}

/// Reads a struct of the caller's.
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

/// Writes a struct of the caller's.
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
pub(crate) fn direction(number: u32) -> Result<Direction, Errno> {
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
        MemoryType::WriteCombining => MEMORY_WRITE_COMBINING,
    }
}

/// A region for C, in pages of the given size.
pub(crate) fn describe(region: varia_variant::MemoryRegion, page: PageShift) -> types::Region {
    let info = region.info();
    types::Region {
        base: region.base().0,
        length: region.length(),
        size: info.size,
        mappable_offset: info.mappable.0,
        mappable_length: info.mappable.1,
        first_frame: page.frame(region.base()).0,
        frames: region.length() >> page.get(),
        flags: info.flags,
        memory: memory_type(region.memory()),
    }
}
