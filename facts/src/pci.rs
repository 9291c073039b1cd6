//! PCI functions, as the machine that owns them sees them, and what their variant makes of
//! them for a VM.

use serde::{Deserialize, Serialize};

use varia_units::{Bytes, HostPhys};

use crate::ids::{Bdf, GroupId, NodeId};

/// A PCI function of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Where it is.
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
    /// What pci.ids calls it.
    #[serde(default)]
    pub name: Option<String>,
    /// The driver that is bound to it.
    #[serde(default)]
    pub driver: Option<String>,
    /// The VFIO driver that is best for it, by the aliases of the installed modules.
    #[serde(default)]
    pub best_driver: Option<String>,
    /// What its `driver_override` says.
    #[serde(default)]
    pub driver_override: Option<String>,
    /// Varia's variant for it, by name.
    #[serde(default)]
    pub variant: Option<String>,
    /// Its IOMMU group; none if no IOMMU translates for it.
    #[serde(default)]
    pub iommu_group: Option<GroupId>,
    /// The NUMA node that firmware puts it into.
    #[serde(default)]
    pub numa_node: Option<NodeId>,
    /// The nearest node with CPUs, which may be another one.
    #[serde(default)]
    pub cpu_node: Option<NodeId>,
    /// The bridge that it is behind; none on a root bus.
    #[serde(default)]
    pub upstream: Option<Bdf>,
    /// Its path in ACPI's namespace.
    #[serde(default)]
    pub acpi_path: Option<String>,
    /// Physical BARs, by index.
    #[serde(default)]
    pub bars: Vec<Bar>,
    /// Memory that is coherent with the CPU and outside every physical BAR.
    #[serde(default)]
    pub coherent_memory: Option<CoherentMemory>,
    /// The BARs that its variant shows to a VM, by index; empty if they are not known.
    #[serde(default)]
    pub virtual_bars: Vec<VirtualBar>,
    /// Why the variant's layout is not known, or what of it is assumed.
    #[serde(default)]
    pub layout_note: Option<String>,
    /// Whether the device's memory was ready when it was probed; none if nobody looked.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Why it was not looked at when it should have been.
    #[serde(default)]
    pub unprobed: Option<String>,
    /// Whether somebody had the device open.
    #[serde(default)]
    pub open: Option<bool>,
    /// Who that was: a process, a file system, an interface that is up.
    #[serde(default)]
    pub user: Option<String>,
}

/// A physical BAR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// 0 to 5.
    pub index: u8,
    /// Where it is; `None` if it was given no address.
    pub address: Option<HostPhys>,
    /// Its size.
    pub size: Bytes,
    /// What it decodes.
    pub kind: BarKind,
    /// Prefetchable memory.
    pub prefetchable: bool,
}

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere.
    Memory64,
}

/// Coherent memory of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoherentMemory {
    /// Where it begins.
    pub base: HostPhys,
    /// How much there is.
    pub size: Bytes,
    /// The first proximity domain that firmware sets aside for it.
    #[serde(default)]
    pub pxm_start: Option<u32>,
    /// How many it sets aside.
    #[serde(default)]
    pub pxm_count: Option<u32>,
    /// Who says so.
    pub source: CoherentSource,
}

/// Who says where coherent memory is.
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
    /// Its size.
    pub size: Bytes,
    /// Bytes of memory behind it; the rest is padding.
    pub length: Bytes,
    /// 64-bit memory; prefetchable memory always is here.
    pub prefetchable: bool,
    /// What the variant calls the memory behind it (`usemem`, `resmem`); none for a BAR that
    /// the VM gets as it is.
    #[serde(default)]
    pub memory: Option<String>,
}
