//! Faults of Extended GPU Memory: node 0 is that of gpu0, from /dev/egm4, node 1 that of gpu1, from
//! /dev/egm5.

use varia_explain::Code;
use varia_plan::Plan;

use super::{Fault, fault, left};
use crate::text::{swap, without, xml};

const TIE: &str = "acpi-egm-memory,id=gpu1.egm,pci-dev=gpu1,node=1";

pub(super) const QEMU_WITH_EGM: &[Fault] = &[
    fault(Code::EgmDevice, |text| {
        swap(text, TIE, "acpi-egm-memory,id=e,pci-dev=gpu7,node=1")
    }),
    fault(Code::EgmDevice, |text| {
        swap(text, TIE, "acpi-egm-memory,id=e,pci-dev=gpu1.port,node=1")
    }),
    left(Code::EgmDevice, |text| {
        let more = format!("-object {TIE} -object 'acpi-egm-memory,id=e,pci-dev=nic0,node=1'");
        swap(text, &format!("-object '{TIE}'"), &more)
    }),
    fault(Code::EgmNode, |text| {
        swap(text, TIE, "acpi-egm-memory,id=e,pci-dev=gpu1,node=40")
    }),
    fault(Code::EgmNode, |text| {
        swap(text, TIE, "acpi-egm-memory,id=e,pci-dev=gpu1,node=9")
    }),
    fault(Code::EgmNode, |text| {
        swap(text, "mem-path=/dev/egm5", "mem-path=/dev/shm")
    }),
    fault(Code::EgmSocket, |text| {
        swap(text, TIE, "acpi-egm-memory,id=e,pci-dev=gpu1,node=0")
    }),
    fault(Code::EgmNotShared, |text| {
        swap(
            text,
            "mem-path=/dev/egm5,size=4G,share=on",
            "mem-path=/dev/egm5,size=4G",
        )
    }),
    fault(Code::EgmMissing, |text| without(text, &[TIE])),
];

/// What no plan has: libvirt's form of the same.
pub(crate) fn domain_with_egm(plan: &Plan) -> String {
    let memory = |pxm: u32, node: u32| {
        format!(
            "    <memory model='egm' access='shared'>\n      <source>\n        \
             <path>/dev/egm{pxm}</path>\n      </source>\n      <target>\n        <size \
             unit='GiB'>4</size>\n        <node>{node}</node>\n        \
             <pciDev>ua-gpu{node}</pciDev>\n      </target>\n    </memory>\n"
        )
    };
    let more = memory(4, 0) + &memory(5, 1);
    swap(
        &xml(plan),
        "  </devices>\n",
        &format!("{more}  </devices>\n"),
    )
}

pub(super) const LIBVIRT_WITH_EGM: &[Fault] = &[
    fault(Code::EgmDevice, |text| {
        swap(text, "<pciDev>ua-gpu1</pciDev>", "<pciDev>gpu1</pciDev>")
    }),
    fault(Code::EgmNode, |text| {
        swap(
            text,
            "<node>1</node>\n        <pciDev>",
            "<node>9</node>\n        <pciDev>",
        )
    }),
    fault(Code::EgmAbsent, |text| {
        swap(text, "<path>/dev/egm5</path>", "<path>/dev/egm7</path>")
    }),
];
