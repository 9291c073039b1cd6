// SPDX-License-Identifier: GPL-2.0

//! Drivers of VFIO PCI devices, over `vfio_pci_core`.
//!
//! A driver implements [`Driver`]. What it leaves out, `vfio_pci_core` does. A device has two
//! states of the driver's: [`Driver::Data`] lies in the device itself and lives as long as the
//! device; [`Driver::Open`] lives from open to close, and only operations of an open device get
//! it.
//!
//! Device memory is touched and inserted into mappings with `memory_lock` held, and with the
//! driver's own check passed while the lock is held. [`MemoryReady`] stands for both, and there is
//! no other way to get at the memory.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use crate::{
    device,
    mm::{
        fault::FaultResult,
        virt::VmaNew, //
    },
    pci,
    prelude::*, //
};

mod adapter;
mod bar;
mod device_memory;
mod instance;
mod memory;
mod operations;
mod transfer;

pub use self::{
    adapter::Adapter,
    bar::{
        Bar,
        ProbeBar, //
    },
    device_memory::{
        is_system_ram,
        last_physical_address,
        Caching,
        DeviceMemory, //
    },
    instance::{
        FrameRegistration,
        Opened,
        Opening,
        PowerGuard, //
    },
    memory::{
        Check,
        Fault,
        Locked,
        MemoryEnabled,
        MemoryGuard,
        MemoryReady,
        Unlocked, //
    },
    transfer::{
        Direction,
        Transfer,
        UserBuffer, //
    },
};

/// Bits of a position in the device's file that are the offset in a region.
pub const OFFSET_SHIFT: u32 = crate::bindings::VFIO_PCI_OFFSET_SHIFT;

/// A region that the driver describes to the user.
#[derive(Clone, Copy)]
pub struct RegionInfo {
    /// Size in bytes.
    pub size: u64,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// The one area that can be mapped: offset and size in bytes.
    pub area: (u64, u64),
}

/// Attributes of a mapping whose faults the driver handles.
#[derive(Clone, Copy)]
pub struct Mapping {
    /// Caching of the memory.
    pub caching: Caching,
    /// True if a hypervisor may let its guest map the memory uncached.
    pub allow_uncached: bool,
}

/// A driver of VFIO PCI devices.
///
/// Operations of one device run in parallel, so they share the states; what changes in a state is
/// atomic or has a lock of its own.
pub trait Driver: Sized + 'static {
    /// State of a device, from its probe to the last user of the device.
    type Data: Send + Sync;

    /// State of an open device.
    type Open: Send + Sync;

    /// A wait of one operation for the device, over all its polls.
    type Wait: Default;

    /// Name of the driver in VFIO.
    const NAME: &'static CStr;

    /// The ids that the driver knows.
    const ID_TABLE: pci::IdTable<()>;

    /// Makes the state of a device. The device has no users yet.
    fn probe<'a>(
        pdev: &'a pci::Device<device::Core<'_>>,
        unlocked: Unlocked,
    ) -> impl PinInit<Self::Data, Error> + 'a;

    /// The device is registered: users can open it.
    fn registered(pdev: &pci::Device<device::Core<'_>>, data: Pin<&Self::Data>) {
        let _ = (pdev, data);
    }

    /// The device is not registered any more, and nobody has it open.
    fn unregistered(data: Pin<&Self::Data>) {
        let _ = data;
    }

    /// The device is being opened: `vfio_pci_core` has enabled it. If this fails, the open fails.
    fn open(dev: &Opening<'_, Self>) -> Result<Self::Open>;

    /// The device has been closed; the state of the open device is gone.
    fn closed(data: &Self::Data) {
        let _ = data;
    }

    /// The device has been reset, by whatever means. No lock is held.
    fn reset_done(data: &Self::Data) {
        let _ = data;
    }

    /// The device has recovered from an error on its link.
    fn recovered(data: &Self::Data) {
        let _ = data;
    }

    /// Judges, with `memory_lock` held, whether the device's memory can be used.
    fn check(dev: &Opened<Self>, memory: &MemoryGuard<'_>, wait: &mut Self::Wait) -> Result<Check> {
        let _ = (dev, memory, wait);
        Ok(Check::Ready)
    }

    /// Info of a region; [`None`] for the one of `vfio_pci_core`.
    fn region_info(dev: &Opened<Self>, index: u32) -> Option<RegionInfo> {
        let _ = (dev, index);
        None
    }

    /// An ioctl is about to be carried out by `vfio_pci_core`, unless this fails.
    fn ioctl(dev: &Opened<Self>, request: u32) -> Result {
        let _ = (dev, request);
        Ok(())
    }

    /// Reads or writes the device's file; returns the number of bytes.
    fn transfer(transfer: &mut Transfer<'_, Self>) -> Result<usize> {
        transfer.base()
    }

    /// Judges a new mapping; [`None`] leaves it to `vfio_pci_core`.
    fn mmap(dev: &Opened<Self>, vma: &VmaNew) -> Result<Option<Mapping>> {
        let _ = (dev, vma);
        Ok(None)
    }

    /// Handles a fault, at `1 << order` pages, of a mapping that [`Driver::mmap`] has accepted.
    fn fault(fault: Fault<'_, Self>, order: u32) -> FaultResult {
        let _ = (fault, order);
        FaultResult::SIGBUS
    }

    /// Offset in the file, in pages, at which a mapping of `pages` pages at `page_offset` has a
    /// page frame that has failed. Called in atomic context.
    fn locate(dev: &Opened<Self>, frame: usize, page_offset: usize, pages: usize) -> Result<usize> {
        let _ = (dev, frame, page_offset, pages);
        Err(ENOENT)
    }

    /// A VFIO feature of the device is about to be served by `vfio_pci_core`, unless this fails.
    fn feature(dev: &Opened<Self>, flags: u32) -> Result {
        let _ = (dev, flags);
        Ok(())
    }

    /// Memory that a dma-buf of a region exports; [`None`] for the BAR of `vfio_pci_core`.
    fn dma_range(dev: &Opened<Self>, index: u32) -> Option<&DeviceMemory> {
        let _ = (dev, index);
        None
    }
}

/// Declares a kernel module with one driver of VFIO PCI devices.
#[macro_export]
macro_rules! module_vfio_pci_driver {
    ($($f:tt)*) => {
        $crate::module_driver!(<T>, $crate::vfio::pci::Adapter<T>, { $($f)* });
    };
}
