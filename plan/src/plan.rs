//! A plan: the decided configuration of a VM, which renderers turn into text.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, de};
use varia_facts::{Arch, Bytes, NodeId};

use crate::gpu::{Gpu, GuestNode};
use crate::limits::VIRT_APERTURE;

/// The version of a plan's JSON.
pub const SCHEMA: &str = "varia-plan/1";

/// Accelerator: the component that runs the VM's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The host's CPUs.
    Kvm,
    /// Software.
    Tcg,
}

/// Pages of a node's RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// Ordinary pages of a file without a name, shared where a vfio-user server needs it.
    Pages,
    /// Hugepages of this size.
    HugePages(Bytes),
    /// Extended GPU Memory of this proximity domain, from its device node.
    Egm(u32),
}

/// Bits of a PASID (Process Address Space ID), the SMMU's Substream ID, that a VM's SMMU takes:
/// all that PCIe has. Source: PCI Express 6.0, 10.5.2 (PASID extended capability).
pub(crate) const SSID_BITS: u8 = 20;

/// Backend by which devices reach the VM's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Iommu {
    /// The VMM does it: no device of the host is in the VM.
    None,
    /// VFIO's containers.
    Type1,
    /// `/dev/iommu`.
    Iommufd {
        /// Each GPU is behind an SMMUv3 of the VM that the host's SMMU carries out, with ATS
        /// (Address Translation Services) and PASIDs.
        smmu: bool,
    },
}

/// A node of the VM with CPUs and RAM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Socket {
    /// Number of the node.
    pub node: GuestNode,
    /// Virtual CPUs of the node.
    pub vcpus: Range<u32>,
    /// RAM of the node.
    pub memory: Bytes,
    /// Pages of the RAM.
    pub backing: Backing,
    /// Node of the host with the RAM; none if the RAM is not bound.
    pub host_node: Option<NodeId>,
    /// CPU of the host for each virtual CPU; empty if they are not pinned.
    pub pins: Vec<u32>,
}

impl Socket {
    /// True if the RAM is Extended GPU Memory.
    #[must_use]
    pub fn is_egm(&self) -> bool {
        matches!(self.backing, Backing::Egm(_))
    }
}

/// Firmware of the guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// Default of the VMM, or added by the user.
    Own,
    /// UEFI where distributions have it.
    Uefi,
    /// This file.
    File(String),
}

/// A kernel that starts without a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// The kernel's file.
    pub image: String,
    /// The file of its initial RAM file system.
    pub initrd: Option<String>,
    /// Command line after the console; may be empty.
    pub append: String,
}

/// A virtual machine with GPUs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA`].
    #[serde(deserialize_with = "schema")]
    pub schema: String,
    /// The VM's name.
    pub name: String,
    /// The guest's architecture.
    pub arch: Arch,
    /// Accelerator.
    pub accelerator: Accelerator,
    /// Nodes of the VM with CPUs and RAM, from node 0.
    pub sockets: Vec<Socket>,
    /// GPUs of the VM; their nodes come after those of `sockets`.
    pub gpus: Vec<Gpu>,
    /// Distances from each node to each node, as in SLIT; empty for the guest's defaults.
    pub distances: Vec<Vec<u8>>,
    /// The space above RAM for 64-bit BARs; a power of two.
    pub aperture: Bytes,
    /// DMA of devices.
    pub iommu: Iommu,
    /// Firmware of the guest.
    pub firmware: Firmware,
    /// Kernel that firmware starts; none if firmware boots from a disk.
    #[serde(default)]
    pub kernel: Option<Kernel>,
    /// Files of disks.
    pub disks: Vec<String>,
    /// Assumptions and warnings.
    pub notes: Vec<String>,
}

impl Plan {
    /// The command line of `kernel`.
    #[must_use]
    pub fn command_line(&self, kernel: &Kernel) -> String {
        let text = format!("console={} {}", self.arch.console(), kernel.append);
        text.trim_end().to_owned()
    }

    /// The first GPU on the root bus of a GPU, by its place in the list: that GPU names the bus.
    #[must_use]
    pub fn root_of(&self, index: usize) -> usize {
        let bus = self.gpus.get(index).and_then(|gpu| gpu.bus);
        let same = |gpu: &Gpu| gpu.bus.is_some() && gpu.bus == bus;
        self.gpus.iter().position(same).unwrap_or(index)
    }

    /// The aperture, where the machine's own is smaller. A QEMU older than 10.0 has its own alone;
    /// for the q35 machine firmware chooses it.
    #[must_use]
    pub fn aperture_beyond_default(&self) -> Option<Bytes> {
        let is_larger = self.arch == Arch::Aarch64 && self.aperture.0 > VIRT_APERTURE;
        is_larger.then_some(self.aperture)
    }

    /// Proximity domain of the Extended GPU Memory that is the RAM of a GPU's socket, if it is.
    #[must_use]
    pub fn egm_of(&self, gpu: &Gpu) -> Option<u32> {
        let mut sockets = self.sockets.iter();
        match sockets.find(|socket| socket.node == gpu.socket)?.backing {
            Backing::Egm(pxm) => Some(pxm),
            Backing::Pages | Backing::HugePages(_) => None,
        }
    }

    /// All virtual CPUs.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.sockets.last().map_or(0, |socket| socket.vcpus.end)
    }

    /// All RAM.
    #[must_use]
    pub fn ram(&self) -> Bytes {
        Bytes(self.sockets.iter().map(|socket| socket.memory.0).sum())
    }

    /// Number of nodes, with and without memory.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        let own = self.sockets.len() as u32;
        self.gpus.last().map_or(own, |gpu| gpu.memory.nodes.end)
    }
}

fn schema<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let found = String::deserialize(from)?;
    if found == SCHEMA {
        return Ok(found);
    }
    Err(de::Error::custom(format!(
        "this plan is of schema {found:?} and this program reads {SCHEMA:?}: write it again with \
         this program's `varia plan --json`"
    )))
}
