//! Facts of a made-up host, as an inventory of such a host finds them.
//!
//! The BARs that a variant shows to a VM are not among them: a variant's layout is no part of the
//! hardware.

use std::collections::BTreeMap;

use varia_facts::{
    Arch, BarKind, Bdf, Bytes, CoherentMemory, CoherentSource, EgmDevice, EgmMemory, Facts,
    Feature, GroupId, Host, HostPhys, HugePages, Iommu, IommuGroup, Kernel, Kvm, Libvirt, Limit,
    Module, NodeId, NumaNode, PciFunction, PhysicalBar, Qemu, Vmm,
};
use varia_spec::nvidia::{
    self,
    chip::{Driver, Family},
};

use super::{Machine, MachineError, NODES_PER_GPU, domain};
use crate::profile::Profile;

/// Release of the kernel.
pub(super) const RELEASE: &str = "6.17.9-64k";
/// Grace's root port.
const GRACE_ROOT_PORT: (u16, u16, u32) = (nvidia::VENDOR_ID, 0x22b2, 0x06_04_00);
/// QEMU's root port, in place of the root port of a CPU of which no public listing shows one.
const UNKNOWN_ROOT_PORT: (u16, u16, u32) = (0x1b36, 0x000c, 0x06_04_00);
/// An NVMe drive.
const DRIVE: (u16, u16, u32) = (0x144d, 0xa80a, 0x01_08_02);
/// Names in pci.ids of the root ports and the drive; pci.ids has NVIDIA's chips too.
pub(super) const NAMES: [(u16, &str, u16, &str); 3] = [
    (
        nvidia::VENDOR_ID,
        "NVIDIA Corporation",
        GRACE_ROOT_PORT.1,
        "Grace PCIe root port",
    ),
    (
        UNKNOWN_ROOT_PORT.0,
        "Red Hat, Inc.",
        UNKNOWN_ROOT_PORT.1,
        "QEMU PCIe Root port",
    ),
    (
        DRIVE.0,
        "Samsung Electronics Co Ltd",
        DRIVE.1,
        "NVMe SSD Controller",
    ),
];
/// Grace's CPU: Neoverse V2.
const MIDR: u64 = 0x410f_d4f0;
/// Room for the BARs of a GPU, from this address on.
const BARS: u64 = 0x4_0000_0000_0000;
const BARS_PER_GPU: u64 = 4 << 40;
/// Distance between the coherent memories of two GPUs.
const MEMORY_PER_GPU: u64 = 16 << 40;
/// Extended GPU Memory of the first socket, and the room for the table of its retired pages before
/// the memory.
const EGM: u64 = 0x20_0000_0000;
const RETIRED_PAGES: u64 = 1 << 20;
/// Table in which firmware describes the GPUs.
pub(super) const SSDT: &str = "SSDT1";

/// Facts of a machine.
pub(super) fn of(machine: &Machine) -> Result<Facts, MachineError> {
    let mut facts = Facts::new(host(machine), kernel(machine), vmm());
    if let Some(profile) = machine.profile()? {
        let is_grace = !profile
            .chip
            .is_some_and(|chip| chip.family == Family::Rubin);
        if !is_grace {
            facts.host.midr = None;
        }
        for gpu in 0..machine.sockets * machine.gpus {
            let port = port(machine, gpu, is_grace)?;
            facts
                .functions
                .push(self::gpu(machine, gpu, &profile, port.bdf)?);
            facts.functions.push(port);
        }
    }
    for drive in 0..machine.drives {
        facts.functions.push(self::drive(drive)?);
    }
    facts.functions.sort_by_key(|function| function.bdf);
    for device in &mut facts.host.egm {
        let functions = facts.functions.iter();
        let own = functions.filter(|one| one.egm.is_some_and(|egm| egm.pxm == device.pxm));
        device.gpus = own.map(|function| function.bdf).collect();
    }
    for (function, id) in facts.functions.iter_mut().zip((0..).map(GroupId)) {
        function.iommu_group = Some(id);
        function.cpu_node = function
            .numa_node
            .and_then(|node| facts.host.nearest_with_cpus(node));
        facts.host.iommu.groups.push(IommuGroup {
            id,
            members: vec![function.bdf],
            kind: Some("DMA".to_owned()),
        });
    }
    Ok(facts)
}

fn host(machine: &Machine) -> Host {
    let (vendor, product) = machine.product;
    let total = u64::from(machine.sockets) * machine.memory;
    let last = machine.sockets * machine.cpus - 1;
    let smmu = |socket: u32| {
        let address = 0x1100_0000_u64 + u64::from(socket) * 0x1000_0000_0000;
        format!("smmu3.{address:#018x}")
    };
    Host {
        arch: Some(Arch::Aarch64),
        product: Some(format!("{vendor} {product}")),
        cpus: (0..=last).collect(),
        midr: Some(MIDR),
        memory: Some(Bytes(total)),
        memory_available: Some(free_of(total)),
        memlock: Some(Limit::Unlimited),
        nodes: nodes(machine),
        iommu: Iommu {
            instances: (0..machine.sockets).map(smmu).collect(),
            groups: Vec::new(),
        },
        egm: (0..machine.sockets)
            .filter_map(|socket| egm(machine, socket))
            .map(|memory| EgmDevice {
                pxm: memory.pxm,
                size: Some(memory.size),
                gpus: Vec::new(),
                has_node: Some(true),
            })
            .collect(),
        ..Host::default()
    }
}

/// Extended GPU Memory of a socket, behind the nodes of the GPUs.
fn egm(machine: &Machine, socket: u32) -> Option<EgmMemory> {
    let nodes = machine.sockets + machine.sockets * machine.gpus * NODES_PER_GPU;
    let base = EGM + u64::from(socket) * MEMORY_PER_GPU;
    (machine.egm > 0).then_some(EgmMemory {
        base: HostPhys(base),
        size: Bytes(machine.egm),
        pxm: nodes + socket,
        retired_pages: Some(HostPhys(base - RETIRED_PAGES)),
    })
}

/// Nine tenths of some memory, in whole KiB.
fn free_of(memory: u64) -> Bytes {
    Bytes(memory / 1024 / 10 * 9 * 1024)
}

/// A node for each socket, then those of each GPU, without memory and without CPUs.
fn nodes(machine: &Machine) -> Vec<NumaNode> {
    let gpus = machine.sockets * machine.gpus;
    let all = machine.sockets + gpus * NODES_PER_GPU;
    let socket_of = |node: u32| match node.checked_sub(machine.sockets) {
        None => node,
        Some(below) => below / NODES_PER_GPU / machine.gpus.max(1),
    };
    let distance = |node: u32, other: u32| match (node, other) {
        (node, other) if node == other => 10,
        (node, other) if socket_of(node) != socket_of(other) => 120,
        (node, other) if node < machine.sockets || other < machine.sockets => 80,
        _ => 100,
    };
    let node = |id: u32| {
        let distances = (0..all).map(|other| distance(id, other)).collect();
        let node = NumaNode {
            id: NodeId(id),
            distances,
            ..NumaNode::default()
        };
        if id >= machine.sockets {
            return NumaNode {
                generic_initiator: true,
                ..node
            };
        }
        // the sizes of a kernel with pages of 64 KiB
        let pools = [(2 << 20, 0), (16 << 20, 0), (512 << 20, 64)];
        let pool = |(size, count)| HugePages {
            size: Bytes(size),
            total: count,
            free: count,
        };
        NumaNode {
            cpus: (id * machine.cpus..(id + 1) * machine.cpus).collect(),
            memory: Bytes(machine.memory),
            memory_free: free_of(machine.memory),
            hugepages: pools.map(pool).into(),
            ..node
        }
    };
    (0..all).map(node).collect()
}

fn kernel(machine: &Machine) -> Kernel {
    let config = [
        ("ARM64_64K_PAGES", "y"),
        ("ARM_SMMU_V3", "y"),
        ("HUGETLBFS", "y"),
        ("IOMMUFD", "m"),
        ("KVM", "y"),
        ("NODES_SHIFT", "6"),
        ("NUMA", "y"),
        ("NVGRACE_GPU_VFIO_PCI", "m"),
        ("VFIO", "m"),
        ("VFIO_DEVICE_CDEV", "y"),
        ("VFIO_IOMMU_TYPE1", "m"),
        ("VFIO_PCI", "m"),
    ];
    let module = |(name, installed): (&str, bool)| {
        let module = Module {
            installed,
            ..Module::default()
        };
        (name.to_owned(), module)
    };
    let modules = [
        ("vfio", true),
        ("vfio_pci", true),
        ("vfio_pci_core", true),
        ("vfio_iommu_type1", true),
        ("iommufd", false),
        (Driver::NvgraceGpu.name(), true),
        ("nvgrace_egm", machine.egm > 0),
        ("kvm", false),
        ("nvidia", false),
    ];
    Kernel {
        release: Some(RELEASE.to_owned()),
        page_size: Some(Bytes(machine.page)),
        cmdline: ["iommu.passthrough=0", "default_hugepagesz=512M"]
            .map(str::to_owned)
            .into(),
        config: Some(BTreeMap::from(
            config.map(|(name, value)| (name.to_owned(), value.to_owned())),
        )),
        config_is_partial: false,
        config_source: Some(format!("boot/config-{RELEASE}")),
        modules: modules.map(module).into(),
        vfio_container: Some(true),
        iommufd: Some(true),
        kvm: Kvm {
            present: Some(true),
            cacheable_pfnmap: Some(true),
            ipa_bits: Some(48),
            max_vcpus: Some(512),
            ..Kvm::default()
        },
    }
}

/// QEMU and libvirt of the host.
fn vmm() -> Vmm {
    let features = [
        "acpi-generic-initiator",
        "arm-smmuv3.accel",
        "arm-smmuv3.ats",
        "arm-smmuv3.ssidsize",
        "iommufd",
        "vfio-pci",
        "vfio-user-pci",
        "virt.highmem-mmio-size",
    ];
    let has = |name: &str| Feature {
        name: name.to_owned(),
        present: true,
        ..Feature::default()
    };
    // NVIDIA's QEMU alone has it
    let lacking = Feature {
        name: "acpi-egm-memory".to_owned(),
        ..Feature::default()
    };
    Vmm {
        qemu: Some(Qemu {
            path: "qemu-system-aarch64".to_owned(),
            version: "11.1.2".to_owned(),
            features: features.map(has).into_iter().chain([lacking]).collect(),
            ..Qemu::default()
        }),
        libvirt: Some(Libvirt {
            version: "12.8.0".to_owned(),
            ..Libvirt::default()
        }),
        ..Vmm::default()
    }
}

/// The root port above a GPU.
fn port(machine: &Machine, gpu: u32, is_grace: bool) -> Result<PciFunction, MachineError> {
    let socket = gpu / machine.gpus.max(1);
    let ids = if is_grace {
        GRACE_ROOT_PORT
    } else {
        UNKNOWN_ROOT_PORT
    };
    Ok(PciFunction {
        driver: Some("pcieport".to_owned()),
        numa_node: Some(NodeId(socket)),
        ..function(address(domain(gpu), 0, 0)?, ids, (0, 0))
    })
}

fn gpu(
    machine: &Machine,
    gpu: u32,
    profile: &Profile,
    port: Bdf,
) -> Result<PciFunction, MachineError> {
    let socket = gpu / machine.gpus.max(1);
    let first_node = machine.sockets + gpu * NODES_PER_GPU;
    let mut next = BARS + u64::from(gpu) * BARS_PER_GPU;
    let bar = |bar: &crate::profile::BarModel| {
        let address = next.next_multiple_of(bar.spec.size);
        next = address + bar.spec.size;
        PhysicalBar {
            index: bar.index,
            address: Some(HostPhys(address)),
            size: Bytes(bar.spec.size),
            kind: BarKind::Memory64,
            prefetchable: true,
        }
    };
    let bars = profile.bars.iter().map(|bar| &bar.value).map(bar).collect();
    let ids = (
        profile.vendor_id.value,
        profile.device_id.value,
        profile.class.value,
    );
    let subsystem = (
        profile.subsystem_vendor_id.value,
        profile.subsystem_id.value,
    );
    let memory = profile.coherent.map(|memory| CoherentMemory {
        base: HostPhys(memory.base.value.0 + u64::from(gpu) * MEMORY_PER_GPU),
        size: Bytes(memory.size.value),
        pxm_start: Some(first_node),
        pxm_count: Some(NODES_PER_GPU),
        source: CoherentSource::AcpiDsd(SSDT.to_owned()),
    });
    let sku = profile.sku();
    let driver = match (profile.chip, sku) {
        (Some(chip), Some(sku)) if sku.released => chip.driver(),
        _ => Driver::VfioPci,
    };
    Ok(PciFunction {
        revision: Some(profile.revision.value),
        name: sku.map(|sku| format!("{} {}", NAMES[0].1, sku.name)),
        driver: Some("nvidia".to_owned()),
        best_driver: Some(driver.name().to_owned()),
        numa_node: Some(NodeId(if machine.own_nodes {
            first_node
        } else {
            socket
        })),
        upstream: Some(port),
        acpi_path: Some(format!("\\_SB_.PC{gpu:02X}.RP00.GPU0")),
        bars,
        coherent_memory: memory,
        egm: egm(machine, socket),
        ..function(address(domain(gpu), 1, 0)?, ids, subsystem)
    })
}

fn drive(drive: u32) -> Result<PciFunction, MachineError> {
    // 32 drives on a root bus, 255 root buses in a domain
    let domain = 0x1000 + drive / (32 * 255);
    let bdf = address(domain, (drive / 32 % 255) as u8, (drive % 32) as u8)?;
    Ok(PciFunction {
        driver: Some("nvme".to_owned()),
        ..function(bdf, DRIVE, (DRIVE.0, 0xa801))
    })
}

fn address(domain: u32, bus: u8, device: u8) -> Result<Bdf, MachineError> {
    Bdf::new(domain, bus, device, 0).ok_or(MachineError::Address { device })
}

/// A function of which no more is said than its ids.
fn function(
    bdf: Bdf,
    (vendor, device, class): (u16, u16, u32),
    (subsystem_vendor, subsystem_device): (u16, u16),
) -> PciFunction {
    let names = NAMES
        .iter()
        .find(|name| (name.0, name.2) == (vendor, device));
    PciFunction {
        revision: Some(0),
        name: names.map(|(_, vendor, _, device)| format!("{vendor} {device}")),
        ..PciFunction::new(
            bdf,
            (vendor, device),
            (subsystem_vendor, subsystem_device),
            class,
        )
    }
}
