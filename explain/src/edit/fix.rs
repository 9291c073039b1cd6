//! Corrections of a definition, in no language yet.

use varia_facts::{Bytes, NodeId};

use crate::model::Place;

/// A change of a definition. Numbers of functions, buses and SMMUs are places in the
/// definition's lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fix {
    /// Node 0 with all CPUs and all RAM.
    FirstNode,
    /// Nodes and Generic Initiators as GPUs need them.
    Assign {
        /// Other numbers for nodes, by their place in the list; without a number the node goes.
        numbers: Vec<(usize, Option<u32>)>,
        /// Nodes to define, empty.
        define: Vec<u32>,
        /// Nodes to remove, with their distances.
        remove: Vec<u32>,
        /// Nodes of each device; no other initiator stays.
        ties: Vec<(String, Vec<u32>)>,
    },
    /// Other numbers for nodes wherever the definition has them: from, to.
    Renumber(Vec<(u32, u32)>),
    /// No memory in a node, the one at this place of the list.
    EmptyNode(usize),
    /// Distances to have: from, to, value; and such as nobody needs, by their place in the list.
    Distances {
        set: Vec<(u32, u32, u32)>,
        remove: Vec<usize>,
    },
    /// A machine for GPUs.
    Machine,
    /// An aperture of this size.
    Aperture(Bytes),
    /// So many address bits.
    AddressBits(u32),
    /// The third version of the interrupt controller.
    Gic,
    /// KVM.
    Kvm,
    /// The host's CPU.
    HostCpu,
    /// ACPI.
    Acpi,
    /// UEFI.
    Firmware,
    /// No SMMU for the whole machine.
    NoMachineSmmu,
    /// A root port for a function.
    RootPort {
        function: usize,
        name: String,
        bus: String,
        chassis: u32,
        window: Option<Bytes>,
        /// Slot of the port on the bus, if the bus has others.
        slot: Option<u8>,
    },
    /// A root bus for a port, or one for what is on a bus that is not there.
    RootBus {
        port: usize,
        name: String,
        number: u32,
        node: u32,
        /// Slot on the machine's own root bus.
        slot: Option<u8>,
    },
    /// A root bus's node.
    BusNode { bus: usize, node: u32 },
    /// A root bus's number.
    BusNumber { bus: usize, number: u32 },
    /// Addresses that a root port reserves.
    Window { bus: usize, window: Bytes },
    /// A root port's chassis.
    Chassis { bus: usize, chassis: u32 },
    /// Slot 0 for what is at this place of the text.
    Slot(Place),
    /// A function's name.
    Id { function: usize, id: String },
    /// The name of what is at this place of the list of names.
    Rename { name: usize, id: String },
    /// An iommufd of this name.
    AddIommufd(String),
    /// The iommufd that a function uses.
    UseIommufd { function: usize, id: String },
    /// An SMMU that the host's carries out.
    Accelerate(usize),
    /// Another root bus for an SMMU.
    SmmuBus { smmu: usize, bus: usize },
    /// Such an SMMU for a root bus.
    AddSmmu { bus: usize },
    /// No such properties of an SMMU.
    SmmuOptions { smmu: usize, names: Vec<String> },
    /// Another function for a tie to Extended GPU Memory, by its place in the list.
    EgmDevice { tie: usize, device: String },
    /// Another node for a tie to Extended GPU Memory, by its place in the list.
    EgmNode { tie: usize, node: u32 },
    /// Another file for the RAM of a node, by its place in the list.
    File { node: usize, file: String },
    /// A tie of a function to the Extended GPU Memory that is the RAM of a node.
    AddEgm { device: String, node: u32 },
    /// BARs that are mapped.
    Mapped(usize),
    /// No expansion ROM.
    NoRom(usize),
    /// The driver that the function has.
    BestDriver(usize),
    /// RAM of a node, at this place of the list, on a node of the host.
    HostNode { node: usize, host: NodeId },
    /// RAM of a node that others may map.
    Shared(usize),
    /// A host's CPU for each of these virtual ones.
    Pins(Vec<(u32, u32)>),
}
