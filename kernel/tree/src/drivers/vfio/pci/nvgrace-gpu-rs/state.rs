// SPDX-License-Identifier: GPL-2.0-only

//! State of a device, and of an open device.

use kernel::{
    new_mutex,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        Instant,
        Monotonic, //
    },
    vfio::pci::{
        Caching,
        DeviceMemory,
        FrameRegistration,
        Opening, //
    }, //
};
use varia_spec::{
    vfio::RegionIndex,
    Errno, //
};
use varia_variant::{
    BarIndex,
    Bytes,
    MemoryRegion,
    MemoryType,
    PageShift,
    Refusal,
    Region,
    Variant, //
};

use crate::{
    events::{
        Counter,
        Counters, //
    },
    poison::{
        Page,
        PoisonList, //
    },
    show::{
        Files,
        Told, //
    },
    NvgraceGpu, //
};

/// Number of region indices that can be BARs.
const BARS: u32 = 6;

/// The error with an errno of the decisions.
pub(crate) fn to_error(errno: Errno) -> Error {
    Error::from_errno(-errno.get())
}

/// The errno of an error, for the decisions.
pub(crate) fn to_errno(error: Error) -> Errno {
    Errno::new(-error.to_errno()).unwrap_or(Errno::EIO)
}

/// How the kernel and a user map memory of a type.
pub(crate) fn caching(memory: MemoryType) -> Caching {
    match memory {
        MemoryType::Cached => Caching::Cached,
        MemoryType::WriteCombining | MemoryType::Registers => Caching::WriteCombining,
    }
}

/// The layout of a device, which never changes, and what changes, in atomics.
pub(crate) struct State {
    /// The decisions.
    pub(crate) variant: varia_variants::NvgraceGpu,
    /// Size of the kernel's pages.
    pub(crate) page: PageShift,
    /// Begin of the device's time.
    start: Instant<Monotonic>,
    /// Counts of events.
    pub(crate) counters: Counters,
    /// Failed pages.
    pub(crate) poison: PoisonList,
}

impl State {
    /// State with nothing counted.
    pub(crate) fn new(variant: varia_variants::NvgraceGpu, page: PageShift) -> Self {
        Self {
            variant,
            page,
            start: Instant::now(),
            counters: Counters::new(),
            poison: PoisonList::new(),
        }
    }

    /// Size of the kernel's pages.
    pub(crate) fn page_shift() -> Result<PageShift> {
        PageShift::new(PAGE_SHIFT as u32).ok_or(EINVAL)
    }

    /// Time since the device was probed.
    pub(crate) fn now(&self) -> varia_variant::Monotonic {
        varia_variant::Monotonic(self.start.elapsed().as_millis().max(0) as u64)
    }

    /// Adds 1 to a count.
    pub(crate) fn count(&self, counter: Counter) {
        self.counters.add(counter);
    }

    /// The memory behind a region index; [`None`] for a region of `vfio_pci_core`.
    pub(crate) fn memory(&self, index: u32) -> Option<MemoryRegion> {
        if index >= BARS {
            return None;
        }
        match self.variant.region(RegionIndex(index)) {
            Region::Memory(region) => Some(region),
            Region::Base | Region::Absent | Region::Registers(_) | Region::Composed(_) => None,
        }
    }

    /// True if a region is memory.
    pub(crate) fn has_memory(&self) -> bool {
        (0..BARS).any(|index| self.memory(index).is_some())
    }

    /// The regions that are memory, with their indices.
    pub(crate) fn memories(&self) -> impl Iterator<Item = (u32, MemoryRegion)> + '_ {
        (0..BARS).filter_map(|index| Some((index, self.memory(index)?)))
    }

    /// Bytes from `offset` of region `index` up to the first failed page among `len` bytes;
    /// [`None`] if none of these pages has failed.
    pub(crate) fn failed(&self, index: u32, offset: u64, len: u64) -> Option<u64> {
        let shift = self.page.get();
        let last = offset.saturating_add(len.saturating_sub(1));
        let first = Page::new(index, offset >> shift)?;
        let last = Page::new(index, last >> shift).unwrap_or(first.last());
        let failed = self.poison.first_in(first, last)?;
        Some((failed.number() << shift).saturating_sub(offset))
    }
}

/// State of a device, in the structure that `vfio_pci_core` has of it.
#[pin_data]
pub(crate) struct Data {
    /// Shared with the files of debugfs.
    pub(crate) state: Arc<State>,
    /// From the registration to its end.
    #[pin]
    pub(crate) files: Mutex<Option<Files>>,
}

impl Data {
    /// State of a device without files.
    pub(crate) fn new(state: Arc<State>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            state,
            files <- new_mutex!(None),
        })
    }
}

/// Memory of a region, claimed as long as the device is open.
struct Claimed {
    // Dropped first.
    frames: Option<FrameRegistration<NvgraceGpu>>,
    memory: DeviceMemory,
    state: Arc<State>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.frames.take().is_some() {
            self.state.count(Counter::PagesUnregistered);
        }
        if self.memory.is_mapped() {
            self.state.count(Counter::MemoryUnmapped);
        }
        self.state.count(Counter::MemoryReleased);
    }
}

/// State of an open device.
pub(crate) struct Open {
    memory: [Option<Claimed>; BARS as usize],
}

impl Open {
    /// Checks that polls can read BAR0, claims the memory and registers its page frames.
    pub(crate) fn new(dev: &Opening<'_, NvgraceGpu>) -> Result<Self> {
        let state = &dev.data().state;
        let mut open = Self {
            memory: [const { None }; BARS as usize],
        };
        if state.variant.needs_bar(BarIndex::BAR0) {
            dev.bar(0)?;
        }
        for (index, place) in (0..BARS).zip(&mut open.memory) {
            if let Some(region) = state.memory(index) {
                *place = Some(Self::claim(dev, &region)?);
            }
        }
        Ok(open)
    }

    fn claim(dev: &Opening<'_, NvgraceGpu>, region: &MemoryRegion) -> Result<Claimed> {
        let state = &dev.data().state;
        let memory = DeviceMemory::new(dev.pci(), region.base().0, region.length());
        let memory = memory.map_err(|_| {
            let refusal = Refusal::Claimed {
                name: region.name(),
                base: region.base(),
                length: Bytes(region.length()),
            };
            dev_err!(dev.pci(), "{}\n", Told(refusal));
            to_error(refusal.errno())
        })?;
        state.count(Counter::MemoryClaimed);
        let mut claimed = Claimed {
            frames: None,
            memory,
            state: state.clone(),
        };
        claimed.frames = dev.register_frames(&claimed.memory)?;
        if claimed.frames.is_some() {
            state.count(Counter::PagesRegistered);
        }
        Ok(claimed)
    }

    /// Memory of a region.
    pub(crate) fn memory(&self, index: u32) -> Option<&DeviceMemory> {
        let place = self.memory.get(usize::try_from(index).ok()?)?;
        place.as_ref().map(|claimed| &claimed.memory)
    }
}
