//! `memory-enable BDF REGION...`: reads and writes of regions while memory is switched off in the
//! command register, and on.
//!
//! Prints a [`Switched`] for each region, as a JSON array on one line. What the driver refuses is
//! an answer.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::vfio::{Device, position};

use super::{answer, vfio::OpenDevice};

/// Bytes that are written with memory off and with memory on.
const OFF: [u8; 8] = *b"dropped?";
const ON: [u8; 8] = *b"a record";

/// End of an access: number of bytes, or an error number.
pub type Ended = Result<usize, i32>;

/// Answers of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// A read and a write after a reset, with memory off.
    pub after_reset: [Ended; 2],
    /// A write and a read of what was written, with memory on.
    pub on: [Ended; 2],
    /// A read and a write of another place, with memory off.
    pub off: [Ended; 2],
    /// A read of what was written first, with memory on again.
    pub on_again: Ended,
    /// True if the reads with memory on saw the bytes that were written with memory on.
    pub kept: bool,
    /// True if the write with memory off reached the memory.
    pub reached: bool,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    answer("memory-enable", switch(arguments))
}

fn switch(arguments: &[String]) -> Result<Vec<Switched>, String> {
    let Some((bdf, regions)) = arguments.split_first() else {
        return Err("usage: memory-enable BDF REGION...".into());
    };
    let opened = OpenDevice::open(bdf)?;
    let one = |region: &String| {
        let index = region.parse().map_err(|e| format!("{region:?}: {e}"))?;
        answers(&opened.device, index).map_err(|e| format!("{bdf}, region {region}: {e}"))
    };
    regions.iter().map(one).collect()
}

fn answers(device: &Device, region: u32) -> Result<Switched, Errno> {
    let (place, other) = (position(region, 0x1000), position(region, 0x2000));
    let read = |at| {
        let mut bytes = [0; 8];
        let ended = device.read_at(at, &mut bytes).map_err(Errno::get);
        (ended, bytes)
    };
    let write = |at, bytes| device.write_at(at, bytes).map_err(Errno::get);

    device.reset()?;
    set_memory(device, false)?;
    let after_reset = [read(place).0, write(place, &OFF)];
    set_memory(device, true)?;
    let written = [write(place, &ON), write(other, &ON)];
    let (first, seen) = read(place);
    set_memory(device, false)?;
    let off = [read(place).0, write(other, &OFF)];
    set_memory(device, true)?;
    let (on_again, again) = read(place);
    let (_, elsewhere) = read(other);
    Ok(Switched {
        after_reset,
        on: [written[0], first],
        off,
        on_again,
        kept: seen == ON && again == ON,
        reached: elsewhere == OFF,
    })
}

fn set_memory(device: &Device, on: bool) -> Result<(), Errno> {
    let command = if on { header::command::MEMORY } else { 0 };
    let at = position(RegionIndex::CONFIG.0, header::COMMAND.into());
    device.write_at(at, &command.to_le_bytes()).map(drop)
}
