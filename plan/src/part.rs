//! The parts of a plan, and why each is there.

use varia_facts::CpuList;

use crate::gpu::{Gpu, Source};
use crate::plan::{Firmware, Iommu, Plan, Socket};
use crate::qemu::affinity;

/// A part of a VM's configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Machine type, interrupt controller, aperture.
    Machine,
    /// The CPU model, how many, and what runs them.
    Cpus,
    /// RAM and the nodes that have it.
    Memory,
    /// Nodes without memory.
    GpuNodes,
    /// How far nodes are apart.
    Distances,
    /// How devices reach the VM's memory.
    Iommu,
    /// The root bus of a GPU.
    RootBus,
    /// A GPU's SMMU.
    Smmu,
    /// A GPU's root port.
    RootPort,
    /// A GPU's function.
    Device,
    /// What ties nodes to the function.
    Initiators,
    /// Firmware.
    Firmware,
    /// A kernel that is started without a disk.
    Kernel,
    /// Disks.
    Disks,
}

/// Each part that a plan has, in the order of the configuration, and why it is there.
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
            "Each GPU has a PCIe root bus of its own (pxb-pcie). It carries the number of the \
             CPUs' node that the GPU is attached to, so the guest knows which CPUs are near."
                .to_owned(),
        ));
    }
    if matches!(plan.iommu, Iommu::Iommufd { smmu: true }) {
        parts.push((
            Part::Smmu,
            "Each GPU's bus has an SMMUv3 that the host's SMMU carries out (accel=on), one for each \
             bus, because one instance of the host serves it. A program's pointers are valid on \
             the GPU if it translates them by the program's own page tables (SVA, shared virtual \
             addressing). That takes ATS, by which the GPU asks for translations, and PASIDs, by \
             which it says whose; ssidsize=20 is all of a PASID's bits. QEMU 11.0 has neither \
             unless it is told to, and 11.1 takes what the host has; said like this, both start \
             only where the host's SMMU has them."
                .to_owned(),
        ));
    }
    parts.push((Part::RootPort, ports(plan)));
    parts.push((Part::Device, devices(plan)));
    parts.push((
        Part::Initiators,
        "An entry of the guest's SRAT, a Generic Initiator, ties each of these nodes to the PCI \
         function. The driver looks for nodes that are tied to its function; without them the GPU \
         comes up without memory, and says only that there is none."
            .to_owned(),
    ));
    if plan.firmware != Firmware::Own {
        parts.push((
            Part::Firmware,
            "UEFI starts the guest and assigns the BARs; arm64 has ACPI, and with it the nodes, \
             only from UEFI. libvirt is asked for one without Secure Boot, which would start \
             signed kernels alone."
                .to_owned(),
        ));
    }
    if plan.kernel.is_some() {
        parts.push((
            Part::Kernel,
            "The kernel that was asked for; the guest needs no disk to start it. Its console is \
             the first serial port."
                .to_owned(),
        ));
    }
    if !plan.disks.is_empty() {
        parts.push((
            Part::Disks,
            "The disks that were asked for, as virtio.".to_owned(),
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
        "The GPUs' memory reaches the guest as 64-bit prefetchable BARs ({}). They are those of \
         the virtual function, not of the physical one, and sysfs does not show them. Aligned and \
         with room for other devices they need an aperture of {}; in a smaller one the guest \
         leaves the largest BAR without an address, and the GPU unusable.",
        bars.join("; "),
        plan.aperture
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
            "libvirt pins each virtual CPU to one CPU. QEMU itself pins nothing: its command \
             begins with taskset, which keeps all of its threads on CPUs {cpus}, where the host \
             moves them as it likes."
        ),
        None => "None is pinned: each runs on any CPU of the host.".to_owned(),
    };
    format!(
        "{} virtual CPUs; one node of the VM stands for each socket whose GPUs it has: {}. {kept}",
        plan.cpus(),
        shares.join("; ")
    )
}

fn memory(plan: &Plan) -> String {
    let share = |socket: &Socket| {
        let on = socket
            .host_node
            .map(|node| format!(" on the host's node {node}"))
            .unwrap_or_default();
        format!("{} in node {}{on}", socket.memory, socket.node)
    };
    let shares: Vec<_> = plan.sockets.iter().map(share).collect();
    format!(
        "RAM: {}. The GPUs' memory is not in it: the guest's driver adds that itself.",
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
         them when it starts. Linux can't make nodes later, so they are there from the start; with \
         MIG each partition has one.",
        each.join(", ")
    )
}

fn distances() -> String {
    "Distances tell the guest's allocator which memory is near which CPUs: a node is 10 from \
     itself. What the host says of its nodes is taken over, the rest is in the order that Grace \
     hosts show."
        .to_owned()
}

fn iommu(plan: &Plan) -> Option<String> {
    match plan.iommu {
        Iommu::None => None,
        Iommu::Type1 => Some(
            "Devices reach the VM's memory through VFIO's containers (type1), which map the \
             GPUs' memory for other devices as well."
                .to_owned(),
        ),
        Iommu::Iommufd { .. } => Some(
            "Devices reach the VM's memory through /dev/iommu. This kernel exports BARs as \
             dma-bufs, without which iommufd refuses the GPUs' memory."
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
        "Each GPU is behind a root port, which reserves address space for all of its BARs, \
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
