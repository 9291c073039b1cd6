//! An endpoint as a backend of the vfio-user server: types are translated. The two deviations from
//! the kernel, on the MSI-X table and on interrupts that are off, are in docs/vfio-user.md.

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use log::Level;
use varia_core::{DmaAccess, IrqData, Job, Remote, Source, Trigger};
use varia_spec::{
    Errno,
    vfio::{
        DeviceCapability, DeviceInfo, IrqAction, IrqIndex, IrqInfo, RegionIndex, SparseArea,
        region_flags,
    },
};
use varia_sys::{
    errno,
    event::EventFd,
    mapping::page_size,
    wait::{Wake, readable},
};
use varia_variant::{Bytes, FeatureSource, Region};
use varia_vfio_user::backend::{
    self, DmaRegion, IrqSet, OfferedRegion, ReadableFeature, ReceivedIrqData,
};
use varia_vfio_user::command::{DMA_READ, DMA_WRITE};
use varia_vfio_user::reach::Reach;
use varia_vfio_user::report::Reports;

use crate::{
    access::{Operation, Progress},
    endpoint::{Endpoint, ServedRegion},
};

/// An endpoint behind a socket. The endpoint is opened when a client has connected and closed when
/// the client has gone; the device's memory stays.
#[derive(Debug)]
pub struct Backend {
    endpoint: Arc<Endpoint>,
    reports: Reports,
    /// Regions that a client may map once alone, and has the descriptor of.
    mapped: Mutex<BTreeSet<u32>>,
}

impl Backend {
    /// A backend that speaks for `endpoint`.
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        let reports = Reports::default();
        Self {
            endpoint,
            reports,
            mapped: Mutex::default(),
        }
    }

    fn mapped(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
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
            log::warn!("an interrupt was lost, because its eventfd can't be written: {error}");
        }
    }
}

/// An eventfd that unmasks INTx, with a thread that waits for it.
struct Unmask(EventFd);

/// Ends the thread of an [`Unmask`].
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
        self.endpoint.info()
    }

    fn capabilities(&self) -> Vec<DeviceCapability> {
        self.endpoint.capabilities()
    }

    fn features(&self) -> Vec<ReadableFeature> {
        let features = self.endpoint.features().into_iter();
        let readable = features.map(|feature| {
            let FeatureSource::ErrorRecord { len } = feature.source;
            ReadableFeature {
                index: feature.index,
                len: len as usize,
            }
        });
        readable.collect()
    }

    fn feature_get(&self, feature: ReadableFeature) -> Result<Vec<u8>, Errno> {
        self.endpoint.feature_get(feature.index)
    }

    fn region_info(&self, index: u32) -> Result<OfferedRegion, Errno> {
        let ServedRegion { mut info, file } = self.endpoint.region_info(RegionIndex(index))?;
        let table = self.endpoint.core().msix_table();
        if let Some((_, table)) =
            table.filter(|(bar, _)| bar.0 == index && info.msix_mappable && info.areas.is_empty())
        {
            // Some clients map a BAR whole if no areas are listed, and their guests would see the
            // device's own table.
            info.areas = around(table, info.size);
            if info.areas.is_empty() {
                info.flags &= !region_flags::MMAP;
            }
        }
        let mapped = self.mapped().contains(&index);
        let Some((fd, offset)) = file.filter(|_| !mapped) else {
            return Ok(OfferedRegion { info, file: None });
        };
        let fd = fd.try_clone_to_owned().map_err(|error| {
            log::error!("region {index} can't be offered for mapping: {error}");
            errno::of_io(&error)
        })?;
        Ok(OfferedRegion {
            info,
            file: Some((fd, offset)),
        })
    }

    fn handed_out(&self, index: u32) {
        if let Region::Memory(memory) = self.endpoint.region(RegionIndex(index)) {
            if memory.is_mapped_once() {
                self.mapped().insert(index);
            }
        }
    }

    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        self.endpoint.core().irq_info(IrqIndex(index))
    }

    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        let IrqSet {
            index,
            start,
            count,
            action,
            data,
        } = set;
        let (core, index) = (self.endpoint.core(), IrqIndex(index));
        let unmask = action == IrqAction::Unmask;
        let data = match data {
            ReceivedIrqData::None => IrqData::None,
            ReceivedIrqData::Bool(wanted) => IrqData::Bools(wanted),
            ReceivedIrqData::Events(events) if unmask => {
                let source = |event| Some(Box::new(Unmask(event)) as Box<dyn Source>);
                IrqData::Sources(events.into_iter().map(source).collect())
            }
            ReceivedIrqData::Events(events) => {
                let trigger = |event| Some(Arc::new(Event(event)) as Arc<dyn Trigger>);
                IrqData::Triggers(events.into_iter().map(trigger).collect())
            }
            ReceivedIrqData::NoEvents => {
                // the count is the client's: no memory for it before it is checked
                core.irq_info(index)?.check_range(start, count)?;
                match unmask {
                    true => IrqData::Sources((0..count).map(|_| None).collect()),
                    false => IrqData::Triggers(vec![None; count as usize]),
                }
            }
        };
        // To switch off what is not on is an error of the kernel's, and clients of other servers
        // do it while they set up and before they leave.
        let off = matches!(data, IrqData::None)
            && (action, start, count) == (IrqAction::Trigger, 0, 0)
            && core.irq_info(index)?.count > 0;
        match core.set_irqs(index, action, start, count, data) {
            Err(Errno::EINVAL) if off => Ok(()),
            other => other,
        }
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
            self.reports.log(
                Level::Error,
                "refused mappings",
                format_args!(
                    "{} at {:#x} of the client's memory can't be mapped ({}): {}",
                    Bytes(region.size),
                    region.addr,
                    errno.name(),
                    reason(errno)
                ),
            );
        }
        mapped
    }

    fn dma_unmap(&self, addr: u64, size: u64) -> Result<(), Errno> {
        self.endpoint.dma().unmap(addr, size)
    }

    fn dma_unmap_all(&self) {
        self.endpoint.unmap_all();
    }

    fn memory_is_lost(&self) -> bool {
        self.endpoint.dma().is_lost()
    }

    fn reset(&self) -> Result<(), Errno> {
        self.endpoint.reset()
    }

    fn connected(&self, client: &Arc<Reach>) -> Result<(), Errno> {
        self.endpoint.open()?;
        self.mapped().clear();
        let remote = ThroughClient(Arc::clone(client));
        self.endpoint.dma().set_remote(Some(Arc::new(remote)));
        Ok(())
    }

    fn disconnected(&self) {
        self.endpoint.close();
        self.reports.finish();
    }
}

/// The client's memory without a descriptor, reached through the client.
#[derive(Debug)]
struct ThroughClient(Arc<Reach>);

impl Remote for ThroughClient {
    fn read(&self, iova: u64, data: &mut [u8], cancelled: &dyn Fn() -> bool) -> Result<(), Errno> {
        self.0.read(iova, data, cancelled)
    }

    fn write(&self, iova: u64, data: &[u8], cancelled: &dyn Fn() -> bool) -> Result<(), Errno> {
        self.0.write(iova, data, cancelled)
    }

    fn wake(&self) {
        self.0.wake();
    }

    fn run(&self, job: Job) -> Result<(), Errno> {
        self.0.run(job)
    }
}

/// Reason why a mapping of the client's memory fails with `errno`, and the remedy.
fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::EEXIST => "the range overlaps another mapping: unmap that one first",
        Errno::ENOSPC => "the client has the most mappings that there may be: unmap others first",
        Errno::ENOMEM => {
            "raise this process's limits of address space (ulimit -v) and of mappings \
             (vm.max_map_count)"
        }
        Errno::EINVAL => {
            "the range is empty, or ends beyond 64 bits or beyond the end of the descriptor's file"
        }
        _ => {
            "the offset in the descriptor's file is not a multiple of the page size, or the file \
             does not permit the access: give the VM shared memory, as QEMU does with \
             memory-backend-memfd,share=on"
        }
    }
}

/// The pages of a region of `size` bytes that hold no byte of `hidden`.
fn around(hidden: Range<u64>, size: u64) -> Vec<SparseArea> {
    let page = page_size() as u64;
    let before = 0..hidden.start - hidden.start % page;
    let after = hidden.end.next_multiple_of(page)..size;
    let areas = [before, after].into_iter().filter(|area| !area.is_empty());
    areas
        .map(|area| SparseArea {
            offset: area.start,
            size: area.end - area.start,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_areas_around_a_table_are_whole_pages_without_it() {
        let page = page_size() as u64;
        for (hidden, size, expected) in [
            (0..16, 4 * page, vec![(page, 3 * page)]),
            (
                page..2 * page,
                4 * page,
                vec![(0, page), (2 * page, 2 * page)],
            ),
            (page + 8..page + 24, 2 * page, vec![(0, page)]),
            (page - 8..page + 8, 3 * page, vec![(2 * page, page)]),
            (0..page, page, vec![]),
        ] {
            let areas = around(hidden, size);
            let areas: Vec<_> = areas.iter().map(|area| (area.offset, area.size)).collect();
            assert_eq!(areas, expected);
        }
    }

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
