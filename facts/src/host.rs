//! The machine: CPUs, NUMA nodes, hugepages, IOMMU.

use serde::{Deserialize, Serialize};

use varia_units::{Arch, Bytes};

use crate::ids::{Bdf, CpuList, GroupId, NodeId};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Processor architecture.
    #[serde(default)]
    pub arch: Option<Arch>,
    /// Vendor and product by the firmware, without serial number.
    #[serde(default)]
    pub product: Option<String>,
    /// Online CPUs.
    #[serde(default)]
    pub cpus: CpuList,
    /// `MIDR_EL1` of the first CPU, which identifies the kind of CPU; `None` on other architectures
    /// than arm64.
    #[serde(default)]
    pub midr: Option<u64>,
    /// Bits of a physical address by `/proc/cpuinfo` (x86-64).
    #[serde(default)]
    pub address_bits: Option<u32>,
    /// RAM, `MemTotal`.
    #[serde(default)]
    pub memory: Option<Bytes>,
    /// Available RAM, `MemAvailable`.
    #[serde(default)]
    pub memory_available: Option<Bytes>,
    /// Limit of locked memory for this user (`RLIMIT_MEMLOCK`, soft).
    #[serde(default)]
    pub memlock: Option<Limit>,
    /// NUMA nodes, by number.
    #[serde(default)]
    pub nodes: Vec<NumaNode>,
    /// The IOMMU.
    #[serde(default)]
    pub iommu: Iommu,
    /// Devices of Extended GPU Memory, by proximity domain.
    #[serde(default)]
    pub egm: Vec<EgmDevice>,
}

impl Host {
    /// Node with the number `id`.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NumaNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Device of Extended GPU Memory of a GPU's socket.
    #[must_use]
    pub fn egm_of(&self, gpu: Bdf) -> Option<&EgmDevice> {
        self.egm.iter().find(|device| device.gpus.contains(&gpu))
    }

    /// Nearest node with CPUs: the node itself if the node has CPUs. The first of several nodes at
    /// one distance.
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

/// A device of Extended GPU Memory (EGM): RAM of a socket that firmware reserves for VMs, and that
/// the GPUs of the socket reach. Source: `/sys/class/egm` of the series "vfio/nvgrace-egm" (v2,
/// February 2026).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgmDevice {
    /// Proximity domain of the memory, the N of `/dev/egmN`.
    pub pxm: u32,
    /// Size of the memory (`egm_size`).
    #[serde(default)]
    pub size: Option<Bytes>,
    /// GPUs of the socket (`gpu_devices`, or a link for each GPU).
    #[serde(default)]
    pub gpus: Vec<Bdf>,
    /// True if the device node exists; `None` if not known.
    #[serde(default)]
    pub has_node: Option<bool>,
}

impl EgmDevice {
    /// Path of the device node.
    #[must_use]
    pub fn path(&self) -> String {
        egm_path(self.pxm)
    }
}

/// Path of the device node of a proximity domain's EGM.
#[must_use]
pub fn egm_path(pxm: u32) -> String {
    format!("/dev/egm{pxm}")
}

/// Proximity domain in the path of a device node of EGM, such as 4 of `/dev/egm4`.
#[must_use]
pub fn egm_pxm(path: &str) -> Option<u32> {
    path.strip_prefix("/dev/").and_then(egm_number)
}

/// Proximity domain in the name of a device of EGM, such as 4 of `egm4`.
#[must_use]
pub fn egm_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("egm")?;
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = is_plain && (number == "0" || !number.starts_with('0'));
    number.parse().ok().filter(|_| is_plain)
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// Limit in bytes.
    Bytes(Bytes),
}

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// Number of the node.
    pub id: NodeId,
    /// CPUs of the node.
    #[serde(default)]
    pub cpus: CpuList,
    /// Memory of the node; 0 for a memory-less node.
    #[serde(default)]
    pub memory: Bytes,
    /// Free part of the memory.
    #[serde(default)]
    pub memory_free: Bytes,
    /// SLIT distance to each node of [`Host::nodes`], in the order of the nodes; 10 for the node
    /// itself.
    #[serde(default)]
    pub distances: Vec<u32>,
    /// True if firmware ties the node to a Generic Initiator.
    #[serde(default)]
    pub generic_initiator: bool,
    /// Pools of hugepages of the node.
    #[serde(default)]
    pub hugepages: Vec<HugePages>,
    /// Latency and bandwidth of CPU accesses to the node's memory, from firmware's HMAT.
    #[serde(default)]
    pub speed: Option<Speed>,
}

/// Latency and bandwidth of memory accesses. Source: `Documentation/ABI/stable/sysfs-devices-node` of Linux 7.2,
/// access class 1: the CPUs with the best access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// Nodes of the CPUs with the best access.
    pub from: Vec<NodeId>,
    /// The longer of read and write latency, in nanoseconds.
    pub latency: u32,
    /// The lower of read and write bandwidth, in MB/s.
    pub bandwidth: u32,
}

/// A pool of hugepages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// Size of a page.
    pub size: Bytes,
    /// Number of pages.
    pub total: u64,
    /// Number of free pages.
    pub free: u64,
}

/// The machine's IOMMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iommu {
    /// Instances in `/sys/class/iommu`, such as `smmu3.0x0000000011000000` or `dmar0`.
    #[serde(default)]
    pub instances: Vec<String>,
    /// Groups with PCI functions, by number.
    #[serde(default)]
    pub groups: Vec<IommuGroup>,
}

/// An IOMMU group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuGroup {
    /// Number of the group.
    pub id: GroupId,
    /// PCI functions of the group.
    pub members: Vec<Bdf>,
    /// Type of the group's default domain: `DMA`, `DMA-FQ`, `identity`.
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

    #[test]
    fn a_device_of_egm_is_known_by_its_plain_number() {
        for (path, pxm) in [
            ("/dev/egm4", Some(4)),
            ("/dev/egm0", Some(0)),
            ("/dev/egm", None),
            ("/dev/egm+3", None),
            ("/dev/egm-3", None),
            ("/dev/egm03", None),
            ("/dev/egm4/", None),
            ("/dev/egm99999999999", None),
            ("/dev/shm", None),
        ] {
            assert_eq!(egm_pxm(path), pxm, "{path}");
        }
    }
}
