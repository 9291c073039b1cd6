//! Errors of planning: the constraint that a request violates, and the remedy.

use varia_facts::{Arch, Bdf, Bytes, GroupId, NodeId};

use crate::aperture::size;
use crate::limits::MAX_NODES;
use crate::request::What;

/// Reason for which a request has no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// No GPU.
    #[error("the request has no GPU: give at least one, for instance --gpu 0009:01:00.0")]
    NoGpu,
    /// A name that can't be one.
    #[error("{name:?} can't name a VM: use letters, digits, '.', '_', '+' and '-'")]
    Name {
        /// Value of the option or name.
        name: String,
    },
    /// A relative file name.
    #[error(
        "{option} {file:?} is relative, and a VMM runs in another folder: give an absolute path"
    )]
    RelativeFile {
        /// Option.
        option: &'static str,
        /// Value of the option or name.
        file: String,
    },
    /// Text that XML can't hold.
    #[error(
        "{option} {text:?} has the character {character:?}, which libvirt's XML can't hold: \
         remove the character; for a file, rename the file or make a link to it"
    )]
    Character {
        /// Option.
        option: &'static str,
        /// Value of the option or name.
        text: String,
        /// First invalid character.
        character: char,
    },
    /// An address that the host does not have.
    #[error("the host has no PCI function {bdf}: varia list shows its GPUs")]
    NoFunction {
        /// The address.
        bdf: Bdf,
    },
    /// A device without known coherent memory.
    #[error(
        "{bdf} ({vendor:04x}:{device:04x}) is not known to have coherent memory: varia list shows \
         the GPUs that have"
    )]
    NotCoherent {
        /// The address.
        bdf: Bdf,
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// A GPU without coherent memory.
    #[error(
        "{bdf} has the chip {chip}, which has no coherent memory to plan for: bind it with varia \
         bind {bdf}, and give it to the VM as it is, behind a root port with a 64-bit prefetchable \
         window of {window} (QEMU: pcie-root-port,pref64-reserve={}; libvirt: pcihole64)",
        window.suffixed()
    )]
    Plain {
        /// The address.
        bdf: Bdf,
        /// Name of the chip.
        chip: &'static str,
        /// Window that holds the BARs.
        window: Bytes,
    },
    /// A GPU whose chip is not known.
    #[error(
        "the chip {vendor:04x}:{device:04x} of {bdf} is not known: run varia list --probe --facts > \
         FILE, which reads the registers of {bdf}, then varia plan --facts FILE"
    )]
    UnknownChip {
        /// The address.
        bdf: Bdf,
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// A GPU whose BARs are not known.
    #[error(
        "the BARs of {bdf} in a VM are not known ({why}): bind it to its driver and run \
         varia list --probe"
    )]
    NoLayout {
        /// The address.
        bdf: Bdf,
        /// Reason.
        why: String,
    },
    /// A device in no IOMMU group.
    #[error(
        "{bdf} is in no IOMMU group, so that it can't be assigned: switch the IOMMU on in the \
         firmware's setup and on the kernel's command line (see varia doctor {bdf})"
    )]
    NoGroup {
        /// The address.
        bdf: Bdf,
    },
    /// An IOMMU group with functions that the host uses.
    #[error(
        "{bdf} shares IOMMU group {group} with {others}, which the host uses, and a group is \
         assigned as a whole: bind those to VFIO as well (see varia doctor {bdf}), or put the GPU \
         into a slot with ACS, which gives it a group of its own"
    )]
    Group {
        /// The address.
        bdf: Bdf,
        /// Group of the function.
        group: GroupId,
        /// The members that the host uses, with their drivers.
        others: String,
    },
    /// The same GPU twice.
    #[error("{bdf} is in the request twice, and a function can be assigned once: remove one")]
    Twice {
        /// The address.
        bdf: Bdf,
    },
    /// Too few GPUs on any superchip.
    #[error(
        "{what} is not available: the superchip with the most free GPUs has {most}: ask for at \
         most {most}"
    )]
    Superchip {
        /// GPUs of the request.
        what: What,
        /// Free GPUs of that superchip.
        most: usize,
    },
    /// Extended GPU Memory that firmware does not reserve.
    #[error(
        "Extended GPU Memory is not available: no device of this host reports EGM for {bdf}: switch \
         EGM on in the firmware's setup, or plan without --egm"
    )]
    EgmAbsent {
        /// The address.
        bdf: Bdf,
    },
    /// Extended GPU Memory that no driver offers.
    #[error(
        "Extended GPU Memory is not available: firmware reserves {size} for the socket of {bdf}, and \
         /sys/class/egm has no device of it: use a kernel with nvgrace-egm, as NVIDIA's are (Linux \
         7.3 has none), or plan without --egm"
    )]
    EgmDriver {
        /// The address.
        bdf: Bdf,
        /// Size of the memory.
        size: Bytes,
    },
    /// A device of Extended GPU Memory without a device node.
    #[error(
        "Extended GPU Memory is not available: {path} does not exist: load nvgrace-egm again, or \
         plan without --egm"
    )]
    EgmNode {
        /// Path of the device node.
        path: String,
    },
    /// A device of Extended GPU Memory, some of whose GPUs are not in the request.
    #[error(
        "{path} is the Extended GPU Memory of {absent} too, which could reach the VM's RAM: give \
         --gpu {absent} to the same VM, or plan without --egm"
    )]
    EgmPartial {
        /// Path of the device node.
        path: String,
        /// GPUs that are not in the request.
        absent: String,
    },
    /// GPUs of one socket with different Extended GPU Memory.
    #[error(
        "{bdf} and {other} are on one socket, and their Extended GPU Memory is not the same: ask for \
         one of them, or plan without --egm"
    )]
    EgmOfTwo {
        /// The first address.
        bdf: Bdf,
        /// The second address.
        other: Bdf,
    },
    /// Less Extended GPU Memory than RAM of the VM.
    #[error(
        "{path} has {there} of Extended GPU Memory, and the VM needs {wanted} of it: ask for less \
         --memory"
    )]
    EgmSize {
        /// Path of the device node.
        path: String,
        /// Size of the memory.
        there: Bytes,
        /// Size that the VM needs.
        wanted: Bytes,
    },
    /// Extended GPU Memory and hugepages.
    #[error(
        "--egm and --hugepages exclude each other: Extended GPU Memory is contiguous by itself; leave \
         out one of them"
    )]
    EgmHugePages,
    /// A QEMU without the object for Extended GPU Memory.
    #[error(
        "Extended GPU Memory needs acpi-egm-memory, which {qemu} is not known to have, and no QEMU of \
         qemu.org has: use NVIDIA's, name the version of NVIDIA's with --assume \
         QEMU=VERSION+acpi-egm-memory, or plan without --egm"
    )]
    EgmQemu {
        /// The QEMU.
        qemu: String,
    },
    /// A libvirt without the element for Extended GPU Memory.
    #[error(
        "Extended GPU Memory needs <memory model='egm'>, which {libvirt} is not known to have, and no \
         libvirt of libvirt.org has: use NVIDIA's, name the version of NVIDIA's with --assume \
         LIBVIRT=VERSION+egm, or plan without --vmm libvirt"
    )]
    EgmLibvirt {
        /// The libvirt.
        libvirt: String,
    },
    /// CPUs that are not a multiple of the sockets: QEMU's sockets are of one size.
    #[error(
        "{cpus} virtual CPUs can't be divided evenly among the {sockets} sockets of the VM's GPUs: \
         ask for a multiple of {sockets}"
    )]
    Cpus {
        /// Count in the request.
        cpus: u32,
        /// Sockets of the VM.
        sockets: usize,
    },
    /// More virtual CPUs than a machine takes.
    #[error(
        "{cpus} virtual CPUs are more than the {most} that QEMU's machine and KVM take: ask for at \
         most {most}"
    )]
    TooManyCpus {
        /// Count in the request.
        cpus: u32,
        /// Most that are possible.
        most: u32,
    },
    /// More disks than free slots.
    #[error(
        "{disks} disks and {gpus} GPUs have no room on one PCI bus: ask for at most {most} disks"
    )]
    TooManyDisks {
        /// Count in the request.
        disks: usize,
        /// GPUs of the VM.
        gpus: usize,
        /// Most disks beside these GPUs.
        most: usize,
    },
    /// More virtual CPUs than CPUs to pin them to.
    #[error(
        "{wanted} virtual CPUs can't be pinned to the {there} CPUs of the host's node {node}: ask \
         for at most {there} for each socket, or pass --no-pin"
    )]
    Pins {
        /// The host's node.
        node: NodeId,
        /// Virtual CPUs on the node.
        wanted: u32,
        /// CPUs of the node.
        there: u64,
    },
    /// RAM that is not a whole number of pages for each socket.
    #[error(
        "{memory} of RAM are not a multiple of {unit} for each of {sockets} sockets: ask for a \
         multiple of {all}"
    )]
    Memory {
        /// GPUs of the request.
        memory: Bytes,
        /// Size of a page, or 1 MiB.
        unit: Bytes,
        /// Sockets of the VM.
        sockets: usize,
        /// Unit for all sockets.
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
        "the host's node {node} has no hugepages of {size}: ask for one of its sizes \
         ({there})"
    )]
    HugePageSize {
        /// The host's node.
        node: NodeId,
        /// Size of a page.
        size: Bytes,
        /// Sizes of the node's pages, as text.
        there: String,
    },
    /// No node for a GPU's memory.
    #[error(
        "a GPU's memory needs a NUMA node of the VM: ask for 1 node for each GPU, or for 8 with \
         MIG"
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
        /// Size of a page in KiB.
        kib: u64,
        /// Pages wanted.
        wanted: u64,
        /// Pages free.
        free: u64,
        /// Size of the pool with enough free pages.
        reserve: u64,
    },
    /// More nodes than the VMM has.
    #[error(
        "{wanted} NUMA nodes are more than the {MAX_NODES} that QEMU takes: ask for fewer GPUs or \
         fewer nodes for each"
    )]
    TooManyNodes {
        /// Nodes of the VM, with those of the CPUs.
        wanted: u64,
    },
    /// More root buses than bus numbers.
    #[error("{gpus} GPUs need more than the 256 bus numbers of a PCI segment: ask for at most 30")]
    TooManyGpus {
        /// Count in the request.
        gpus: usize,
    },
    /// An aperture beyond the guest's address width.
    #[error(
        "BARs of {bars} need an MMIO aperture of {}, which ends at {}, and the guest's \
         addresses have {bits} bits: ask for fewer GPUs or GPUs with less memory",
        size(*aperture),
        size(*end)
    )]
    Aperture {
        /// Sizes of the BARs, as text.
        bars: String,
        /// Size of the aperture in bytes.
        aperture: u128,
        /// End of the aperture.
        end: u128,
        /// Bits of an address.
        bits: u32,
    },
    /// `/dev/iommu` without a feature that a plan needs.
    #[error("iommufd can't be used: {why}; plan with --iommu type1")]
    Iommufd {
        /// Missing part.
        why: &'static str,
    },
    /// A program of the host without a feature that the plan uses.
    #[error("{program} does not have {feature}, which the plan uses: {remedy}")]
    Lacks {
        /// The program with its version.
        program: String,
        /// Device, object or property of QEMU, or element of libvirt.
        feature: String,
        /// What to do.
        remedy: String,
    },
    /// Neither type1 nor iommufd.
    #[error(
        "this host has neither /dev/vfio/vfio nor a usable /dev/iommu: load vfio_iommu_type1, and \
         see varia doctor"
    )]
    NoIommu,
    /// CPUs or RAM that sockets can't share evenly.
    #[error(
        "{cpus} CPUs and {ram} of RAM can't be shared by {sockets} sockets: give a multiple of \
         {sockets} CPUs, and whole MiB of RAM for each socket"
    )]
    Shares {
        /// Number of sockets.
        sockets: u32,
        /// Number of CPUs.
        cpus: u32,
        /// RAM of the machine.
        ram: Bytes,
    },
    /// RAM that would move the configuration space of PCI.
    #[error("a machine that plays a host has at most {most} of RAM, and {ram} were requested")]
    HostRam {
        /// Requested RAM.
        ram: Bytes,
        /// Most RAM.
        most: Bytes,
    },
    /// Coherent memory that a machine can't have at addresses of its own.
    #[error(
        "a machine that plays a host has coherent memory on aarch64 alone, for at most {most} GPUs: \
         {gpus} GPUs on {arch} have some"
    )]
    NoHiddenMemory {
        /// Architecture.
        arch: Arch,
        /// Number of GPUs with coherent memory.
        gpus: usize,
        /// Most such GPUs.
        most: usize,
    },
}

impl Error {
    pub(crate) fn sizes(sizes: impl Iterator<Item = Bytes>) -> String {
        let texts: Vec<_> = sizes.map(|size| size.to_string()).collect();
        texts.join(", ")
    }
}
