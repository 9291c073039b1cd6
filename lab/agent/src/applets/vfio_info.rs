//! `vfio-info BDF...`: what the VFIO drivers of some functions say of them.
//!
//! Opens one after another and prints a [`Report`] for each, as a JSON array on one line.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_sys::vfio::{Device, position};

use super::{answer, vfio::OpenDevice};

/// Report of a driver on a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The regions with the indices of BARs, from 0.
    pub regions: Vec<Region>,
    /// Values of the BAR registers, from 0x10, after all ones have been written to all.
    pub sizing: Vec<u32>,
}

/// `VFIO_DEVICE_GET_REGION_INFO`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Bytes.
    pub size: u64,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// Bytes of the whole answer.
    pub argsz: u32,
    /// Offset of the first capability in the structure.
    pub cap_offset: u32,
    /// The areas that can be mapped: {offset, bytes}; none without the capability.
    pub areas: Vec<(u64, u64)>,
    /// The raw capabilities.
    pub caps: Vec<u8>,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let reports: Result<Vec<_>, _> = arguments.iter().map(|bdf| report(bdf)).collect();
    answer("vfio-info", reports)
}

fn report(bdf: &str) -> Result<Report, String> {
    let opened = OpenDevice::open(bdf)?;
    let device = &opened.device;
    let regions = (0..6)
        .map(|index| region(device, index).map_err(|e| format!("{bdf}: region {index}: {e}")))
        .collect::<Result<_, _>>()?;
    let sizing = sizing(device).map_err(|e| format!("{bdf}: BAR registers: {e}"))?;
    Ok(Report { regions, sizing })
}

fn region(device: &Device, index: u32) -> Result<Region, varia_spec::Errno> {
    let info = device.region_info(index)?;
    let areas = info.sparse_areas().unwrap_or_default().into_iter();
    Ok(Region {
        size: info.size,
        flags: info.flags,
        argsz: info.argsz,
        cap_offset: info.cap_offset,
        areas: areas.map(|area| (area.offset, area.size)).collect(),
        caps: info.caps,
    })
}

/// The sizing protocol on all BARs at once; what was there is put back.
fn sizing(device: &Device) -> Result<Vec<u32>, varia_spec::Errno> {
    let register = |bar: u16| {
        position(
            RegionIndex::CONFIG.0,
            u64::from(header::BASE_ADDRESS_0 + 4 * bar),
        )
    };
    let mut before = Vec::new();
    for bar in 0..6 {
        let mut bytes = [0; 4];
        device.read_at(register(bar), &mut bytes)?;
        before.push(bytes);
    }
    for bar in 0..6 {
        device.write_at(register(bar), &[0xff; 4])?;
    }
    let mut sizes = Vec::new();
    for (bar, before) in (0..6).zip(before) {
        let mut bytes = [0; 4];
        device.read_at(register(bar), &mut bytes)?;
        sizes.push(u32::from_le_bytes(bytes));
        device.write_at(register(bar), &before)?;
    }
    Ok(sizes)
}
