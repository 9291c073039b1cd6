//! Faults of libvirt domains.

use varia_explain::Code;

use super::{Fault, fault, left};
use crate::text::{swap, without};

/// A cell with what is in it.
fn cell(text: &str, id: u32) -> String {
    let begin = text
        .find(&format!("      <cell id='{id}'"))
        .expect("a cell");
    let end = text[begin..].find("</cell>\n").expect("its end") + begin + "</cell>\n".len();
    text[begin..end].to_owned()
}

/// The same text with one change in a cell.
fn in_cell(text: &str, id: u32, old: &str, new: &str) -> String {
    let cell = cell(text, id);
    swap(text, &cell, &swap(&cell, old, new))
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

pub(super) const LIBVIRT: &[Fault] = &[
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
    fault(Code::RootBusFar, |text| {
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
    fault(Code::RootBusNumber, |text| {
        swap(text, "busNr='16'", "busNr='10'")
    }),
    fault(Code::PortSlot, |text| {
        swap(
            text,
            "<address type='pci' domain='0x0000' bus='0x04' slot='0x00'",
            "<address type='pci' domain='0x0000' bus='0x04' slot='0x01'",
        )
    }),
    fault(Code::ChassisTwice, |text| {
        swap(text, "chassis='2'", "chassis='1'")
    }),
    fault(Code::ApertureTooSmall, |text| {
        without(text, &["<pcihole64"])
    }),
    fault(Code::ApertureTooSmall, |text| {
        swap(text, "'TiB'>1</pcihole64>", "'GiB'>512</pcihole64>")
    }),
    fault(Code::ApertureTooSmall, |text| {
        without_element(text, "<controller type='pci' index='0'", "</controller>")
    }),
    fault(Code::AddressWidth, |text| {
        swap(text, ">1</pcihole64>", ">256</pcihole64>")
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
        in_cell(
            text,
            0,
            "<sibling id='0' value='10'/>",
            "<sibling id='0' value='10'/><sibling id='18' value='80'/>",
        )
    }),
    fault(Code::DistanceValue, |text| {
        in_cell(
            text,
            3,
            "<sibling id='3' value='10'/>",
            "<sibling id='3' value='20'/>",
        )
    }),
    fault(Code::DistancesAsymmetric, |text| {
        in_cell(
            text,
            3,
            "<sibling id='12' value='160'/>",
            "<sibling id='12' value='99'/>",
        )
    }),
];

pub(super) const LIBVIRT_WITH_SMMU: &[Fault] = &[
    fault(Code::SmmuOption, |text| {
        let nic = "<controller type='pci' index='20' model='pcie-expander-bus'><target \
                   busNr='60'/></controller>\n    <iommu model='smmuv3'><driver pciBus='20' \
                   ril='off' oas='48'/></iommu>\n  </devices>";
        swap(text, "</devices>", nic)
    }),
    fault(Code::IommufdMissing, |text| {
        without(text, &["<iommufd enabled='yes'/>"])
    }),
    fault(Code::IommufdMissing, |text| {
        swap(text, "<iommufd enabled='yes'/>", "<iommufd enabled='no'/>")
    }),
    fault(Code::SmmuNotAccelerated, |text| {
        swap(
            text,
            "<driver pciBus='1' accel='on' ats='on' ssidsize='20'/>",
            "<driver pciBus='1'/>",
        )
    }),
    fault(Code::SmmuMissing, |text| {
        swap(
            text,
            "    <iommu model='smmuv3'>\n      <driver pciBus='3' accel='on' ats='on' ssidsize='20'/>\n    </iommu>\n",
            "",
        )
    }),
    fault(Code::SmmuBus, |text| {
        swap(text, "<driver pciBus='3'", "<driver pciBus='4'")
    }),
];
