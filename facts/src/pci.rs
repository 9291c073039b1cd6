//! PCI functions as the owning machine sees them, and the BARs that their variants show to VMs.

use serde::{Deserialize, Serialize};

use varia_units::{Bytes, HostPhys};

use crate::ids::{Bdf, GroupId, NodeId};

/// A PCI function of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Address of the function.
    pub bdf: Bdf,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem_device: u16,
    /// Class code, 24 bits: class, subclass, programming interface.
    pub class: u32,
    /// Revision id.
    #[serde(default)]
    pub revision: Option<u8>,
    /// Name in pci.ids.
    #[serde(default)]
    pub name: Option<String>,
    /// Bound driver.
    #[serde(default)]
    pub driver: Option<String>,
    /// Best VFIO driver, by the aliases of the installed modules.
    #[serde(default)]
    pub best_driver: Option<String>,
    /// Content of `driver_override`.
    #[serde(default)]
    pub driver_override: Option<String>,
    /// Name of Varia's variant for the function.
    #[serde(default)]
    pub variant: Option<String>,
    /// Reason for the selection of [`variant`](Self::variant), such as the ids.
    #[serde(default)]
    pub variant_reason: Option<String>,
    /// IOMMU group; `None` if no IOMMU translates for the function.
    #[serde(default)]
    pub iommu_group: Option<GroupId>,
    /// IOMMU that translates for the function, such as `smmu3.0x0000000011000000`; `None` if not
    /// known.
    #[serde(default)]
    pub iommu: Option<String>,
    /// NUMA node, as firmware gives it.
    #[serde(default)]
    pub numa_node: Option<NodeId>,
    /// Nearest node with CPUs, which may differ from the function's node.
    #[serde(default)]
    pub cpu_node: Option<NodeId>,
    /// Bridge above the function; `None` on a root bus.
    #[serde(default)]
    pub upstream: Option<Bdf>,
    /// Path in ACPI's namespace.
    #[serde(default)]
    pub acpi_path: Option<String>,
    /// Physical BARs, by index.
    #[serde(default)]
    pub bars: Vec<PhysicalBar>,
    /// Memory that is coherent with the CPU and outside every physical BAR.
    #[serde(default)]
    pub coherent_memory: Option<CoherentMemory>,
    /// Part of the coherent memory that is online as RAM of the host.
    #[serde(default)]
    pub online: Option<OnlineMemory>,
    /// Extended GPU Memory of the function's socket, by firmware.
    #[serde(default)]
    pub egm: Option<EgmMemory>,
    /// BARs that the variant shows to a VM, by index; empty if the layout is not known.
    #[serde(default)]
    pub virtual_bars: Vec<VirtualBar>,
    /// Reason why the variant's layout is not known, or the assumed part of the layout.
    #[serde(default)]
    pub layout_note: Option<String>,
    /// Readiness of the device's memory at the probe; `None` without a probe.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Reason why a requested probe did not read the device.
    #[serde(default)]
    pub unprobed: Option<String>,
    /// True if the device was open; `None` if not known.
    #[serde(default)]
    pub open: Option<bool>,
    /// User of the device: a process, a file system, an interface that is up.
    #[serde(default)]
    pub user: Option<String>,
}

impl PciFunction {
    /// A function of which the ids alone are known: vendor and device, those of the subsystem, and
    /// the class code of 24 bits.
    #[must_use]
    pub fn new(bdf: Bdf, id: (u16, u16), subsystem: (u16, u16), class: u32) -> Self {
        Self {
            bdf,
            vendor: id.0,
            device: id.1,
            subsystem_vendor: subsystem.0,
            subsystem_device: subsystem.1,
            class,
            revision: None,
            name: None,
            driver: None,
            best_driver: None,
            driver_override: None,
            variant: None,
            variant_reason: None,
            iommu_group: None,
            iommu: None,
            numa_node: None,
            cpu_node: None,
            upstream: None,
            acpi_path: None,
            bars: Vec::new(),
            coherent_memory: None,
            online: None,
            egm: None,
            virtual_bars: Vec::new(),
            layout_note: None,
            ready: None,
            unprobed: None,
            open: None,
            user: None,
        }
    }
}

/// A physical BAR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalBar {
    /// 0 to 5.
    pub index: u8,
    /// Address; `None` if the BAR has none.
    pub address: Option<HostPhys>,
    /// Size of the BAR.
    pub size: Bytes,
    /// Decoded address space.
    pub kind: BarKind,
    /// True for prefetchable memory.
    pub prefetchable: bool,
}

/// Address space that a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory at any 64-bit address.
    Memory64,
}

/// Coherent memory of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoherentMemory {
    /// First address of the memory.
    pub base: HostPhys,
    /// Size of the memory.
    pub size: Bytes,
    /// First proximity domain that firmware reserves for the memory.
    #[serde(default)]
    pub pxm_start: Option<u32>,
    /// Number of reserved proximity domains.
    #[serde(default)]
    pub pxm_count: Option<u32>,
    /// Source of these values.
    pub source: CoherentSource,
}

/// Extended GPU Memory (EGM) of a GPU's socket, as firmware describes it at the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgmMemory {
    /// First address of the memory.
    pub base: HostPhys,
    /// Size of the memory, which is not 0.
    pub size: Bytes,
    /// Proximity domain of the memory, the N of `/dev/egmN`.
    pub pxm: u32,
    /// Address of the table of retired pages.
    #[serde(default)]
    pub retired_pages: Option<HostPhys>,
}

/// Memory of a device that the host uses as RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineMemory {
    /// Nodes of the memory; empty if they are not known.
    pub nodes: Vec<NodeId>,
    /// Size of the memory.
    pub size: Bytes,
}

impl OnlineMemory {
    /// `node 2`, `nodes 2, 3`, or `a node that is not known`.
    #[must_use]
    pub fn place(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        match nodes.as_slice() {
            [] => "a node that is not known".to_owned(),
            [node] => format!("node {node}"),
            nodes => format!("nodes {}", nodes.join(", ")),
        }
    }

    /// Shell command that takes the memory offline; `None` if the nodes are not known.
    #[must_use]
    pub fn offline(&self) -> Option<String> {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        let all = match nodes.as_slice() {
            [] => return None,
            [node] => format!("node{node}"),
            nodes => format!("node{{{}}}", nodes.join(",")),
        };
        Some(format!(
            "for state in /sys/devices/system/node/{all}/memory*/state; do echo offline > $state; \
             done"
        ))
    }
}

/// Source of the location of coherent memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoherentSource {
    /// `_DSD` properties in this ACPI table, such as `SSDT3`.
    AcpiDsd(String),
    /// Properties of the device's node in the device tree.
    DeviceTree,
}

/// A BAR that a variant shows to a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualBar {
    /// 0 to 5.
    pub index: u8,
    /// Size of the BAR.
    pub size: Bytes,
    /// Bytes of memory behind it; the rest is padding.
    pub length: Bytes,
    /// True for 64-bit memory; prefetchable memory is always 64-bit here.
    pub prefetchable: bool,
    /// The variant's name of the memory behind the BAR (`usemem`, `resmem`); `None` for a physical
    /// BAR that the VM gets unchanged.
    #[serde(default)]
    pub memory: Option<String>,
}
