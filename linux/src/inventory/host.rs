//! CPUs, NUMA nodes, hugepages, IOMMU: `sys/devices/system`, `sys/kernel`, `proc/meminfo`.

use varia_facts::{Arch, Bytes, Host, HugePages, Iommu, IommuGroup, NodeId, NumaNode};

use crate::asked::Asked;
use crate::tree::Tree;

const NODES: &str = "sys/devices/system/node";

pub(super) fn host(tree: &Tree) -> Host {
    let asked = Asked::of(tree);
    let meminfo = tree.text("proc/meminfo").unwrap_or_default();
    Host {
        arch: asked.arch,
        product: product(tree),
        cpus: list(tree, "sys/devices/system/cpu/online"),
        memory: amount(&meminfo, "MemTotal:"),
        memory_available: amount(&meminfo, "MemAvailable:"),
        memlock: asked.memlock,
        nodes: nodes(tree),
        iommu: Iommu {
            instances: tree.list("sys/class/iommu").unwrap_or_default(),
            groups: Vec::new(),
        },
    }
}

/// Vendor and product, as firmware says.
fn product(tree: &Tree) -> Option<String> {
    let vendor = tree.text("sys/class/dmi/id/sys_vendor");
    let name = tree.text("sys/class/dmi/id/product_name");
    let words: Vec<_> = [vendor, name].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn list<T: std::str::FromStr + Default>(tree: &Tree, path: &str) -> T {
    let text = tree.text(path);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// `MemTotal:  1024 kB` in a file of such lines.
fn amount(text: &str, key: &str) -> Option<Bytes> {
    let line = text.lines().find_map(|line| line.split_once(key))?.1;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Bytes(number.checked_mul(1024)?))
}

fn nodes(tree: &Tree) -> Vec<NumaNode> {
    let mut ids: Vec<u32> = tree
        .list(NODES)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .collect();
    ids.sort_unstable();
    let initiators: varia_facts::CpuList = list(tree, &format!("{NODES}/has_generic_initiator"));
    let node = |id: u32| {
        let folder = format!("{NODES}/node{id}");
        let meminfo = tree.text(&format!("{folder}/meminfo")).unwrap_or_default();
        let distances = tree.text(&format!("{folder}/distance")).unwrap_or_default();
        NumaNode {
            id: NodeId(id),
            cpus: list(tree, &format!("{folder}/cpulist")),
            memory: amount(&meminfo, "MemTotal:").unwrap_or_default(),
            memory_free: amount(&meminfo, "MemFree:").unwrap_or_default(),
            distances: distances
                .split_whitespace()
                .filter_map(|far| far.parse().ok())
                .collect(),
            generic_initiator: initiators.iter().any(|node| node == id),
            hugepages: hugepages(tree, &folder),
        }
    };
    ids.into_iter().map(node).collect()
}

fn hugepages(tree: &Tree, node: &str) -> Vec<HugePages> {
    let folder = format!("{node}/hugepages");
    let pool = |name: &String| {
        let kib: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count = |file| list(tree, &format!("{folder}/{name}/{file}"));
        Some(HugePages {
            size: Bytes(kib.checked_mul(1024)?),
            total: count("nr_hugepages"),
            free: count("free_hugepages"),
        })
    };
    let mut pools: Vec<_> = tree
        .list(&folder)
        .unwrap_or_default()
        .iter()
        .filter_map(pool)
        .collect();
    pools.sort_by_key(|pool| pool.size);
    pools
}

/// A group's PCI functions, and the type of its domain.
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

/// The machine's architecture, as this program was built for it.
pub(crate) fn arch_here() -> Option<Arch> {
    match std::env::consts::ARCH {
        "aarch64" => Some(Arch::Aarch64),
        "x86_64" => Some(Arch::X86_64),
        _ => None,
    }
}
