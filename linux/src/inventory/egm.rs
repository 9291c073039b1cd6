//! Devices of Extended GPU Memory: `sys/class/egm`.
//!
//! Source: the series "vfio/nvgrace-egm" (v2, February 2026) and NVIDIA's kernels. The GPUs of a
//! device are a link each in the first, and lines of the file `gpu_devices` in the second.

use varia_facts::{Bdf, Bytes, EgmDevice, egm_number};

use super::reading::Reading;

/// Folder with a folder for each device.
pub(crate) const CLASS: &str = "sys/class/egm";
/// Size of the memory, in hexadecimal.
pub(crate) const SIZE: &str = "egm_size";
/// Addresses of the GPUs, a line each.
pub(crate) const GPUS: &str = "gpu_devices";

pub(super) fn devices(reading: &Reading<'_>) -> Vec<EgmDevice> {
    let tree = reading.tree;
    let names = tree.list(CLASS).unwrap_or_default();
    let mut devices: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name, egm_number(name)?)))
        .map(|(name, pxm)| {
            let folder = format!("{CLASS}/{name}");
            let links = tree.list(&folder).unwrap_or_default();
            let lines = tree.text(&format!("{folder}/{GPUS}")).unwrap_or_default();
            let lines = lines.split_whitespace();
            let gpus = links.iter().map(String::as_str).chain(lines);
            let mut gpus: Vec<Bdf> = gpus.filter_map(|text| text.parse().ok()).collect();
            gpus.sort_unstable();
            gpus.dedup();
            EgmDevice {
                pxm,
                size: size(reading, &format!("{folder}/{SIZE}")),
                gpus,
                has_node: match tree.exists(&format!("dev/{name}")) {
                    true => Some(true),
                    false => tree.is_live().then_some(false),
                },
            }
        })
        .collect();
    devices.sort_unstable_by_key(|device| device.pxm);
    devices
}

fn size(reading: &Reading<'_>, path: &str) -> Option<Bytes> {
    let text = reading.text(path)?;
    let size = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    if size.is_none() {
        reading.garbage(path, &text, "size in bytes");
    }
    size.map(Bytes)
}
