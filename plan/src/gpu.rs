//! GPUs of a VM: coherent memory, source, place in the topology.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use varia_facts::{BarKind, Bdf, Bytes, PciFunction};

/// A NUMA node of the VM: QEMU's node, libvirt's cell, the guest's proximity domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuestNode(pub u32);

impl fmt::Display for GuestNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 64-bit prefetchable BAR that the VM sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedBar {
    /// 0 to 5.
    pub index: u8,
    /// Bytes, a power of two.
    pub size: Bytes,
}

impl PlannedBar {
    /// The 64-bit prefetchable BARs of a function itself: what a VM sees of a function that vfio-pci
    /// gives it.
    #[must_use]
    pub fn physical(function: &PciFunction) -> Vec<Self> {
        let bars = function.bars.iter();
        let bars = bars.filter(|bar| bar.prefetchable && bar.kind == BarKind::Memory64);
        bars.map(|bar| Self {
            index: bar.index,
            size: bar.size,
        })
        .collect()
    }

    /// 64-bit prefetchable BARs that a VM sees of a function of the host.
    #[must_use]
    pub fn of(function: &PciFunction) -> Vec<Self> {
        let bars = function.virtual_bars.iter().filter(|bar| bar.prefetchable);
        bars.map(|bar| Self {
            index: bar.index,
            size: bar.size,
        })
        .collect()
    }
}

/// The PCI function that the VM sees.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VirtualFunction {
    /// Name in the VMM's configuration, unique in the VM.
    pub id: String,
    /// 64-bit prefetchable BARs.
    pub bars: Vec<PlannedBar>,
}

/// Owner of the memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A function of the host, bound to its variant driver.
    Function(Bdf),
    /// A vfio-user server, by its socket.
    VfioUser(PathBuf),
}

/// Coherent memory in a VM: the function whose BARs show it, who has it, and the memory-less
/// nodes that the guest's driver adds it to. Whatever ties these together in a rendered
/// configuration or table comes from here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CoherentMemory {
    /// The function in the VM.
    pub device: VirtualFunction,
    /// Source of the memory.
    pub source: Source,
    /// The first node, and the one behind the last.
    pub nodes: Range<u32>,
}

impl CoherentMemory {
    /// Nodes of the memory.
    pub fn nodes(&self) -> impl Iterator<Item = GuestNode> + use<> {
        self.nodes.clone().map(GuestNode)
    }
}

/// A GPU and its place in the VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gpu {
    /// Memory of the GPU and the nodes tied to the memory.
    pub memory: CoherentMemory,
    /// The guest's node of the CPUs that it is attached to.
    pub socket: GuestNode,
    /// The number of the root bus of its own that it is on; none for a port of the first one.
    pub bus: Option<u8>,
    /// 64-bit prefetchable address space that the root port reserves.
    pub window: Bytes,
}
