//! A small device and a server for it, for the tests of each command.
//!
//! Region 0 is 16 KiB of mappable memory, region 1 is 8 KiB of which the second
//! page can be mapped, region 7 is 256 bytes that remember what is written, and
//! the others are not there. Reads and writes behind the end are short.
//! While the device is late, accesses of region 7 wait; a test may have them end after [`LATE`].
//! Interrupt index 2 has 8 interrupts; index 0 one; the others none.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use varia_core::{Dma, DmaAccess};
use varia_spec::errno::Errno;
use varia_spec::vfio::{
    DeviceCapability, DeviceInfo, IrqAction, IrqInfo, RegionType, SparseArea, device_flags,
    irq_flags, region_flags,
};
use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_sys::socket::{Listener, Stream};
use vm_memory::{Bytes, GuestAddress};

use varia_vfio_user::backend::{
    Backend, DmaRegion, IrqSet, OfferedRegion, Progress, ReadableFeature, ReceivedIrqData,
    RegionInfo,
};
use varia_vfio_user::client::Client;
use varia_vfio_user::reach::Reach;
use varia_vfio_user::server::{Server, Timeouts};

pub(crate) const BAR0_LEN: u64 = 16384;
pub(crate) const BAR1_LEN: u64 = 8192;
/// Where an address of 8 bytes in region 7 has the device read memory.
pub(crate) const DMA_AT: u64 = 0xf8;
pub(crate) const CONFIG_LEN: u64 = 256;

/// Least time that an access of a late region 7 waits before it fails with ETIMEDOUT.
pub(crate) const LATE: Duration = Duration::from_millis(400);
/// Limit that only a hang reaches, however slow the machine.
pub(crate) const HANG: Duration = Duration::from_secs(10 * 60);

/// What the device was asked to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Connected,
    Disconnected,
    Map {
        addr: u64,
        size: u64,
        flags: u32,
        offset: u64,
        fd: bool,
    },
    Unmap {
        addr: u64,
        size: u64,
    },
    Reset,
    Irqs {
        index: u32,
        start: u32,
        count: u32,
        action: IrqAction,
        data: String,
    },
    Write {
        region: u32,
        offset: u64,
        data: Vec<u8>,
    },
}

pub(crate) struct Fake {
    pub(crate) bar0: SharedMemory,
    pub(crate) bar1: SharedMemory,
    pub(crate) config: SharedMemory,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) triggers: Mutex<Vec<EventFd>>,
    /// What the device has been given and not yet dropped.
    pub(crate) dma: Mutex<Vec<DmaRegion>>,
    /// The rules of mappings, by a table that knows them: `varia-core`'s.
    pub(crate) table: Dma,
    /// Accesses of region 7 wait.
    pub(crate) late: AtomicBool,
    /// Accesses that have arrived.
    pub(crate) arrivals: AtomicUsize,
    /// Accesses that have to have arrived before one of region 7 ends with ETIMEDOUT.
    pub(crate) times_out_from: AtomicUsize,
    /// The device can't be opened.
    pub(crate) broken: AtomicBool,
    /// The next reset panics.
    pub(crate) panics: AtomicBool,
    /// The device has two capabilities and a feature, whose data are taken once.
    pub(crate) described: AtomicBool,
    pub(crate) records: Mutex<Vec<Vec<u8>>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let memory = |len| SharedMemory::anonymous("fake", len).unwrap();
        Self {
            bar0: memory(BAR0_LEN),
            bar1: memory(BAR1_LEN),
            config: memory(CONFIG_LEN),
            events: Mutex::default(),
            triggers: Mutex::default(),
            dma: Mutex::default(),
            table: Dma::default(),
            late: AtomicBool::default(),
            arrivals: AtomicUsize::default(),
            times_out_from: AtomicUsize::new(usize::MAX),
            broken: AtomicBool::default(),
            panics: AtomicBool::default(),
            described: AtomicBool::default(),
            records: Mutex::default(),
        }
    }

    fn log(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    /// Drops the mappings that are `gone`.
    fn forget(&self, gone: impl Fn(&DmaRegion) -> bool) {
        let mut dma = self.dma.lock().unwrap();
        for DmaRegion { addr, size, .. } in dma.extract_if(.., |r| gone(r)) {
            self.log(Event::Unmap { addr, size });
        }
    }

    fn region(&self, index: u32) -> Result<&SharedMemory, Errno> {
        match index {
            0 => Ok(&self.bar0),
            1 => Ok(&self.bar1),
            7 => Ok(&self.config),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Time after which an access that arrived at `since` is tried again, if it waits.
    fn wait(&self, index: u32, since: Instant) -> Result<Option<Progress>, Errno> {
        if index != 7 || !self.late.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let arrivals = self.arrivals.load(Ordering::SeqCst);
        if since.elapsed() > LATE && arrivals >= self.times_out_from.load(Ordering::SeqCst) {
            return Err(Errno::ETIMEDOUT);
        }
        Ok(Some(Progress::Wait(Duration::from_millis(5))))
    }

    /// Bytes of `len` from `offset` that the region has.
    fn clamp(memory: &SharedMemory, offset: u64, len: usize) -> Result<usize, Errno> {
        let left = memory.len().checked_sub(offset).ok_or(Errno::EINVAL)?;
        Ok(len.min(left as usize))
    }
}

impl Backend for Fake {
    type Wait = Instant;

    fn arrived(&self) -> Instant {
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        Instant::now()
    }

    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            flags: device_flags::PCI | device_flags::RESET,
            num_regions: 9,
            num_irqs: 5,
        }
    }

    fn capabilities(&self) -> Vec<DeviceCapability> {
        let described = self.described.load(Ordering::SeqCst);
        let capabilities = [
            DeviceCapability::new(3, 1).with(&[7; 68]),
            DeviceCapability::new(4, 2).with(&[9; 8]),
        ];
        capabilities.into_iter().filter(|_| described).collect()
    }

    fn features(&self) -> Vec<ReadableFeature> {
        let described = self.described.load(Ordering::SeqCst);
        let feature = ReadableFeature { index: 13, len: 6 };
        described.then_some(feature).into_iter().collect()
    }

    fn feature_get(&self, feature: ReadableFeature) -> Result<Vec<u8>, Errno> {
        assert_eq!(feature.index, 13);
        self.records.lock().unwrap().pop().ok_or(Errno::ENOMSG)
    }

    fn region_info(&self, index: u32) -> Result<OfferedRegion, Errno> {
        let rw = region_flags::READ | region_flags::WRITE;
        let file = |m: &SharedMemory| Some((m.as_fd().try_clone_to_owned().unwrap(), 0));
        Ok(match index {
            0 => OfferedRegion {
                info: RegionInfo {
                    flags: rw | region_flags::MMAP,
                    size: BAR0_LEN,
                    ..RegionInfo::default()
                },
                file: file(&self.bar0),
            },
            1 => OfferedRegion {
                info: RegionInfo {
                    flags: rw | region_flags::MMAP,
                    size: BAR1_LEN,
                    areas: vec![SparseArea {
                        offset: 4096,
                        size: 4096,
                    }],
                    region_type: Some(RegionType {
                        kind: 5,
                        subtype: 6,
                    }),
                    msix_mappable: true,
                    capabilities: [None; 2],
                },
                file: file(&self.bar1),
            },
            // says that it can be mapped and brings nothing to map
            7 => OfferedRegion {
                info: RegionInfo {
                    flags: rw | region_flags::MMAP,
                    size: CONFIG_LEN,
                    ..RegionInfo::default()
                },
                file: None,
            },
            8 => return Err(Errno::EINVAL),
            _ => OfferedRegion::default(),
        })
    }

    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        let flags = irq_flags::EVENTFD | irq_flags::NORESIZE;
        Ok(match index {
            0 => IrqInfo {
                flags: irq_flags::EVENTFD | irq_flags::MASKABLE,
                count: 1,
            },
            2 => IrqInfo { flags, count: 8 },
            _ => IrqInfo::default(),
        })
    }

    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        let IrqSet {
            index,
            start,
            count,
            action,
            data,
        } = set;
        self.irq_info(index)?.check_range(start, count)?;
        let text = match &data {
            ReceivedIrqData::None => "none".into(),
            ReceivedIrqData::Bool(values) => format!("{values:?}"),
            ReceivedIrqData::Events(events) => format!("{} of {count} events", events.len()),
            ReceivedIrqData::NoEvents => format!("0 of {count} events"),
        };
        self.log(Event::Irqs {
            index,
            start,
            count,
            action,
            data: text,
        });
        let mut triggers = self.triggers.lock().unwrap();
        match data {
            ReceivedIrqData::Events(events) => *triggers = events,
            ReceivedIrqData::NoEvents => triggers.clear(),
            ReceivedIrqData::None | ReceivedIrqData::Bool(_) => {}
        }
        Ok(())
    }

    fn region_read(
        &self,
        region: u32,
        offset: u64,
        buf: &mut [u8],
        since: &mut Instant,
    ) -> Result<Progress, Errno> {
        if let Some(wait) = self.wait(region, *since)? {
            return Ok(wait);
        }
        let memory = self.region(region)?;
        let n = Self::clamp(memory, offset, buf.len())?;
        memory.read(offset, &mut buf[..n]).map_err(|_| Errno::EIO)?;
        Ok(Progress::Done(n))
    }

    fn region_write(
        &self,
        region: u32,
        offset: u64,
        data: &[u8],
        since: &mut Instant,
    ) -> Result<Progress, Errno> {
        if let Some(wait) = self.wait(region, *since)? {
            return Ok(wait);
        }
        let memory = self.region(region)?;
        let n = Self::clamp(memory, offset, data.len())?;
        memory.write(offset, &data[..n]).map_err(|_| Errno::EIO)?;
        if region == 7 && offset == DMA_AT {
            let at = u64::from_ne_bytes(data.try_into().unwrap());
            let read = self.table.mappings().read_obj::<u64>(GuestAddress(at));
            return read.map(|_| Progress::Done(8)).map_err(|_| Errno::EIO);
        }
        if data.len() <= 64 {
            self.log(Event::Write {
                region,
                offset,
                data: data.to_vec(),
            });
        }
        Ok(Progress::Done(n))
    }

    fn dma_map(&self, region: DmaRegion) -> Result<(), Errno> {
        let DmaRegion {
            addr,
            size,
            flags,
            offset,
            ..
        } = region;
        if addr == 0xbad000 {
            return Err(Errno::ENOMEM);
        }
        let access = DmaAccess {
            read: true,
            write: true,
        };
        let file = region
            .fd
            .as_ref()
            .map(|fd| (fd.try_clone().unwrap(), offset));
        self.table.map(addr, size, access, file)?;
        self.log(Event::Map {
            addr,
            size,
            flags,
            offset,
            fd: region.fd.is_some(),
        });
        self.dma.lock().unwrap().push(region);
        Ok(())
    }

    fn dma_unmap(&self, addr: u64, size: u64) -> Result<(), Errno> {
        self.table.unmap(addr, size)?;
        self.forget(|r| r.addr >= addr && r.addr - addr < size);
        Ok(())
    }

    fn dma_unmap_all(&self) {
        self.table.clear();
        self.forget(|_| true);
    }

    fn memory_is_lost(&self) -> bool {
        self.table.is_lost()
    }

    fn reset(&self) -> Result<(), Errno> {
        let panics = self.panics.swap(false, Ordering::SeqCst);
        assert!(!panics, "the device panics, as the test wants");
        self.log(Event::Reset);
        Ok(())
    }

    fn connected(&self, _: &Arc<Reach>) -> Result<(), Errno> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Errno::ENODEV);
        }
        self.log(Event::Connected);
        Ok(())
    }

    fn disconnected(&self) {
        self.triggers.lock().unwrap().clear();
        self.log(Event::Disconnected);
    }
}

/// Time limits that a test can sit out, for a client that is to run into them.
pub(crate) fn short_timeouts() -> Timeouts {
    let short = Duration::from_millis(150);
    Timeouts {
        message: short,
        ..timeouts()
    }
}

/// Time limits that only a hang reaches, but for those of a client that stays while another
/// connects.
pub(crate) fn timeouts() -> Timeouts {
    Timeouts {
        handshake: 2 * HANG,
        message: 2 * HANG,
        ..Timeouts::default()
    }
}

/// A server of a [`Fake`] on a socket of its own, until it is dropped.
pub(crate) struct Served {
    pub(crate) path: PathBuf,
    pub(crate) fake: Arc<Fake>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::of(Fake::new())
    }

    pub(crate) fn of(fake: Fake) -> Self {
        Self::with_timeouts(fake, timeouts())
    }

    pub(crate) fn with_timeouts(fake: Fake, timeouts: Timeouts) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fake.sock");
        let listener = Listener::bind(&path).unwrap();
        let fake = Arc::new(fake);
        let stop = Arc::new(EventFd::new().unwrap());
        let thread = std::thread::spawn({
            let (fake, stop) = (Arc::clone(&fake), Arc::clone(&stop));
            move || {
                Server::with_timeouts(fake, timeouts)
                    .serve_forever(&listener, &stop)
                    .unwrap();
            }
        });
        Self {
            path,
            fake,
            stop,
            thread: Some(thread),
            _dir: dir,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.path).unwrap()
    }

    pub(crate) fn silent_client(&self) -> Client {
        Client::over(Stream::connect(&self.path).unwrap())
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.fake.events.lock().unwrap().clone()
    }

    /// Waits until the device has been told of `event`.
    pub(crate) fn wait_for(&self, event: &Event) {
        let deadline = Instant::now() + HANG;
        while !self.events().contains(event) {
            assert!(
                Instant::now() < deadline,
                "{event:?} is not in {:?}",
                self.events()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Tells the server to stop, and returns whether it has ended within [`HANG`].
    pub(crate) fn stops(&self) -> bool {
        self.stop.trigger().unwrap();
        let thread = self.thread.as_ref().unwrap();
        let deadline = Instant::now() + HANG;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.is_finished()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let stopped = self.stops();
        if std::thread::panicking() {
            return;
        }
        assert!(stopped, "the server hangs");
        self.thread.take().unwrap().join().unwrap();
    }
}
