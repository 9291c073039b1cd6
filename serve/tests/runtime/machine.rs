//! A device with a clock that advances only by sleeping, and clients of the device.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use varia_serve::{Backend, Clock, Endpoint, Error, Options, View};
use varia_silicon::clock::Clock as _;
use varia_silicon::{ManualClock, Silicon, profile};
use varia_spec::{
    Errno,
    vfio::{RegionIndex, region_flags},
};
use varia_sys::socket::Stream;
use varia_variant::{MemoryLayout, Millis, Monotonic, Region};
use varia_vfio_user::client::Client;
use varia_vfio_user::server::Server;

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const MIB: u64 = 1 << 20;
/// 512 MiB of usemem behind a BAR of 1 GiB, 1 GiB and 4 KiB of resmem behind one of 2 GiB.
pub(crate) const SMALL: u64 = GIB + 512 * MIB + 4096;
pub(crate) const READ_WRITE: u32 = region_flags::READ | region_flags::WRITE;
pub(crate) const BAR0: u32 = RegionIndex::BAR0.0;
pub(crate) const BAR2: u32 = RegionIndex::BAR2.0;
pub(crate) const BAR4: u32 = RegionIndex::BAR4.0;
pub(crate) const CONFIG: u32 = RegionIndex::CONFIG.0;

/// Sleeping moves it on.
pub(crate) struct Time(pub(crate) ManualClock);

impl Time {
    pub(crate) fn seconds(&self) -> u64 {
        self.0.now().as_secs()
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.advance(Duration::from_secs(seconds));
    }
}

impl Clock for Time {
    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.0.now().as_millis()).unwrap())
    }

    fn sleep(&self, time: Millis) {
        self.0.advance(Duration::from_millis(time.0));
    }
}

/// The same clock for the silicon.
#[derive(Clone)]
struct SiliconTime(Arc<Time>);

impl std::fmt::Debug for SiliconTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.0.fmt(f)
    }
}

impl varia_silicon::Clock for SiliconTime {
    fn now(&self) -> Duration {
        self.0.0.now()
    }
}

/// A device that is served.
pub(crate) struct Machine {
    pub(crate) silicon: Arc<Silicon>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) time: Arc<Time>,
}

/// What is asked of a device; the profile's memory unless another size is given.
pub(crate) struct Wanted {
    pub(crate) profile: &'static str,
    pub(crate) silicon: varia_silicon::Options,
    pub(crate) view: View,
    pub(crate) honour_memory_enable: bool,
    pub(crate) layout: MemoryLayout,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            profile: "gh200",
            silicon: varia_silicon::Options::default(),
            view: View::Virtual,
            honour_memory_enable: false,
            layout: MemoryLayout::Bar,
        }
    }
}

impl Wanted {
    /// As it is by default, with so much memory.
    pub(crate) fn of(profile: &'static str, memory: u64) -> Self {
        let silicon = varia_silicon::Options {
            memory: Some(memory),
            ..Default::default()
        };
        Self {
            profile,
            silicon,
            ..Self::default()
        }
    }

    /// Makes it, and tells when the probe has come to an end.
    pub(crate) fn make(self) -> (Result<Machine, Error>, Arc<Time>) {
        let time = Arc::new(Time(ManualClock::default()));
        let silicon = varia_silicon::Options {
            clock: Arc::new(SiliconTime(Arc::clone(&time))),
            ..self.silicon
        };
        let profile = profile::find(self.profile).unwrap();
        let silicon = Arc::new(Silicon::new(profile, silicon).unwrap());
        let options = Options {
            view: self.view,
            honour_memory_enable: self.honour_memory_enable,
            layout: self.layout,
            clock: Arc::<Time>::clone(&time),
            ..Options::default()
        };
        let made =
            Endpoint::new(Arc::<Silicon>::clone(&silicon), options).map(|endpoint| Machine {
                silicon,
                endpoint: Arc::new(endpoint),
                time: Arc::clone(&time),
            });
        (made, time)
    }

    /// Makes it; the probe succeeds.
    pub(crate) fn serve(self) -> Machine {
        self.make().0.unwrap()
    }
}

impl Machine {
    /// A GH200 with [`SMALL`] memory.
    pub(crate) fn small() -> Self {
        Wanted::of("gh200", SMALL).serve()
    }

    /// Attaches a client.
    pub(crate) fn attach(&self) -> Attached {
        attach(&Arc::new(Backend::new(Arc::clone(&self.endpoint))))
    }

    /// Bytes of the coherent memory as the host sees them.
    pub(crate) fn host<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let memory = self.silicon.coherent_memory().unwrap();
        memory.bytes.read(offset, &mut bytes).unwrap();
        bytes
    }

    /// The memory regions: index, offset in the coherent memory, length, BAR size.
    pub(crate) fn memory_regions(&self) -> Vec<(u32, u64, u64, u64)> {
        let of = |index| match self.endpoint.region(RegionIndex(index)) {
            Region::Memory(region) => Some((
                index,
                region.base().0 - self.silicon.coherent_memory().unwrap().base.0,
                region.length(),
                region.size().0,
            )),
            Region::Base | Region::Absent | Region::Registers(_) | Region::Composed(_) => None,
        };
        let count = self.endpoint.info().num_regions;
        (0..count).filter_map(of).collect()
    }
}

/// Attaches a client to a backend.
pub(crate) fn attach(backend: &Arc<Backend>) -> Attached {
    let (ours, theirs) = Stream::pair().unwrap();
    let server = Server::new(Arc::clone(backend));
    let thread = thread::spawn(move || {
        server.serve_one(theirs).unwrap();
    });
    let mut client = Client::over(ours);
    client.negotiate().unwrap();
    Attached {
        client: Some(client),
        thread: Some(thread),
    }
}

/// A client and the thread that serves it, until it is dropped.
pub(crate) struct Attached {
    client: Option<Client>,
    thread: Option<JoinHandle<()>>,
}

impl std::ops::Deref for Attached {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Attached {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().unwrap()
    }
}

impl Attached {
    /// Reads bytes, all of them.
    pub(crate) fn read<const N: usize>(&mut self, region: u32, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let read = self.region_read(region, offset, &mut bytes).unwrap();
        assert_eq!(read, N, "region {region} at {offset:#x}");
        bytes
    }

    /// Writes bytes, all of them.
    pub(crate) fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let written = self.region_write(region, offset, data).unwrap();
        assert_eq!(written, data.len(), "region {region} at {offset:#x}");
    }

    /// What a read of 4 bytes comes to.
    pub(crate) fn try_read(&mut self, region: u32, offset: u64) -> Result<usize, Errno> {
        let read = self.region_read(region, offset, &mut [0; 4]);
        read.map_err(|e| e.errno().unwrap())
    }

    /// What a write comes to.
    pub(crate) fn try_write(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Errno> {
        let written = self.region_write(region, offset, data);
        written.map_err(|e| e.errno().unwrap())
    }

    /// A 64-bit register of configuration space.
    pub(crate) fn register64(&mut self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(CONFIG, offset))
    }

    /// Sets and clears bits of a 16-bit register of configuration space.
    pub(crate) fn change16(&mut self, offset: u64, set: u16, clear: u16) {
        let value = u16::from_le_bytes(self.read(CONFIG, offset));
        let value = (value | set) & !clear;
        self.write(CONFIG, offset, &value.to_le_bytes());
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        drop(self.client.take());
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}
