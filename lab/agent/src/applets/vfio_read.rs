//! `vfio-read BDF REGION OFFSET [beside]`: opens a function and reads eight bytes of a region.
//! `beside`, meanwhile another thread writes the command register, which takes the lock that
//! protects the device's memory.
//!
//! Prints a [`Seen`], as JSON on one line. What the driver refuses is an answer.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::vfio::{Device, position};

use super::{BEGUN, WRITTEN, answer, mark, vfio::OpenDevice};

/// Result of a read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Error number of the read.
    pub errno: Option<i32>,
    /// Duration of the read, in milliseconds.
    pub millis: u64,
    /// The configuration writes that began before it ended.
    pub beside: Beside,
}

/// Configuration writes beside a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Number of writes.
    pub writes: u64,
    /// Duration of the slowest write, in milliseconds.
    pub slowest_millis: u64,
}

/// Writes that end while a read waits, if the read does not hold the lock.
const MANY: u64 = 10;
/// Time between two writes.
const REST: Duration = Duration::from_millis(20);

pub(super) fn run(arguments: &[String]) -> ExitCode {
    answer("vfio-read", read(arguments))
}

fn read(arguments: &[String]) -> Result<Seen, String> {
    let (bdf, region, offset, beside) = match arguments {
        [bdf, region, offset] => (bdf, region, offset, false),
        [bdf, region, offset, word] if word == "beside" => (bdf, region, offset, true),
        _ => return Err("usage: vfio-read BDF REGION OFFSET [beside]".into()),
    };
    let region = region.parse().map_err(|e| format!("{region:?}: {e}"))?;
    let offset = offset.parse().map_err(|e| format!("{offset:?}: {e}"))?;
    let opened = OpenDevice::open(bdf)?;
    let device = &opened.device;
    let ended = AtomicBool::new(!beside);
    let mut bytes = vec![0; 8];
    mark(BEGUN, bdf)?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(device, bdf, &ended));
        let started = Instant::now();
        let result = device.read_at(position(region, offset), &mut bytes);
        let millis = millis(started);
        ended.store(true, Ordering::SeqCst);
        let errno = match result {
            Ok(count) => {
                bytes.truncate(count);
                None
            }
            Err(errno) => {
                bytes.clear();
                Some(errno.get())
            }
        };
        let beside = writer.join().map_err(|_| "the writer panicked")?;
        Ok(Seen {
            bytes,
            errno,
            millis,
            beside: beside?,
        })
    })
}

/// Switches memory on, though it is on already, until the read has ended. The function's file in
/// [`WRITTEN`] says that [`MANY`] writes have ended.
fn write_until(device: &Device, bdf: &str, ended: &AtomicBool) -> Result<Beside, String> {
    let at = position(RegionIndex::CONFIG.0, header::COMMAND.into());
    let mut beside = Beside::default();
    while !ended.load(Ordering::SeqCst) {
        let started = Instant::now();
        device
            .write_at(at, &header::command::MEMORY.to_le_bytes())
            .map_err(|errno| format!("{bdf}: a configuration write: {errno}"))?;
        beside.writes += 1;
        if beside.writes == MANY {
            mark(WRITTEN, bdf)?;
        }
        beside.slowest_millis = beside.slowest_millis.max(millis(started));
        thread::sleep(REST);
    }
    Ok(beside)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
