//! What a server serves: a device, behind one trait.

use std::os::fd::OwnedFd;

use varia_spec::errno::Errno;
use varia_sys::event::EventFd;

pub use crate::payload::{DeviceInfo, SparseArea};

/// What a region is.
#[derive(Debug, Default)]
pub struct RegionInfo {
    /// `VFIO_REGION_INFO_FLAG_*`. `CAPS` is set by the server.
    pub flags: u32,
    /// Bytes; zero for a region that is not there.
    pub size: u64,
    /// Where the region begins in `fd`, in bytes.
    pub offset: u64,
    /// The parts that can be mapped; empty when the whole region can.
    pub sparse: Vec<SparseArea>,
    /// What a client maps. `VFIO_REGION_INFO_FLAG_MMAP` without it is taken
    /// back.
    pub fd: Option<OwnedFd>,
}

/// What an interrupt index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IrqInfo {
    /// `VFIO_IRQ_INFO_*`.
    pub flags: u32,
    /// How many interrupts it has.
    pub count: u32,
}

/// What to do with interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqAction {
    /// `VFIO_IRQ_SET_ACTION_MASK`.
    Mask,
    /// `VFIO_IRQ_SET_ACTION_UNMASK`.
    Unmask,
    /// `VFIO_IRQ_SET_ACTION_TRIGGER`.
    Trigger,
}

/// What goes with an action, one for each interrupt of the range.
#[derive(Debug)]
pub enum IrqData {
    /// Act now. With a count of zero and [`IrqAction::Trigger`]: switch the
    /// whole index off.
    None,
    /// Act now where true.
    Bool(Vec<bool>),
    /// Act when the event is triggered ([`IrqAction::Mask`],
    /// [`IrqAction::Unmask`]), or trigger the event ([`IrqAction::Trigger`]);
    /// `None` takes the event away.
    Events(Vec<Option<EventFd>>),
}

/// A request to set interrupts. The range lies inside the index's count, and
/// `data` has as many members as `count`.
#[derive(Debug)]
pub struct IrqSet {
    /// The interrupt index.
    pub index: u32,
    /// The first interrupt.
    pub start: u32,
    /// How many.
    pub count: u32,
    /// What to do.
    pub action: IrqAction,
    /// With what.
    pub data: IrqData,
}

/// Memory of the client that the device may reach.
#[derive(Debug)]
pub struct DmaRegion {
    /// First bus address.
    pub addr: u64,
    /// Bytes, above zero; `addr + size` does not overflow.
    pub size: u64,
    /// [`DMA_READ`](crate::payload::DMA_READ),
    /// [`DMA_WRITE`](crate::payload::DMA_WRITE).
    pub flags: u32,
    /// Where the memory begins in `fd`.
    pub offset: u64,
    /// The memory; `None` when the client keeps it to itself, as QEMU does with
    /// the mappings that it made of the device's own regions.
    pub fd: Option<OwnedFd>,
}

/// A device that a server offers.
///
/// All methods take `&self`; while a client is connected they are called from
/// one thread, the connection's, in the order of the client's messages. A
/// request that takes longer than the client's patience (5 s in QEMU) costs the
/// client its device, so a wait for readiness has to be shorter or to fail. An
/// [`Errno`] becomes the error of the reply; zero bytes or regions never do.
pub trait Backend: Send + Sync {
    /// The device's flags, and how many regions and interrupt indices it has.
    fn info(&self) -> DeviceInfo;

    /// What the region `index` is; `index` is below `num_regions`.
    fn region_info(&self, index: u32) -> Result<RegionInfo, Errno>;

    /// What the interrupt index `index` is; it is below `num_irqs`.
    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno>;

    /// Set interrupts.
    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno>;

    /// Fill `buf` from `offset` of a region, and say how many bytes were read.
    /// `region` is below `num_regions`; `offset` is any, `buf` may be empty.
    fn region_read(&self, region: u32, offset: u64, buf: &mut [u8]) -> Result<usize, Errno>;

    /// Write `data` at `offset` of a region, and say how many bytes were.
    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<usize, Errno>;

    /// The client makes memory reachable. No two mappings overlap.
    fn dma_map(&self, region: DmaRegion) -> Result<(), Errno>;

    /// A mapping goes away, exactly as it was made. Must not fail.
    fn dma_unmap(&self, addr: u64, size: u64);

    /// Reset the device.
    fn reset(&self) -> Result<(), Errno>;

    /// A client has finished its negotiation.
    fn connected(&self) {}

    /// The client has gone, and its mappings were taken away. Its eventfds have
    /// to be dropped here; the device keeps its state.
    fn disconnected(&self) {}
}

impl<B: Backend + ?Sized> Backend for std::sync::Arc<B> {
    fn info(&self) -> DeviceInfo {
        (**self).info()
    }
    fn region_info(&self, index: u32) -> Result<RegionInfo, Errno> {
        (**self).region_info(index)
    }
    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        (**self).irq_info(index)
    }
    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        (**self).set_irqs(set)
    }
    fn region_read(&self, region: u32, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        (**self).region_read(region, offset, buf)
    }
    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        (**self).region_write(region, offset, data)
    }
    fn dma_map(&self, region: DmaRegion) -> Result<(), Errno> {
        (**self).dma_map(region)
    }
    fn dma_unmap(&self, addr: u64, size: u64) {
        (**self).dma_unmap(addr, size);
    }
    fn reset(&self) -> Result<(), Errno> {
        (**self).reset()
    }
    fn connected(&self) {
        (**self).connected();
    }
    fn disconnected(&self) {
        (**self).disconnected();
    }
}
