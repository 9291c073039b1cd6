//! `bench BDF DRIVER LATE CLOCK SAMPLES [ONLY...]`: how long the operations on a VFIO device take.
//!
//! Opens the function at `BDF`, which `DRIVER` has, and prints [`Times`] as JSON on one line. `LATE` is
//! a function that takes seconds to get ready after it is opened, or `-`: on it, a configuration
//! write is timed while a read waits. `CLOCK` is `wall`, or `processor` for the time that a processor
//! spends. With `ONLY`, measures the operations alone whose names have one of these texts in them.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::mapping::{Access, page_size};
use varia_sys::vfio::{Device, position};

use super::{answer, vfio::OpenDevice};

/// Nanoseconds that one operation took, by its name: in the fastest of some samples, which others on
/// the machine have disturbed the least.
pub type Times = BTreeMap<String, f64>;

/// Least duration of all operations of a sample together.
const SAMPLE: Duration = Duration::from_millis(1);
/// Samples of what takes a tenth of a second.
const FEW: usize = 10;
/// Bytes that a huge page table entry maps with 4 KiB pages.
const HUGE: u64 = 2 << 20;
/// Bytes that are mapped by a touch.
const LARGE: u64 = 8 << 30;
/// Time for the waiting read to begin its wait.
const HEAD_START: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, String>;

/// State of a measurement.
#[derive(Clone, Copy)]
enum Clock {
    /// The time that passes.
    Wall,
    /// The time that a processor spends for the operation, asleep not at all: in a machine that counts
    /// instructions, those of the operation alone.
    Processor,
}

struct Bench {
    samples: usize,
    clock: Clock,
    only: Vec<String>,
    times: Times,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    answer("bench", bench(arguments))
}

fn bench(arguments: &[String]) -> Result<Times> {
    let [bdf, driver, late, clock, samples, only @ ..] = arguments else {
        return Err("usage: bench BDF DRIVER LATE|- wall|processor SAMPLES [ONLY...]".into());
    };
    let mut bench = Bench {
        samples: samples
            .parse()
            .map_err(|error| format!("{samples:?}: {error}"))?,
        clock: match clock.as_str() {
            "wall" => Clock::Wall,
            "processor" => Clock::Processor,
            other => return Err(format!("{other:?} is no clock: wall, processor")),
        },
        only: only.to_vec(),
        times: Times::new(),
    };
    {
        let opened = OpenDevice::open(bdf)?;
        let device = &opened.device;
        let named = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
        bench.config(device).map_err(named("configuration space"))?;
        bench.copies(device).map_err(named("reads and writes"))?;
        bench.touches(device).map_err(named("first touches"))?;
    }
    bench.few("open and close", || OpenDevice::open(bdf).map(drop))?;
    bench.few("unbind and bind", || rebind(bdf, driver))?;
    let waiting = "config write while a read waits";
    if late != "-" && bench.wants(waiting) {
        let time = write_during_a_wait(late)?;
        bench.times.insert(waiting.into(), time);
    }
    Ok(bench.times)
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word))
    }

    fn config(&mut self, device: &Device) -> std::result::Result<(), Errno> {
        let at = |offset: u16| position(RegionIndex::CONFIG.0, offset.into());
        let command = (header::command::MEMORY | header::command::MASTER).to_le_bytes();
        device.write_at(at(header::COMMAND), &command)?;
        for (name, offset, len) in [
            ("4 bytes of the header", header::VENDOR_ID, 4),
            ("4 bytes of a fake BAR", header::BASE_ADDRESS_2, 4),
            ("16 bytes of fake BARs", header::BASE_ADDRESS_2, 16),
        ] {
            let mut bytes = vec![0; len];
            self.fastest(&format!("config read, {name}"), || {
                device.read_at(at(offset), &mut bytes).map(drop)
            })?;
        }
        for (name, offset, bytes) in [
            ("command register", header::COMMAND, command.as_slice()),
            ("4 bytes of a fake BAR", header::BASE_ADDRESS_2, &[0xff; 4]),
        ] {
            self.fastest(&format!("config write, {name}"), || {
                device.write_at(at(offset), bytes).map(drop)
            })?;
        }
        Ok(())
    }

    fn copies(&mut self, device: &Device) -> std::result::Result<(), Errno> {
        for (region, name) in [(4, "usemem"), (2, "resmem")] {
            for (len, size) in [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (2 << 20, "2 MiB")] {
                let mut bytes = vec![0x5a; len];
                let at = position(region, 0);
                self.fastest(&format!("{name} write, {size}"), || {
                    device.write_at(at, &bytes).map(drop)
                })?;
                self.fastest(&format!("{name} read, {size}"), || {
                    device.read_at(at, &mut bytes).map(drop)
                })?;
            }
        }
        Ok(())
    }

    /// Maps and touches. A huge page needs an address that is aligned as its memory is.
    fn touches(&mut self, device: &Device) -> std::result::Result<(), Errno> {
        let page = page_size() as u64;
        self.fastest("map and touch a page", || {
            let mapping = device.map(position(4, page), page, Access::ReadWrite)?;
            mapping.read(0, &mut [0])
        })?;
        let huge = |len: u64| {
            let probe = device.map(position(4, 0), page, Access::ReadWrite)?;
            let end = probe.address() + page;
            drop(probe);
            // Mappings grow downwards from there.
            let mapping = device.map(position(4, 0), len + end % HUGE, Access::ReadWrite)?;
            if mapping.address() % HUGE != 0 {
                return Err(Errno::EINVAL);
            }
            for at in (0..len).step_by(HUGE as usize) {
                mapping.read(at as usize, &mut [0])?;
            }
            Ok(())
        };
        self.fastest("map and touch 2 MiB", || huge(HUGE))?;
        self.fastest("map 8 GiB by touch", || huge(LARGE))
    }

    /// The fastest of some samples, each of so many operations that the clock is exact enough.
    fn fastest<E>(
        &mut self,
        name: &str,
        mut operation: impl FnMut() -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if !self.wants(name) {
            return Ok(());
        }
        let mut count = 1;
        while self.clock.timed(count, &mut operation)? < SAMPLE {
            count *= 2;
        }
        let mut best = f64::INFINITY;
        for _ in 0..self.samples {
            let time = self.clock.timed(count, &mut operation)?;
            best = best.min(time.as_nanos() as f64 / f64::from(count));
        }
        self.times.insert(name.into(), best);
        Ok(())
    }

    /// The fastest of few samples of one operation each.
    fn few(&mut self, name: &str, mut operation: impl FnMut() -> Result<()>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let mut best = f64::INFINITY;
        for _ in 0..FEW {
            best = best.min(self.clock.timed(1, &mut operation)?.as_nanos() as f64);
        }
        self.times.insert(name.into(), best);
        Ok(())
    }
}

impl Clock {
    fn timed<E>(
        self,
        count: u32,
        operation: &mut impl FnMut() -> std::result::Result<(), E>,
    ) -> std::result::Result<Duration, E> {
        let started = self.now();
        for _ in 0..count {
            operation()?;
        }
        Ok(self.now().saturating_sub(started))
    }

    fn now(self) -> Duration {
        let time = clock_gettime(match self {
            Self::Wall => ClockId::Monotonic,
            Self::Processor => ClockId::ThreadCPUTime,
        });
        // neither is ever negative
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
    }
}

fn rebind(bdf: &str, driver: &str) -> Result<()> {
    for file in ["unbind", "bind"] {
        let path = format!("/sys/bus/pci/drivers/{driver}/{file}");
        fs::write(&path, bdf).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// A read waits until the device is ready; meanwhile memory is switched on once more.
fn write_during_a_wait(bdf: &str) -> Result<f64> {
    let opened = OpenDevice::open(bdf)?;
    let device = &opened.device;
    let at = position(RegionIndex::CONFIG.0, header::COMMAND.into());
    let command = (header::command::MEMORY | header::command::MASTER).to_le_bytes();
    let switch = || {
        device
            .write_at(at, &command)
            .map_err(|e| format!("switch memory on: {e}"))
    };
    switch()?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| device.read_at(position(4, 0), &mut [0; 8]));
        thread::sleep(HEAD_START);
        if reader.is_finished() {
            return Err(format!("{bdf} was ready too early: {:?}", reader.join()));
        }
        let started = Instant::now();
        switch()?;
        let took = started.elapsed();
        match reader.join() {
            Ok(Ok(8)) => Ok(took.as_nanos() as f64),
            other => Err(format!("the read that waited: {other:?}")),
        }
    })
}
