//! Memory of GPUs that is online as RAM of the host.
//!
//! The vendor's driver adds a GPU's coherent memory to the nodes that firmware reserves for the GPU.
//! While the memory is online the host uses it, and the driver can't let the GPU go.

use varia_facts::{Bytes, Facts, OnlineMemory, PciFunction};

use crate::tree::Tree;

/// The kernel's map of physical addresses; an ordinary user sees no addresses.
const MAP: &str = "proc/iomem";

/// Fills in the memory that is online, and leaves it out of the host's RAM.
pub(super) fn note(tree: &Tree, facts: &mut Facts) {
    let map = tree.text(MAP).unwrap_or_default();
    let ranges = ram(&map);
    let mut free = 0_u64;
    let mut size = 0_u64;
    let found: Vec<_> = facts
        .functions
        .iter()
        .map(|function| online(facts, function, &ranges))
        .collect();
    for (function, online) in facts.functions.iter_mut().zip(found) {
        if let Some(online) = &online {
            size = size.saturating_add(online.size.0);
            let nodes = facts.host.nodes.iter();
            let own = nodes.filter(|node| online.nodes.contains(&node.id));
            free = own.fold(free, |free, node| free.saturating_add(node.memory_free.0));
        }
        function.online = online;
    }
    let less = |bytes: &mut Option<Bytes>, by: u64| {
        if let Some(bytes) = bytes {
            bytes.0 = bytes.0.saturating_sub(by);
        }
    };
    less(&mut facts.host.memory, size);
    less(&mut facts.host.memory_available, free);
}

fn online(facts: &Facts, function: &PciFunction, ranges: &[(u64, u64)]) -> Option<OnlineMemory> {
    let memory = function.coherent_memory.as_ref()?;
    let reserved = memory.pxm_start.zip(memory.pxm_count);
    let (start, count) = reserved.unwrap_or_default();
    let nodes = start..start.saturating_add(count);
    let own = facts.host.nodes.iter().filter(|node| {
        let is_reserved = nodes.contains(&node.id.0);
        is_reserved && node.cpus.is_empty() && node.memory.0 > 0
    });
    let own: Vec<_> = own.collect();
    if !own.is_empty() {
        return Some(OnlineMemory {
            nodes: own.iter().map(|node| node.id).collect(),
            size: Bytes(total(own.iter().map(|node| node.memory.0))),
        });
    }
    let end = memory.base.0.saturating_add(memory.size.0);
    let inside = ranges.iter().map(|(first, last)| {
        let first = (*first).max(memory.base.0);
        let last = last.saturating_add(1).min(end);
        last.saturating_sub(first)
    });
    let size = total(inside);
    (size > 0).then_some(OnlineMemory {
        nodes: Vec::new(),
        size: Bytes(size),
    })
}

/// Sum of sizes, which a host's files may claim to be of any size.
fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// First and last addresses of RAM, that of drivers included.
fn ram(map: &str) -> Vec<(u64, u64)> {
    let range = |line: &str| {
        let (range, name) = line.trim().split_once(" : ")?;
        let (first, last) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        name.starts_with("System RAM")
            .then_some((number(first)?, number(last)?))
    };
    map.lines()
        .filter_map(range)
        .filter(|(_, last)| *last > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_of_drivers_is_ram() {
        let map = "00000000-0fffffff : reserved\n  100-1ff : Kernel code\n\
                   20000000000-22dffffffff : System RAM (NVIDIA)\n00000000-00000000 : System RAM\n";
        assert_eq!(ram(map), [(0x200_0000_0000, 0x22d_ffff_ffff)]);
    }
}
