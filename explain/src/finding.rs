//! What can be wrong, and what was found.

use serde::Serialize;

use crate::edit::fix::Fix;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The VM does not start, or a GPU in it can't be used.
    Fault,
    /// It works, and less well than it could.
    Advice,
}

/// What can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Code {
    /// A GPU has no memory-less NUMA nodes, so that the guest's driver has no place for its memory.
    NodesMissing,
    /// A GPU has fewer nodes than MIG needs, and more than the one that is enough without it.
    NodesTooFew,
    /// A GPU has more nodes than its driver uses.
    NodesTooMany,
    /// A Generic Initiator ties a node that is not defined.
    NodeMissing,
    /// Two nodes have the same number.
    NodeTwice,
    /// The nodes' numbers leave one out, which no VMM takes.
    NodeGap,
    /// A GPU's node has RAM of its own; the driver wants one without.
    NodeHasMemory,
    /// Two GPUs are tied to the same node.
    NodeShared,
    /// There are more nodes than QEMU takes.
    NodesOverLimit,
    /// Nodes without memory are tied to no GPU: the driver looks for nodes that are tied to its function.
    InitiatorMissing,
    /// A Generic Initiator names a device that is no GPU of the VM.
    InitiatorDevice,
    /// A Generic Initiator ties a node that is none of a GPU's: one with CPUs, or one that is not there while another is left over.
    InitiatorNode,
    /// Two Generic Initiators tie the same node to the same GPU.
    InitiatorTwice,
    /// Nodes of one GPU are tied to another one, which has too many then.
    InitiatorWrongGpu,
    /// A GPU has no id, so that no Generic Initiator can name it.
    IdMissing,
    /// Two devices or objects have the same id.
    IdTwice,
    /// A function of the host is in the VM twice.
    FunctionTwice,
    /// A device is on a bus that is not there.
    BusMissing,
    /// A GPU is on a root bus without a root port of its own.
    RootPortMissing,
    /// Two devices are in the one slot of a root port.
    PortShared,
    /// A GPU is not behind a root bus of its own (pxb-pcie), so that the guest can't know its CPUs' node, and no SMMU can be its own.
    RootBusMissing,
    /// Two GPUs are behind the same root bus in a VM with SMMUs; an SMMU serves one instance of the host's.
    RootBusShared,
    /// A GPU is behind the root bus of a GPU of another node; a root bus is on one node only.
    RootBusFar,
    /// A GPU's root bus is on no node with CPUs, or on one that is not the GPU's own.
    RootBusNode,
    /// Two root buses have the same number.
    RootBusNumber,
    /// A root port reserves less 64-bit prefetchable space than the virtual BARs behind it need.
    RootPortWindow,
    /// Two root ports are the same slot of the same chassis.
    ChassisTwice,
    /// The MMIO aperture is smaller than the sum of the virtual BARs' windows: the guest leaves a BAR without an address.
    ApertureTooSmall,
    /// The aperture's size is no power of two, which QEMU refuses.
    ApertureSize,
    /// The aperture ends beyond the guest's physical addresses.
    AddressWidth,
    /// The command line names no machine, and QEMU's own choice, if it has one, has no PCIe.
    MachineMissing,
    /// The interrupt controller is not a GICv3, which message-signalled interrupts need.
    GicVersion,
    /// ACPI is off, and with it the tables that describe nodes and initiators.
    AcpiOff,
    /// An arm64 VM has no UEFI, without which it has no ACPI.
    FirmwareMissing,
    /// The VM is run by software, or nothing says that it is KVM.
    Accelerator,
    /// The CPU is not the host's, as KVM on arm64 needs it.
    CpuModel,
    /// The machine has one emulated SMMU for everything, with which VFIO does not work.
    MachineSmmu,
    /// A GPU uses an iommufd object that is not there.
    IommufdObject,
    /// A GPU does not use iommufd, while its SMMU or the other GPUs do.
    IommufdMissing,
    /// A GPU's SMMU is emulated (no accel=on), with which VFIO does not work.
    SmmuNotAccelerated,
    /// Other GPUs have an SMMU of their own, and this one has none.
    SmmuMissing,
    /// An SMMU is on no root bus, or on one that has another.
    SmmuBus,
    /// The GPU's memory is not mapped into the guest (x-no-mmap): each access traps.
    BarsNotMapped,
    /// Firmware is shown an expansion ROM, which these GPUs' VMs do not need.
    RomShown,
    /// Libvirt is told to bind plain vfio-pci, which does not reach the memory.
    PlainDriver,
    /// RAM of the GPU's node is on another node of the host than the GPU's CPUs.
    MemoryElsewhere,
    /// RAM of the GPU's node may be on any node of the host.
    MemoryAnywhere,
    /// RAM is not shared, so that a vfio-user server can't reach it.
    MemoryNotShared,
    /// The nodes' RAM is not the machine's RAM, which QEMU refuses.
    MemorySum,
    /// Virtual CPUs of a node are pinned to CPUs of another node of the host than its RAM is on.
    CpusElsewhere,
    /// Virtual CPUs are not pinned, while the RAM beside them is on one node of the host.
    CpusAnywhere,
    /// No distances are given: the guest takes GPU memory to be as near as another socket's RAM.
    DistancesMissing,
    /// Distances are given for some pairs of nodes and not for others, which QEMU refuses.
    DistancesIncomplete,
    /// A distance names a node that is not there.
    DistanceNode,
    /// A distance is not 10 from a node to itself, or not 11 to 254 to another.
    DistanceValue,
    /// The way back is of another length, and the host does not say so.
    DistancesAsymmetric,
}

impl Code {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NodesMissing,
        Self::NodesTooFew,
        Self::NodesTooMany,
        Self::NodeMissing,
        Self::NodeTwice,
        Self::NodeGap,
        Self::NodeHasMemory,
        Self::NodeShared,
        Self::NodesOverLimit,
        Self::InitiatorMissing,
        Self::InitiatorDevice,
        Self::InitiatorNode,
        Self::InitiatorTwice,
        Self::InitiatorWrongGpu,
        Self::IdMissing,
        Self::IdTwice,
        Self::FunctionTwice,
        Self::BusMissing,
        Self::RootPortMissing,
        Self::PortShared,
        Self::RootBusMissing,
        Self::RootBusShared,
        Self::RootBusFar,
        Self::RootBusNode,
        Self::RootBusNumber,
        Self::RootPortWindow,
        Self::ChassisTwice,
        Self::ApertureTooSmall,
        Self::ApertureSize,
        Self::AddressWidth,
        Self::MachineMissing,
        Self::GicVersion,
        Self::AcpiOff,
        Self::FirmwareMissing,
        Self::Accelerator,
        Self::CpuModel,
        Self::MachineSmmu,
        Self::IommufdObject,
        Self::IommufdMissing,
        Self::SmmuNotAccelerated,
        Self::SmmuMissing,
        Self::SmmuBus,
        Self::BarsNotMapped,
        Self::RomShown,
        Self::PlainDriver,
        Self::MemoryElsewhere,
        Self::MemoryAnywhere,
        Self::MemoryNotShared,
        Self::MemorySum,
        Self::CpusElsewhere,
        Self::CpusAnywhere,
        Self::DistancesMissing,
        Self::DistancesIncomplete,
        Self::DistanceNode,
        Self::DistanceValue,
        Self::DistancesAsymmetric,
    ];

    /// Its name, how much it matters, and what it means.
    const fn row(self) -> (&'static str, Weight, &'static str) {
        use Weight::{Advice, Fault};
        match self {
            Self::NodesMissing => (
                "nodes-missing",
                Fault,
                "a GPU has no memory-less NUMA nodes, so that the guest's driver has no place for its memory",
            ),
            Self::NodesTooFew => (
                "nodes-too-few",
                Fault,
                "a GPU has fewer nodes than MIG needs, and more than the one that is enough without it",
            ),
            Self::NodesTooMany => (
                "nodes-too-many",
                Advice,
                "a GPU has more nodes than its driver uses",
            ),
            Self::NodeMissing => (
                "node-missing",
                Fault,
                "a Generic Initiator ties a node that is not defined",
            ),
            Self::NodeTwice => ("node-twice", Fault, "two nodes have the same number"),
            Self::NodeGap => (
                "node-gap",
                Fault,
                "the nodes' numbers leave one out, which no VMM takes",
            ),
            Self::NodeHasMemory => (
                "node-has-memory",
                Fault,
                "a GPU's node has RAM of its own; the driver wants one without",
            ),
            Self::NodeShared => ("node-shared", Fault, "two GPUs are tied to the same node"),
            Self::NodesOverLimit => (
                "nodes-over-limit",
                Fault,
                "there are more nodes than QEMU takes",
            ),
            Self::InitiatorMissing => (
                "initiator-missing",
                Fault,
                "nodes without memory are tied to no GPU: the driver looks for nodes that are tied to its function",
            ),
            Self::InitiatorDevice => (
                "initiator-device",
                Fault,
                "a Generic Initiator names a device that is no GPU of the VM",
            ),
            Self::InitiatorNode => (
                "initiator-node",
                Fault,
                "a Generic Initiator ties a node that is none of a GPU's: one with CPUs, or one that is not there while another is left over",
            ),
            Self::InitiatorTwice => (
                "initiator-twice",
                Fault,
                "two Generic Initiators tie the same node to the same GPU",
            ),
            Self::InitiatorWrongGpu => (
                "initiator-wrong-gpu",
                Fault,
                "nodes of one GPU are tied to another one, which has too many then",
            ),
            Self::IdMissing => (
                "id-missing",
                Fault,
                "a GPU has no id, so that no Generic Initiator can name it",
            ),
            Self::IdTwice => ("id-twice", Fault, "two devices or objects have the same id"),
            Self::FunctionTwice => (
                "function-twice",
                Fault,
                "a function of the host is in the VM twice",
            ),
            Self::BusMissing => (
                "bus-missing",
                Fault,
                "a device is on a bus that is not there",
            ),
            Self::RootPortMissing => (
                "root-port-missing",
                Fault,
                "a GPU is on a root bus without a root port of its own",
            ),
            Self::PortShared => (
                "port-shared",
                Fault,
                "two devices are in the one slot of a root port",
            ),
            Self::RootBusMissing => (
                "root-bus-missing",
                Fault,
                "a GPU is not behind a root bus of its own (pxb-pcie), so that the guest can't know its CPUs' node, and no SMMU can be its own",
            ),
            Self::RootBusShared => (
                "root-bus-shared",
                Fault,
                "two GPUs are behind the same root bus in a VM with SMMUs; an SMMU serves one instance of the host's",
            ),
            Self::RootBusFar => (
                "root-bus-far",
                Advice,
                "a GPU is behind the root bus of a GPU of another node; a root bus is on one node only",
            ),
            Self::RootBusNode => (
                "root-bus-node",
                Fault,
                "a GPU's root bus is on no node with CPUs, or on one that is not the GPU's own",
            ),
            Self::RootBusNumber => (
                "root-bus-number",
                Fault,
                "two root buses have the same number",
            ),
            Self::RootPortWindow => (
                "root-port-window",
                Advice,
                "a root port reserves less 64-bit prefetchable space than the virtual BARs behind it need",
            ),
            Self::ChassisTwice => (
                "chassis-twice",
                Fault,
                "two root ports are the same slot of the same chassis",
            ),
            Self::ApertureTooSmall => (
                "aperture-too-small",
                Fault,
                "the MMIO aperture is smaller than the sum of the virtual BARs' windows: the guest leaves a BAR without an address",
            ),
            Self::ApertureSize => (
                "aperture-size",
                Fault,
                "the aperture's size is no power of two, which QEMU refuses",
            ),
            Self::AddressWidth => (
                "address-width",
                Fault,
                "the aperture ends beyond the guest's physical addresses",
            ),
            Self::MachineMissing => (
                "machine-missing",
                Fault,
                "the command line names no machine, and QEMU's own choice, if it has one, has no PCIe",
            ),
            Self::GicVersion => (
                "gic-version",
                Fault,
                "the interrupt controller is not a GICv3, which message-signalled interrupts need",
            ),
            Self::AcpiOff => (
                "acpi-off",
                Fault,
                "ACPI is off, and with it the tables that describe nodes and initiators",
            ),
            Self::FirmwareMissing => (
                "firmware-missing",
                Fault,
                "an arm64 VM has no UEFI, without which it has no ACPI",
            ),
            Self::Accelerator => (
                "accelerator",
                Fault,
                "the VM is run by software, or nothing says that it is KVM",
            ),
            Self::CpuModel => (
                "cpu-model",
                Fault,
                "the CPU is not the host's, as KVM on arm64 needs it",
            ),
            Self::MachineSmmu => (
                "machine-smmu",
                Fault,
                "the machine has one emulated SMMU for everything, with which VFIO does not work",
            ),
            Self::IommufdObject => (
                "iommufd-object",
                Fault,
                "a GPU uses an iommufd object that is not there",
            ),
            Self::IommufdMissing => (
                "iommufd-missing",
                Fault,
                "a GPU does not use iommufd, while its SMMU or the other GPUs do",
            ),
            Self::SmmuNotAccelerated => (
                "smmu-not-accelerated",
                Fault,
                "a GPU's SMMU is emulated (no accel=on), with which VFIO does not work",
            ),
            Self::SmmuMissing => (
                "smmu-missing",
                Fault,
                "other GPUs have an SMMU of their own, and this one has none",
            ),
            Self::SmmuBus => (
                "smmu-bus",
                Fault,
                "an SMMU is on no root bus, or on one that has another",
            ),
            Self::BarsNotMapped => (
                "bars-not-mapped",
                Fault,
                "the GPU's memory is not mapped into the guest (x-no-mmap): each access traps",
            ),
            Self::RomShown => (
                "rom-shown",
                Advice,
                "firmware is shown an expansion ROM, which these GPUs' VMs do not need",
            ),
            Self::PlainDriver => (
                "plain-driver",
                Fault,
                "libvirt is told to bind plain vfio-pci, which does not reach the memory",
            ),
            Self::MemoryElsewhere => (
                "memory-elsewhere",
                Advice,
                "RAM of the GPU's node is on another node of the host than the GPU's CPUs",
            ),
            Self::MemoryAnywhere => (
                "memory-anywhere",
                Advice,
                "RAM of the GPU's node may be on any node of the host",
            ),
            Self::MemoryNotShared => (
                "memory-not-shared",
                Fault,
                "RAM is not shared, so that a vfio-user server can't reach it",
            ),
            Self::MemorySum => (
                "memory-sum",
                Fault,
                "the nodes' RAM is not the machine's RAM, which QEMU refuses",
            ),
            Self::CpusElsewhere => (
                "cpus-elsewhere",
                Advice,
                "virtual CPUs of a node are pinned to CPUs of another node of the host than its RAM is on",
            ),
            Self::CpusAnywhere => (
                "cpus-anywhere",
                Advice,
                "virtual CPUs are not pinned, while the RAM beside them is on one node of the host",
            ),
            Self::DistancesMissing => (
                "distances-missing",
                Advice,
                "no distances are given: the guest takes GPU memory to be as near as another socket's RAM",
            ),
            Self::DistancesIncomplete => (
                "distances-incomplete",
                Fault,
                "distances are given for some pairs of nodes and not for others, which QEMU refuses",
            ),
            Self::DistanceNode => (
                "distance-node",
                Fault,
                "a distance names a node that is not there",
            ),
            Self::DistanceValue => (
                "distance-value",
                Fault,
                "a distance is not 10 from a node to itself, or not 11 to 254 to another",
            ),
            Self::DistancesAsymmetric => (
                "distances-asymmetric",
                Advice,
                "the way back is of another length, and the host does not say so",
            ),
        }
    }

    /// Its name, as the documentation and JSON have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// How much it matters.
    #[must_use]
    pub const fn weight(self) -> Weight {
        self.row().1
    }

    /// What it means, a sentence without its full stop.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.row().2
    }
}

/// Something that is missing or wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What kind of thing.
    pub code: Code,
    /// The line of the definition, from 1: of the thing, or of what it should be in.
    pub line: usize,
    /// What was found, with its values.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// What the correction does about it; none where only its author can know.
    pub(crate) fix: Option<Fix>,
}

/// Findings as they are gathered.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn add(
        &mut self,
        code: Code,
        line: usize,
        what: impl Into<String>,
        remedy: impl Into<String>,
        fix: impl Into<Option<Fix>>,
    ) {
        self.0.push(Finding {
            code,
            line,
            what: what.into(),
            remedy: remedy.into(),
            fix: fix.into(),
        });
    }

    pub(crate) fn has(&self, codes: &[Code]) -> bool {
        self.0.iter().any(|finding| codes.contains(&finding.code))
    }
}
