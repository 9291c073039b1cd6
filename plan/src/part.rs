//! Parts of a plan, with their reasons.

use varia_facts::{Arch, CpuList, egm_path};

use crate::gpu::{Gpu, Source};
use crate::plan::{Backing, Firmware, Iommu, Plan, Socket};
use crate::qemu::affinity;

/// A part of a VM's configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Machine type, interrupt controller, aperture.
    Machine,
    /// CPU model, count, accelerator and pins.
    Cpus,
    /// RAM and its nodes.
    Memory,
    /// Nodes without memory.
    GpuNodes,
    /// Distances between nodes.
    Distances,
    /// DMA of devices to the VM's memory.
    Iommu,
    /// The root bus of a GPU.
    RootBus,
    /// A GPU's SMMU.
    Smmu,
    /// A GPU's root port.
    RootPort,
    /// A GPU's function.
    Device,
    /// Generic Initiators, which tie nodes to the function.
    Initiators,
    /// Extended GPU Memory of a GPU.
    Egm,
    /// Firmware.
    Firmware,
    /// A kernel that starts without a disk.
    Kernel,
    /// Disks.
    Disks,
}

/// Parts of a plan in the order of the configuration, each with its reason.
#[must_use]
pub fn explain(plan: &Plan) -> Vec<(Part, String)> {
    let mut parts = vec![
        (Part::Machine, machine(plan)),
        (Part::Cpus, cpus(plan)),
        (Part::Memory, memory(plan)),
        (Part::GpuNodes, gpu_nodes(plan)),
        (Part::Distances, distances()),
    ];
    if let Some(text) = iommu(plan) {
        parts.push((Part::Iommu, text));
    }
    if plan.gpus.iter().any(|gpu| gpu.bus.is_some()) {
        parts.push((
            Part::RootBus,
            "Each GPU has a PCIe root bus of its own (pxb-pcie) on the node of the GPU's CPUs, so that \
             the guest knows the nearest CPUs."
                .to_owned(),
        ));
    }
    if matches!(plan.iommu, Iommu::Iommufd { smmu: true }) {
        parts.push((
            Part::Smmu,
            "Each GPU's root bus has an SMMUv3 that the host's SMMU accelerates (accel=on); an SMMU of \
             the VM belongs to one SMMU of the host. With SVA (shared virtual addressing) the GPU \
             uses the page tables of a process. SVA needs ATS, by which the GPU requests \
             translations, and PASIDs, which name the process; ssidsize=20 is the full width of a \
             PASID. By default QEMU 11.0 has neither, and 11.1 has those of the host; with these \
             options both versions start only if the host's SMMU has ATS and PASIDs."
                .to_owned(),
        ));
    }
    parts.push((Part::RootPort, ports(plan)));
    parts.push((Part::Device, devices(plan)));
    parts.push((
        Part::Initiators,
        "A Generic Initiator, an entry of the guest's SRAT, ties each of these nodes to the PCI \
         function. The driver searches for nodes that are tied to its function; without them the \
         GPU starts without memory."
            .to_owned(),
    ));
    if plan.gpus.iter().any(|gpu| plan.egm_of(gpu).is_some()) {
        parts.push((
            Part::Egm,
            "The RAM of each socket is Extended GPU Memory, which firmware reserves on that socket \
             of the host and nvgrace-egm offers as /dev/egmN. An acpi-egm-memory for each GPU tells \
             the guest's driver the node of that memory; the driver of a GPU without one does not \
             find it."
                .to_owned(),
        ));
    }
    if plan.firmware != Firmware::Own {
        parts.push((
            Part::Firmware,
            "UEFI starts the guest and assigns the BARs; an arm64 guest gets ACPI, and with it the \
             nodes, only from UEFI. libvirt chooses a UEFI without Secure Boot, which would start \
             only signed kernels."
                .to_owned(),
        ));
    }
    if plan.kernel.is_some() {
        parts.push((
            Part::Kernel,
            "The kernel of the request, which starts without a disk. Its console is the first \
             serial port."
                .to_owned(),
        ));
    }
    if !plan.disks.is_empty() {
        parts.push((
            Part::Disks,
            "The disks of the request, as virtio.".to_owned(),
        ));
    }
    parts
}

fn machine(plan: &Plan) -> String {
    let bars: Vec<_> = plan
        .gpus
        .iter()
        .map(|gpu| {
            let sizes: Vec<_> = gpu
                .memory
                .device
                .bars
                .iter()
                .map(|bar| format!("BAR{} {}", bar.index, bar.size))
                .collect();
            format!("{}: {}", gpu.memory.device.id, sizes.join(", "))
        })
        .collect();
    format!(
        "The guest sees the GPUs' memory as 64-bit prefetchable BARs ({}). These BARs are virtual: \
         sysfs on the host shows others. Aligned, and with room for other devices, they need an \
         aperture of {}{}; in a smaller one the guest leaves the largest BAR without an address, \
         and the GPU can't be used.",
        bars.join("; "),
        plan.aperture,
        match (plan.arch, plan.aperture_beyond_default()) {
            (Arch::Aarch64, None) => ", which the machine has by default",
            _ => "",
        }
    )
}

fn cpus(plan: &Plan) -> String {
    let shares: Vec<_> = plan
        .sockets
        .iter()
        .map(|socket| {
            let pins: CpuList = socket.pins.iter().copied().collect();
            let on = match (socket.host_node, pins.is_empty()) {
                (Some(node), false) => format!(" (CPUs {pins} of the host's node {node})"),
                (Some(node), true) => format!(" (RAM on the host's node {node})"),
                (None, _) => String::new(),
            };
            format!("node {} has {}{on}", socket.node, socket.vcpus.len())
        })
        .collect();
    let kept = match affinity(plan) {
        Some(cpus) => format!(
            "libvirt pins each virtual CPU to one CPU. QEMU does not pin: its command begins with \
             taskset, which keeps all of its threads on CPUs {cpus}; the host schedules them \
             among these."
        ),
        None => "None is pinned: each virtual CPU runs on any CPU of the host.".to_owned(),
    };
    format!(
        "{} virtual CPUs; the VM has one node for each socket of its GPUs: {}. {kept}",
        plan.cpus(),
        shares.join("; ")
    )
}

fn memory(plan: &Plan) -> String {
    let share = |socket: &Socket| {
        let on = match (socket.backing, socket.host_node) {
            (Backing::Egm(pxm), _) => format!(" from {}", egm_path(pxm)),
            (_, Some(node)) => format!(" on the host's node {node}"),
            (_, None) => String::new(),
        };
        format!("{} in node {}{on}", socket.memory, socket.node)
    };
    let shares: Vec<_> = plan.sockets.iter().map(share).collect();
    format!(
        "RAM: {}. The guest's driver adds the GPUs' memory, which is not part of it.",
        shares.join(", ")
    )
}

fn gpu_nodes(plan: &Plan) -> String {
    let each: Vec<_> = plan
        .gpus
        .iter()
        .map(|Gpu { memory, .. }| match memory.nodes.len() {
            0 => format!("none for {}", memory.device.id),
            1 => format!("{} for {}", memory.nodes.start, memory.device.id),
            _ => format!(
                "{} to {} for {}",
                memory.nodes.start,
                memory.nodes.end - 1,
                memory.device.id
            ),
        })
        .collect();
    format!(
        "Nodes without CPUs and without memory: {}. The guest's driver adds a GPU's memory to \
         them when it starts, because Linux can't add nodes later; with MIG each partition has a \
         node.",
        each.join(", ")
    )
}

fn distances() -> String {
    "The guest's allocator goes by the distances between memory and CPUs: a node is 10 from \
     itself. Distances that the host has are copied, the rest have the order of Grace hosts."
        .to_owned()
}

fn iommu(plan: &Plan) -> Option<String> {
    match plan.iommu {
        Iommu::None => None,
        Iommu::Type1 => Some(
            "Devices access the VM's memory through VFIO containers (type1), which map the GPUs' \
             memory for other devices as well."
                .to_owned(),
        ),
        Iommu::Iommufd { .. } => Some(
            "Devices access the VM's memory through /dev/iommu. The kernel exports BARs as dma-bufs, \
             which iommufd needs to map the GPUs' memory."
                .to_owned(),
        ),
    }
}

fn ports(plan: &Plan) -> String {
    let each: Vec<_> = plan
        .gpus
        .iter()
        .map(|gpu| format!("{} for {}", gpu.window, gpu.memory.device.id))
        .collect();
    format!(
        "Each GPU is behind a root port, which reserves a window for all of the GPU's BARs, \
         rounded up as firmware does: {}.",
        each.join(", ")
    )
}

fn devices(plan: &Plan) -> String {
    let each: Vec<_> = plan
        .gpus
        .iter()
        .map(|gpu| match &gpu.memory.source {
            Source::Function(bdf) => format!("{} is the host's {bdf}", gpu.memory.device.id),
            Source::VfioUser(socket) => {
                format!("{} is served on {}", gpu.memory.device.id, socket.display())
            }
        })
        .collect();
    format!(
        "{}. A function of the host must be bound to its variant driver (varia bind): plain \
         vfio-pci does not reach the memory.",
        each.join(", ")
    )
}
