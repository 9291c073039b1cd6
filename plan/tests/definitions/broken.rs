//! Definitions with one fault, made from good ones: exactly that fault is named, and the diff
//! makes a definition without faults of it.

use std::collections::BTreeSet;

use varia_facts::Facts;
use varia_plan::Plan;
use varia_plan::definition::Code;

use crate::text::{codes, command_line, examined, patched, swap, two, two_with_smmu, without, xml};

/// How a good definition is broken.
type Break = fn(&str) -> String;

/// A fault: what breaks a definition, and what that is called.
struct Fault {
    code: Code,
    breaks: Break,
    /// Nobody but its author can put it right.
    is_left: bool,
}

const fn fault(code: Code, breaks: Break) -> Fault {
    Fault {
        code,
        breaks,
        is_left: false,
    }
}

const fn left(code: Code, breaks: Break) -> Fault {
    Fault {
        code,
        breaks,
        is_left: true,
    }
}

/// Two GPUs: nodes 0 and 1 have CPUs, 2 to 9 are gpu0's, 10 to 17 gpu1's.
const QEMU: &[Fault] = &[
    // nodes
    fault(Code::NodesMissing, |text| {
        without(
            text,
            &[
                "pci-dev=gpu1",
                "node,nodeid=10'",
                "node,nodeid=11'",
                "node,nodeid=12'",
                "node,nodeid=13'",
                "node,nodeid=14'",
                "node,nodeid=15'",
                "node,nodeid=16'",
                "node,nodeid=17'",
                "dst=10,",
                "dst=11,",
                "dst=12,",
                "dst=13,",
                "dst=14,",
                "dst=15,",
                "dst=16,",
                "dst=17,",
            ],
        )
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
    fault(Code::InitiatorNode, |text| {
        swap(text, "pci-dev=gpu0,node=6'", "pci-dev=gpu0,node=0'")
    }),
    fault(Code::InitiatorNode, |text| {
        swap(text, "pci-dev=gpu0,node=6'", "pci-dev=gpu0,node=42'")
    }),
    fault(Code::InitiatorTwice, |text| {
        swap(text, "pci-dev=gpu0,node=6'", "pci-dev=gpu0,node=7'")
    }),
    fault(Code::NodeShared, |text| {
        swap(text, "pci-dev=gpu1,node=10'", "pci-dev=gpu1,node=3'")
    }),
    fault(Code::NodeShared, |text| {
        let mut text = without(
            text,
            &[
                "node,nodeid=10'",
                "node,nodeid=11'",
                "node,nodeid=12'",
                "node,nodeid=13'",
                "node,nodeid=14'",
                "node,nodeid=15'",
                "node,nodeid=16'",
                "node,nodeid=17'",
                "dst=10,",
                "dst=11,",
                "dst=12,",
                "dst=13,",
                "dst=14,",
                "dst=15,",
                "dst=16,",
                "dst=17,",
            ],
        );
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
    fault(Code::RootBusShared, |text| {
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
    fault(Code::RootPortWindow, |text| {
        swap(text, "chassis=1,pref64-reserve=262144M", "chassis=1")
    }),
    fault(Code::RootPortWindow, |text| {
        swap(
            text,
            "chassis=1,pref64-reserve=262144M",
            "chassis=1,pref64-reserve=128G",
        )
    }),
    fault(Code::ChassisTwice, |text| {
        swap(text, "chassis=2", "chassis=1")
    }),
    // the machine
    fault(Code::ApertureTooSmall, |text| {
        swap(text, ",highmem-mmio-size=1024G", "")
    }),
    fault(Code::ApertureTooSmall, |text| {
        swap(text, "highmem-mmio-size=1024G", "highmem-mmio-size=512G")
    }),
    fault(Code::ApertureSize, |text| {
        swap(text, "highmem-mmio-size=1024G", "highmem-mmio-size=1500G")
    }),
    fault(Code::AddressWidth, |text| {
        swap(text, "highmem-mmio-size=1024G", "highmem-mmio-size=256T")
    }),
    fault(Code::GicVersion, |text| swap(text, "gic-version=3,", "")),
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
    left(Code::MemorySum, |text| swap(text, "-m 8192M", "-m 16G")),
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

const QEMU_WITH_SMMU: &[Fault] = &[
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
    fault(Code::SmmuNotAccelerated, |text| {
        swap(
            text,
            "primary-bus=gpu0.root,accel=on",
            "primary-bus=gpu0.root",
        )
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

/// A cell with what is in it.
fn cell(text: &str, id: u32) -> String {
    let begin = text
        .find(&format!("      <cell id='{id}'"))
        .expect("a cell");
    let end = text[begin..].find("</cell>\n").expect("its end") + begin + "</cell>\n".len();
    text[begin..end].to_owned()
}

fn without_nodes(text: &str, nodes: std::ops::Range<u32>) -> String {
    let mut text = text.to_owned();
    for node in nodes.clone() {
        text = swap(&text, &cell(&text, node), "");
    }
    let siblings: Vec<_> = nodes.map(|node| format!("<sibling id='{node}'")).collect();
    without(
        &text,
        &siblings.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn without_element(text: &str, begin: &str, end: &str) -> String {
    assert_eq!(text.matches(begin).count(), 1, "{begin}");
    let start = text.find(begin).expect("there");
    let stop = text[start..].find(end).expect("its end") + start + end.len();
    format!(
        "{}{}",
        &text[..start],
        text[stop..]
            .trim_start_matches('\n')
            .trim_start_matches(' ')
    )
}

const LIBVIRT: &[Fault] = &[
    fault(Code::NodesMissing, |text| {
        without(&without_nodes(text, 10..18), &["<acpi nodeset='10-17'/>"])
    }),
    fault(Code::NodesTooFew, |text| {
        swap(
            &without_nodes(text, 15..18),
            "<acpi nodeset='10-17'/>",
            "<acpi nodeset='10-14'/>",
        )
    }),
    fault(Code::NodeMissing, |text| swap(text, &cell(text, 17), "")),
    fault(Code::NodeTwice, |text| {
        swap(text, "<cell id='17'", "<cell id='16'")
    }),
    fault(Code::NodeGap, |text| {
        let text = swap(text, "<cell id='17'", "<cell id='20'")
            .replace("<sibling id='17'", "<sibling id='20'");
        swap(&text, "nodeset='10-17'", "nodeset='10-16,20'")
    }),
    fault(Code::NodeHasMemory, |text| {
        swap(
            text,
            "<cell id='5' memory='0'",
            "<cell id='5' memory='1048576'",
        )
    }),
    fault(Code::InitiatorMissing, |text| {
        without(text, &["<acpi nodeset='2-9'/>"])
    }),
    fault(Code::InitiatorMissing, |text| {
        swap(text, "<acpi nodeset='2-9'/>", "<acpi nodeset='2-8'/>")
    }),
    fault(Code::InitiatorNode, |text| {
        swap(text, "<acpi nodeset='2-9'/>", "<acpi nodeset='1-8'/>")
    }),
    fault(Code::InitiatorNode, |text| {
        swap(text, "<acpi nodeset='10-17'/>", "<acpi nodeset='11-18'/>")
    }),
    fault(Code::NodeShared, |text| {
        swap(text, "<acpi nodeset='10-17'/>", "<acpi nodeset='9,11-17'/>")
    }),
    fault(Code::NodeShared, |text| {
        swap(
            &without_nodes(text, 10..18),
            "<acpi nodeset='10-17'/>",
            "<acpi nodeset='2-9'/>",
        )
    }),
    fault(Code::InitiatorWrongGpu, |text| {
        swap(
            &swap(text, "<acpi nodeset='2-9'/>", "<acpi nodeset='2-7'/>"),
            "<acpi nodeset='10-17'/>",
            "<acpi nodeset='8-17'/>",
        )
    }),
    left(Code::FunctionTwice, |text| {
        swap(text, "<address domain='0x0029'", "<address domain='0x0009'")
    }),
    fault(Code::RootPortMissing, |text| {
        without_element(
            &swap(
                text,
                "<address type='pci' domain='0x0000' bus='0x04'",
                "<address type='pci' domain='0x0000' bus='0x03'",
            ),
            "<controller type='pci' index='4'",
            "</controller>",
        )
    }),
    fault(Code::PortShared, |text| {
        let text = swap(
            text,
            "<address type='pci' domain='0x0000' bus='0x04'",
            "<address type='pci' domain='0x0000' bus='0x02'",
        );
        let text = without_element(&text, "<controller type='pci' index='4'", "</controller>");
        without_element(&text, "<controller type='pci' index='3'", "</controller>")
    }),
    fault(Code::RootBusMissing, |text| {
        let text = swap(
            text,
            "      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>\n",
            "",
        );
        without_element(&text, "<controller type='pci' index='3'", "</controller>")
    }),
    fault(Code::RootBusMissing, |text| {
        let text = swap(
            text,
            "      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>\n",
            "",
        );
        let text = without_element(&text, "<controller type='pci' index='4'", "</controller>");
        without_element(&text, "<controller type='pci' index='3'", "</controller>")
    }),
    fault(Code::BusMissing, |text| {
        without_element(text, "<controller type='pci' index='3'", "</controller>")
    }),
    fault(Code::BusMissing, |text| {
        without_element(text, "<controller type='pci' index='4'", "</controller>")
    }),
    fault(Code::RootBusShared, |text| {
        let text = swap(text, "bus='0x03'", "bus='0x01'");
        without_element(&text, "<controller type='pci' index='3'", "</controller>")
    }),
    fault(Code::RootBusNode, |text| {
        swap(text, "<node>1</node>", "<node>0</node>")
    }),
    fault(Code::RootBusNode, |text| without(text, &["<node>1</node>"])),
    fault(Code::RootBusNumber, |text| {
        swap(text, "busNr='16'", "busNr='8'")
    }),
    fault(Code::ChassisTwice, |text| {
        swap(text, "chassis='2'", "chassis='1'")
    }),
    fault(Code::ApertureTooSmall, |text| {
        without(text, &["<pcihole64"])
    }),
    fault(Code::ApertureTooSmall, |text| {
        swap(text, ">1073741824</pcihole64>", ">536870912</pcihole64>")
    }),
    fault(Code::ApertureTooSmall, |text| {
        without_element(text, "<controller type='pci' index='0'", "</controller>")
    }),
    fault(Code::AddressWidth, |text| {
        swap(text, ">1073741824</pcihole64>", ">274877906944</pcihole64>")
    }),
    fault(Code::GicVersion, |text| {
        swap(text, "<gic version='3'/>", "<gic version='2'/>")
    }),
    fault(Code::AcpiOff, |text| without(text, &["<acpi/>"])),
    fault(Code::AcpiOff, |text| {
        swap(
            text,
            "  <features>\n    <acpi/>\n    <gic version='3'/>\n  </features>\n",
            "",
        )
    }),
    fault(Code::FirmwareMissing, |text| {
        swap(text, "<os firmware='efi'>", "<os>")
    }),
    fault(Code::Accelerator, |text| {
        swap(text, "<domain type='kvm'>", "<domain type='qemu'>")
    }),
    fault(Code::CpuModel, |text| {
        swap(
            text,
            "<cpu mode='host-passthrough'>",
            "<cpu mode='custom' match='exact'>\n    <model>neoverse-v1</model>",
        )
    }),
    fault(Code::MachineSmmu, |text| {
        swap(
            text,
            "    <hostdev mode='subsystem' type='pci' managed='no'>\n      <driver name='vfio'/>\n      <source>\n        <address domain='0x0009'",
            "    <iommu model='smmuv3'/>\n    <hostdev mode='subsystem' type='pci' managed='no'>\n      <driver name='vfio'/>\n      <source>\n        <address domain='0x0009'",
        )
    }),
    fault(Code::BarsNotMapped, |text| {
        let text = swap(
            text,
            "<domain type='kvm'>",
            "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
        );
        swap(
            &text,
            "</domain>",
            "  <qemu:override>\n    <qemu:device alias='ua-gpu1'>\n      <qemu:frontend>\n        \
            <qemu:property name='x-no-mmap' type='bool' value='true'/>\n      </qemu:frontend>\n    </qemu:device>\n  \
            </qemu:override>\n</domain>",
        )
    }),
    fault(Code::RomShown, |text| {
        text.replacen("      <rom bar='off'/>\n", "", 1)
    }),
    fault(Code::PlainDriver, |text| {
        text.replacen(
            "<driver name='vfio'/>",
            "<driver name='vfio' model='vfio-pci'/>",
            1,
        )
    }),
    fault(Code::MemoryElsewhere, |text| {
        swap(
            text,
            "<memnode cellid='1' mode='strict' nodeset='1'/>",
            "<memnode cellid='1' mode='strict' nodeset='0'/>",
        )
    }),
    fault(Code::MemoryAnywhere, |text| {
        without(text, &["<memnode cellid='1'"])
    }),
    fault(Code::CpusElsewhere, |text| {
        swap(
            text,
            "<vcpupin vcpu='3' cpuset='9'/>",
            "<vcpupin vcpu='3' cpuset='1'/>",
        )
    }),
    fault(Code::CpusAnywhere, |text| {
        without(text, &["<vcpupin vcpu='3'"])
    }),
    fault(Code::CpusAnywhere, |text| {
        without_element(text, "<cputune>", "</cputune>")
    }),
    fault(Code::DistancesMissing, |text| {
        without(text, &["<distances>", "</distances>", "<sibling "])
    }),
    fault(Code::DistancesIncomplete, |text| {
        let three = cell(text, 3);
        let text = swap(text, &three, &without(&three, &["<sibling id='12'"]));
        let twelve = cell(&text, 12);
        swap(&text, &twelve, &without(&twelve, &["<sibling id='3'"]))
    }),
    fault(Code::DistanceNode, |text| {
        let zero = cell(text, 0);
        swap(
            text,
            &zero,
            &swap(
                &zero,
                "<sibling id='0' value='10'/>",
                "<sibling id='0' value='10'/><sibling id='18' value='80'/>",
            ),
        )
    }),
    fault(Code::DistanceValue, |text| {
        let three = cell(text, 3);
        swap(
            text,
            &three,
            &swap(
                &three,
                "<sibling id='3' value='10'/>",
                "<sibling id='3' value='20'/>",
            ),
        )
    }),
    fault(Code::DistancesAsymmetric, |text| {
        let three = cell(text, 3);
        swap(
            text,
            &three,
            &swap(
                &three,
                "<sibling id='12' value='160'/>",
                "<sibling id='12' value='99'/>",
            ),
        )
    }),
];

const LIBVIRT_WITH_SMMU: &[Fault] = &[
    fault(Code::IommufdMissing, |text| {
        without(text, &["<iommufd enabled='yes'/>"])
    }),
    fault(Code::IommufdMissing, |text| {
        swap(text, "<iommufd enabled='yes'/>", "<iommufd enabled='no'/>")
    }),
    fault(Code::SmmuNotAccelerated, |text| {
        swap(
            text,
            "<driver pciBus='1' accel='on'/>",
            "<driver pciBus='1'/>",
        )
    }),
    fault(Code::SmmuMissing, |text| {
        swap(
            text,
            "    <iommu model='smmuv3'>\n      <driver pciBus='3' accel='on'/>\n    </iommu>\n",
            "",
        )
    }),
    fault(Code::SmmuBus, |text| {
        swap(text, "<driver pciBus='3'", "<driver pciBus='4'")
    }),
];

/// Whether one fault is named exactly and put right; what is amiss otherwise.
fn judge(fault: &Fault, good: &str, facts: &Facts) -> Result<(), String> {
    let broken = (fault.breaks)(good);
    let found = examined(&broken, facts);
    let findings: Vec<_> = found.findings.iter().map(|(finding, _)| finding).collect();
    let diff = found.diff("vm");
    let expect = |good: bool, what: &str| match good {
        true => Ok(()),
        false => Err(format!("{what}: {findings:#?}\n{diff}")),
    };
    expect(codes(&found) == [fault.code.name()], "named")?;
    let line = findings[0].line;
    expect((1..=broken.lines().count()).contains(&line), "line")?;
    expect(found.findings[0].1 != fault.is_left, "said to be corrected")?;
    if fault.is_left {
        return expect(found.corrected == broken, "left");
    }
    expect(patched(&broken, &diff) == found.corrected, "applied")?;
    let again = examined(&found.corrected, facts);
    expect(again.findings.is_empty(), &format!("{:#?}", again.findings))
}

/// Judges all of them; gives the codes that were named.
fn judged(
    name: &str,
    (facts, plan): (Facts, Plan),
    write: fn(&Plan) -> String,
    faults: &[Fault],
) -> BTreeSet<Code> {
    let good = write(&plan);
    assert_eq!(codes(&examined(&good, &facts)), [""; 0]);
    let amiss: Vec<_> = (0..)
        .zip(faults)
        .filter_map(|(index, fault): (u32, _)| {
            let error = judge(fault, &good, &facts).err()?;
            Some(format!("{name} {index}, {}: {error}", fault.code.name()))
        })
        .collect();
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
    faults.iter().map(|fault| fault.code).collect()
}

#[test]
fn command_lines() {
    let mut named = judged("qemu", two(), command_line, QEMU);
    named.extend(judged(
        "smmu",
        two_with_smmu(),
        command_line,
        QEMU_WITH_SMMU,
    ));
    assert!(named.len() > 20, "{named:?}");
}

#[test]
fn domains() {
    let mut named = judged("libvirt", two(), xml, LIBVIRT);
    named.extend(judged("smmu", two_with_smmu(), xml, LIBVIRT_WITH_SMMU));
    assert!(named.len() > 20, "{named:?}");
}

#[test]
fn every_code_is_named_by_a_test() {
    let faults = [QEMU, QEMU_WITH_SMMU, LIBVIRT, LIBVIRT_WITH_SMMU];
    let all: BTreeSet<Code> = faults
        .iter()
        .flat_map(|one| one.iter())
        .map(|one| one.code)
        .collect();
    let rest: Vec<_> = Code::ALL
        .iter()
        .filter(|code| !all.contains(code))
        .map(|code| code.name())
        .collect();
    // these have tests of their own
    assert_eq!(rest, ["nodes-over-limit", "memory-not-shared"]);
}
