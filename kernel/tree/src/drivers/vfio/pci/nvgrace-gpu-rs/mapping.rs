// SPDX-License-Identifier: GPL-2.0-only

//! Mappings of a region, their page faults, and failed pages.

use kernel::{
    mm::{
        fault::FaultResult,
        virt::{
            VmaNew,
            VmaRef, //
        },
    },
    prelude::*,
    vfio::pci::{
        Fault,
        Locked,
        MemoryReady,
        Opened,
        OFFSET_SHIFT, //
    }, //
};
use varia_spec::Errno;
use varia_variant::{
    FaultRequest,
    MmapRequest,
    PageFrame, //
};

use crate::{
    events::Counter,
    poison::{
        Page,
        Reported, //
    },
    ready::{
        self,
        Wait, //
    },
    state::{
        caching,
        to_error,
        State, //
    },
    NvgraceGpu, //
};

/// Region index and offset of a number of pages in the device's file.
fn position(state: &State, page_offset: usize) -> (u32, u64) {
    let position = (page_offset as u64).wrapping_mul(state.page.size());
    let index = u32::try_from(position >> OFFSET_SHIFT).unwrap_or(u32::MAX);
    (index, position & ((1 << OFFSET_SHIFT) - 1))
}

/// Judges a new mapping.
pub(crate) fn mmap(
    dev: &Opened<NvgraceGpu>,
    vma: &VmaNew,
) -> Result<Option<kernel::vfio::pci::Mapping>> {
    let state = &dev.data().state;
    let (index, offset) = position(state, vma.page_offset());
    let Some(region) = state.memory(index) else {
        return Ok(None);
    };
    let mapping = region.mmap(MmapRequest {
        offset,
        len: vma.length() as u64,
        copy_on_write: vma.copies_on_write(),
    });
    state.count(match mapping {
        Ok(_) => Counter::Mmaps,
        Err(_) => Counter::MmapsRefused,
    });
    let mapping = mapping.map_err(to_error)?;
    Ok(Some(kernel::vfio::pci::Mapping {
        caching: caching(mapping.memory),
        allow_uncached: mapping.allow_uncached,
    }))
}

/// Page frame for a fault, whose `1 << order` pages have not failed.
fn frame(state: &State, vma: &VmaRef, address: u64, order: u32) -> varia_variant::Fault {
    let (index, offset) = position(state, vma.page_offset());
    let Some(region) = state.memory(index) else {
        return varia_variant::Fault::Sigbus;
    };
    let fault = region.fault(FaultRequest {
        page: state.page,
        order,
        address,
        start: vma.start() as u64,
        end: vma.end() as u64,
        offset,
    });
    let varia_variant::Fault::Insert(frame) = fault else {
        return fault;
    };
    let first = frame.0.saturating_sub(state.page.frame(region.base()).0);
    let pages = 1_u64.checked_shl(order).unwrap_or(u64::MAX);
    let start = first.saturating_mul(state.page.size());
    let bytes = pages.saturating_mul(state.page.size());
    match state.failed(index, start, bytes) {
        Some(_) => fault.with_failed_page(order),
        None => fault,
    }
}

/// Handles a fault.
pub(crate) fn fault(mut fault: Fault<'_, NvgraceGpu>, order: u32) -> FaultResult {
    let state = fault.device().data().state.clone();
    state.count(Counter::Faults);
    let frame = match frame(&state, fault.vma(), fault.address() as u64, order) {
        varia_variant::Fault::Insert(frame) => frame,
        varia_variant::Fault::Fallback => {
            state.count(Counter::FaultsFallback);
            return FaultResult::FALLBACK;
        }
        varia_variant::Fault::Sigbus => {
            state.count(Counter::FaultsOutside);
            return FaultResult::SIGBUS;
        }
        varia_variant::Fault::Failed => {
            state.count(Counter::FaultsFailed);
            return FaultResult::HWPOISON;
        }
    };
    let mut wait = Wait::of_fault();
    {
        let (raw, dev, unlocked) = fault.parts();
        match ready::lock_once(dev, unlocked, &mut wait) {
            Ok(Locked::Ready(ready)) => return insert(&ready, raw, dev, frame, order),
            Ok(Locked::Sleep(_)) => {}
            Err(_) => return not_ready(&state),
        }
    }
    if fault.may_release() {
        state.count(Counter::FaultsRetried);
        if fault.is_vma_locked() {
            // Linux counts no try for the lock of a mapping: a wait would be followed by another.
            wait.given_up(&state);
            return fault.release_and(|_, _| ());
        }
        return fault.release_and(|dev, unlocked| {
            if let Ok(ready) = ready::lock(dev, unlocked, &mut wait) {
                drop(ready);
                state.count(Counter::Checks);
            }
        });
    }
    if fault.was_tried() {
        // The wait is over.
        wait.given_up(&state);
        return not_ready(&state);
    }
    let (raw, dev, unlocked) = fault.parts();
    match ready::lock(dev, unlocked, &mut wait) {
        Ok(ready) => insert(&ready, raw, dev, frame, order),
        Err(_) => not_ready(&state),
    }
}

fn not_ready(state: &State) -> FaultResult {
    state.count(Counter::FaultsNotReady);
    FaultResult::SIGBUS
}

/// Inserts page frames with the lock held and the device ready.
fn insert(
    ready: &MemoryReady<'_>,
    fault: &kernel::mm::fault::Fault<'_>,
    dev: &Opened<NvgraceGpu>,
    frame: PageFrame,
    order: u32,
) -> FaultResult {
    let state = &dev.data().state;
    let (index, _) = position(state, fault.vma().page_offset());
    let result = dev
        .open_state()
        .memory(index)
        .map_or(FaultResult::SIGBUS, |memory| {
            ready.insert(fault, memory, frame.0 as usize, order)
        });
    state.count(if result.is_inserted() {
        Counter::FaultsServed
    } else {
        Counter::FaultsNotInserted
    });
    result
}

/// Where a mapping has a failed page frame, in pages of the file. Adds the page to the list.
pub(crate) fn locate(
    dev: &Opened<NvgraceGpu>,
    frame: usize,
    page_offset: usize,
    pages: usize,
) -> Result<usize, Errno> {
    let state = &dev.data().state;
    let (index, offset) = position(state, page_offset);
    state.count(Counter::PoisonLookups);
    let region = state.memory(index).ok_or(Errno::EINVAL)?;
    let len = (pages as u64).saturating_mul(state.page.size());
    let bytes = region.locate(state.page, PageFrame(frame as u64), offset, len)?;
    state.count(Counter::PoisonFound);
    let number = offset.saturating_add(bytes) >> state.page.get();
    if let Some(page) = Page::new(index, number) {
        match state.poison.report(page) {
            Reported::New => state.count(Counter::PoisonEntries),
            Reported::Overflow => state.count(Counter::PoisonOverflow),
            Reported::Known => {}
        }
    }
    Ok(page_offset.saturating_add((bytes >> state.page.get()) as usize))
}
