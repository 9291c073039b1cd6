//! A host as facts: two sockets, two GPUs on each.

use varia_facts::{
    Arch, Bytes, EgmDevice, Facts, Feature, GroupId, Host, HugePages, IommuGroup, Kernel, NodeId,
    NumaNode, PciFunction, Qemu, VirtualBar, Vmm,
};
use varia_plan::{Request, What};

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const MIB: u64 = 1 << 20;
/// CPUs of each socket.
pub(crate) const CPUS: u32 = 8;

pub(crate) fn bar(index: u8, size: u64, memory: Option<&str>) -> VirtualBar {
    VirtualBar {
        index,
        size: Bytes(size),
        length: Bytes(size),
        prefetchable: true,
        memory: memory.map(str::to_owned),
    }
}

fn gpu(bdf: &str, socket: u32, group: u32) -> PciFunction {
    let mut function: PciFunction = serde_json::from_value(serde_json::json!({
        "bdf": bdf, "vendor": 0x10de, "device": 0x2941,
        "subsystem_vendor": 0, "subsystem_device": 0, "class": 0x30200,
    }))
    .expect("a function");
    function.variant = Some("nvgrace-gpu".to_owned());
    function.iommu_group = Some(GroupId(group));
    function.driver = Some("nvgrace_gpu_vfio_pci".to_owned());
    function.numa_node = Some(NodeId(socket));
    function.cpu_node = Some(NodeId(socket));
    function.virtual_bars = vec![
        bar(0, 16 * MIB, None),
        bar(2, GIB, Some("resmem")),
        bar(4, 128 * GIB, Some("usemem")),
    ];
    function
}

/// The addresses of the GPUs: the first two are on socket 0.
pub(crate) const GPUS: [&str; 4] = [
    "0009:01:00.0",
    "0019:01:00.0",
    "0029:01:00.0",
    "0039:01:00.0",
];

pub(crate) fn facts() -> Facts {
    let node = |id: u32| NumaNode {
        id: NodeId(id),
        cpus: format!("{}-{}", id * CPUS, (id + 1) * CPUS - 1)
            .parse()
            .expect("CPUs"),
        memory: Bytes(64 * GIB),
        memory_free: Bytes(60 * GIB),
        distances: if id == 0 { vec![10, 37] } else { vec![37, 10] },
        hugepages: vec![HugePages {
            size: Bytes(2 * MIB),
            total: 2048,
            free: 1024,
        }],
        ..NumaNode::default()
    };
    let host = Host {
        arch: Some(Arch::Aarch64),
        nodes: vec![node(0), node(1)],
        ..Host::default()
    };
    let mut facts = Facts::new(host, Kernel::default(), Vmm::default());
    facts.functions = GPUS
        .iter()
        .zip(0..)
        .map(|(bdf, index)| gpu(bdf, index / 2, index))
        .collect();
    let alone = |gpu: &PciFunction| IommuGroup {
        id: gpu.iommu_group.expect("a group"),
        members: vec![gpu.bdf],
        ..IommuGroup::default()
    };
    facts.host.iommu.groups = facts.functions.iter().map(alone).collect();
    facts
}

/// The same with all that iommufd needs.
pub(crate) fn facts_with_iommufd() -> Facts {
    let mut facts = facts();
    facts.kernel.iommufd = Some(true);
    facts.kernel.config = Some(
        ["VFIO_DEVICE_CDEV", "VFIO_PCI_DMABUF", "ARM_SMMU_V3_IOMMUFD"]
            .map(|option| (option.to_owned(), "y".to_owned()))
            .into(),
    );
    facts.vmm.qemu = Some(Qemu {
        version: "11.1.0".to_owned(),
        features: [
            "iommufd",
            "arm-smmuv3.accel",
            "arm-smmuv3.ats",
            "arm-smmuv3.ssidsize",
        ]
        .map(|name| Feature {
            name: name.to_owned(),
            present: true,
            ..Feature::default()
        })
        .into(),
        ..Qemu::default()
    });
    facts
}

/// The same with Extended GPU Memory on both sockets, of the first GPU of each, and a QEMU that
/// has it.
pub(crate) fn facts_with_egm() -> Facts {
    let mut facts = facts();
    let qemu = Qemu {
        version: "10.1.0nvidia1".to_owned(),
        features: vec![Feature {
            name: "acpi-egm-memory".to_owned(),
            present: true,
            ..Feature::default()
        }],
        ..Qemu::default()
    };
    facts.vmm.qemu = Some(qemu);
    for (pxm, gpu) in [(4, GPUS[0]), (5, GPUS[2])] {
        facts.host.egm.push(EgmDevice {
            pxm,
            size: Some(Bytes(32 * GIB)),
            gpus: vec![gpu.parse().expect("an address")],
            has_node: Some(true),
        });
    }
    facts
}

pub(crate) fn request(gpus: &[&str]) -> Request {
    Request::new(gpus.iter().map(|text| text.parse::<What>().expect(text)))
}
