//! The table of findings: codes, weights and texts. The messages, the JSON and the table of
//! docs/explain.md come from it.

use super::Weight::{Advice, Fault};
use super::{Texts, Weight};

macro_rules! findings {
    ($($code:ident = $name:literal, $weight:ident {
        found: [$($found:literal),+ $(,)?], why: [$($why:literal),+ $(,)?],
        remedy: [$($remedy:literal),+ $(,)?] $(,)?
    })*) => {
        /// Kind of a finding.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Code {
            $(#[doc = concat!("`", $name, "`")] $code,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// Texts of its findings.
            #[must_use]
            pub const fn texts(self) -> Texts {
                match self {
                    $(Self::$code => Texts {
                        name: $name,
                        weight: $weight,
                        found: &[$($found),+],
                        why: &[$($why),+],
                        remedy: &[$($remedy),+],
                    },)*
                }
            }
        }
    };
}

impl Code {
    /// Name in the documentation and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.texts().name
    }

    /// Consequence of its findings.
    #[must_use]
    pub const fn weight(self) -> Weight {
        self.texts().weight
    }
}

findings! {
    NodesMissing = "nodes-missing", Fault {
        found: ["{gpu} has no memory-less NUMA nodes"],
        why: ["the guest's driver puts the GPU's memory on them"],
        remedy: [
            "define {count} nodes without CPUs and without memory, and tie them to {gpu} by \
             Generic Initiators",
        ],
    }
    NodesTooFew = "nodes-too-few", Fault {
        found: ["{gpu} has {own} memory-less NUMA nodes"],
        why: ["a GPU with MIG needs {wanted}, and one without MIG needs 1"],
        remedy: [
            "define {count} more nodes without CPUs and without memory, and tie them to {gpu} by \
             Generic Initiators",
        ],
    }
    NodesTooMany = "nodes-too-many", Advice {
        found: ["{gpu} has {own} memory-less NUMA nodes"],
        why: ["the driver of {gpu} uses {wanted}"],
        remedy: ["remove {nodes}"],
    }
    NodeMissing = "node-missing", Fault {
        found: ["Generic Initiators tie {nodes} to a GPU, and the VM defines no such node"],
        why: ["the GPU lacks its memory-less NUMA nodes"],
        remedy: ["define {nodes} without CPUs and without memory"],
    }
    NodeTwice = "node-twice", Fault {
        found: ["two NUMA nodes have the number {node}"],
        why: ["a node's number is unique"],
        remedy: ["give one of them the number {free}", "remove one of them"],
    }
    NodeGap = "node-gap", Fault {
        found: [
            "node {hole} is tied to a GPU and not defined, and node {node} is defined and tied to \
             no GPU",
            "node {last} is defined, and {holes} not",
        ],
        why: ["QEMU and libvirt take only node numbers from 0 without a gap"],
        remedy: ["give node {node} the number {hole}", "number the nodes from 0 without a gap"],
    }
    NodeHasMemory = "node-has-memory", Fault {
        found: ["node {node} is tied to a GPU and has RAM"],
        why: ["the guest's driver adds the GPU's memory to a node without RAM"],
        remedy: ["remove the RAM of node {node}"],
    }
    NodeShared = "node-shared", Fault {
        found: ["{other} and {gpu} are both tied to {nodes}"],
        why: ["each GPU needs nodes of its own"],
        remedy: [
            "define {new} and tie them to {gpu} instead",
            "tie {instead} to {gpu} instead",
        ],
    }
    NodesOverLimit = "nodes-over-limit", Fault {
        found: ["the VM has {count} NUMA nodes"],
        why: ["QEMU takes at most {most}"],
        remedy: ["give the VM fewer GPUs, or each GPU fewer nodes"],
    }
    InitiatorMissing = "initiator-missing", Fault {
        found: ["no Generic Initiator ties {nodes} to {gpu}"],
        why: ["the guest's driver uses only nodes that are tied to its function"],
        remedy: ["tie {nodes} to {gpu}"],
    }
    InitiatorDevice = "initiator-device", Fault {
        found: [
            "a Generic Initiator ties {nodes} to {other}, which is not a GPU",
            "a Generic Initiator ties {nodes} to {absent}, and the VM has no such device",
        ],
        why: ["only a GPU's driver uses such nodes"],
        remedy: [
            "tie {given} to {gpu}, which lacks nodes",
            "remove the Generic Initiator: every GPU has its nodes",
        ],
    }
    InitiatorNode = "initiator-node", Fault {
        found: [
            "a Generic Initiator ties node {undefined} to {gpu}, and the VM defines no such node",
            "a Generic Initiator ties node {node} to {gpu}, and the node has CPUs",
        ],
        why: ["a GPU's node is defined without CPUs and without memory"],
        remedy: [
            "tie node {instead} instead: no GPU has it",
            "define {new} without CPUs and without memory, and tie them instead",
            "remove the Generic Initiator",
        ],
    }
    InitiatorTwice = "initiator-twice", Fault {
        found: ["two Generic Initiators tie node {node} to {gpu}"],
        why: ["the second one gives the GPU no further node"],
        remedy: [
            "tie node {instead} with one of them: no GPU has it",
            "remove one of them",
        ],
    }
    InitiatorWrongGpu = "initiator-wrong-gpu", Fault {
        found: ["{other} has {count} nodes more than a GPU needs, and {gpu} lacks {count}"],
        why: ["each GPU needs {wanted} nodes of its own"],
        remedy: ["tie {nodes} to {gpu}"],
    }
    IdMissing = "id-missing", Fault {
        found: ["{gpu} has no id"],
        why: ["a Generic Initiator names its device by id"],
        remedy: ["add id={id}"],
    }
    IdTwice = "id-twice", Fault {
        found: ["the id {id} of a Generic Initiator is that of another object, too"],
        why: ["an object's id is unique"],
        remedy: ["rename one of them, for instance {new}"],
    }
    FunctionTwice = "function-twice", Fault {
        found: ["the function {function} is in the VM twice"],
        why: ["a function can be assigned once"],
        remedy: ["remove one of the devices with its root port, or correct its address"],
    }
    BusMissing = "bus-missing", Fault {
        found: [
            "the root port {port} is on the bus {bus}, and the VM has no such bus",
            "{gpu} is on the bus {bus}, and the VM has no such bus",
        ],
        why: ["a device needs an existing bus"],
        remedy: [
            "name an existing bus: {taken} is the id of another device",
            "add a root bus (pxb-pcie) of this name on the node of the GPU's CPUs: {root_bus}",
            "add a root port of this name: {root_port}",
        ],
    }
    RootPortMissing = "root-port-missing", Advice {
        found: ["{gpu} is on the root bus {bus} without a root port"],
        why: ["a root port's window makes room for the GPU's BARs"],
        remedy: ["put it behind a root port of its own"],
    }
    PortShared = "port-shared", Fault {
        found: [
            "{gpu} is in the slot of {other}, on the bus {bus}",
            "{gpu} is in the slot of another GPU, on the bus {bus}",
        ],
        why: ["a root port has one slot"],
        remedy: ["put it behind a root port of its own"],
    }
    PortSlot = "port-slot", Fault {
        found: [
            "{device} is in slot {slot} of the bus {bus}, which a root port makes",
            "{device} is function {function} of the slot of the bus {bus}, and nothing is function 0",
        ],
        why: ["a root port has slot 0 alone, and a slot without function 0 is empty for a guest"],
        remedy: ["put it into slot 0: addr=0"],
    }
    RootBusMissing = "root-bus-missing", Advice {
        found: [
            "{gpu} is behind the machine's own root bus",
            "{unplaced} has no address, so that libvirt puts it on the machine's own root bus",
        ],
        why: [
            "the guest does not know the node of the GPU's CPUs, and the GPU can have no SMMU of \
             its own",
        ],
        remedy: [
            "give it a root bus of its own (pxb-pcie) on node {node}",
            "put it behind a root port of its own",
        ],
    }
    RootBusShared = "root-bus-shared", Fault {
        found: ["{gpu} is behind the root bus {bus}, as a GPU of another SMMU of the host is"],
        why: ["an SMMU of the VM belongs to one root bus and to one SMMU of the host"],
        remedy: ["give it a root bus of its own (pxb-pcie)"],
    }
    RootBusFar = "root-bus-far", Advice {
        found: ["{gpu} is behind the root bus {bus}, as a GPU of another node is"],
        why: ["a root bus is on one node"],
        remedy: ["give it a root bus of its own (pxb-pcie)"],
    }
    RootBusNode = "root-bus-node", Advice {
        found: [
            "the root bus {bus} of {gpu} is on node {node}, and the CPUs of the GPU are those of \
             node {own}",
            "the root bus {bus} of {gpu} is on node {node}, and the nodes of the GPU are nearer to \
             node {near}",
            "the root bus {bus} of {gpu} is on node {node}, which has no CPUs",
            "the root bus {bus} of {gpu} is on no node",
        ],
        why: ["the guest takes the root bus's node for that of the GPU's CPUs"],
        remedy: ["put it on node {wanted}"],
    }
    RootBusNumber = "root-bus-number", Fault {
        found: [
            "root bus {bus} has the number {number}, and the root bus {before} with its ports needs \
             the numbers up to {last}",
            "root bus {bus} has the number {number}, and with its ports needs those up to {beyond}",
            "root bus {bus} and another root bus have the number {number}",
        ],
        why: ["each root bus and each bus below it needs a number of its own, and 255 is the last"],
        remedy: ["give it the number {free}", "give it a number that no root bus has"],
    }
    RootPortWindow = "root-port-window", Advice {
        found: [
            "the root port {port} reserves {reserved} of 64-bit prefetchable addresses",
            "the root port {port} reserves no 64-bit prefetchable addresses",
        ],
        why: ["the BARs of {gpu} need {wanted}"],
        remedy: ["reserve {wanted}: pref64-reserve={option}"],
    }
    ChassisTwice = "chassis-twice", Fault {
        found: ["root port {port} and another root port have slot {slot} of chassis {chassis}"],
        why: ["a slot's number is unique in its chassis"],
        remedy: ["give it a chassis of its own: chassis={free}"],
    }
    ApertureTooSmall = "aperture-too-small", Fault {
        found: [
            "the MMIO aperture is off ({off}), and the VM needs {wanted}",
            "the MMIO aperture is {given}, and the VM needs {wanted}",
            "the MMIO aperture is {default} by default, and the VM needs {wanted}",
        ],
        why: [
            "the guest leaves a BAR without an address; root ports of GPUs take {windows}, and \
             other devices have BARs, too",
            "the machine takes no less",
        ],
        remedy: ["make it {wanted}"],
    }
    ApertureSize = "aperture-size", Fault {
        found: ["the MMIO aperture is {given}, which is not a power of two"],
        why: ["QEMU refuses it"],
        remedy: ["make it {wanted}"],
    }
    AddressWidth = "address-width", Fault {
        found: ["the MMIO aperture ends at {end}, and a guest's addresses have {bits} bits"],
        why: ["a BAR beyond them can't be reached"],
        remedy: [
            "make the aperture {smaller}",
            "give the guest {width} address bits",
            "give the VM fewer GPUs",
        ],
    }
    MachineMissing = "machine-missing", Fault {
        found: ["the command line names no machine"],
        why: ["QEMU's default machine, if there is one, has no PCIe"],
        remedy: ["add -machine {machine}"],
    }
    GicVersion = "gic-version", Fault {
        found: [
            "the interrupt controller is a GICv{version}",
            "the interrupt controller is not given, and without KVM it is a GICv2",
        ],
        why: ["MSI and MSI-X need a GICv3"],
        remedy: ["make it a GICv3: gic-version=3, or <gic version='3'/>"],
    }
    AcpiOff = "acpi-off", Fault {
        found: ["ACPI is off"],
        why: ["NUMA nodes and Generic Initiators are in ACPI tables"],
        remedy: ["switch ACPI on"],
    }
    FirmwareMissing = "firmware-missing", Fault {
        found: ["the VM has no firmware"],
        why: ["an arm64 guest gets ACPI tables only from UEFI"],
        remedy: ["start it with UEFI: -bios FILE, or <os firmware='efi'>"],
    }
    Accelerator = "accelerator", Fault {
        found: [
            "the accelerator is {accelerator}",
            "no accelerator is given, so that software runs the CPUs",
        ],
        why: ["only KVM maps the GPU's memory into the guest"],
        remedy: ["use KVM"],
    }
    MachineArch = "machine-arch", Fault {
        found: ["the machine is that of {guest}, and the host is {host}"],
        why: ["KVM runs the host's architecture alone"],
        remedy: ["use {machine} and qemu-system-{host}"],
    }
    CpuModel = "cpu-model", Fault {
        found: ["the CPU model is {model}", "no CPU model is given"],
        why: ["KVM on arm64 runs only the host's CPU model"],
        remedy: ["use the host's: -cpu host, or <cpu mode='host-passthrough'>"],
    }
    MachineSmmu = "machine-smmu", Fault {
        found: ["the machine has one SMMUv3 for all devices, which is emulated"],
        why: ["VFIO does not work behind an emulated SMMU"],
        remedy: ["remove it; a GPU's SMMU is an arm-smmuv3 with accel=on on its root bus"],
    }
    IommufdObject = "iommufd-object", Fault {
        found: ["{gpu} uses the iommufd {iommufd}, and the VM has no such object"],
        why: ["the GPU's DMA is mapped by the iommufd"],
        remedy: [
            "name an existing iommufd: {taken} is the id of another object",
            "add -object iommufd,id={iommufd}",
        ],
    }
    IommufdMissing = "iommufd-missing", Fault {
        found: [
            "{refused} is told to use no iommufd, and its SMMU on {smmu} is accelerated",
            "{gpu} uses no iommufd, and its SMMU on {smmu} is accelerated",
        ],
        why: ["an accelerated SMMU works with iommufd alone"],
        remedy: ["set iommufd={iommufd}"],
    }
    IommufdMixed = "iommufd-mixed", Advice {
        found: ["{gpu} uses no iommufd, and the VM has one"],
        why: ["the VM starts, and the GPU's DMA is mapped by type1 alone"],
        remedy: ["set iommufd={iommufd}"],
    }
    SmmuNotAccelerated = "smmu-not-accelerated", Fault {
        found: ["the SMMU of {gpu} is emulated"],
        why: ["VFIO does not work behind an emulated SMMU"],
        remedy: ["set accel=on"],
    }
    SmmuMissing = "smmu-missing", Advice {
        found: ["{gpu} has no SMMU, and other GPUs have one"],
        why: ["without an SMMU in the VM a GPU can't use the page tables of a process"],
        remedy: ["add an arm-smmuv3 with accel=on on its root bus"],
    }
    SmmuBus = "smmu-bus", Fault {
        found: [
            "an SMMU is on the root bus {shared}, which has another SMMU",
            "an SMMU is on {bus}, which is not a root bus",
        ],
        why: ["an SMMU belongs to one root bus"],
        remedy: ["put it on {root}, the root bus of {gpu}", "remove it"],
    }
    SmmuOption = "smmu-option", Fault {
        found: ["the SMMU on {bus} has {options} and is not accelerated"],
        why: ["QEMU takes these values with accel=on alone"],
        remedy: ["remove {options}, or set accel=on if a GPU is behind the SMMU"],
    }
    VmmFeature = "vmm-feature", Fault {
        found: ["the definition uses {feature}, and {vmm} does not have it"],
        why: ["the VM does not start"],
        remedy: ["use {newer}", "use a build that has it: {vendor}"],
    }
    KernelFeature = "kernel-feature", Fault {
        found: [
            "the definition uses {feature}, and the host's kernel ({release}) does not have CONFIG_{option}",
            "the definition uses {feature}, and the host's kernel does not have CONFIG_{option}",
        ],
        why: ["the VM does not start"],
        remedy: ["use Linux {newer} or newer with the option", "leave out {feature}"],
    }
    KernelMemory = "kernel-memory", Fault {
        found: [
            "KVM of the host's kernel ({release}) maps the memory of {gpu} as device memory",
            "KVM of the host maps the memory of {gpu} as device memory",
        ],
        why: ["programs on the GPU fail"],
        remedy: [
            "use Linux {newer} or newer",
            "use a host whose CPUs have stage-2 forced write-back",
        ],
    }
    EgmDevice = "egm-device", Fault {
        found: [
            "the Extended GPU Memory of node {node} is tied to {other}, which is not a GPU",
            "the Extended GPU Memory of node {node} is tied to {absent}, and the VM has no such device",
        ],
        why: ["QEMU refuses it, or no driver uses the memory"],
        remedy: ["tie it to {gpu}, which has none", "remove it"],
    }
    EgmNode = "egm-node", Fault {
        found: [
            "the Extended GPU Memory of {gpu} is tied to node {undefined}, and the VM defines no such \
             node",
            "the Extended GPU Memory of {gpu} is tied to node {empty}, which has no RAM",
            "the Extended GPU Memory of {gpu} is tied to node {node}, whose RAM is not from \
             /dev/egmN",
        ],
        why: ["the guest's driver takes the RAM of the node for that memory"],
        remedy: [
            "tie it to node {wanted}, whose RAM is from {path}",
            "take the RAM of node {node} from {path}",
            "tie it to the node of the GPU's CPUs, with RAM from /dev/egmN",
        ],
    }
    EgmSocket = "egm-socket", Fault {
        found: [
            "the RAM of node {node} is from {file}, and the Extended GPU Memory of {gpu} is {path}",
            "the RAM of node {node} is from {file}, and {gpu} is on another socket",
        ],
        why: ["a GPU reaches the memory of its own socket"],
        remedy: [
            "tie it to node {wanted}, whose RAM is from {path}",
            "take the RAM from {path}",
            "take the RAM of the node of the GPU's CPUs from /dev/egmN, and tie it to that node",
        ],
    }
    EgmAbsent = "egm-absent", Fault {
        found: ["the RAM of node {node} is from {file}, and the host has no such device"],
        why: ["QEMU can't open it"],
        remedy: [
            "take the RAM from a device that the host has: {there}",
            "switch Extended GPU Memory on in the host's firmware and load nvgrace-egm, or take other \
             RAM",
        ],
    }
    EgmPartial = "egm-partial", Fault {
        found: ["the VM's RAM is from {file}, the Extended GPU Memory of {absent} too"],
        why: ["a GPU that the VM does not have could reach the VM's RAM"],
        remedy: ["give {absent} to the same VM, or take other RAM"],
    }
    EgmSize = "egm-size", Fault {
        found: ["the VM takes {wanted} of RAM from {file}, which has {there}"],
        why: ["QEMU can't map it"],
        remedy: ["give the VM less RAM"],
    }
    EgmNotShared = "egm-not-shared", Fault {
        found: ["the RAM of node {node} is from {file} and is not shared"],
        why: ["a private mapping copies what is written, and the GPU does not see the copy"],
        remedy: ["set share=on"],
    }
    EgmMissing = "egm-missing", Fault {
        found: ["the RAM of node {node} is Extended GPU Memory of {gpu}, and nothing ties it to {gpu}"],
        why: ["the guest's driver of a GPU without the tie does not find the memory"],
        remedy: ["add -object acpi-egm-memory for {gpu} with node={node}"],
    }
    BarsNotMapped = "bars-not-mapped", Fault {
        found: ["the BARs of {gpu} are not mapped into the guest (x-no-mmap)"],
        why: ["each access to the GPU's memory traps"],
        remedy: ["remove x-no-mmap"],
    }
    RomShown = "rom-shown", Advice {
        found: ["the expansion ROM of {gpu} is shown to firmware"],
        why: ["a VM with these GPUs does not need it"],
        remedy: ["set rombar=0, or <rom bar='off'/>"],
    }
    PlainDriver = "plain-driver", Fault {
        found: ["libvirt is told to bind {gpu} to vfio-pci"],
        why: ["vfio-pci does not give a VM the GPU's coherent memory"],
        remedy: ["remove the driver's model, so that libvirt chooses, or bind it by varia bind"],
    }
    MemoryElsewhere = "memory-elsewhere", Advice {
        found: ["the RAM of node {node} is on node {host} of the host, and {gpu} is on node {wanted}"],
        why: ["RAM of another node is slower for the GPU and its CPUs"],
        remedy: ["bind the RAM to node {wanted} of the host"],
    }
    MemoryAnywhere = "memory-anywhere", Advice {
        found: ["the RAM of node {node} is bound to no node of the host, and {gpu} is on node {wanted}"],
        why: ["RAM of another node is slower for the GPU and its CPUs"],
        remedy: ["bind the RAM to node {wanted} of the host"],
    }
    MemoryNotShared = "memory-not-shared", Fault {
        found: ["the RAM of node {node} is not shared"],
        why: ["a vfio-user server maps it"],
        remedy: ["set share=on"],
    }
    MemorySum = "memory-sum", Fault {
        found: ["the nodes have {nodes} of RAM, and the machine has {ram} (-m)"],
        why: ["QEMU refuses a difference; nodes of GPUs have no RAM"],
        remedy: ["make them equal"],
    }
    CpusElsewhere = "cpus-elsewhere", Advice {
        found: ["virtual CPU {vcpu} is pinned to CPUs {cpus} of the host, and its RAM is on node {host}"],
        why: ["RAM of another node is slower"],
        remedy: ["pin it to a CPU of node {host}"],
    }
    CpusAnywhere = "cpus-anywhere", Advice {
        found: ["virtual CPUs {vcpus} are not pinned, and their RAM is on one node of the host"],
        why: ["RAM of another node is slower"],
        remedy: ["pin them to CPUs of that node (vcpupin)"],
    }
    DistancesMissing = "distances-missing", Advice {
        found: ["the definition has no distances between nodes"],
        why: ["the guest takes a GPU's memory to be as near as another socket's RAM"],
        remedy: ["give the distances of all pairs"],
    }
    DistancesIncomplete = "distances-incomplete", Fault {
        found: ["{count} pairs of nodes have no distance, and others have one: to {nodes}"],
        why: ["QEMU refuses distances of some pairs alone"],
        remedy: ["give the distances of all pairs"],
    }
    DistanceNode = "distance-node", Fault {
        found: ["a distance between nodes {from} and {to} is given, and the VM has no node {node}"],
        why: ["QEMU refuses a distance of a node that is not defined"],
        remedy: ["remove the distance"],
    }
    DistanceValue = "distance-value", Fault {
        found: ["the distance from node {from} to node {to} is {value}"],
        why: ["a node is 10 from itself and 11 to 254 from another node"],
        remedy: ["make it {wanted}"],
    }
    DistancesAsymmetric = "distances-asymmetric", Advice {
        found: ["node {to} is {wrong} from node {from}, and {value} in the other direction"],
        why: ["the host's distances are the same in both directions, or unknown"],
        remedy: ["make both {value}"],
    }
}
