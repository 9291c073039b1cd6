//! Requests that can't be met: the constraint, and what would satisfy it.

use varia_facts::{Bdf, Bytes, GroupId, NodeId};

use crate::aperture::size;
use crate::limits::MAX_NODES;
use crate::request::What;

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// No GPU.
    #[error("no GPU was asked for: give at least one, for instance --gpu 0009:01:00.0")]
    NoGpu,
    /// A name that can't be one.
    #[error("{name:?} can't name a VM: use letters, digits, '.', '_', '+' and '-'")]
    Name {
        /// What was given.
        name: String,
    },
    /// A file that is somewhere else for whoever reads its name.
    #[error("{option} {file:?} is relative to a folder that no VMM knows: give an absolute path")]
    RelativeFile {
        /// The option that has it.
        option: &'static str,
        /// What was given.
        file: String,
    },
    /// Text that XML can't hold.
    #[error(
        "{option} {text:?} has the character {character:?}, which libvirt's XML can't hold: leave \
         it out; a file that has it in its name needs another name, or a link with one"
    )]
    Character {
        /// The option that has it.
        option: &'static str,
        /// What was given.
        text: String,
        /// The first that is wrong.
        character: char,
    },
    /// An address without a device.
    #[error("there is no PCI function {bdf}: varia list shows the GPUs that there are")]
    NoFunction {
        /// The address.
        bdf: Bdf,
    },
    /// A device of which nothing is known.
    #[error(
        "{bdf} ({vendor:04x}:{device:04x}) has no coherent memory that Varia knows of: varia list \
         shows the GPUs that there are"
    )]
    NotCoherent {
        /// The address.
        bdf: Bdf,
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// A GPU whose BARs are not known.
    #[error(
        "the BARs that {bdf} would have in a VM are not known ({why}): bind it to its driver and \
         look again with varia list --probe"
    )]
    NoLayout {
        /// The address.
        bdf: Bdf,
        /// Why not.
        why: String,
    },
    /// A device that no IOMMU translates for.
    #[error(
        "{bdf} is in no IOMMU group, so that no VM can have it: switch the IOMMU on in the \
         firmware's setup and the kernel's options; varia doctor {bdf} says how"
    )]
    NoGroup {
        /// The address.
        bdf: Bdf,
    },
    /// A group of which the host uses a part.
    #[error(
        "{bdf} shares IOMMU group {group} with {others}, which the host uses, and a group goes to \
         a VM as a whole: give up those as well (varia doctor {bdf} says how), or put the GPU into \
         a slot with ACS, which has a group of its own"
    )]
    Group {
        /// The address.
        bdf: Bdf,
        /// Its group.
        group: GroupId,
        /// The members that the host uses, with their drivers.
        others: String,
    },
    /// The same GPU twice.
    #[error("{bdf} was asked for twice: a function is in a VM once")]
    Twice {
        /// The address.
        bdf: Bdf,
    },
    /// Too few GPUs on any superchip.
    #[error(
        "{what} can't be had: the superchip with the most GPUs that are not asked for otherwise \
         has {most}"
    )]
    Superchip {
        /// What was asked for.
        what: What,
        /// The most that there are.
        most: usize,
    },
    /// Extended GPU Memory.
    #[error(
        "Extended GPU Memory can't be had: {why}. It needs firmware that sets it aside and a \
         kernel with an EGM driver, which Linux 7.2 is not; ask without --egm"
    )]
    Egm {
        /// What is missing.
        why: &'static str,
    },
    /// CPUs that can't be shared out evenly: QEMU's sockets are of one size.
    #[error(
        "{cpus} virtual CPUs can't be shared out evenly among the {sockets} sockets whose GPUs the \
         VM has: ask for a multiple of {sockets}"
    )]
    Cpus {
        /// How many were asked for.
        cpus: u32,
        /// How many sockets there are.
        sockets: usize,
    },
    /// More virtual CPUs than a machine takes.
    #[error(
        "{cpus} virtual CPUs are more than the {most} that QEMU's machine and KVM take: ask for at \
         most {most}"
    )]
    TooManyCpus {
        /// How many were asked for.
        cpus: u32,
        /// The most that there can be.
        most: u32,
    },
    /// More disks than places for them.
    #[error(
        "{disks} disks and {gpus} GPUs have no place on one PCI bus: ask for at most {most} disks"
    )]
    TooManyDisks {
        /// How many were asked for.
        disks: usize,
        /// How many GPUs there are.
        gpus: usize,
        /// The most disks that there can be beside them.
        most: usize,
    },
    /// More virtual CPUs than there are to pin them to.
    #[error(
        "{wanted} virtual CPUs can't be pinned to the {there} CPUs of the host's node {node}: ask \
         for at most {there} for each socket, or pass --no-pin"
    )]
    Pins {
        /// The host's node.
        node: NodeId,
        /// Virtual CPUs for it.
        wanted: u32,
        /// Its CPUs.
        there: u64,
    },
    /// RAM that is no number of pages for each socket.
    #[error(
        "{memory} of RAM are not a multiple of {unit} for each of {sockets} sockets: ask for a \
         multiple of {all}"
    )]
    Memory {
        /// What was asked for.
        memory: Bytes,
        /// The size of a page, or a MiB.
        unit: Bytes,
        /// How many sockets there are.
        sockets: usize,
        /// What it must be a multiple of.
        all: Bytes,
    },
    /// Too little RAM on a node.
    #[error(
        "the host's node {node} has {there} of RAM, and the VM needs {wanted} of it: ask for less"
    )]
    HostMemory {
        /// The host's node.
        node: NodeId,
        /// Size that the VM needs.
        wanted: Bytes,
        /// Size of the node.
        there: Bytes,
    },
    /// Hugepages of a size that the host's kernel does not have.
    #[error(
        "the host's node {node} has no hugepages of {size}: ask for a size that it has \
         ({there})"
    )]
    HugePageSize {
        /// The host's node.
        node: NodeId,
        /// Size of a page.
        size: Bytes,
        /// The sizes there are, as text.
        there: String,
    },
    /// No node for a GPU's memory.
    #[error(
        "a GPU's memory needs a NUMA node of the VM: ask for 1 node for each GPU, or for 8 if MIG \
         is used"
    )]
    NoNodes,
    /// Too few hugepages on a node.
    #[error(
        "the host's node {node} has {free} free hugepages of {size}, and {wanted} are \
         wanted: reserve them with echo {reserve} > /sys/devices/system/node/node{node}/hugepages/\
         hugepages-{kib}kB/nr_hugepages"
    )]
    HugePages {
        /// The host's node.
        node: NodeId,
        /// Size of a page.
        size: Bytes,
        /// The same in KiB.
        kib: u64,
        /// Pages wanted.
        wanted: u64,
        /// Pages free.
        free: u64,
        /// What to set the pool to.
        reserve: u64,
    },
    /// More nodes than the VMM has.
    #[error(
        "{wanted} NUMA nodes are more than the {MAX_NODES} that QEMU takes: ask for fewer GPUs or \
         fewer nodes for each"
    )]
    TooManyNodes {
        /// Nodes that the request comes to, with those of the CPUs.
        wanted: u64,
    },
    /// More root buses than there are numbers.
    #[error("{gpus} GPUs need more than the 256 bus numbers of a PCI segment: ask for at most 30")]
    TooManyGpus {
        /// How many were asked for.
        gpus: usize,
    },
    /// An aperture beyond the guest's address width.
    #[error(
        "BARs of {bars} need an MMIO aperture of {}, which ends at {end:#x}, and the guest's \
         addresses have {bits} bits: ask for fewer GPUs or GPUs with less memory",
        size(*aperture)
    )]
    Aperture {
        /// Sizes of the BARs, as text.
        bars: String,
        /// The aperture, bytes.
        aperture: u128,
        /// Where it ends.
        end: u128,
        /// Bits of an address.
        bits: u32,
    },
    /// `/dev/iommu` where it can't serve.
    #[error("iommufd can't be used: {why}; ask with --iommu type1")]
    Iommufd {
        /// What is missing.
        why: &'static str,
    },
    /// Neither way.
    #[error(
        "this host has neither /dev/vfio/vfio nor a usable /dev/iommu: load vfio_iommu_type1, and \
         see varia doctor"
    )]
    NoIommu,
}

impl Error {
    pub(crate) fn sizes(sizes: impl Iterator<Item = Bytes>) -> String {
        let texts: Vec<_> = sizes.map(|size| size.to_string()).collect();
        texts.join(", ")
    }
}
