//! `bench BDF DRIVER SAMPLES [LATE]`: how long the operations on a VFIO device take, by a clock.
//!
//! Opens the function at `BDF`, which `DRIVER` has, and prints [`Times`] as JSON on one line. `LATE` is
//! a function that takes seconds to get ready after it is opened: on it, a configuration write is
//! timed while a read waits.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::mapping::{Access, page_size};
use varia_sys::vfio::{Device, position};

use super::vfio::OpenDevice;

/// Nanoseconds that one operation took, by its name: in the fastest of some samples, which others on
/// the machine have disturbed the least.
pub type Times = BTreeMap<String, f64>;

/// How long the operations of a sample take together, at least.
const SAMPLE: Duration = Duration::from_millis(1);
/// Samples of what takes a tenth of a second.
const FEW: usize = 3;
/// What a huge page table entry maps with 4 KiB pages.
const HUGE: u64 = 2 << 20;
/// What is mapped by touching it.
const LARGE: u64 = 8 << 30;
/// How long the waiting read has to begin its wait.
const HEAD_START: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, String>;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match bench(arguments)
        .and_then(|times| serde_json::to_string(&times).map_err(|error| error.to_string()))
    {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> Result<Times> {
    let (bdf, driver, samples, late) = match arguments {
        [bdf, driver, samples] => (bdf, driver, samples, None),
        [bdf, driver, samples, late] => (bdf, driver, samples, Some(late)),
        _ => return Err("usage: bench BDF DRIVER SAMPLES [LATE]".into()),
    };
    let samples = samples
        .parse()
        .map_err(|error| format!("{samples:?}: {error}"))?;
    let mut times = Times::new();
    {
        let opened = OpenDevice::open(bdf)?;
        let device = &opened.device;
        let named = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
        config(device, samples, &mut times).map_err(named("configuration space"))?;
        copies(device, samples, &mut times).map_err(named("reads and writes"))?;
        touches(device, samples, &mut times).map_err(named("first touches"))?;
    }
    times.insert(
        "open and close".into(),
        few(|| OpenDevice::open(bdf).map(drop))?,
    );
    times.insert("unbind and bind".into(), few(|| rebind(bdf, driver))?);
    if let Some(late) = late {
        let time = write_during_a_wait(late)?;
        times.insert("config write while a read waits".into(), time);
    }
    Ok(times)
}

fn config(device: &Device, samples: usize, times: &mut Times) -> std::result::Result<(), Errno> {
    let at = |offset: u16| position(RegionIndex::CONFIG.0, offset.into());
    let command = (header::command::MEMORY | header::command::MASTER).to_le_bytes();
    device.write_at(at(header::COMMAND), &command)?;
    let mut read = |name: &str, offset, bytes: &mut [u8]| {
        let time = fastest(samples, || device.read_at(at(offset), bytes).map(drop))?;
        times.insert(name.to_owned(), time);
        Ok(())
    };
    read(
        "config read, 4 bytes of the header",
        header::VENDOR_ID,
        &mut [0; 4],
    )?;
    read(
        "config read, 4 bytes of a fake BAR",
        header::BASE_ADDRESS_2,
        &mut [0; 4],
    )?;
    read(
        "config read, 16 bytes of fake BARs",
        header::BASE_ADDRESS_2,
        &mut [0; 16],
    )?;
    for (name, offset, bytes) in [
        (
            "config write, command register",
            header::COMMAND,
            command.as_slice(),
        ),
        (
            "config write, 4 bytes of a fake BAR",
            header::BASE_ADDRESS_2,
            &[0xff; 4],
        ),
    ] {
        let time = fastest(samples, || device.write_at(at(offset), bytes).map(drop))?;
        times.insert(name.to_owned(), time);
    }
    Ok(())
}

fn copies(device: &Device, samples: usize, times: &mut Times) -> std::result::Result<(), Errno> {
    for (region, name) in [(4, "usemem"), (2, "resmem")] {
        for (len, size) in [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (2 << 20, "2 MiB")] {
            let mut bytes = vec![0x5a; len];
            let at = position(region, 0);
            let write = fastest(samples, || device.write_at(at, &bytes).map(drop))?;
            let read = fastest(samples, || device.read_at(at, &mut bytes).map(drop))?;
            times.insert(format!("{name} read, {size}"), read);
            times.insert(format!("{name} write, {size}"), write);
        }
    }
    Ok(())
}

/// Maps and touches. A huge page needs an address that is aligned as its memory is.
fn touches(device: &Device, samples: usize, times: &mut Times) -> std::result::Result<(), Errno> {
    let page = page_size() as u64;
    let time = fastest(samples, || {
        let mapping = device.map(position(4, page), page, Access::ReadWrite)?;
        mapping.read(0, &mut [0])
    })?;
    times.insert("map and touch a page".into(), time);
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
    times.insert(
        "map and touch 2 MiB".into(),
        fastest(samples, || huge(HUGE))?,
    );
    times.insert(
        "map 8 GiB by touch".into(),
        fastest(samples, || huge(LARGE))?,
    );
    Ok(())
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

/// The fastest of some samples, each of so many operations that the clock is exact enough.
fn fastest<E>(
    samples: usize,
    mut operation: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<f64, E> {
    let mut count = 1;
    loop {
        let time = timed(count, &mut operation)?;
        if time >= SAMPLE {
            break;
        }
        count *= 2;
    }
    let mut best = f64::INFINITY;
    for _ in 0..samples {
        best = best.min(timed(count, &mut operation)?.as_nanos() as f64 / f64::from(count));
    }
    Ok(best)
}

fn timed<E>(
    count: u32,
    operation: &mut impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<Duration, E> {
    let started = Instant::now();
    for _ in 0..count {
        operation()?;
    }
    Ok(started.elapsed())
}

/// The fastest of few samples of one operation each.
fn few(mut operation: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..FEW {
        best = best.min(timed(1, &mut operation)?.as_nanos() as f64);
    }
    Ok(best)
}
