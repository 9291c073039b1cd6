//! `own-buffer BDF ROUNDS`: reads a region of a VFIO device into a mapping of the same region, at least
//! so often, while another thread switches memory off and on.
//!
//! Each read goes into pages of which only the first has been touched, so that the read faults in the
//! driver's own mapping when a part is done. A driver that copies with its lock held waits for itself
//! as soon as a writer of that lock comes in between. Prints the number of reads that succeeded and of
//! reads that met disabled memory.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::mapping::{Access, page_size};
use varia_sys::vfio::{Device, position};

use super::vfio::OpenDevice;

/// Where the bytes are that are read, from the start of usemem.
const SOURCE: u64 = 0x10_0000;
/// Pages of a read.
const PAGES: usize = 4;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match read_into_itself(arguments) {
        Ok((done, faulted)) => {
            println!("{done} {faulted}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("own-buffer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_into_itself(arguments: &[String]) -> Result<(u32, u32), String> {
    let [bdf, rounds] = arguments else {
        return Err("usage: own-buffer BDF ROUNDS".into());
    };
    let rounds: u32 = rounds.parse().map_err(|e| format!("{rounds:?}: {e}"))?;
    let opened = OpenDevice::open(bdf)?;
    let device = &opened.device;
    let failed = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
    switch_memory(device, true).map_err(failed("enable memory"))?;
    device
        .write_at(position(RegionIndex::BAR4.0, SOURCE), &pattern())
        .map_err(failed("write the pattern"))?;
    let stop = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // A write that fails shows in the reads: nothing would ever meet disabled memory.
                let _ = switch_memory(device, false);
                let _ = switch_memory(device, true);
                thread::yield_now();
            }
        });
        let counts = read_often(device, rounds);
        stop.store(true, Ordering::Relaxed);
        counts
    })?;
    switch_memory(device, true).map_err(failed("enable memory"))?;
    read_once(device).map_err(failed("the last read"))?;
    Ok(counts)
}

/// Reads `least` times, and on until reads have succeeded as well as faulted: {done, faulted}.
fn read_often(device: &Device, least: u32) -> Result<(u32, u32), String> {
    let (mut done, mut faulted) = (0, 0);
    while done + faulted < least || done == 0 || faulted == 0 {
        match read_once(device) {
            Ok(()) => done += 1,
            Err(Errno::EFAULT) => faulted += 1,
            Err(errno) => return Err(format!("a read: {errno}")),
        }
    }
    Ok((done, faulted))
}

/// Bytes that differ from one page to the next, none of them 0.
fn pattern() -> Vec<u8> {
    (0..PAGES * page_size())
        .map(|at| (at % 251) as u8 + 1)
        .collect()
}

/// Reads into a fresh mapping; `EFAULT` if memory was off when the pages were faulted in.
fn read_once(device: &Device) -> Result<(), Errno> {
    let expected = pattern();
    let len = expected.len();
    let base = position(RegionIndex::BAR4.0, 0);
    device.write_at(base, &vec![0; len])?;
    let mapping = device.map(base, len as u64, Access::ReadWrite)?;
    mapping.touch(0)?;
    let source = position(RegionIndex::BAR4.0, SOURCE);
    let count = mapping.fill_from(device, source, 0, len)?;
    let mut bytes = vec![0; len];
    let seen = mapping.peek(0, &mut bytes)?;
    if seen < len {
        // switched off during the read
        return Err(Errno::EFAULT);
    }
    if count == len && bytes == expected {
        Ok(())
    } else {
        Err(Errno::EIO)
    }
}

fn switch_memory(device: &Device, on: bool) -> Result<(), Errno> {
    let command = if on { header::command::MEMORY } else { 0 };
    let at = position(RegionIndex::CONFIG.0, header::COMMAND.into());
    device.write_at(at, &command.to_le_bytes()).map(drop)
}
