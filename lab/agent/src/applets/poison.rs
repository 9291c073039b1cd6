//! `poison BDF REGION OFFSET LENGTH ADDRESS`: maps and touches a part of a region, then makes the page
//! at a host-physical address fail.
//!
//! Needs the module `varia_poison`. The kernel ends the applet with a signal if it takes it for a
//! user of that page; else the applet prints the offsets of the pages that it could not touch, because
//! they had failed before, and `alive`.

use std::fs;
use std::process::ExitCode;

use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::mapping::{Access, page_size};
use varia_sys::signal::let_sigbus_end_us;
use varia_sys::vfio::position;

use super::vfio::OpenDevice;

const PARAMETER: &str = "/sys/module/varia_poison/parameters/address";

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match poison(arguments) {
        Ok(untouched) => {
            for offset in untouched {
                println!("{offset:#x}");
            }
            println!("alive");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("poison: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The offsets in the region of the pages that can't be touched.
fn poison(arguments: &[String]) -> Result<Vec<u64>, String> {
    let numbers: Result<Vec<u64>, _> = arguments.iter().skip(1).map(|text| text.parse()).collect();
    let (Some(bdf), Ok(&[region, offset, len, address])) = (arguments.first(), numbers.as_deref())
    else {
        return Err("usage: poison BDF REGION OFFSET LENGTH ADDRESS, in decimal".into());
    };
    let region = u32::try_from(region).map_err(|_| "a region beyond u32")?;
    let opened = OpenDevice::open(bdf)?;
    let device = &opened.device;
    let enable = position(RegionIndex::CONFIG.0, header::COMMAND.into());
    device
        .write_at(enable, &header::command::MEMORY.to_le_bytes())
        .map_err(|errno| format!("enable memory: {errno}"))?;
    let mapping = device
        .map(position(region, offset), len, Access::ReadWrite)
        .map_err(|errno| format!("map: {errno}"))?;
    let size = usize::try_from(len).map_err(|_| "a length beyond usize")?;
    let mut untouched = Vec::new();
    for at in (0..size).step_by(page_size()) {
        match mapping.peek(at, &mut [0]) {
            Ok(_) => {}
            Err(Errno::EFAULT) => untouched.push(offset + at as u64),
            Err(errno) => return Err(format!("touch {at:#x}: {errno}")),
        }
    }
    let_sigbus_end_us().map_err(|error| format!("reset SIGBUS: {error}"))?;
    fs::write(PARAMETER, address.to_string()).map_err(|error| format!("{PARAMETER}: {error}"))?;
    Ok(untouched)
}
