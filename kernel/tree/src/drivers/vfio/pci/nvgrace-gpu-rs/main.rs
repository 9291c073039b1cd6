// SPDX-License-Identifier: GPL-2.0-only

//! VFIO driver for NVIDIA GPUs whose memory is coherent with the CPU.
//!
//! The decisions are those of the crates `varia_variant` and `varia_variants`; the driver carries
//! them out.
//!
//! - [`state`]: state of a device and of an open device.
//! - [`probe`]: answers to the variant's questions, and the outcome.
//! - [`ready`]: polls with `memory_lock` held.
//! - [`access`], [`config`]: reads and writes.
//! - [`mapping`]: mappings, faults and failed pages.
//! - [`events`], [`poison`], [`show`]: counts, failed pages, and the files of debugfs.
#![forbid(unsafe_code)]

mod access;
mod config;
// The two files are parts of a library elsewhere. An unlocked poll is no event here: it can't be
// written.
#[expect(dead_code, unreachable_pub)]
mod events;
mod mapping;
#[expect(unreachable_pub)]
mod poison;
mod probe;
mod ready;
mod show;
mod state;

use kernel::{
    device,
    mm::{
        fault::FaultResult,
        virt::VmaNew, //
    },
    pci,
    prelude::*,
    vfio::pci::{
        Check,
        DeviceMemory,
        Driver,
        Fault,
        Mapping,
        MemoryGuard,
        Opened,
        Opening,
        RegionInfo,
        Transfer,
        Unlocked, //
    }, //
};
use varia_spec::{
    nvidia::chip,
    vfio::RegionIndex, //
};
use varia_variant::{
    Event,
    Variant, //
};

use events::Counter;
use ready::Wait;
use state::{
    to_error,
    Data,
    Open, //
};

/// Name of the module, of the driver and of its folder in debugfs.
const NAME: &CStr = c"nvgrace_gpu_rs_vfio_pci";

/// `VFIO_DEVICE_RESET` and `VFIO_DEVICE_IOEVENTFD`: `_IO(';', 100 + n)`.
const DEVICE_RESET: u32 = (b';' as u32) << 8 | (100 + 11);
const DEVICE_IOEVENTFD: u32 = (b';' as u32) << 8 | (100 + 16);

/// Number of products that released kernels know, with coherent memory.
const PRODUCTS: usize = {
    let (mut count, mut at) = (0, 0);
    while at < chip::CHIPS.len() {
        let chip = &chip::CHIPS[at];
        let mut sku = 0;
        while chip.coherent.is_some() && sku < chip.skus.len() {
            count += chip.skus[sku].released as usize;
            sku += 1;
        }
        at += 1;
    }
    count
};

/// Their ids.
const IDS: [(pci::DeviceId, ()); PRODUCTS] = {
    let none = pci::DeviceId::from_id_vfio_override(pci::Vendor::NVIDIA, 0);
    let mut ids = [(none, ()); PRODUCTS];
    let (mut next, mut at) = (0, 0);
    while at < chip::CHIPS.len() {
        let chip = &chip::CHIPS[at];
        let mut sku = 0;
        while chip.coherent.is_some() && sku < chip.skus.len() {
            if chip.skus[sku].released {
                let device = chip.skus[sku].device.value as u32;
                ids[next].0 = pci::DeviceId::from_id_vfio_override(pci::Vendor::NVIDIA, device);
                next += 1;
            }
            sku += 1;
        }
        at += 1;
    }
    ids
};

kernel::pci_device_table!(PCI_TABLE, MODULE_PCI_TABLE, (), IDS);

struct NvgraceGpu;

impl Driver for NvgraceGpu {
    type Data = Data;
    type Open = Open;
    type Wait = Wait;

    const NAME: &'static CStr = c"nvgrace-gpu-rs-vfio-pci";
    const ID_TABLE: pci::IdTable<()> = &PCI_TABLE;

    fn probe<'a>(
        pdev: &'a pci::Device<device::Core<'_>>,
        unlocked: Unlocked,
    ) -> impl PinInit<Data, Error> + 'a {
        probe::probe(pdev, unlocked)
    }

    fn registered(pdev: &pci::Device<device::Core<'_>>, data: Pin<&Data>) {
        show::create(pdev, data.get_ref());
    }

    fn unregistered(data: Pin<&Data>) {
        show::remove(data.get_ref());
    }

    fn open(dev: &Opening<'_, Self>) -> Result<Open> {
        let state = &dev.data().state;
        state.count(Counter::Opens);
        state.variant.event(Event::Opened);
        Open::new(dev).inspect_err(|_| state.count(Counter::OpensFailed))
    }

    fn closed(data: &Data) {
        data.state.count(Counter::Closes);
    }

    fn reset_done(data: &Data) {
        data.state.count(Counter::Resets);
        data.state.variant.event(Event::ResetDone);
    }

    fn recovered(data: &Data) {
        data.state.count(Counter::Recoveries);
        data.state.variant.event(Event::ResetDone);
    }

    fn check(dev: &Opened<Self>, memory: &MemoryGuard<'_>, wait: &mut Wait) -> Result<Check> {
        ready::check(dev, memory, wait)
    }

    fn region_info(dev: &Opened<Self>, index: u32) -> Option<RegionInfo> {
        let info = dev.data().state.memory(index)?.info();
        let [area] = info.areas;
        Some(RegionInfo {
            size: info.size,
            flags: info.flags,
            area: (area.offset, area.size),
        })
    }

    fn ioctl(dev: &Opened<Self>, request: u32) -> Result {
        let state = &dev.data().state;
        match request {
            // An eventfd can't write to memory outside the BARs.
            DEVICE_IOEVENTFD if state.has_memory() => Err(ENOTTY),
            DEVICE_RESET => {
                state.count(Counter::ResetsRequested);
                state.variant.event(Event::ResetRequested);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn transfer(transfer: &mut Transfer<'_, Self>) -> Result<usize> {
        let index = transfer.region();
        if index == RegionIndex::CONFIG.0 {
            return config::transfer(transfer);
        }
        match transfer.device().data().state.memory(index) {
            Some(region) => access::transfer(transfer, &region),
            None => transfer.base(),
        }
    }

    fn mmap(dev: &Opened<Self>, vma: &VmaNew) -> Result<Option<Mapping>> {
        mapping::mmap(dev, vma)
    }

    fn fault(fault: Fault<'_, Self>, order: u32) -> FaultResult {
        mapping::fault(fault, order)
    }

    fn locate(dev: &Opened<Self>, frame: usize, page_offset: usize, pages: usize) -> Result<usize> {
        mapping::locate(dev, frame, page_offset, pages).map_err(to_error)
    }

    fn dma_range(dev: &Opened<Self>, index: u32) -> Option<&DeviceMemory> {
        dev.open_state().memory(index)
    }
}

kernel::module_vfio_pci_driver! {
    type: NvgraceGpu,
    name: "nvgrace_gpu_rs_vfio_pci",
    authors: ["The Varia developers"],
    description: "VFIO PCI driver for NVIDIA GPUs with CPU-coherent memory, in Rust",
    license: "GPL v2",
    params: {
        honour_memory_enable: u8 {
            default: 0,
            description: "Fail accesses with EIO while memory is disabled (default: 0)",
        },
        strict: u8 {
            default: 0,
            description: "Fail the probe of a device without its memory (default: 0)",
        },
    },
}
