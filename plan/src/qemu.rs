//! A plan as QEMU's arguments.
//!
//! Source: the QEMU 11.1 manual (`virt`, `pxb-pcie`, `arm-smmuv3`, `vfio-pci`, `vfio-user-pci`,
//! `acpi-generic-initiator`, `iommufd`).

use std::path::Path;

use varia_facts::{Arch, Bytes, CpuList, egm_path};

use crate::egm::egm_object;
use crate::gpu::{CoherentMemory, Gpu, Source};
use crate::part::Part;
use crate::plan::{Accelerator, Backing, Firmware, Iommu, Plan, SSID_BITS, Socket};

/// UEFI for arm64 in Debian's package `qemu-efi-aarch64`.
pub const UEFI: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";

/// Options of an SMMU of the VM. By default QEMU 11.0 gives it neither ATS nor PASIDs, and 11.1 those
/// of the host.
pub fn smmu() -> String {
    format!("accel=on,ats=on,ssidsize={SSID_BITS}")
}

/// A size as QEMU reads it: a whole number of the largest unit that divides it.
#[must_use]
pub fn size(bytes: Bytes) -> String {
    match bytes.terms().last() {
        Some((_, unit)) => format!("{}{}", bytes.0 >> unit.shift(), unit.suffix()),
        None => bytes.0.to_string(),
    }
}

/// An option with its value, and the part of the plan that it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Argument {
    /// Part of the plan.
    pub part: Part,
    /// Such as `-device`.
    pub option: &'static str,
    /// Such as `pxb-pcie,...`.
    pub value: String,
}

/// QEMU's arguments for a plan, without the program's name.
#[must_use]
pub fn arguments(plan: &Plan) -> Vec<Argument> {
    let mut out = Arguments(Vec::new());
    machine(plan, &mut out);
    memory(plan, &mut out);
    for gpu in &plan.gpus {
        for node in gpu.memory.nodes() {
            out.add(Part::GpuNodes, "-numa", format!("node,nodeid={node}"));
        }
    }
    distances(plan, &mut out);
    if let Iommu::Iommufd { .. } = plan.iommu {
        out.add(Part::Iommu, "-object", "iommufd,id=iommufd0");
    }
    for (index, gpu) in plan.gpus.iter().enumerate() {
        attach(plan, index, gpu, &mut out);
    }
    match &plan.firmware {
        Firmware::Own => {}
        Firmware::Uefi => out.add(Part::Firmware, "-bios", UEFI),
        Firmware::File(file) => out.add(Part::Firmware, "-bios", file.clone()),
    }
    if let Some(kernel) = &plan.kernel {
        out.add(Part::Kernel, "-kernel", kernel.image.clone());
        if let Some(initrd) = &kernel.initrd {
            out.add(Part::Kernel, "-initrd", initrd.clone());
        }
        out.add(Part::Kernel, "-append", plan.command_line(kernel));
    }
    for (index, disk) in plan.disks.iter().enumerate() {
        let file = serde_json::json!({
            "driver": "file", "filename": disk, "node-name": format!("file{index}"),
        });
        out.add(Part::Disks, "-blockdev", file.to_string());
        let format = disk_format(disk);
        let format = serde_json::json!({
            "driver": format, "file": format!("file{index}"), "node-name": format!("disk{index}"),
        });
        out.add(Part::Disks, "-blockdev", format.to_string());
        // Without a name of a bus QEMU would take a GPU's root bus, which has room for a port alone.
        out.add(
            Part::Disks,
            "-device",
            format!("virtio-blk-pci,drive=disk{index},bus=pcie.0"),
        );
    }
    out.0
}

/// CPUs of the host for all threads of QEMU, if virtual CPUs are pinned. QEMU has no argument for
/// them: its caller sets them (`taskset -c`).
#[must_use]
pub fn affinity(plan: &Plan) -> Option<CpuList> {
    // CPUs of one socket alone would take those of the others too.
    let pinned = plan.sockets.iter().all(|socket| !socket.pins.is_empty());
    let pins = plan.sockets.iter().flat_map(|socket| &socket.pins);
    (pinned && !plan.sockets.is_empty()).then(|| pins.copied().collect())
}

/// The Generic Initiator objects that tie a GPU's nodes to its function, one for each node.
pub fn initiators(memory: &CoherentMemory) -> impl Iterator<Item = String> {
    let id = memory.device.id.clone();
    memory.nodes().map(move |node| {
        format!("acpi-generic-initiator,id={id}.gi{node},pci-dev={id},node={node}")
    })
}

/// A disk's format, by its file's name.
pub(crate) fn disk_format(file: &str) -> &'static str {
    match Path::new(file).extension().and_then(|name| name.to_str()) {
        Some("qcow2") => "qcow2",
        _ => "raw",
    }
}

struct Arguments(Vec<Argument>);

impl Arguments {
    fn add(&mut self, part: Part, option: &'static str, value: impl Into<String>) {
        self.0.push(Argument {
            part,
            option,
            value: value.into(),
        });
    }
}

fn machine(plan: &Plan, out: &mut Arguments) {
    // A name consists of what needs no quotes.
    out.add(Part::Machine, "-name", plan.name.clone());
    let mut machine = match plan.arch {
        Arch::Aarch64 => "virt,gic-version=3",
        Arch::X86_64 => "q35",
    }
    .to_owned();
    if let Some(aperture) = plan.aperture_beyond_default() {
        machine += &format!(",highmem-mmio-size={}", size(aperture));
    }
    out.add(Part::Machine, "-machine", machine);
    let (accelerator, cpu) = match (plan.accelerator, plan.arch) {
        (Accelerator::Kvm, _) => ("kvm", "host"),
        (Accelerator::Tcg, Arch::Aarch64) => ("tcg", "max,pauth-impdef=on"),
        (Accelerator::Tcg, Arch::X86_64) => ("tcg", "max"),
    };
    out.add(Part::Cpus, "-accel", accelerator);
    out.add(Part::Cpus, "-cpu", cpu);
    // A socket's CPUs are on one node.
    let (cpus, sockets) = (plan.cpus(), plan.sockets.len());
    out.add(Part::Cpus, "-smp", format!("{cpus},sockets={sockets}"));
}

fn memory(plan: &Plan, out: &mut Arguments) {
    out.add(Part::Memory, "-m", size(plan.ram()));
    for socket in &plan.sockets {
        out.add(Part::Memory, "-object", backend(socket));
        let Socket { node, vcpus, .. } = socket;
        out.add(
            Part::Memory,
            "-numa",
            format!(
                "node,nodeid={node},cpus={}-{},memdev=ram{node}",
                vcpus.start,
                vcpus.end.max(1) - 1
            ),
        );
    }
}

/// A file without a name, shared: a vfio-user server gets its descriptor. Or the device node of
/// Extended GPU Memory, which is on its socket by itself.
fn backend(socket: &Socket) -> String {
    if let Backing::Egm(pxm) = socket.backing {
        return format!(
            "memory-backend-file,id=ram{},mem-path={},size={},share=on,prealloc=on",
            socket.node,
            egm_path(pxm),
            size(socket.memory)
        );
    }
    let mut text = format!(
        "memory-backend-memfd,id=ram{},size={},share=on",
        socket.node,
        size(socket.memory)
    );
    if let Backing::HugePages(page) = socket.backing {
        text.push_str(&format!(",hugetlb=on,hugetlbsize={}", size(page)));
    }
    if let Some(node) = socket.host_node {
        text.push_str(&format!(",host-nodes={node},policy=bind,prealloc=on"));
    }
    text
}

/// QEMU assumes the same distance in both directions, unless one pair differs: then it requires both
/// directions of all pairs.
fn distances(plan: &Plan, out: &mut Arguments) {
    let way = |from: usize, to: usize| plan.distances.get(from).and_then(|row| row.get(to));
    let nodes = 0..plan.distances.len();
    let pairs = nodes
        .clone()
        .flat_map(|from| nodes.clone().map(move |to| (from, to)));
    let is_symmetric = pairs
        .clone()
        .all(|(from, to)| way(from, to) == way(to, from));
    for (from, to) in pairs.filter(|(from, to)| from < to || from > to && !is_symmetric) {
        if let Some(distance) = way(from, to) {
            out.add(
                Part::Distances,
                "-numa",
                format!("dist,src={from},dst={to},val={distance}"),
            );
        }
    }
}

fn attach(plan: &Plan, index: usize, gpu: &Gpu, out: &mut Arguments) {
    let id = &gpu.memory.device.id;
    let mut bus = "pcie.0".to_owned();
    let root = plan.root_of(index);
    let first = plan.gpus.get(root).unwrap_or(gpu);
    if gpu.bus.is_some() {
        bus = format!("{}.root", first.memory.device.id);
    }
    if let Some(number) = gpu.bus.filter(|_| root == index) {
        out.add(
            Part::RootBus,
            "-device",
            format!(
                "pxb-pcie,id={bus},bus=pcie.0,bus_nr={number},numa_node={}",
                gpu.socket
            ),
        );
        if let Iommu::Iommufd { smmu: true } = plan.iommu {
            out.add(
                Part::Smmu,
                "-device",
                format!("arm-smmuv3,id={id}.smmu,primary-bus={bus},{}", smmu()),
            );
        }
    }
    out.add(
        Part::RootPort,
        "-device",
        format!(
            "pcie-root-port,id={id}.port,bus={bus},chassis={},pref64-reserve={}",
            index + 1,
            size(gpu.window)
        ),
    );
    out.add(Part::Device, "-device", device(plan, &gpu.memory));
    for initiator in initiators(&gpu.memory) {
        out.add(Part::Initiators, "-object", initiator);
    }
    if plan.egm_of(gpu).is_some() {
        out.add(
            Part::Egm,
            "-object",
            egm_object(&format!("{id}.egm"), id, gpu.socket),
        );
    }
}

/// The function. vfio-user is in QEMU's JSON form, the only one that takes a socket.
fn device(plan: &Plan, memory: &CoherentMemory) -> String {
    let id = &memory.device.id;
    match &memory.source {
        Source::Function(bdf) => {
            let iommufd = match plan.iommu {
                Iommu::Iommufd { .. } => ",iommufd=iommufd0",
                Iommu::None | Iommu::Type1 => "",
            };
            format!("vfio-pci,id={id},bus={id}.port,host={bdf},rombar=0{iommufd}")
        }
        Source::VfioUser(socket) => serde_json::json!({
            "driver": "vfio-user-pci",
            "id": id,
            "bus": format!("{id}.port"),
            "socket": { "type": "unix", "path": socket.to_string_lossy() },
        })
        .to_string(),
    }
}
