//! The device that a server serves, behind one trait.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use varia_spec::errno::Errno;
use varia_spec::vfio::{DeviceCapability, DeviceInfo, IrqAction, IrqInfo};
use varia_sys::event::EventFd;

use crate::reach::Reach;

pub use crate::command::{ReadableFeature, RegionInfo};

/// A region that a device offers.
#[derive(Debug, Default)]
pub struct OfferedRegion {
    /// The region's info.
    pub info: RegionInfo,
    /// Descriptor for a client to map, and the offset of the region's first byte in it.
    /// `VFIO_REGION_INFO_FLAG_MMAP` without a descriptor is taken back.
    pub file: Option<(OwnedFd, u64)>,
}

/// Data of a request to set interrupts, as it was received: one value for each interrupt of the
/// range.
#[derive(Debug)]
pub enum ReceivedIrqData {
    /// Act now. With a count of zero and [`IrqAction::Trigger`]: switch the
    /// whole index off.
    None,
    /// Act now where true.
    Bool(Vec<bool>),
    /// Act when the event is triggered ([`IrqAction::Mask`],
    /// [`IrqAction::Unmask`]), or trigger the event ([`IrqAction::Trigger`]).
    Events(Vec<EventFd>),
    /// Take the events of the range away.
    NoEvents,
}

/// A request to set interrupts. `data` has as many members as `count`; whether
/// the range lies inside the index is for the device to check.
#[derive(Debug)]
pub struct IrqSet {
    /// The interrupt index.
    pub index: u32,
    /// The first interrupt.
    pub start: u32,
    /// Number of interrupts.
    pub count: u32,
    /// The action.
    pub action: IrqAction,
    /// Data of the action.
    pub data: ReceivedIrqData,
}

/// Memory of the client that the device may reach.
#[derive(Debug)]
pub struct DmaRegion {
    /// First bus address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// [`DMA_READ`](crate::command::DMA_READ),
    /// [`DMA_WRITE`](crate::command::DMA_WRITE).
    pub flags: u32,
    /// Offset of the memory in `fd`.
    pub offset: u64,
    /// The memory; `None` when the client keeps it to itself, as QEMU does with
    /// ROMs and the BARs of devices: it is reached through the client ([`Reach`]).
    pub fd: Option<OwnedFd>,
}

/// Result of an attempt at a region access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This many bytes were read or written.
    Done(usize),
    /// The device is not ready and nothing was done: the next attempt is due
    /// after this time.
    Wait(Duration),
}

/// A device that a server offers to clients.
///
/// All methods take `&self`; while a client is connected they are called from
/// one thread, the client's. None of them may block: a client gives its
/// device up when a reply takes too long (5 s in QEMU). A region access that
/// has to wait says so, with [`Progress::Wait`]; the server serves other
/// requests meanwhile and makes another attempt.
///
/// The order is that of the client's messages, but for two that overlap: a
/// request that comes while another waits for its reply may be served first. A
/// posted write has no reply that a client could wait for, so everything behind
/// one keeps its order.
///
/// An [`Errno`] becomes the error of the reply; zero bytes or regions never do.
pub trait Backend: Send + Sync {
    /// State of a region access between its attempts: start of the wait, and
    /// timeout.
    type Wait: Send;

    /// A region access has arrived. The access's [`Wait`](Self::Wait) begins now.
    fn arrived(&self) -> Self::Wait;

    /// The device's flags, and how many regions and interrupt indices it has.
    fn info(&self) -> DeviceInfo;

    /// Capabilities in the device's info, in their order.
    fn capabilities(&self) -> Vec<DeviceCapability> {
        Vec::new()
    }

    /// Features of the device.
    fn features(&self) -> Vec<ReadableFeature> {
        Vec::new()
    }

    /// Data of a feature of the device, as many bytes as the feature says.
    fn feature_get(&self, feature: ReadableFeature) -> Result<Vec<u8>, Errno> {
        let _ = feature;
        Err(Errno::ENOTTY)
    }

    /// The region `index`, which is below `num_regions`.
    fn region_info(&self, index: u32) -> Result<OfferedRegion, Errno>;

    /// The descriptor of a region goes to the client.
    fn handed_out(&self, index: u32) {
        let _ = index;
    }

    /// Info of the interrupt index `index`, which is below `num_irqs`.
    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno>;

    /// Set interrupts. `EINVAL` if the index does not exist, or the range leaves
    /// it ([`IrqInfo::check_range`]).
    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno>;

    /// Fill `buf` from `offset` of a region, and say how many bytes were read.
    /// `region` is below `num_regions`; `offset` is any, `buf` may be empty.
    fn region_read(
        &self,
        region: u32,
        offset: u64,
        buf: &mut [u8],
        wait: &mut Self::Wait,
    ) -> Result<Progress, Errno>;

    /// Write `data` at `offset` of a region, and say how many bytes were.
    fn region_write(
        &self,
        region: u32,
        offset: u64,
        data: &[u8],
        wait: &mut Self::Wait,
    ) -> Result<Progress, Errno>;

    /// The client makes memory reachable. The table of mappings is the device's.
    ///
    /// `EINVAL` for no bytes or a range that leaves 64 bits, `EEXIST` for an overlap, `ENOSPC` for
    /// more than [`MAX_DMA_MAPS`](crate::command::version::MAX_DMA_MAPS) mappings.
    fn dma_map(&self, region: DmaRegion) -> Result<(), Errno>;

    /// All mappings in a range go away.
    ///
    /// The specification wants the range of exactly one mapping. As the kernel's type1v2 does,
    /// ranges that hold several or none are taken as well: with a virtual IOMMU, QEMU unmaps its
    /// whole address space at once. `EINVAL` if the range would cut a mapping in two, is empty or
    /// leaves 64 bits.
    fn dma_unmap(&self, addr: u64, size: u64) -> Result<(), Errno>;

    /// All mappings go away.
    fn dma_unmap_all(&self);

    /// True if the client has taken back memory that it had mapped and that the device has accessed
    /// since, by truncating a file. The server then drops the client.
    fn memory_is_lost(&self) -> bool {
        false
    }

    /// Reset the device.
    fn reset(&self) -> Result<(), Errno>;

    /// A client has proposed a version that this server speaks. An error becomes
    /// the client's reply and ends its connection;
    /// [`disconnected`](Self::disconnected) is then not called.
    ///
    /// `client` is the way to memory that the client maps without a descriptor.
    fn connected(&self, client: &Arc<Reach>) -> Result<(), Errno> {
        let _ = client;
        Ok(())
    }

    /// The client has gone, and its mappings have been removed. The client's
    /// eventfds have to be dropped here; the device keeps its state.
    fn disconnected(&self) {}
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    type Wait = B::Wait;
    fn arrived(&self) -> Self::Wait {
        (**self).arrived()
    }
    fn info(&self) -> DeviceInfo {
        (**self).info()
    }
    fn capabilities(&self) -> Vec<DeviceCapability> {
        (**self).capabilities()
    }
    fn features(&self) -> Vec<ReadableFeature> {
        (**self).features()
    }
    fn feature_get(&self, feature: ReadableFeature) -> Result<Vec<u8>, Errno> {
        (**self).feature_get(feature)
    }
    fn region_info(&self, index: u32) -> Result<OfferedRegion, Errno> {
        (**self).region_info(index)
    }
    fn handed_out(&self, index: u32) {
        (**self).handed_out(index);
    }
    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        (**self).irq_info(index)
    }
    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        (**self).set_irqs(set)
    }
    fn region_read(
        &self,
        region: u32,
        offset: u64,
        buf: &mut [u8],
        wait: &mut Self::Wait,
    ) -> Result<Progress, Errno> {
        (**self).region_read(region, offset, buf, wait)
    }
    fn region_write(
        &self,
        region: u32,
        offset: u64,
        data: &[u8],
        wait: &mut Self::Wait,
    ) -> Result<Progress, Errno> {
        (**self).region_write(region, offset, data, wait)
    }
    fn dma_map(&self, region: DmaRegion) -> Result<(), Errno> {
        (**self).dma_map(region)
    }
    fn dma_unmap(&self, addr: u64, size: u64) -> Result<(), Errno> {
        (**self).dma_unmap(addr, size)
    }
    fn dma_unmap_all(&self) {
        (**self).dma_unmap_all();
    }
    fn memory_is_lost(&self) -> bool {
        (**self).memory_is_lost()
    }
    fn reset(&self) -> Result<(), Errno> {
        (**self).reset()
    }
    fn connected(&self, client: &Arc<Reach>) -> Result<(), Errno> {
        (**self).connected(client)
    }
    fn disconnected(&self) {
        (**self).disconnected();
    }
}
