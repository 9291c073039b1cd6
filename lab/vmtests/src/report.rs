//! Reports on a GPU, by the drivers of a machine and by the user-space runtime.

use varia_agent::applets::vfio_info::{Region, Report};
use varia_serve::Endpoint;
use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::{REGION_INFO_LEN, RegionIndex, region_cap, region_flags};

use crate::error::Result;
use crate::host::Host;

/// Reports of the drivers of some GPUs of a machine.
///
/// # Errors
/// If a GPU can't be opened.
pub fn of_kernel(host: &Host, gpus: &[usize]) -> Result<Vec<Report>> {
    let addresses: Vec<_> = gpus.iter().map(|gpu| host.address(*gpu)).collect();
    host.ask("vfio-info", &addresses)
}

/// Report of the user-space runtime, in the kernel's form.
///
/// # Errors
/// The first refusal.
pub fn of_runtime(endpoint: &Endpoint) -> std::result::Result<Report, Errno> {
    endpoint.open()?;
    let regions: std::result::Result<Vec<_>, _> = (0..6)
        .map(|index| region(endpoint, RegionIndex(index)))
        .collect();
    let sizing = sizing(endpoint);
    endpoint.close();
    Ok(Report {
        regions: regions?,
        sizing: sizing?,
    })
}

fn region(endpoint: &Endpoint, index: RegionIndex) -> std::result::Result<Region, Errno> {
    let info = endpoint.region_info(index)?.info;
    let mut caps = Vec::new();
    if !info.areas.is_empty() {
        caps.extend(region_cap::SPARSE_MMAP.to_le_bytes());
        caps.extend(region_cap::VERSION.to_le_bytes());
        for number in [0, info.areas.len() as u32, 0] {
            caps.extend(number.to_le_bytes());
        }
        for area in &info.areas {
            caps.extend(area.offset.to_le_bytes());
            caps.extend(area.size.to_le_bytes());
        }
    }
    let (flags, cap_offset) = if caps.is_empty() {
        (info.flags, 0)
    } else {
        (info.flags | region_flags::CAPS, REGION_INFO_LEN as u32)
    };
    let areas = info.areas.into_iter();
    Ok(Region {
        size: info.size,
        flags,
        argsz: (REGION_INFO_LEN + caps.len()) as u32,
        cap_offset,
        areas: areas.map(|area| (area.offset, area.size)).collect(),
        caps,
    })
}

/// As the agent's applet does it.
fn sizing(endpoint: &Endpoint) -> std::result::Result<Vec<u32>, Errno> {
    let register = |bar: u16| u64::from(header::BASE_ADDRESS_0 + 4 * bar);
    for bar in 0..6 {
        endpoint.write(RegionIndex::CONFIG, register(bar), &[0xff; 4])?;
    }
    (0..6)
        .map(|bar| {
            let mut bytes = [0; 4];
            endpoint.read(RegionIndex::CONFIG, register(bar), &mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        })
        .collect()
}
