//! `dma-buf BDF REGION OFFSET LENGTH`: exports a part of a region as a dma-buf and imports it for the
//! same function, with memory on, right after a reset, and with memory off.
//!
//! Needs the module `varia_importer`. Prints a [`Shared`], as JSON on one line. What the kernel
//! refuses is an answer.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::vfio::position;

use super::{answer, vfio::OpenDevice};

const PARAMETER: &str = "/sys/module/varia_importer/parameters/import";

/// {bus address, bytes} of each range that an importer gets, or its error number.
pub type Imported = Result<Vec<(u64, u64)>, i32>;

/// Outcome of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shared {
    /// The error number of the export.
    Refused(i32),
    /// It was exported.
    Exported {
        /// Segments that an importer gets with memory on.
        on: Imported,
        /// Segments that an importer gets right after `VFIO_DEVICE_RESET`.
        after_reset: Imported,
        /// Segments that an importer gets with memory off.
        off: Imported,
    },
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    answer("dma-buf", share(arguments))
}

fn share(arguments: &[String]) -> Result<Shared, String> {
    let numbers: Result<Vec<u64>, _> = arguments.iter().skip(1).map(|text| text.parse()).collect();
    let (Some(bdf), Ok(&[region, offset, length])) = (arguments.first(), numbers.as_deref()) else {
        return Err("usage: dma-buf BDF REGION OFFSET LENGTH, in decimal".into());
    };
    let region = u32::try_from(region).map_err(|_| "a region beyond u32")?;
    let opened = OpenDevice::open(bdf)?;
    let switch = |on: bool| {
        let command = if on { header::command::MEMORY } else { 0 };
        let at = position(RegionIndex::CONFIG.0, header::COMMAND.into());
        let written = opened.device.write_at(at, &command.to_le_bytes());
        written.map_err(|errno| format!("{bdf}: switch memory: {errno}"))
    };
    switch(true)?;
    let buffer = match opened.device.dma_buf(region, offset, length) {
        Ok(buffer) => buffer,
        Err(errno) => return Ok(Shared::Refused(errno.get())),
    };
    let on = import(&buffer, bdf)?;
    let reset = opened.device.reset();
    reset.map_err(|errno| format!("{bdf}: reset: {errno}"))?;
    let after_reset = import(&buffer, bdf)?;
    switch(false)?;
    let off = import(&buffer, bdf)?;
    Ok(Shared::Exported {
        on,
        after_reset,
        off,
    })
}

fn import(buffer: &OwnedFd, bdf: &str) -> Result<Imported, String> {
    let failed = |error: io::Error| format!("{PARAMETER}: {error}");
    match fs::write(PARAMETER, format!("{} {bdf}", buffer.as_raw_fd())) {
        Ok(()) => {}
        Err(error) => {
            let errno = error.raw_os_error().and_then(Errno::new);
            return errno.map_or_else(|| Err(failed(error)), |errno| Ok(Err(errno.get())));
        }
    }
    let text = fs::read_to_string(PARAMETER).map_err(failed)?;
    let range = |line: &str| {
        let (address, length) = line.split_once(' ')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some((number(address)?, number(length)?))
    };
    let ranges: Option<Vec<_>> = text.lines().map(range).collect();
    let ranges = ranges.ok_or_else(|| format!("{PARAMETER} reads {text:?}"))?;
    Ok(Ok(ranges))
}
