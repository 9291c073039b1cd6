//! CPUs, NUMA nodes, hugepages, IOMMU: `sys/devices/system`, `sys/kernel`, `proc/meminfo`.

use varia_facts::{
    Arch, Bytes, CpuList, Host, HugePages, Iommu, IommuGroup, NodeId, NumaNode, Speed,
};

use super::reading::Reading;
use crate::asked::Asked;
use crate::tree::Tree;

const NODES: &str = "sys/devices/system/node";

/// Directory below a node's directory: speed of the node's memory for the CPUs with the best
/// access.
pub(crate) const SPEED: &str = "access1/initiators";
/// Latencies of reads and of writes.
pub(crate) const SPEED_LATENCIES: [&str; 2] = ["read_latency", "write_latency"];
pub(crate) const SPEED_BANDWIDTHS: [&str; 2] = ["read_bandwidth", "write_bandwidth"];
const MEMINFO: &str = "proc/meminfo";
pub(crate) const CPUINFO: &str = "proc/cpuinfo";
/// Line of [`CPUINFO`] with the width of addresses.
pub(crate) const ADDRESS_SIZES: &str = "address sizes";
pub(crate) const MIDR: &str = "sys/devices/system/cpu/cpu0/regs/identification/midr_el1";

pub(super) fn host(reading: &Reading<'_>) -> Host {
    let tree = reading.tree;
    let asked = Asked::of(reading);
    let meminfo = reading.text(MEMINFO);
    let memory = meminfo
        .as_deref()
        .and_then(|text| amount(text, "MemTotal:"));
    if let (Some(text), None) = (&meminfo, memory) {
        reading.garbage(MEMINFO, text, "list that has MemTotal");
    }
    let meminfo = meminfo.unwrap_or_default();
    Host {
        arch: asked.arch,
        product: product(tree),
        cpus: list(reading, "sys/devices/system/cpu/online"),
        midr: midr(reading),
        address_bits: address_bits(&tree.text(CPUINFO).unwrap_or_default()),
        memory,
        memory_available: amount(&meminfo, "MemAvailable:"),
        memlock: asked.memlock,
        nodes: nodes(reading),
        iommu: Iommu {
            instances: tree.list("sys/class/iommu").unwrap_or_default(),
            groups: Vec::new(),
        },
        egm: super::egm::devices(reading),
    }
}

/// Vendor and product by the firmware.
fn product(tree: &Tree) -> Option<String> {
    let vendor = tree.text("sys/class/dmi/id/sys_vendor");
    let name = tree.text("sys/class/dmi/id/product_name");
    let words: Vec<_> = [vendor, name].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Reads a list of numbers; empty if the list can't be read.
fn list(reading: &Reading<'_>, path: &str) -> CpuList {
    reading.value(path, "list of numbers").unwrap_or_default()
}

/// `MIDR_EL1` of the first CPU, on arm64.
fn midr(reading: &Reading<'_>) -> Option<u64> {
    let text = reading.text(MIDR)?;
    let digits = text.strip_prefix("0x");
    let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    if value.is_none() {
        reading.garbage(MIDR, &text, "number in hexadecimal");
    }
    value
}

/// Physical width in `address sizes : 46 bits physical, 48 bits virtual`, on x86.
fn address_bits(cpuinfo: &str) -> Option<u32> {
    let mut lines = cpuinfo.lines();
    let line = lines.find(|line| line.starts_with(ADDRESS_SIZES))?;
    let (_, sizes) = line.split_once(':')?;
    sizes.split_whitespace().next()?.parse().ok()
}

/// Parses `MemTotal:  1024 kB` in a file of such lines.
fn amount(text: &str, key: &str) -> Option<Bytes> {
    let line = text.lines().find_map(|line| line.split_once(key))?.1;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Bytes(number.checked_mul(1024)?))
}

fn nodes(reading: &Reading<'_>) -> Vec<NumaNode> {
    let tree = reading.tree;
    let mut ids: Vec<u32> = tree
        .list(NODES)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .collect();
    ids.sort_unstable();
    let initiators = list(reading, &format!("{NODES}/has_generic_initiator"));
    let node = |id: u32| {
        let folder = format!("{NODES}/node{id}");
        let meminfo = tree.text(&format!("{folder}/meminfo")).unwrap_or_default();
        let distances = tree.text(&format!("{folder}/distance")).unwrap_or_default();
        NumaNode {
            id: NodeId(id),
            cpus: list(reading, &format!("{folder}/cpulist")),
            memory: amount(&meminfo, "MemTotal:").unwrap_or_default(),
            memory_free: amount(&meminfo, "MemFree:").unwrap_or_default(),
            distances: distances
                .split_whitespace()
                .filter_map(|far| far.parse().ok())
                .collect(),
            generic_initiator: initiators.contains(id),
            hugepages: hugepages(reading, &folder),
            speed: speed(reading, &folder),
        }
    };
    ids.into_iter().map(node).collect()
}

/// Speed of a node's memory by firmware; `None` if firmware leaves out a part.
fn speed(reading: &Reading<'_>, node: &str) -> Option<Speed> {
    let folder = format!("{node}/{SPEED}");
    let from = reading.tree.list(&folder).ok()?;
    let from = from.iter().filter_map(|name| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        Some(NodeId(number))
    });
    let value = |file| reading.value::<u32>(&format!("{folder}/{file}"), "number");
    let [read, write] = SPEED_LATENCIES.map(value);
    let latency = read?.max(write?);
    let [read, write] = SPEED_BANDWIDTHS.map(value);
    let bandwidth = read?.min(write?);
    // Linux shows 0 for a value that firmware leaves out
    (latency > 0 && bandwidth > 0).then(|| Speed {
        from: from.collect(),
        latency,
        bandwidth,
    })
}

fn hugepages(reading: &Reading<'_>, node: &str) -> Vec<HugePages> {
    let folder = format!("{node}/hugepages");
    let pool = |name: &String| {
        let kib: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count = |file| {
            let path = format!("{folder}/{name}/{file}");
            reading.value(&path, "number of pages").unwrap_or_default()
        };
        Some(HugePages {
            size: Bytes(kib.checked_mul(1024)?),
            total: count("nr_hugepages"),
            free: count("free_hugepages"),
        })
    };
    let mut pools: Vec<_> = reading
        .tree
        .list(&folder)
        .unwrap_or_default()
        .iter()
        .filter_map(pool)
        .collect();
    pools.sort_by_key(|pool| pool.size);
    pools
}

/// PCI functions of a group, and the type of its domain.
pub(super) fn group(tree: &Tree, id: varia_facts::GroupId) -> IommuGroup {
    let folder = format!("sys/kernel/iommu_groups/{id}");
    let members = tree.list(&format!("{folder}/devices")).unwrap_or_default();
    IommuGroup {
        id,
        members: members
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect(),
        kind: tree.text(&format!("{folder}/type")),
    }
}

/// Architecture of this machine, for which this program was built.
pub(crate) fn arch_here() -> Option<Arch> {
    match std::env::consts::ARCH {
        "aarch64" => Some(Arch::Aarch64),
        "x86_64" => Some(Arch::X86_64),
        _ => None,
    }
}
