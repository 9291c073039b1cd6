//! Any bytes as what several clients do to one server of a device with DMA, and what has to hold
//! whatever that was: no thread panics, each request is replied to or the connection ends, the next
//! client is served, and nothing of the others is left.
//!
//! Shared by the fuzz target `vfio_user_wire` and by the tests that replay its corpus.

#[path = "../../../fuzz/input.rs"]
mod input;
#[path = "talker.rs"]
mod talker;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use varia_serve::{Backend, Endpoint, Options};
use varia_silicon::{Silicon, profile};
use varia_spec::copy_engine::{OFFSET, command, register};
use varia_spec::errno::Errno;
use varia_spec::vfio::RegionIndex;
use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_sys::socket::Listener;
use varia_vfio_user::client::{Client, ClientError};
use varia_vfio_user::command::{Command, DmaMap, DmaUnmap, RegionAccess, SetIrqs};
use varia_vfio_user::server::{Server, Timeouts};

use input::Input;
use talker::Talker;

/// Clients at one time. The device serves one of them.
const CLIENTS: usize = 4;
/// First address of the memory that clients map.
const RAM: u64 = 0x4000_0000;
const PAGE: u64 = 4096;
/// Offset of the available ring of a legacy queue with 256 descriptors (VIRTIO 1.3, 2.7.2).
const AVAILABLE: u64 = 16 * 256;
/// Timeout of the server for a message that has begun.
const SHORT: Duration = Duration::from_millis(20);
/// A limit that only a hang reaches.
const FOREVER: Duration = Duration::from_secs(600);
const CONFIG: u32 = RegionIndex::CONFIG.0;

/// How often something happened, so that a test can say that its inputs are not all trivial.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) replies: u32,
    /// Replies with an error.
    pub(crate) refused: u32,
    /// Connections that the server ended.
    pub(crate) ended: u32,
    /// DMA_READ and DMA_WRITE of the device.
    pub(crate) dma: u32,
    /// Twin sockets.
    pub(crate) twins: u32,
}

/// A folder of its own for a server, removed with all of its files at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let shared = Path::new("/dev/shm");
        let parent = match shared.is_dir() {
            true => shared.to_path_buf(),
            false => std::env::temp_dir(),
        };
        let path = parent.join(format!("varia-wire-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Stops the server, also when a check fails.
struct Stop(EventFd);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = self.0.trigger();
    }
}

/// The clients of a server.
struct Scene<'a> {
    folder: &'a Path,
    socket: &'a Path,
    talkers: [Option<Talker>; CLIENTS],
    /// Files of mapped memory.
    files: u32,
    is_gpu: bool,
    seen: &'a mut Seen,
}

/// What the clients do is in the bytes, the first of which selects the device.
pub(crate) fn wire(bytes: &[u8], seen: &mut Seen) {
    let mut input = Input(bytes);
    let Some(choice) = input.byte() else { return };
    let before = descriptors_and_threads();
    serve(choice, &mut input, seen);
    let begin = Instant::now();
    loop {
        let now = descriptors_and_threads();
        if now == before {
            break;
        }
        assert!(begin.elapsed() < FOREVER, "left: {before:?}, then {now:?}");
        // a thread that nobody joins is there for a moment after its work
        thread::sleep(Duration::from_millis(1));
    }
}

fn serve(choice: u8, input: &mut Input<'_>, seen: &mut Seen) {
    let folder = Folder::new();
    let is_gpu = choice & 1 == 0;
    let name = if is_gpu { "gh200" } else { "virtio-net" };
    let options = varia_silicon::Options {
        memory: is_gpu.then_some(3 << 29),
        copy_engine: is_gpu,
        ..Default::default()
    };
    let profile = profile::find(name).expect("a profile of the catalogue");
    let silicon = Arc::new(Silicon::new(profile, options).expect("silicon of the catalogue"));
    let endpoint = Endpoint::new(silicon, Options::default()).expect("a device that is served");
    let timeouts = Timeouts {
        handshake: FOREVER,
        message: SHORT,
        idle: None,
        succession: SHORT,
        overlap: Duration::from_millis(1),
    };
    let spin = Duration::from_micros(if choice & 2 == 0 { 0 } else { 20 });
    let server = Server::with_timeouts(Backend::new(Arc::new(endpoint)), timeouts).with_spin(spin);
    let socket = folder.0.join("socket");
    let listener = Listener::bind(&socket).expect("a socket");
    let event = EventFd::new().expect("an event");
    let stop = Stop(event.try_clone().expect("an event"));
    thread::scope(|scope| {
        let served = scope.spawn(|| server.serve_forever(&listener, &event));
        let stop = stop;
        let mut scene = Scene {
            folder: &folder.0,
            socket: &socket,
            talkers: Default::default(),
            files: 0,
            is_gpu,
            seen,
        };
        while scene.step(input).is_some() {}
        drop(scene);
        check_next_client(&socket);
        drop(stop);
        let served = served.join().expect("the server does not panic");
        served.expect("the listener works");
    });
}

fn descriptors_and_threads() -> [usize; 2] {
    ["fd", "task"].map(|of| {
        let entries = fs::read_dir(Path::new("/proc/self").join(of));
        entries.expect("procfs").count()
    })
}

/// A client that comes after all others is served.
fn check_next_client(socket: &Path) {
    let begin = Instant::now();
    let mut client = loop {
        match Client::connect(socket) {
            Ok(client) => break client,
            Err(ClientError::Refused { errno, .. }) if errno == Errno::EBUSY => {}
            Err(error) => panic!("the next client is not served: {error}"),
        }
        assert!(begin.elapsed() < FOREVER, "the device stays busy");
    };
    assert_eq!(client.device_info().expect("a device").num_regions, 9);
    let mut vendor = [0; 2];
    let read = client.region_read(CONFIG, 0, &mut vendor);
    assert!(read.is_ok() && vendor != [0xff; 2], "{vendor:x?}");
}

impl Scene<'_> {
    /// One act of a client; `None` at the end of the input.
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let kind = input.byte()?;
        let slot = usize::from(kind >> 4) % CLIENTS;
        let flag = kind & 0x40 != 0;
        let missing = self.talkers.get(slot)?.is_none();
        if missing || kind & 0xf == 0 {
            let talker = Talker::connect(self.socket, flag);
            *self.talkers.get_mut(slot)? = Some(talker);
        }
        let mut talker = self.talkers.get_mut(slot)?.take()?;
        let done = self.act(&mut talker, kind & 0xf, flag, input);
        let closes = kind & 0xf == 1;
        *self.talkers.get_mut(slot)? = (!closes).then_some(talker);
        for talker in &mut self.talkers {
            if talker
                .as_mut()
                .is_some_and(|talker| !talker.drain(self.seen))
            {
                *talker = None;
            }
        }
        done
    }

    fn act(
        &mut self,
        talker: &mut Talker,
        kind: u8,
        flag: bool,
        input: &mut Input<'_>,
    ) -> Option<()> {
        match kind {
            0 | 1 => {}
            2 => self.map(talker, input, true)?,
            3 => self.map(talker, input, false)?,
            4 => {
                let (place, all) = (u64::from(input.byte()?), u32::from(flag) * 2);
                let size = if flag { 0 } else { (1 + (place >> 4)) * PAGE };
                let mut payload = Vec::new();
                DmaUnmap {
                    argsz: 24,
                    flags: all,
                    addr: if flag { 0 } else { RAM + (place % 16) * PAGE },
                    size,
                }
                .encode(&mut payload);
                talker.command(Command::DMA_UNMAP, &payload, &[], false);
            }
            5 => {
                let (region, offset) = (input.byte()? % 10, input.word()?);
                let count = usize::from(input.byte()? % 17);
                let data = input.bytes(count)?;
                talker.write(region.into(), offset.into(), &data, flag);
            }
            6 => {
                let (region, offset, count) = (input.byte()? % 10, input.word()?, input.word()?);
                talker.read(region.into(), offset.into(), count.into());
            }
            7 => {
                let number = input.byte()?;
                let count = usize::from(input.byte()?);
                let payload = input.bytes(count)?;
                talker.command(Command(u16::from(number % 24)), &payload, &[], flag);
            }
            8 => {
                let count = usize::from(input.byte()?);
                talker.raw(&input.bytes(count)?);
            }
            9 => talker.answer(&input.bytes(16)?, self.seen),
            10 => {
                let count = usize::from(input.byte()? % 64);
                talker.answer_badly(flag, &input.bytes(count)?, self.seen);
            }
            11 => {
                let wanted = u32::from(input.byte()?).checked_rem(self.files);
                let path = wanted.map(|number| self.folder.join(number.to_string()));
                if let Some(Ok(file)) = path.map(|path| File::options().write(true).open(path)) {
                    file.set_len(0).expect("a file can be cut");
                }
            }
            12 => talker.command(Command::DEVICE_RESET, &[], &[], flag),
            13 => {
                let (index, count) = (input.byte()? % 6, input.byte()? % 4);
                let events: Vec<_> = (0..count)
                    .map(|_| EventFd::new().expect("an event"))
                    .collect();
                let mut payload = Vec::new();
                SetIrqs {
                    flags: u32::from(input.byte()?),
                    index: index.into(),
                    start: 0,
                    count: count.into(),
                    data: &[],
                }
                .encode(&mut payload);
                let fds: Vec<_> = events.iter().map(AsFd::as_fd).collect();
                talker.command(Command::DEVICE_SET_IRQS, &payload, &fds, false);
            }
            14 => self.start(talker, flag, input)?,
            _ => talker.settle(self.is_gpu, self.seen),
        }
        Some(())
    }

    /// Maps some pages, with a file whose rings are the input's, or without.
    fn map(&mut self, talker: &mut Talker, input: &mut Input<'_>, has_file: bool) -> Option<()> {
        let place = u64::from(input.byte()?);
        let flags = u32::from(input.byte()? & 3);
        let size = (1 + (place >> 4)) * PAGE;
        let file = match has_file {
            true => Some(self.file(size, &input.bytes(12)?)),
            false => None,
        };
        self.send_map(
            talker,
            RAM + (place % 16) * PAGE,
            size,
            flags,
            file.as_ref(),
        );
        Some(())
    }

    fn file(&mut self, size: u64, rings: &[u8]) -> SharedMemory {
        let path = self.folder.join(self.files.to_string());
        self.files += 1;
        let file = SharedMemory::create_file(&path, size).expect("a file");
        for at in [0, AVAILABLE] {
            // a small file has no second ring
            let _ = file.write(at, rings);
        }
        file
    }

    fn send_map(
        &self,
        talker: &mut Talker,
        addr: u64,
        size: u64,
        flags: u32,
        file: Option<&SharedMemory>,
    ) {
        let mut payload = Vec::new();
        DmaMap {
            flags,
            offset: 0,
            addr,
            size,
        }
        .encode(&mut payload);
        let fds: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        talker.command(Command::DMA_MAP, &payload, &fds, false);
    }

    /// Maps memory, lets the device be bus master, and gives it work in the memory.
    fn start(&mut self, talker: &mut Talker, has_file: bool, input: &mut Input<'_>) -> Option<()> {
        let rings = input.bytes(12)?;
        let file = has_file.then(|| self.file(16 * PAGE, &rings));
        self.send_map(talker, RAM, 16 * PAGE, 3, file.as_ref());
        talker.write(CONFIG, 4, &[7, 0], false);
        if !self.is_gpu {
            for (queue, page) in [(0, 0), (1, 4)] {
                let pfn = ((RAM / PAGE) as u32 + page).to_le_bytes();
                talker.write(0, 14, &[queue, 0], false);
                talker.write(0, 8, &pfn, false);
            }
            talker.write(0, 18, &[4], false);
            talker.write(0, 16, &[1, 0], true);
            return Some(());
        }
        let (from, to, length) = (input.word()?, input.word()?, input.word()?);
        let operation = u32::from(input.byte()?);
        let command = (operation & 3) | ((operation & 0x30) << 4);
        let place = |at: u16, bus: u32| u64::from(at) + if command & bus != 0 { RAM } else { 0 };
        let from = place(from, command::SOURCE_BUS);
        let to = place(to, command::DESTINATION_BUS);
        for (at, value) in [
            (register::SOURCE, from),
            (register::DESTINATION, to),
            (register::LENGTH, length.into()),
        ] {
            talker.write(0, OFFSET + at, &value.to_le_bytes(), false);
        }
        talker.write(0, OFFSET + register::COMMAND, &command.to_le_bytes(), false);
        Some(())
    }
}

impl Talker {
    fn write(&mut self, region: u32, offset: u64, data: &[u8], posted: bool) {
        let count = data.len() as u32;
        let mut payload = Vec::new();
        RegionAccess {
            offset,
            region,
            count,
        }
        .encode(&mut payload);
        payload.extend_from_slice(data);
        self.command(Command::REGION_WRITE, &payload, &[], posted);
    }

    fn read(&mut self, region: u32, offset: u64, count: u32) {
        let access = RegionAccess {
            offset,
            region,
            count,
        };
        self.command(Command::REGION_READ, access.bytes(), &[], false);
    }
}
