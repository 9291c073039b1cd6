//! The GPU in sysfs: its function, its BARs, its nodes.

use std::fs;

use varia_units::Bytes;

use crate::Failure;

const DRIVER: &str = "/sys/bus/pci/drivers/varia_coherent_memory";
const NODES: &str = "/sys/devices/system/node";
/// Name of the guest driver's memory in `/proc/iomem`.
const RESOURCE: &str = "System RAM (varia)";

/// A GPU whose memory the guest uses.
pub(crate) struct Gpu {
    /// PCI address.
    pub(crate) address: String,
    /// Address of BAR4 and its size.
    pub(crate) bar4: (u64, u64),
    /// Nodes with memory of the GPU.
    pub(crate) nodes: Vec<Node>,
    /// A node with the guest's own memory.
    pub(crate) ram: u32,
}

/// A node with memory of the GPU.
pub(crate) struct Node {
    pub(crate) number: u32,
    /// Memory that is online.
    pub(crate) size: Bytes,
    /// Address of the first byte, and of the byte behind the last.
    pub(crate) range: (u64, u64),
}

pub(crate) fn read(path: &str) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(text.trim_end().to_owned())
}

/// Numbers of a list such as `1-8,10`.
pub(crate) fn list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        numbers.extend(first..=last);
    }
    Some(numbers)
}

impl Gpu {
    /// The one GPU that the guest driver has.
    pub(crate) fn find() -> Result<Self, Failure> {
        let entries = fs::read_dir(DRIVER)
            .map_err(|error| format!("{DRIVER}: {error}: load varia-coherent-memory"))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut functions: Vec<_> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.contains(':'))
            .collect();
        functions.sort();
        let [address] = functions.as_slice() else {
            return Err(format!(
                "varia_coherent_memory has {} functions, not one: bind a GPU to it",
                functions.len()
            ));
        };
        let folder = format!("/sys/bus/pci/devices/{address}");
        let bar4 = bar(&read(&format!("{folder}/resource"))?, 4)
            .ok_or_else(|| format!("{address} has no BAR4"))?;
        let mut nodes = Vec::new();
        let blocks = block_size()?;
        // A node without memory may have no folder.
        let with_memory = all("has_memory")?;
        let initiators = all("has_generic_initiator")?.into_iter();
        for number in initiators.filter(|number| with_memory.contains(number)) {
            if let Some(node) = node(number, blocks, bar4)? {
                nodes.push(node);
            }
        }
        if nodes.is_empty() {
            return Err(format!("no node has memory of {address} online"));
        }
        if !read("/proc/iomem")?.contains(RESOURCE) {
            return Err(format!("/proc/iomem has no {RESOURCE:?}"));
        }
        let ram = with_memory
            .into_iter()
            .find(|number| nodes.iter().all(|node| node.number != *number))
            .ok_or("the guest has no node with memory of its own")?;
        Ok(Self {
            address: address.clone(),
            bar4,
            nodes,
            ram,
        })
    }
}

fn all(file: &str) -> Result<Vec<u32>, Failure> {
    let path = format!("{NODES}/{file}");
    let text = read(&path)?;
    list(&text).ok_or_else(|| format!("{path}: {text:?} is not a list of nodes"))
}

fn block_size() -> Result<u64, Failure> {
    let path = "/sys/devices/system/memory/block_size_bytes";
    let text = read(path)?;
    u64::from_str_radix(&text, 16).map_err(|error| format!("{path}: {text:?}: {error}"))
}

/// A node whose blocks of memory lie in BAR4, with those that are online as movable.
fn node(number: u32, block: u64, bar4: (u64, u64)) -> Result<Option<Node>, Failure> {
    let folder = format!("{NODES}/node{number}");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut starts = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let index = name.strip_prefix("memory").map(str::parse::<u64>);
        let Some(Ok(index)) = index else { continue };
        let state = read(&format!("{folder}/{name}/state"))?;
        let zones = read(&format!("{folder}/{name}/valid_zones"))?;
        if (state.as_str(), zones.as_str()) != ("online", "Movable") {
            return Err(format!(
                "{name} of node {number} is {state}, in zone {zones}: it has to be online as movable"
            ));
        }
        starts.push(index * block);
    }
    let (Some(first), Some(last)) = (starts.iter().min(), starts.iter().max()) else {
        return Ok(None);
    };
    let range = (*first, last + block);
    if range.0 < bar4.0 || range.1 > bar4.0 + bar4.1 {
        return Err(format!(
            "memory of node {number} from {:#x} to {:#x} is not in BAR4 at {:#x}",
            range.0, range.1, bar4.0
        ));
    }
    let size = Bytes(block * starts.len() as u64);
    if size.0 != range.1 - range.0 {
        return Err(format!("the memory of node {number} has holes: {size}"));
    }
    Ok(Some(Node {
        number,
        size,
        range,
    }))
}

/// Address and size of a BAR.
fn bar(resources: &str, index: usize) -> Option<(u64, u64)> {
    let mut words = resources.lines().nth(index)?.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (start, end) = (number()?, number()?);
    (end > start).then(|| (start, end - start + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_bars_are_read_as_sysfs_writes_them() {
        assert_eq!(list("1-3,8"), Some(vec![1, 2, 3, 8]));
        assert_eq!((list(""), list("x")), (Some(Vec::new()), None));
        let text = "0x10 0x1f 0x0\n0x0 0x0 0x0\n";
        assert_eq!(
            (bar(text, 0), bar(text, 1), bar(text, 2)),
            (Some((16, 16)), None, None)
        );
    }
}
