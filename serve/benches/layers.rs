//! Cost that each layer adds to an access, in nanoseconds: `./x bench layers`.
//!
//! Rows that belong together are the same access, one layer higher each time. A number is the
//! fastest of several rounds, so that what else the machine does counts least.

use std::error::Error;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use varia_core::{ConfigRegister, Core, Device, View};
use varia_serve::{Backend, Endpoint, Options};
use varia_silicon::{Silicon, profile};
use varia_spec::Errno;
use varia_spec::vfio::RegionIndex;
use varia_spec::virtio::admin;
use varia_sys::{event::EventFd, memory::SharedMemory, socket::Listener};
use varia_variant::{ConfigOwner, ConfigSegment, Direction, Extended, Extension, Region, Variant};
use varia_vfio_user::{
    client::{Client, ClientError},
    command::{DMA_READ, DMA_WRITE, version::MAX_DMA_MAPS},
    server::Server,
};

/// Text of the page above the result.
const ABOUT: &str = include_str!("layers.md");
const ROUNDS: u32 = 2000;
/// Short, so that on a machine with other work some rounds are not interrupted.
const ROUND: Duration = Duration::from_micros(100);
/// The command and status registers.
const COMMAND: u16 = 4;
const BAR4: RegionIndex = RegionIndex::BAR4;

/// Nanoseconds that one call takes in the fastest round.
fn measure(mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (began, mut calls) = (Instant::now(), 0u32);
        while began.elapsed() < ROUND {
            for _ in 0..16 {
                call();
            }
            calls += 16;
        }
        best = best.min(began.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}

/// Makes the compiler believe that a result is used.
fn keep<T>(result: T) {
    black_box(&result);
}

/// Prints a group of rows, each with what it adds to the one before.
fn show(title: &str, rows: &[(&str, f64)]) {
    println!("\n## {title}\n| through | ns | more |\n|---|---|---|");
    let mut below = None;
    for (name, time) in rows {
        let added = below.map_or_else(String::new, |below| format!("{:.0}", time - below));
        println!("| {name} | {time:.0} | {added} |");
        below = Some(*time);
    }
}

/// An extension with 8 bytes of its own.
struct Own;

impl Extension for Own {
    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        let own = [(0xe0, 0xe8)].into_iter();
        ConfigSegment::split_all(offset, len, own, ConfigOwner::Keep)
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        for (at, byte) in (offset..).zip(out) {
            if (0xe0..0xe8).contains(&at) {
                *byte = 0;
            }
        }
    }
}

fn device(name: &str) -> Result<Arc<Silicon>, Box<dyn Error>> {
    Ok(Arc::new(Silicon::new(
        profile::find(name)?,
        Default::default(),
    )?))
}

fn refused(errno: Errno) -> String {
    format!("refused: {}", errno.name())
}

/// A client of a served device, and what ends the server.
fn served(name: &str) -> Result<(Client, EventFd), Box<dyn Error>> {
    let endpoint = Endpoint::new(device(name)?, Options::default())?;
    let path = std::env::temp_dir().join(format!("varia-bench-{}-{name}", std::process::id()));
    let listener = Listener::bind(&path)?;
    let stop = EventFd::new()?;
    let told = stop.try_clone()?;
    thread::spawn(move || {
        Server::new(Backend::new(Arc::new(endpoint))).serve_forever(&listener, &told)
    });
    Ok((Client::connect(&path)?, stop))
}

fn config(name: &str) -> Result<(), Box<dyn Error>> {
    let silicon = device(name)?;
    let register = ConfigRegister::dword(COMMAND);
    let at = u64::from(COMMAND);
    let raw = measure(|| keep(silicon.config_read(register)));
    let mut bytes = [0; 4];
    let core = Core::new(device(name)?, View::Virtual)?;
    core.open().map_err(refused)?;
    let based = measure(|| keep(core.config_read(at, &mut bytes)));
    let endpoint = Endpoint::new(silicon, Options::default())?;
    endpoint.open().map_err(refused)?;
    let index = RegionIndex::CONFIG;
    let varied = measure(|| keep(endpoint.read(index, at, &mut bytes)));
    let (mut client, stop) = served(name)?;
    let wired = measure(|| keep(client.region_read(index.0, at, &mut bytes)));
    stop.trigger()?;
    let rows = [
        ("device", raw),
        ("core", based),
        ("variant", varied),
        ("vfio-user", wired),
    ];
    show(
        &format!("{name}: 4 bytes of configuration space, read"),
        &rows,
    );
    let written = measure(|| keep(endpoint.write(index, at, &[6, 0, 0, 0])));
    let plain = measure(|| keep(core.config_write(at, &[6, 0, 0, 0])));
    show(
        &format!("{name}: 4 bytes of configuration space, written"),
        &[("core", plain), ("variant", written)],
    );
    let variant = endpoint.variant().ok_or("no variant")?;
    let mut space = [0; 256];
    let alone = measure(|| variant.config_load(0, black_box(&mut space)));
    let extended = Extended::new(Layer(variant), Own);
    let more = measure(|| extended.config_load(0, black_box(&mut space)));
    show(
        &format!("{name}: the decision on 256 bytes of configuration space"),
        &[("variant", alone), ("extension", more)],
    );
    Ok(())
}

/// A variant that is lent.
struct Layer<'a>(&'a varia_variants::AnyVariant);

impl Variant for Layer<'_> {
    fn outcome(&self) -> varia_variant::Outcome {
        self.0.outcome()
    }
    fn region(&self, index: RegionIndex) -> Region<'_> {
        self.0.region(index)
    }
    fn config_segment(&self, direction: Direction, offset: u64, len: u64) -> ConfigSegment {
        self.0.config_segment(direction, offset, len)
    }
    fn config_load(&self, offset: u64, out: &mut [u8]) {
        self.0.config_load(offset, out);
    }
    fn config_store(&self, offset: u64, data: &[u8]) {
        self.0.config_store(offset, data);
    }
    fn event(&self, event: varia_variant::Event) {
        self.0.event(event);
    }
    fn needs_bar(&self, bar: varia_variant::BarIndex) -> bool {
        self.0.needs_bar(bar)
    }
}

/// Coherent memory, behind a fake BAR.
fn memory() -> Result<(), Box<dyn Error>> {
    let name = "gh200";
    let silicon = device(name)?;
    let base = silicon.coherent_memory().ok_or("no memory")?.base;
    let mut bytes = [0; 8];
    let raw = measure(|| keep(silicon.memory_read(base, &mut bytes)));
    let endpoint = Endpoint::new(silicon, Options::default())?;
    endpoint.open().map_err(refused)?;
    let varied = measure(|| keep(endpoint.read(BAR4, 0, &mut bytes)));
    let (mut client, stop) = served(name)?;
    let wired = measure(|| keep(client.region_read(BAR4.0, 0, &mut bytes)));
    stop.trigger()?;
    let rows = [("device", raw), ("variant", varied), ("vfio-user", wired)];
    show("gh200: 8 bytes of usemem, read", &rows);
    Ok(())
}

/// Legacy registers, behind an I/O BAR.
fn registers() -> Result<(), Box<dyn Error>> {
    let name = "virtio-net";
    let silicon = device(name)?;
    let mut bytes = [0; 4];
    let opcode = admin::LEGACY_COMMON_CFG_READ;
    let raw = measure(|| keep(silicon.owner_command(opcode, &[0], &mut bytes)));
    let endpoint = Endpoint::new(silicon, Options::default())?;
    endpoint.open().map_err(refused)?;
    let index = RegionIndex::CONFIG;
    endpoint
        .write(index, COMMAND.into(), &[7, 0])
        .map_err(refused)?;
    endpoint
        .read(RegionIndex::BAR0, 0, &mut bytes)
        .map_err(refused)?;
    let varied = measure(|| keep(endpoint.read(RegionIndex::BAR0, 0, &mut bytes)));
    let (mut client, stop) = served(name)?;
    client.region_write(RegionIndex::CONFIG.0, COMMAND.into(), &[7, 0])?;
    let wired = measure(|| keep(client.region_read(0, 0, &mut bytes)));
    stop.trigger()?;
    let rows = [("device", raw), ("variant", varied), ("vfio-user", wired)];
    show("virtio-net: 4 bytes of legacy registers, read", &rows);
    Ok(())
}

/// As many mappings of one memfd as a client may have.
fn mappings() -> Result<(), Box<dyn Error>> {
    const COUNT: u64 = MAX_DMA_MAPS as u64;
    const PAGE: u64 = 4096;
    let memory = SharedMemory::anonymous("varia-bench", 2 * COUNT * PAGE)?;
    let (mut client, stop) = served("virtio-net")?;
    println!("\n## {COUNT} mappings of the client's memory\n| through vfio-user | ms |\n|---|---|");
    let show = |name: &str, began: Instant| {
        println!("| {name} | {} |", began.elapsed().as_millis());
    };
    // every other page, so that no two mappings are adjacent
    let addresses = || (0..COUNT).map(|page| 2 * page * PAGE);
    let map = |client: &mut Client| -> Result<(), ClientError> {
        for at in addresses() {
            client.dma_map(at, PAGE, DMA_READ | DMA_WRITE, Some((memory.as_fd(), at)))?;
        }
        Ok(())
    };
    let began = Instant::now();
    map(&mut client)?;
    show("map, one message each", began);
    let began = Instant::now();
    for at in addresses() {
        client.dma_unmap(at, PAGE)?;
    }
    show("unmap, one message each", began);
    map(&mut client)?;
    let began = Instant::now();
    client.dma_unmap_all()?;
    show("unmap all, one message", began);
    map(&mut client)?;
    let began = Instant::now();
    client.stream().shutdown_write();
    // the server ends the connection when all mappings are removed
    client.receive().err().ok_or("an unexpected message")?;
    show("the client leaves", began);
    stop.trigger()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = machine.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1));
    print!("{ABOUT}");
    println!(
        "## Result\nNanoseconds for an access, and how many more than one layer below. The fastest \
         of {ROUNDS} rounds of {} us each, on {}.",
        ROUND.as_micros(),
        model.unwrap_or("a processor without a name")
    );
    config("gh200")?;
    config("virtio-net")?;
    memory()?;
    registers()?;
    mappings()
}
