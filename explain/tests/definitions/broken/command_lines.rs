//! Faults of QEMU command lines.

use varia_explain::Code;

use super::{Fault, fault, left};
use crate::text::{swap, without};

/// Nodes 10 to 17 are gone, and their distances.
fn without_nodes_of_gpu1(text: &str) -> String {
    (10..18).fold(text.to_owned(), |text, node| {
        without(
            &text,
            &[&format!("node,nodeid={node}'"), &format!("dst={node},")],
        )
    })
}

/// Two GPUs: nodes 0 and 1 have CPUs, 2 to 9 are gpu0's, 10 to 17 gpu1's.
pub(super) const QEMU: &[Fault] = &[
    // nodes
    fault(Code::NodesMissing, |text| {
        without(&without_nodes_of_gpu1(text), &["pci-dev=gpu1"])
    }),
    fault(Code::NodesTooFew, |text| {
        without(
            text,
            &[
                "id=gpu1.gi17",
                "node,nodeid=17'",
                "dst=17,",
                "id=gpu1.gi16",
                "node,nodeid=16'",
                "dst=16,",
            ],
        )
    }),
    fault(Code::NodesTooMany, |text| {
        let text = swap(
            text,
            "  -numa 'node,nodeid=17'",
            "  -numa 'node,nodeid=17' \\\n  -numa 'node,nodeid=18'",
        );
        let far: String = (0..18)
            .map(|from| format!("  -numa 'dist,src={from},dst=18,val=80' \\\n"))
            .collect();
        let text = swap(
            &text,
            "  -device 'pxb-pcie,id=gpu0.root",
            &format!("{far}  -device 'pxb-pcie,id=gpu0.root"),
        );
        text.trim_end().to_owned()
            + " \\\n  -object 'acpi-generic-initiator,id=more,pci-dev=gpu1,node=18'\n"
    }),
    fault(Code::NodeMissing, |text| {
        without(text, &["node,nodeid=17'"])
    }),
    fault(Code::NodeMissing, |text| {
        without(text, &["node,nodeid=4'", "node,nodeid=12'"])
    }),
    fault(Code::NodeTwice, |text| {
        swap(text, "node,nodeid=9'", "node,nodeid=8'")
    }),
    fault(Code::NodeGap, |text| {
        swap(text, "node,nodeid=17'", "node,nodeid=18'")
    }),
    fault(Code::NodeGap, |text| {
        let text = swap(text, "node,nodeid=17'", "node,nodeid=18'");
        swap(
            &text,
            "id=gpu1.gi17,pci-dev=gpu1,node=17",
            "id=gpu1.gi17,pci-dev=gpu1,node=18",
        )
        .replace("dst=17,", "dst=18,")
    }),
    fault(Code::NodeHasMemory, |text| {
        swap(text, "node,nodeid=5'", "node,nodeid=5,mem=1G'")
    }),
    fault(Code::NodeHasMemory, |text| {
        let text = swap(text, "node,nodeid=5'", "node,nodeid=5,memdev=more'");
        swap(
            &text,
            "  -numa 'node,nodeid=2'",
            "  -object memory-backend-ram,id=more,size=1G \\\n  -numa 'node,nodeid=2'",
        )
    }),
    // initiators
    fault(Code::InitiatorMissing, |text| {
        without(text, &["id=gpu0.gi6"])
    }),
    fault(Code::InitiatorMissing, |text| {
        without(text, &["pci-dev=gpu0"])
    }),
    fault(Code::InitiatorDevice, |text| {
        swap(text, "id=gpu0.gi6,pci-dev=gpu0", "id=gpu0.gi6,pci-dev=gpu7")
    }),
    fault(Code::InitiatorDevice, |text| {
        swap(
            text,
            "id=gpu0.gi6,pci-dev=gpu0",
            "id=gpu0.gi6,pci-dev=gpu0.port",
        )
    }),
    fault(Code::InitiatorDevice, |text| {
        text.replace("pci-dev=gpu1", "pci-dev=nvidia")
    }),
    fault(Code::InitiatorDevice, |text| {
        let more = "acpi-generic-initiator,id=more,pci-dev=nic,node=4";
        format!("{} \\\n  -object {more}\n", text.trim_end())
    }),
    fault(Code::InitiatorNode, |text| {
        swap(text, "pci-dev=gpu0,node=6'", "pci-dev=gpu0,node=0'")
    }),
    fault(Code::InitiatorNode, |text| {
        swap(text, "pci-dev=gpu0,node=6'", "pci-dev=gpu0,node=42'")
    }),
    fault(Code::InitiatorNode, |text| {
        let text = without(text, &["node,nodeid=17'", "dst=17,"]);
        swap(&text, "pci-dev=gpu1,node=17'", "pci-dev=gpu1,node=1'")
    }),
    fault(Code::InitiatorTwice, |text| {
        swap(text, "pci-dev=gpu0,node=6'", "pci-dev=gpu0,node=7'")
    }),
    fault(Code::NodeShared, |text| {
        swap(text, "pci-dev=gpu1,node=10'", "pci-dev=gpu1,node=3'")
    }),
    fault(Code::NodeShared, |text| {
        let mut text = without_nodes_of_gpu1(text);
        for node in 10..18 {
            text = swap(
                &text,
                &format!("pci-dev=gpu1,node={node}'"),
                &format!("pci-dev=gpu1,node={}'", node - 8),
            );
        }
        text
    }),
    fault(Code::InitiatorWrongGpu, |text| {
        swap(text, "pci-dev=gpu0,node=9'", "pci-dev=gpu1,node=9'")
    }),
    fault(Code::InitiatorWrongGpu, |text| {
        text.replace("pci-dev=gpu0", "pci-dev=gpu1")
    }),
    fault(Code::IdMissing, |text| {
        swap(text, "vfio-pci,id=gpu0,", "vfio-pci,")
    }),
    fault(Code::IdTwice, |text| {
        swap(text, "id=gpu0.gi3,", "id=gpu0.gi2,")
    }),
    left(Code::FunctionTwice, |text| {
        swap(text, "host=0029:01:00.0", "host=0009:01:00.0")
    }),
    // where GPUs are
    fault(Code::BusMissing, |text| {
        without(text, &["pxb-pcie,id=gpu1.root"])
    }),
    fault(Code::BusMissing, |text| {
        without(text, &["pcie-root-port,id=gpu0.port"])
    }),
    fault(Code::BusMissing, |text| {
        swap(
            text,
            "vfio-pci,id=gpu0,bus=gpu0.port",
            "vfio-pci,id=gpu0,bus=gpu0.prot",
        )
    }),
    fault(Code::RootPortMissing, |text| {
        without(
            &swap(
                text,
                "vfio-pci,id=gpu0,bus=gpu0.port",
                "vfio-pci,id=gpu0,bus=gpu0.root",
            ),
            &["pcie-root-port,id=gpu0.port"],
        )
    }),
    fault(Code::RootPortMissing, |text| {
        without(
            &swap(text, "vfio-pci,id=gpu0,bus=gpu0.port,", "vfio-pci,id=gpu0,"),
            &["id=gpu0.port", "id=gpu0.root"],
        )
    }),
    fault(Code::PortShared, |text| {
        without(
            &swap(
                text,
                "vfio-pci,id=gpu1,bus=gpu1.port",
                "vfio-pci,id=gpu1,bus=gpu0.port",
            ),
            &["id=gpu1.port", "id=gpu1.root"],
        )
    }),
    fault(Code::RootBusMissing, |text| {
        without(
            &swap(
                text,
                "id=gpu1.port,bus=gpu1.root",
                "id=gpu1.port,bus=pcie.0",
            ),
            &["id=gpu1.root"],
        )
    }),
    left(Code::BusMissing, |text| {
        swap(text, "pcie-root-port,id=gpu0.port", "nvme,id=gpu0.port")
    }),
    left(Code::BusMissing, |text| {
        swap(text, "pxb-pcie,id=gpu0.root", "nvme,id=gpu0.root")
    }),
    fault(Code::RootBusFar, |text| {
        without(
            &swap(
                text,
                "id=gpu1.port,bus=gpu1.root",
                "id=gpu1.port,bus=gpu0.root",
            ),
            &["id=gpu1.root"],
        )
    }),
    fault(Code::RootBusNode, |text| {
        swap(text, "bus_nr=16,numa_node=1", "bus_nr=16,numa_node=0")
    }),
    fault(Code::RootBusNode, |text| {
        swap(text, "bus_nr=16,numa_node=1", "bus_nr=16")
    }),
    fault(Code::RootBusNode, |text| {
        swap(text, "bus_nr=16,numa_node=1", "bus_nr=16,numa_node=12")
    }),
    fault(Code::RootBusNumber, |text| {
        swap(text, "bus_nr=16", "bus_nr=8")
    }),
    // each has a root port
    fault(Code::RootBusNumber, |text| {
        swap(text, "bus_nr=16", "bus_nr=9")
    }),
    fault(Code::RootBusNumber, |text| {
        swap(text, "bus_nr=16", "bus_nr=255")
    }),
    fault(Code::RootBusNumber, |text| {
        let ports: String = (100..105)
            .map(|n| format!(" \\\n  -device pcie-root-port,id=more{n},bus=pcie.0,chassis={n}"))
            .collect();
        format!("{}{ports}\n", text.trim_end())
    }),
    fault(Code::BarsNotMapped, |text| {
        swap(text, "host=0029:01:00.0", "host=0029:01:00.0,x-no-mmap=y")
    }),
    fault(Code::PortSlot, |text| {
        swap(
            text,
            "id=gpu1,bus=gpu1.port",
            "id=gpu1,bus=gpu1.port,addr=1",
        )
    }),
    fault(Code::PortSlot, |text| {
        swap(
            text,
            "id=gpu1,bus=gpu1.port",
            "id=gpu1,bus=gpu1.port,addr=0.1",
        )
    }),
    fault(Code::PortSlot, |text| {
        let disk = "-device pcie-root-port,id=d,bus=pcie.0,chassis=99 -device virtio-blk-pci,bus=d,addr=0x2";
        format!("{} \\\n  {disk}\n", text.trim_end())
    }),
    // where QEMU chooses, a device behind a port is in slot 0, too
    fault(Code::PortShared, |text| {
        let disk = "-device virtio-blk-pci,bus=gpu1.port,drive=d";
        format!("{} \\\n  {disk}\n", text.trim_end())
    }),
    fault(Code::PortShared, |text| {
        let disk = "-device virtio-blk-pci,bus=gpu1.port,addr=0.0,drive=d";
        format!("{} \\\n  {disk}\n", text.trim_end())
    }),
    fault(Code::RootPortWindow, |text| {
        swap(text, "chassis=1,pref64-reserve=256G", "chassis=1")
    }),
    fault(Code::RootPortWindow, |text| {
        swap(
            text,
            "chassis=1,pref64-reserve=256G",
            "chassis=1,pref64-reserve=128G",
        )
    }),
    fault(Code::ChassisTwice, |text| {
        swap(text, "chassis=2", "chassis=1")
    }),
    // the machine
    fault(Code::ApertureTooSmall, |text| {
        swap(text, ",highmem-mmio-size=1T", "")
    }),
    fault(Code::ApertureTooSmall, |text| {
        swap(text, "highmem-mmio-size=1T", "highmem-mmio-size=512G")
    }),
    fault(Code::ApertureSize, |text| {
        swap(text, "highmem-mmio-size=1T", "highmem-mmio-size=1500G")
    }),
    fault(Code::AddressWidth, |text| {
        swap(text, "highmem-mmio-size=1T", "highmem-mmio-size=256T")
    }),
    fault(Code::ApertureTooSmall, |text| {
        swap(text, "-machine 'virt,", "-machine 'virt,highmem=off,")
    }),
    fault(Code::MachineMissing, |text| without(text, &["-machine"])),
    fault(Code::GicVersion, |text| {
        swap(text, "gic-version=3,", "gic-version=2,")
    }),
    fault(Code::AcpiOff, |text| {
        swap(text, "-machine 'virt,", "-machine 'virt,acpi=off,")
    }),
    fault(Code::AcpiOff, |text| {
        swap(text, "-name gpu-vm", "-name gpu-vm -no-acpi")
    }),
    fault(Code::FirmwareMissing, |text| without(text, &["-bios"])),
    fault(Code::Accelerator, |text| {
        swap(text, "-accel kvm", "-accel tcg,thread=multi")
    }),
    fault(Code::Accelerator, |text| without(text, &["-accel kvm"])),
    fault(Code::CpuModel, |text| {
        swap(text, "-cpu host", "-cpu neoverse-v1")
    }),
    fault(Code::CpuModel, |text| without(text, &["-cpu host"])),
    fault(Code::MachineSmmu, |text| {
        swap(text, "-machine 'virt,", "-machine 'virt,iommu=smmuv3,")
    }),
    // devices and RAM
    fault(Code::BarsNotMapped, |text| {
        swap(text, "vfio-pci,id=gpu0,", "vfio-pci,x-no-mmap=on,id=gpu0,")
    }),
    fault(Code::RomShown, |text| {
        swap(text, "host=0009:01:00.0,rombar=0", "host=0009:01:00.0")
    }),
    fault(Code::MemoryElsewhere, |text| {
        swap(text, "host-nodes=1,", "host-nodes=0,")
    }),
    fault(Code::MemoryAnywhere, |text| {
        swap(text, "host-nodes=1,policy=bind,", "")
    }),
    left(Code::MemorySum, |text| swap(text, "-m 8G", "-m 16G")),
    // distances
    fault(Code::DistancesMissing, |text| {
        without(text, &["-numa 'dist,"])
    }),
    fault(Code::DistancesIncomplete, |text| {
        without(text, &["dist,src=3,dst=12,"])
    }),
    fault(Code::DistancesIncomplete, |text| {
        without(text, &["dst=17,"])
    }),
    fault(Code::DistanceNode, |text| {
        swap(
            text,
            "-device 'pxb-pcie,id=gpu0.root",
            "-numa dist,src=0,dst=18,val=80 -device 'pxb-pcie,id=gpu0.root",
        )
    }),
    fault(Code::DistanceValue, |text| {
        swap(
            text,
            "dist,src=3,dst=12,val=160",
            "dist,src=3,dst=12,val=10",
        )
    }),
    fault(Code::DistanceValue, |text| {
        swap(
            text,
            "dist,src=3,dst=12,val=160",
            "dist,src=3,dst=12,val=300",
        )
    }),
    fault(Code::DistancesAsymmetric, |text| {
        swap(
            text,
            "-device 'pxb-pcie,id=gpu0.root",
            "-numa dist,src=12,dst=3,val=70 -device 'pxb-pcie,id=gpu0.root",
        )
    }),
];

pub(super) const QEMU_WITH_SMMU: &[Fault] = &[
    fault(Code::SmmuOption, |text| {
        let nic = "-device pxb-pcie,id=nic,bus_nr=60 -device \
                   arm-smmuv3,id=s,primary-bus=nic,ats=on,oas=48,ril=off";
        format!("{} \\\n  {nic}\n", text.trim_end())
    }),
    fault(Code::IommufdObject, |text| {
        without(text, &["-object 'iommufd,"])
    }),
    fault(Code::IommufdObject, |text| {
        swap(
            text,
            "-object 'iommufd,id=iommufd0'",
            "-object 'iommufd,id=iommufd1'",
        )
    }),
    fault(Code::IommufdMissing, |text| {
        swap(
            text,
            "host=0029:01:00.0,rombar=0,iommufd=iommufd0",
            "host=0029:01:00.0,rombar=0",
        )
    }),
    fault(Code::IommufdMixed, |text| {
        swap(
            &without(text, &["-device 'arm-smmuv3,"]),
            "host=0029:01:00.0,rombar=0,iommufd=iommufd0",
            "host=0029:01:00.0,rombar=0",
        )
    }),
    fault(Code::SmmuNotAccelerated, |text| {
        swap(
            text,
            "primary-bus=gpu0.root,accel=on,ats=on",
            "primary-bus=gpu0.root,ats=on",
        )
    }),
    fault(Code::RootBusShared, |text| {
        let shared = swap(
            text,
            "id=gpu1.port,bus=gpu1.root",
            "id=gpu1.port,bus=gpu0.root",
        );
        without(&shared, &["id=gpu1.root", "id=gpu1.smmu"])
    }),
    fault(Code::SmmuMissing, |text| {
        without(text, &["arm-smmuv3,id=gpu1.smmu"])
    }),
    fault(Code::SmmuBus, |text| {
        swap(text, "primary-bus=gpu1.root", "primary-bus=gpu1.port")
    }),
    fault(Code::SmmuBus, |text| {
        swap(text, "primary-bus=gpu1.root", "primary-bus=gpu0.root")
    }),
    fault(Code::BusMissing, |text| {
        without(text, &["pxb-pcie,id=gpu1.root"])
    }),
    fault(Code::RootBusNode, |text| {
        swap(text, "bus_nr=16,numa_node=1", "bus_nr=16,numa_node=0")
    }),
];
