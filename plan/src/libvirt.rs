//! A plan as libvirt's domain XML.
//!
//! Source: libvirt 12.8 `docs/formatdomain` and its schema, in which the SMMU's attribute is
//! spelled `ssidsize`.

use varia_facts::{Arch, Bytes, egm_path};

use crate::gpu::{Gpu, Source};
use crate::plan::{Accelerator, Backing, Firmware, Iommu, Plan, SSID_BITS, Socket};
use crate::qemu::disk_format;
use crate::xml::Element;

const MIB: u64 = 1 << 20;

/// The XML that defines a plan's VM.
///
/// Functions of the host are taken as they are bound (`managed='no'`): which driver has them is
/// not libvirt's affair here. A GPU of a vfio-user server has no element in libvirt; `None` then.
#[must_use]
pub fn domain(plan: &Plan) -> Option<String> {
    let hostdevs: Vec<_> = plan
        .gpus
        .iter()
        .enumerate()
        .map(|(index, gpu)| hostdev(plan, index, gpu))
        .collect::<Option<_>>()?;
    let kind = match plan.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    };
    let domain = Element::new("domain")
        .with("type", kind)
        .text("name", &plan.name)
        .child(sized("memory", plan.ram()))
        .child(backing(plan))
        .text("vcpu", plan.cpus())
        .maybe(cputune(plan))
        .maybe(numatune(plan))
        .maybe(match plan.iommu {
            Iommu::Iommufd { .. } => Some(Element::new("iommufd").with("enabled", "yes")),
            Iommu::None | Iommu::Type1 => None,
        })
        .child(os(plan))
        .child(features(plan))
        .child(cpu(plan))
        .child(devices(plan, hostdevs));
    Some(domain.to_string())
}

/// A size as libvirt reads it: a whole number of the largest unit that divides it, and the unit.
#[must_use]
pub fn scaled(bytes: Bytes) -> (u64, &'static str) {
    match bytes.terms().last() {
        Some((_, unit)) => (bytes.0 >> unit.shift(), unit.name()),
        None => (bytes.0, "bytes"),
    }
}

/// An element that holds a size.
#[must_use]
pub fn sized(name: &'static str, bytes: Bytes) -> Element {
    let (count, unit) = scaled(bytes);
    Element::new(name).with("unit", unit).content(count)
}

fn backing(plan: &Plan) -> Element {
    let mut pages = Element::new("hugepages");
    let mut any = false;
    let is_egm = plan.sockets.iter().any(Socket::is_egm);
    for socket in &plan.sockets {
        if let Backing::HugePages(size) = socket.backing {
            let (size, unit) = scaled(size);
            any = true;
            pages = pages.child(
                Element::new("page")
                    .with("size", size)
                    .with("unit", unit)
                    .with("nodeset", socket.node),
            );
        }
    }
    Element::new("memoryBacking")
        .maybe(any.then_some(pages))
        .child(Element::new("source").with("type", if is_egm { "file" } else { "memfd" }))
        .child(Element::new("access").with("mode", "shared"))
        .maybe(
            plan.sockets
                .iter()
                .any(|socket| socket.host_node.is_some() || socket.is_egm())
                .then(|| Element::new("allocation").with("mode", "immediate")),
        )
}

fn cputune(plan: &Plan) -> Option<Element> {
    let pins: Vec<_> = plan
        .sockets
        .iter()
        .flat_map(|socket| socket.vcpus.clone().zip(&socket.pins))
        .collect();
    (!pins.is_empty()).then(|| {
        pins.into_iter()
            .fold(Element::new("cputune"), |tune, (vcpu, cpu)| {
                tune.child(
                    Element::new("vcpupin")
                        .with("vcpu", vcpu)
                        .with("cpuset", cpu),
                )
            })
    })
}

/// Extended GPU Memory is on its socket by itself.
fn numatune(plan: &Plan) -> Option<Element> {
    let nodes: Vec<_> = plan
        .sockets
        .iter()
        .filter(|socket| !socket.is_egm())
        .filter_map(|socket| Some((socket.node, socket.host_node?)))
        .collect();
    (!nodes.is_empty()).then(|| {
        nodes
            .into_iter()
            .fold(Element::new("numatune"), |tune, (cell, node)| {
                tune.child(
                    Element::new("memnode")
                        .with("cellid", cell)
                        .with("mode", "strict")
                        .with("nodeset", node),
                )
            })
    })
}

fn os(plan: &Plan) -> Element {
    let machine = match plan.arch {
        Arch::Aarch64 => "virt",
        Arch::X86_64 => "q35",
    };
    let os = Element::new("os");
    let os = match &plan.firmware {
        // libvirt knows where it is
        Firmware::Uefi => os.with("firmware", "efi"),
        Firmware::Own | Firmware::File(_) => os,
    };
    let os = os.child(
        Element::new("type")
            .with("arch", plan.arch)
            .with("machine", machine)
            .content("hvm"),
    );
    let os = match &plan.firmware {
        Firmware::File(file) => os.child(
            Element::new("loader")
                .with("readonly", "yes")
                .with("type", "pflash")
                .content(file),
        ),
        // the one with keys comes first where it is left to libvirt, and starts signed kernels only
        Firmware::Uefi => os.child(
            Element::new("firmware").child(
                Element::new("feature")
                    .with("enabled", "no")
                    .with("name", "secure-boot"),
            ),
        ),
        Firmware::Own => os,
    };
    let Some(kernel) = &plan.kernel else {
        return os;
    };
    let os = os.text("kernel", &kernel.image);
    let os = match &kernel.initrd {
        Some(initrd) => os.text("initrd", initrd),
        None => os,
    };
    os.text("cmdline", plan.command_line(kernel))
}

fn features(plan: &Plan) -> Element {
    let features = Element::new("features").child(Element::new("acpi"));
    match plan.arch {
        Arch::Aarch64 => features.child(Element::new("gic").with("version", 3)),
        Arch::X86_64 => features,
    }
}

fn cpu(plan: &Plan) -> Element {
    let own = plan
        .sockets
        .iter()
        .map(|socket| (socket.node.0, Some(socket)));
    let gpus = plan
        .gpus
        .iter()
        .flat_map(|gpu| gpu.memory.nodes())
        .map(|node| (node.0, None));
    let numa = own
        .chain(gpus)
        .fold(Element::new("numa"), |numa, (id, socket)| {
            numa.child(cell(plan, id, socket))
        });
    let mode = match plan.accelerator {
        Accelerator::Kvm => "host-passthrough",
        Accelerator::Tcg => "maximum",
    };
    let sockets = plan.sockets.len();
    Element::new("cpu")
        .with("mode", mode)
        .child(
            Element::new("topology")
                .with("sockets", sockets)
                .with("dies", 1)
                .with("cores", plan.cpus() as usize / sockets.max(1))
                .with("threads", 1),
        )
        .child(numa)
}

fn cell(plan: &Plan, id: u32, socket: Option<&Socket>) -> Element {
    let mut cell = Element::new("cell").with("id", id);
    if let Some(Socket { vcpus, .. }) = socket {
        cell = cell.with("cpus", format!("{}-{}", vcpus.start, vcpus.end.max(1) - 1));
    }
    let (memory, unit) = socket.map_or((0, "KiB"), |socket| scaled(socket.memory));
    cell = cell.with("memory", memory).with("unit", unit);
    let row = usize::try_from(id)
        .ok()
        .and_then(|id| plan.distances.get(id));
    cell.maybe(row.map(|row| {
        (0..).zip(row).fold(
            Element::new("distances"),
            |all, (to, distance): (u32, _)| {
                all.child(
                    Element::new("sibling")
                        .with("id", to)
                        .with("value", distance),
                )
            },
        )
    }))
}

/// The number of a GPU's controllers: that of its root bus, if it has one, and of its port.
fn controllers(plan: &Plan, index: usize) -> (Option<usize>, usize) {
    let gpus = plan.gpus.get(..index).unwrap_or_default();
    let roots = |end: usize| (0..end).filter(|at| plan.root_of(*at) == *at).count();
    match plan.gpus.get(index).and_then(|gpu| gpu.bus) {
        Some(_) => {
            let root = plan.root_of(index);
            let own = usize::from(root == index);
            // controllers of the GPUs before, and its own root bus before its port
            let port = gpus.len() + roots(index) + own + 1;
            (Some(root + roots(root) + 1), port)
        }
        None => (None, index + 1),
    }
}

/// Place of a GPU's port on its root bus.
fn place_on_bus(plan: &Plan, index: usize) -> u8 {
    let root = plan.root_of(index);
    let before = (0..index).filter(|at| plan.root_of(*at) == root).count();
    u8::try_from(before).unwrap_or(0)
}

/// The ports reserve nothing: libvirt's `memReserve` is for memory below 4 GiB, and there is no
/// attribute for prefetchable memory above. Firmware makes room for a GPU that is there at boot.
fn devices(plan: &Plan, hostdevs: Vec<Element>) -> Element {
    let mut devices = Element::new("devices");
    let root = Element::new("controller")
        .with("type", "pci")
        .with("index", 0)
        .with("model", "pcie-root");
    let hole = plan.aperture_beyond_default();
    devices = devices.child(root.maybe(hole.map(|size| sized("pcihole64", size))));
    for (index, gpu) in plan.gpus.iter().enumerate() {
        let (bus, port) = controllers(plan, index);
        let is_first = plan.root_of(index) == index;
        if let (Some(bus), Some(number), true) = (bus, gpu.bus, is_first) {
            devices = devices.child(
                Element::new("controller")
                    .with("type", "pci")
                    .with("index", bus)
                    .with("model", "pcie-expander-bus")
                    .child(
                        Element::new("target")
                            .with("busNr", number)
                            .text("node", gpu.socket),
                    ),
            );
        }
        devices = devices.child(
            Element::new("controller")
                .with("type", "pci")
                .with("index", port)
                .with("model", "pcie-root-port")
                .child(
                    Element::new("target")
                        .with("chassis", index + 1)
                        .with("port", format!("{:#x}", 8 * index)),
                )
                .maybe(bus.map(|bus| address(bus, place_on_bus(plan, index)))),
        );
    }
    if let Iommu::Iommufd { smmu: true } = plan.iommu {
        let roots = (0..plan.gpus.len()).filter(|index| plan.root_of(*index) == *index);
        for bus in roots.filter_map(|index| controllers(plan, index).0) {
            devices = devices.child(smmu(bus));
        }
    }
    for (index, disk) in plan.disks.iter().enumerate() {
        devices = devices.child(
            Element::new("disk")
                .with("type", "file")
                .with("device", "disk")
                .child(
                    Element::new("driver")
                        .with("name", "qemu")
                        .with("type", disk_format(disk)),
                )
                .child(Element::new("source").with("file", disk))
                .child(
                    Element::new("target")
                        .with("dev", disk_name(index))
                        .with("bus", "virtio"),
                ),
        );
    }
    // for virsh console; QEMU's command has the first serial port without a word
    devices = devices.child(Element::new("console").with("type", "pty"));
    devices = hostdevs
        .into_iter()
        .fold(devices, |devices, hostdev| devices.child(hostdev));
    let memories = plan.gpus.iter().filter_map(|gpu| egm(plan, gpu));
    memories.fold(devices, Element::child)
}

/// The share of a GPU in its socket's RAM from Extended GPU Memory; the shares are the RAM of the
/// cell. Source: [`LIBVIRT_OF_VENDORS_ALONE`](crate::versions::LIBVIRT_OF_VENDORS_ALONE).
fn egm(plan: &Plan, gpu: &Gpu) -> Option<Element> {
    let path = egm_path(plan.egm_of(gpu)?);
    let mut sockets = plan.sockets.iter();
    let socket = sockets.find(|socket| socket.node == gpu.socket)?;
    let on_it = plan.gpus.iter().filter(|one| one.socket == gpu.socket);
    let count = on_it.clone().count().max(1) as u64;
    let is_first = on_it.map(|one| &one.memory.device.id).next() == Some(&gpu.memory.device.id);
    // in whole MiB; the first one has the rest
    let each = (socket.memory.0 / count) & !(MIB - 1);
    let size = match is_first {
        true => socket.memory.0 - each * (count - 1),
        false => each,
    };
    Some(
        Element::new("memory")
            .with("model", "egm")
            .with("access", "shared")
            .child(Element::new("source").text("path", path))
            .child(
                Element::new("target")
                    .child(sized("size", Bytes(size)))
                    .text("node", gpu.socket)
                    .text("pciDev", format!("ua-{}", gpu.memory.device.id)),
            ),
    )
}

/// The SMMU of the root bus of a controller's index.
pub fn smmu(bus: impl std::fmt::Display) -> Element {
    Element::new("iommu").with("model", "smmuv3").child(
        Element::new("driver")
            .with("pciBus", bus)
            .with("accel", "on")
            .with("ats", "on")
            .with("ssidsize", SSID_BITS),
    )
}

/// Linux's names of virtio disks: `vda` to `vdz`, then `vdaa`.
fn disk_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = Some(index);
    while let Some(number) = rest {
        letters.push(char::from(b'a' + (number % 26) as u8));
        rest = (number / 26).checked_sub(1);
    }
    letters.extend(['d', 'v']);
    letters.into_iter().rev().collect()
}

fn hostdev(plan: &Plan, index: usize, gpu: &Gpu) -> Option<Element> {
    let memory = &gpu.memory;
    let Source::Function(bdf) = memory.source else {
        return None;
    };
    let source = Element::new("address")
        .with("domain", format!("{:#06x}", bdf.domain))
        .with("bus", format!("{:#04x}", bdf.bus))
        .with("slot", format!("{:#04x}", bdf.device()))
        .with("function", format!("{:#x}", bdf.function()));
    let mut element = Element::new("hostdev")
        .with("mode", "subsystem")
        .with("type", "pci")
        .with("managed", "no")
        .child(Element::new("driver").with("name", "vfio"))
        .child(Element::new("source").child(source))
        .child(Element::new("alias").with("name", format!("ua-{}", memory.device.id)));
    if !memory.nodes.is_empty() {
        let nodes = format!("{}-{}", memory.nodes.start, memory.nodes.end - 1);
        element = element.child(Element::new("acpi").with("nodeset", nodes));
    }
    let (_, port) = controllers(plan, index);
    Some(
        element
            .child(Element::new("rom").with("bar", "off"))
            .child(address(port, 0)),
    )
}

fn address(bus: usize, slot: u8) -> Element {
    Element::new("address")
        .with("type", "pci")
        .with("domain", "0x0000")
        .with("bus", format!("{bus:#04x}"))
        .with("slot", format!("{slot:#04x}"))
        .with("function", "0x0")
}
