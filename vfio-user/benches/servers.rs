//! Servers of vfio-user side by side: `./x bench vfio-user [--peer NAME=COMMAND]`.
//!
//! One raw client speaks to each server over the same kind of socket, on a CPU of its own where the
//! machine has two. The rounds come in random order, and each operation's time is a median of
//! medians with its spread. `floor` is no server: it answers as many bytes as a server would, with
//! one `read` and one `write`, and shows what the kernel alone takes; `floor, spin` does the same
//! and polls before it sleeps, with two more system calls that switch the mode of the socket.
//!
//! A second table has the CPU time of the server's process for one operation, user and kernel
//! together, from the scheduler's own count (`/proc/PID/task/*/schedstat`). The time until a
//! process that slept gets a CPU is not in the second table, so that a busy machine gives nearly
//! the same numbers as an idle one.
//!
//! A peer is a command that serves a device with a configuration space (region 7) and a BAR0 of at
//! least 64 KiB; it gets the socket's path as its last argument.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command as Process};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use varia_spec::errno::Errno;
use varia_spec::vfio::{DeviceInfo, IrqInfo, device_flags, region_flags};
use varia_sys::event::EventFd;
use varia_sys::socket::Listener;
use varia_vfio_user::backend::{Backend, DmaRegion, IrqSet, OfferedRegion, Progress, RegionInfo};
use varia_vfio_user::command::Command;
use varia_vfio_user::command::RegionAccess;
use varia_vfio_user::command::version::{Capabilities, Version};
use varia_vfio_user::server::Server;
use varia_vfio_user::wire::{HEADER_LEN, Header};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Bytes of BAR0.
const BAR_LEN: usize = 1 << 20;
/// Bytes of configuration space.
const CONFIG_LEN: usize = 4096;
/// Bytes of a large access.
const LARGE: usize = 64 << 10;
/// Time that a spinning server polls after a message.
const SPIN: Duration = Duration::from_micros(50);

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Config,
    Bar,
    Posted,
    Large,
    Busy,
}

const ROWS: [(Row, &str, u32); 5] = [
    (Row::Config, "configuration read, 4 bytes", 2000),
    (Row::Bar, "BAR read, 4 bytes", 2000),
    (Row::Posted, "BAR write, 4 bytes, posted", 4000),
    (Row::Large, "BAR read, 64 KiB", 300),
    (Row::Busy, "configuration read by a client that polls", 2000),
];

/// Memory behind two regions.
struct Memory {
    config: Mutex<Vec<u8>>,
    bar: Mutex<Vec<u8>>,
}

impl Memory {
    fn new() -> Self {
        Self {
            config: Mutex::new(vec![0; CONFIG_LEN]),
            bar: Mutex::new(vec![0; BAR_LEN]),
        }
    }

    fn with<T>(
        &self,
        region: u32,
        offset: u64,
        len: usize,
        act: impl FnOnce(&mut [u8]) -> T,
    ) -> Option<T> {
        let memory = match region {
            0 => &self.bar,
            7 => &self.config,
            _ => return None,
        };
        let mut memory = memory.lock().ok()?;
        let start = usize::try_from(offset).ok()?;
        Some(act(memory.get_mut(start..start.checked_add(len)?)?))
    }
}

impl Backend for Memory {
    type Wait = ();
    fn arrived(&self) {}
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            flags: device_flags::PCI | device_flags::RESET,
            num_regions: 9,
            num_irqs: 5,
        }
    }
    fn region_info(&self, index: u32) -> Result<OfferedRegion, Errno> {
        let size = match index {
            0 => BAR_LEN as u64,
            7 => CONFIG_LEN as u64,
            _ => return Ok(OfferedRegion::default()),
        };
        let info = RegionInfo {
            flags: region_flags::READ | region_flags::WRITE,
            size,
            ..RegionInfo::default()
        };
        Ok(OfferedRegion { info, file: None })
    }
    fn irq_info(&self, _: u32) -> Result<IrqInfo, Errno> {
        Ok(IrqInfo::default())
    }
    fn set_irqs(&self, _: IrqSet) -> Result<(), Errno> {
        Ok(())
    }
    fn region_read(
        &self,
        region: u32,
        offset: u64,
        buf: &mut [u8],
        (): &mut (),
    ) -> Result<Progress, Errno> {
        self.with(region, offset, buf.len(), |bytes| {
            buf.copy_from_slice(bytes)
        })
        .map(|()| Progress::Done(buf.len()))
        .ok_or(Errno::EINVAL)
    }
    fn region_write(
        &self,
        region: u32,
        offset: u64,
        data: &[u8],
        (): &mut (),
    ) -> Result<Progress, Errno> {
        self.with(region, offset, data.len(), |bytes| {
            bytes.copy_from_slice(data);
        })
        .map(|()| Progress::Done(data.len()))
        .ok_or(Errno::EINVAL)
    }
    fn dma_map(&self, _: DmaRegion) -> Result<(), Errno> {
        Ok(())
    }
    fn dma_unmap(&self, _: u64, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn dma_unmap_all(&self) {}
    fn reset(&self) -> Result<(), Errno> {
        Ok(())
    }
}

impl vfio_user::ServerBackend for Memory {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        self.with(region, offset, data.len(), |bytes| {
            data.copy_from_slice(bytes)
        })
        .ok_or(ErrorKind::InvalidInput.into())
    }
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.with(region, offset, data.len(), |bytes| {
            bytes.copy_from_slice(data)
        })
        .ok_or(ErrorKind::InvalidInput.into())
    }
    fn dma_map(
        &mut self,
        _: vfio_user::DmaMapFlags,
        _: u64,
        _: u64,
        _: u64,
        _: Option<std::fs::File>,
    ) -> std::io::Result<()> {
        Ok(())
    }
    fn dma_unmap(&mut self, _: vfio_user::DmaUnmapFlags, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn reset(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn set_irqs(
        &mut self,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: Vec<std::fs::File>,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

/// Serves on `path` until this process is killed.
fn serve(name: &str, path: &Path) -> Outcome<()> {
    pin(1);
    match name {
        "ours" | "spin" => {
            let listener = Listener::bind(path)?;
            let spin = if name == "spin" { SPIN } else { Duration::ZERO };
            let server = Server::new(Memory::new()).with_spin(spin);
            Ok(server.serve_forever(&listener, &EventFd::new()?)?)
        }
        "crate" => {
            let region = |index, size| vfio_user::ServerRegion {
                region_info: vfio_bindings::bindings::vfio::vfio_region_info {
                    argsz: 32,
                    flags: region_flags::READ | region_flags::WRITE,
                    index,
                    size,
                    ..Default::default()
                },
                sparse_areas: Vec::new(),
                mmap_fd: None,
            };
            let sizes = (0..9).map(|index| match index {
                0 => region(0, BAR_LEN as u64),
                7 => region(7, CONFIG_LEN as u64),
                _ => region(index, 0),
            });
            let server = vfio_user::Server::new(path, true, Vec::new(), sizes.collect())?;
            Ok(server.run(&mut Memory::new())?)
        }
        "floor" => floor(path, false),
        "floor, spin" => floor(path, true),
        other => Err(format!("unknown server {other:?}").into()),
    }
}

/// Receives some bytes. One that spins polls for as long as a spinning server before it sleeps.
fn receive(stream: &mut UnixStream, room: &mut [u8], spins: bool) -> std::io::Result<usize> {
    if spins {
        stream.set_nonblocking(true)?;
        let begin = Instant::now();
        let polled = loop {
            match stream.read(room) {
                Err(e) if e.kind() == ErrorKind::WouldBlock && begin.elapsed() < SPIN => {}
                polled => break polled,
            }
        };
        stream.set_nonblocking(false)?;
        match polled {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            polled => return polled,
        }
    }
    stream.read(room)
}

/// Answers each message with as many bytes as a server would, without looking at more than its
/// header and its count.
fn floor(path: &Path, spins: bool) -> Outcome<()> {
    let (mut stream, _) = UnixListener::bind(path)?.accept()?;
    let (mut buffer, mut out) = (vec![0; LARGE], vec![0; LARGE + 64]);
    let mut have = 0;
    loop {
        have += match receive(&mut stream, &mut buffer[have..], spins)? {
            0 => return Ok(()),
            count => count,
        };
        let mut rest = &buffer[..have];
        while let Some(header) = rest.first_chunk().map(Header::decode) {
            let Some((message, others)) = rest.split_at_checked(header.size as usize) else {
                break;
            };
            rest = others;
            let mut count = 16;
            if header.command == Command::REGION_READ {
                let (access, _) = RegionAccess::decode("floor", &message[HEADER_LEN..])?;
                count += access.count as usize;
            }
            out[..HEADER_LEN].copy_from_slice(&header.reply(count).encode());
            if !header.no_reply {
                stream.write_all(&out[..HEADER_LEN + count])?;
            }
        }
        let left = rest.len();
        buffer.copy_within(have - left..have, 0);
        have = left;
    }
}

fn version() -> Version {
    Version {
        major: 0,
        minor: 0,
        capabilities: Capabilities::ours(),
    }
}

/// Keeps this thread on a CPU, if the machine has it.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // a machine with one CPU measures all the same
    let _ = sched_setaffinity(None, &set);
}

/// A client without any abstraction.
struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(path: &Path) -> Outcome<Self> {
        let limit = Instant::now() + Duration::from_secs(600);
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > limit => return Err(e.into()),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        let mut client = Self {
            stream,
            buffer: vec![0; LARGE + 64],
        };
        let mut payload = Vec::new();
        version().encode(&mut payload);
        client.send(Command::VERSION, &payload, false)?;
        client.receive()?;
        Ok(client)
    }

    fn send(&mut self, command: Command, payload: &[u8], posted: bool) -> Outcome<()> {
        let mut header = Header::command(1, command, payload.len());
        header.no_reply = posted;
        let message = [&header.encode()[..], payload].concat();
        Ok(self.stream.write_all(&message)?)
    }

    /// Receives a reply.
    fn receive(&mut self) -> Outcome<()> {
        let (mut have, mut need) = (0, HEADER_LEN);
        while have < need {
            match self.stream.read(&mut self.buffer[have..]) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => have += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e.into()),
            }
            if let Some(header) = self.buffer.first_chunk().filter(|_| have >= HEADER_LEN) {
                let header = Header::decode(header);
                if let Some(errno) = header.error {
                    return Err(format!("{} failed with errno {errno}", header.command).into());
                }
                need = header.size as usize;
            }
        }
        Ok(())
    }

    /// Time of one operation, from `count` of them.
    fn time(&mut self, row: Row, count: u32) -> Outcome<Duration> {
        let access = |region, count| {
            let mut bytes = Vec::new();
            RegionAccess {
                offset: 0,
                region,
                count,
            }
            .encode(&mut bytes);
            bytes
        };
        let (command, payload) = match row {
            Row::Config | Row::Busy => (Command::REGION_READ, access(7, 4)),
            Row::Bar => (Command::REGION_READ, access(0, 4)),
            Row::Posted => (Command::REGION_WRITE, [access(0, 4), vec![1; 4]].concat()),
            Row::Large => (Command::REGION_READ, access(0, LARGE as u32)),
        };
        self.stream.set_nonblocking(row == Row::Busy)?;
        let begin = Instant::now();
        for _ in 0..count {
            self.send(command, &payload, row == Row::Posted)?;
            if row != Row::Posted {
                self.receive()?;
            }
        }
        if row == Row::Posted {
            // the writes are done when this is answered
            self.send(Command::REGION_READ, &access(0, 4), false)?;
            self.receive()?;
        }
        let time = begin.elapsed() / count;
        self.stream.set_nonblocking(false)?;
        Ok(time)
    }
}

/// One measurement: a mean over many operations.
struct Sample {
    /// From the request to the reply.
    time: Duration,
    /// CPU time of the server.
    cpu: Duration,
}

/// A server's process, killed at the end.
struct Served(Child);

impl Served {
    /// CPU time that the threads of the process have had.
    fn cpu(&self) -> Outcome<Duration> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let counts = fs::read_to_string(thread?.path().join("schedstat"))?;
            let first = counts.split_whitespace().next().unwrap_or_default();
            nanoseconds += first.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(names: &[String], peers: &BTreeMap<String, String>, rounds: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let mut running = Vec::new();
    for name in names {
        let path = folder.path().join(name);
        let mut process = match peers.get(name) {
            Some(command) => {
                let mut process = Process::new("sh");
                let script = format!("exec {command} \"$0\"");
                process.args(["-c", &script]).arg(&path);
                process
            }
            None => {
                let mut process = Process::new(std::env::current_exe()?);
                process.args(["--serve", name]).arg(&path);
                process
            }
        };
        let served = Served(process.spawn()?);
        // a peer knows nothing of CPUs
        let mut set = CpuSet::new();
        set.set(1);
        let pid = rustix::process::Pid::from_child(&served.0);
        let _ = sched_setaffinity(Some(pid), &set);
        running.push((name, served, Client::connect(&path)?));
    }
    pin(0);
    let mut samples: BTreeMap<(Row, &str), Vec<Sample>> = BTreeMap::new();
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..rounds {
        let mut order: Vec<_> = (0..running.len())
            .flat_map(|server| (0..ROWS.len()).map(move |row| (server, row)))
            .collect();
        rng.shuffle(&mut order);
        for (server, row) in order {
            let (name, served, client) = &mut running[server];
            let (row, _, count) = ROWS[row];
            let measured = client.time(row, count / 10).and_then(|_| {
                let before = served.cpu()?;
                let time = client.time(row, count)?;
                let cpu = (served.cpu()? - before) / count;
                Ok(Sample { time, cpu })
            });
            let sample = measured.map_err(|e| format!("{name}: {e}"))?;
            samples.entry((row, name)).or_default().push(sample);
        }
    }
    print(names, "round trip", &samples, |sample| sample.time);
    println!();
    print(names, "CPU time of the server", &samples, |s| s.cpu);
    Ok(())
}

/// A table of medians with their quartiles.
fn print<'a>(
    names: &'a [String],
    what: &str,
    samples: &BTreeMap<(Row, &'a str), Vec<Sample>>,
    of: impl Fn(&Sample) -> Duration,
) {
    println!("| {what}, median µs (quartiles) | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for (row, text, _) in ROWS {
        let mut line = format!("| {text} |");
        for name in names {
            let samples = samples.get(&(row, name.as_str())).into_iter().flatten();
            let mut times: Vec<_> = samples.map(&of).collect();
            times.sort();
            let at = |part: usize| times[(times.len() - 1) * part / 4].as_secs_f64() * 1e6;
            line += &format!(" {:.1} ({:.1} to {:.1}) |", at(2), at(1), at(3));
        }
        println!("{line}");
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [flag, name, path] if flag == "--serve" => return serve(name, Path::new(path)),
        _ => {}
    }
    let mut names: Vec<String> = ["floor", "floor, spin", "crate", "ours", "spin"]
        .map(Into::into)
        .to_vec();
    let (mut peers, mut rounds) = (BTreeMap::new(), 15);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match (flag.as_str(), rest.next()) {
            // cargo's own
            ("--bench", None) => {}
            ("--peer", Some(peer)) => {
                let (name, command) = peer.split_once('=').ok_or("a peer is NAME=COMMAND")?;
                names.insert(1, name.to_owned());
                peers.insert(name.to_owned(), command.to_owned());
            }
            ("--rounds", Some(count)) => rounds = count.parse()?,
            (other, _) => return Err(format!("unknown option {other:?}").into()),
        }
    }
    measure(&names, &peers, rounds)
}
