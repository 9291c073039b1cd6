//! The machine: CPUs, NUMA nodes, hugepages, IOMMU.

use serde::{Deserialize, Serialize};

use varia_units::{Arch, Bytes};

use crate::ids::{Bdf, CpuList, GroupId, NodeId};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its architecture.
    #[serde(default)]
    pub arch: Option<Arch>,
    /// What its firmware calls it: vendor and product, no serial number.
    #[serde(default)]
    pub product: Option<String>,
    /// CPUs that are online.
    #[serde(default)]
    pub cpus: CpuList,
    /// What kind of CPU it is (`MIDR_EL1` of the first one); none on another architecture than
    /// arm64.
    #[serde(default)]
    pub midr: Option<u64>,
    /// Bits of a physical address, where `/proc/cpuinfo` says so (x86-64).
    #[serde(default)]
    pub address_bits: Option<u32>,
    /// RAM, `MemTotal`.
    #[serde(default)]
    pub memory: Option<Bytes>,
    /// RAM that could be used now, `MemAvailable`.
    #[serde(default)]
    pub memory_available: Option<Bytes>,
    /// How much memory this user may lock (`RLIMIT_MEMLOCK`, soft).
    #[serde(default)]
    pub memlock: Option<Limit>,
    /// NUMA nodes, by number.
    #[serde(default)]
    pub nodes: Vec<NumaNode>,
    /// The IOMMU.
    #[serde(default)]
    pub iommu: Iommu,
}

impl Host {
    /// A node by its number.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NumaNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node with CPUs that is nearest to a node: itself if it has some. Of several at one
    /// distance the first.
    #[must_use]
    pub fn nearest_with_cpus(&self, id: NodeId) -> Option<NodeId> {
        let from = self.node(id)?;
        let with_cpus = self.nodes.iter().enumerate();
        with_cpus
            .filter(|(_, node)| !node.cpus.is_empty())
            .min_by_key(|(index, node)| {
                let far = from.distances.get(*index).copied().unwrap_or(u32::MAX);
                (node.id != id, far, node.id)
            })
            .map(|(_, node)| node.id)
    }
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// None.
    Unlimited,
    /// So many bytes.
    Bytes(Bytes),
}

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// Its number.
    pub id: NodeId,
    /// Its CPUs.
    #[serde(default)]
    pub cpus: CpuList,
    /// Its memory; 0 for a node without.
    #[serde(default)]
    pub memory: Bytes,
    /// Of that, what is free.
    #[serde(default)]
    pub memory_free: Bytes,
    /// Its distance to each node of [`Host::nodes`], in their order, as SLIT has it: 10 for
    /// itself.
    #[serde(default)]
    pub distances: Vec<u32>,
    /// Firmware ties it to a Generic Initiator.
    #[serde(default)]
    pub generic_initiator: bool,
    /// Its pools of hugepages.
    #[serde(default)]
    pub hugepages: Vec<HugePages>,
    /// How fast CPUs reach its memory, as firmware says in HMAT.
    #[serde(default)]
    pub speed: Option<Speed>,
}

/// How fast memory is reached. Source: `Documentation/ABI/stable/sysfs-devices-node` of Linux 7.2,
/// access class 1: the CPUs that reach it best.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// The nodes of these CPUs.
    pub from: Vec<NodeId>,
    /// The latency of a read or a write, whichever takes longer, in nanoseconds.
    pub latency: u32,
    /// The bandwidth of reads or writes, whichever is less, in MB/s.
    pub bandwidth: u32,
}

/// A pool of hugepages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// Size of each.
    pub size: Bytes,
    /// How many there are.
    pub total: u64,
    /// How many of them are free.
    pub free: u64,
}

/// The machine's IOMMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iommu {
    /// Instances in `/sys/class/iommu`, such as `smmu3.0x0000000011000000` or `dmar0`.
    #[serde(default)]
    pub instances: Vec<String>,
    /// Groups that have PCI functions, by number.
    #[serde(default)]
    pub groups: Vec<IommuGroup>,
}

/// An IOMMU group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuGroup {
    /// Its number.
    pub id: GroupId,
    /// Its PCI functions.
    pub members: Vec<Bdf>,
    /// The type of its default domain: `DMA`, `DMA-FQ`, `identity`.
    #[serde(default)]
    pub kind: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, cpus: &str, distances: &[u32]) -> NumaNode {
        NumaNode {
            id: NodeId(id),
            cpus: cpus.parse().unwrap(),
            distances: distances.to_vec(),
            ..NumaNode::default()
        }
    }

    #[test]
    fn the_nearest_node_with_cpus_goes_by_distance_and_not_by_number() {
        let host = Host {
            nodes: vec![
                node(0, "0-71", &[10, 40, 120, 80]),
                node(1, "72-143", &[40, 10, 80, 120]),
                node(2, "", &[120, 80, 10, 160]),
                node(10, "", &[80, 80, 160, 10]),
            ],
            ..Host::default()
        };
        let nearest = |id| host.nearest_with_cpus(NodeId(id)).map(|node| node.0);
        assert_eq!(nearest(0), Some(0));
        assert_eq!(nearest(1), Some(1));
        assert_eq!(nearest(2), Some(1), "distance 80 to node 1");
        assert_eq!(nearest(10), Some(0), "the first of two at 80");
        assert_eq!(nearest(7), None, "there is no node 7");
    }
}
