//! An endpoint as the vfio-user server wants it: units and types translated, nothing decided.

use std::{io, sync::Arc, thread, time::Duration};

use varia_core::{DmaAccess, IrqAction, IrqData, Source, Trigger};
use varia_spec::{
    Errno,
    vfio::{IrqIndex, RegionIndex, region_flags},
};
use varia_sys::{
    errno,
    event::EventFd,
    wait::{Wake, readable},
};
use varia_vfio_user::backend::{
    self, DeviceInfo, DmaRegion, IrqInfo, IrqSet, RegionInfo, SparseArea,
};
use varia_vfio_user::payload::{DMA_READ, DMA_WRITE};

use crate::{
    access::{Operation, Progress},
    endpoint::Endpoint,
};

/// An endpoint behind a socket. The endpoint is opened when a client has connected and closed when
/// it has gone; the device's memory stays.
#[derive(Debug)]
pub struct Backend {
    endpoint: Arc<Endpoint>,
}

impl Backend {
    /// A backend that speaks for `endpoint`.
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

/// An eventfd as an interrupt trigger.
struct Event(EventFd);

impl Trigger for Event {
    fn signal(&self) {
        if let Err(error) = self.0.trigger() {
            log::warn!("an interrupt was lost: {error}");
        }
    }
}

/// An eventfd that unmasks INTx, with a thread that waits for it.
struct Unmask(EventFd);

/// Ends that thread.
struct Stop(EventFd);

impl Source for Unmask {
    fn watch(self: Box<Self>, call: Box<dyn Fn() + Send>) -> Result<Box<dyn Send>, Errno> {
        let failed = |error: io::Error| {
            log::warn!("an eventfd can't unmask INTx: {error}");
            errno::of_io(&error)
        };
        let stop = EventFd::new().map_err(failed)?;
        let told = stop.try_clone().map_err(failed)?;
        let wait = move || {
            while let Ok(Wake::Ready) = readable(&self.0, Some(&told), None) {
                if !matches!(self.0.drain(), Ok(1..)) {
                    break;
                }
                call();
            }
        };
        thread::Builder::new()
            .name("intx unmask".into())
            .spawn(wait)
            .map_err(failed)?;
        Ok(Box::new(Stop(stop)))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        // a counter that can't be written leaves a thread that wakes up to nothing
        let _ = self.0.trigger();
    }
}

impl From<Progress> for backend::Progress {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Done(count) => Self::Done(count),
            Progress::Wait(time) => Self::Wait(Duration::from_millis(time.0)),
        }
    }
}

impl backend::Backend for Backend {
    type Wait = Operation;

    fn arrived(&self) -> Operation {
        self.endpoint.arrived()
    }

    fn info(&self) -> DeviceInfo {
        let info = self.endpoint.info();
        DeviceInfo {
            flags: info.flags,
            num_regions: info.regions,
            num_irqs: info.irqs,
        }
    }

    fn region_info(&self, index: u32) -> Result<RegionInfo, Errno> {
        let info = self.endpoint.region_info(RegionIndex(index))?;
        let mut flags = info.flags;
        let (fd, offset) = match info.file {
            Some((fd, offset)) => {
                let fd = fd.try_clone_to_owned().map_err(|error| {
                    log::error!("region {index} can't be offered for mapping: {error}");
                    errno::of_io(&error)
                })?;
                (Some(fd), offset)
            }
            None => {
                flags &= !region_flags::MMAP;
                (None, 0)
            }
        };
        let sparse = info
            .areas
            .into_iter()
            .map(|(offset, size)| SparseArea { offset, size })
            .collect();
        Ok(RegionInfo {
            flags,
            size: info.size,
            offset,
            sparse,
            region_type: info.region_type,
            msix_mappable: info.msix_mappable,
            fd,
        })
    }

    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        let info = self.endpoint.core().irq_info(IrqIndex(index))?;
        Ok(IrqInfo {
            flags: info.flags,
            count: info.count,
        })
    }

    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        let action = match set.action {
            backend::IrqAction::Mask => IrqAction::Mask,
            backend::IrqAction::Unmask => IrqAction::Unmask,
            backend::IrqAction::Trigger => IrqAction::Trigger,
        };
        let data = match set.data {
            backend::IrqData::None => IrqData::None,
            backend::IrqData::Bool(wanted) => IrqData::Bools(wanted),
            backend::IrqData::Events(events) if action == IrqAction::Unmask => IrqData::Sources(
                events
                    .into_iter()
                    .map(|event| event.map(|event| Box::new(Unmask(event)) as Box<dyn Source>))
                    .collect(),
            ),
            backend::IrqData::Events(events) => IrqData::Triggers(
                events
                    .into_iter()
                    .map(|event| event.map(|event| Arc::new(Event(event)) as Arc<dyn Trigger>))
                    .collect(),
            ),
        };
        self.endpoint
            .core()
            .set_irqs(IrqIndex(set.index), action, set.start, set.count, data)
    }

    fn region_read(
        &self,
        region: u32,
        offset: u64,
        buf: &mut [u8],
        wait: &mut Operation,
    ) -> Result<backend::Progress, Errno> {
        let progress = self
            .endpoint
            .try_read(RegionIndex(region), offset, buf, wait)?;
        Ok(progress.into())
    }

    fn region_write(
        &self,
        region: u32,
        offset: u64,
        data: &[u8],
        wait: &mut Operation,
    ) -> Result<backend::Progress, Errno> {
        let progress = self
            .endpoint
            .try_write(RegionIndex(region), offset, data, wait)?;
        Ok(progress.into())
    }

    fn dma_map(&self, region: DmaRegion) -> Result<(), Errno> {
        let access = DmaAccess {
            read: region.flags & DMA_READ != 0,
            write: region.flags & DMA_WRITE != 0,
        };
        let file = region.fd.map(|fd| (fd, region.offset));
        let mapped = self
            .endpoint
            .dma()
            .map(region.addr, region.size, access, file);
        if let Err(errno) = mapped {
            let remedy = match errno {
                Errno::ENOMEM => "raise this process's limit of address space (ulimit -v)",
                _ => "give the VM shared memory, as QEMU does with memory-backend-memfd,share=on",
            };
            log::error!(
                "{:#x} bytes at {:#x} of the client's memory can't be mapped ({}): {remedy}",
                region.size,
                region.addr,
                errno.name()
            );
        }
        mapped
    }

    fn dma_unmap(&self, addr: u64, size: u64) {
        self.endpoint.dma().unmap(addr, size);
    }

    fn reset(&self) -> Result<(), Errno> {
        self.endpoint.reset()
    }

    fn connected(&self) -> Result<(), Errno> {
        self.endpoint.open()
    }

    fn disconnected(&self) {
        self.endpoint.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_eventfd_calls_each_time_until_its_watch_is_dropped() {
        let event = EventFd::new().unwrap();
        let source = Box::new(Unmask(event.try_clone().unwrap()));
        let (sender, receiver) = mpsc::channel();
        let watch = source
            .watch(Box::new(move || sender.send(()).unwrap()))
            .unwrap();
        for _ in 0..2 {
            event.trigger().unwrap();
            let called = receiver.recv_timeout(Duration::from_secs(600));
            assert_eq!(called, Ok(()));
        }
        drop(watch);
        // the thread ends, and with it what it would call
        let ended = receiver.recv_timeout(Duration::from_secs(600));
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
