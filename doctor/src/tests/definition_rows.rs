//! Each state of the checks of a definition and of Extended GPU Memory.

use varia_facts::{Bytes, Limit, NodeId};
use varia_plan::Backing;

use crate::Pages;
use crate::Severity::{Failure, NotApplicable, Ok, Unknown, Warning};

use super::rows::{Row, online};
use super::{Case, GIB, bdf};

/// A definition that takes the GPU and uses all that not every host has.
fn define(case: &mut Case) -> &mut crate::Definition {
    case.definition.insert(crate::Definition {
        functions: vec![crate::Assigned {
            bdf: bdf(super::GPU),
            is_managed: false,
        }],
        unknown: Vec::new(),
        has_more: false,
        qemu: [
            "acpi-generic-initiator".to_owned(),
            "arm-smmuv3.accel".to_owned(),
        ]
        .into(),
        libvirt: Some(["iommufd".to_owned()].into()),
        ram: vec![crate::Ram {
            size: Bytes(GIB),
            host_node: Some(NodeId(0)),
        }],
        pages: Pages::Ordinary,
        egm: Vec::new(),
    })
}

fn libvirt(case: &mut Case, version: &str) {
    define(case);
    case.facts.vmm.libvirt = Some(varia_facts::Libvirt {
        features: Vec::new(),
        version: version.to_owned(),
        source: String::new(),
    });
}

/// The GPU's socket has Extended GPU Memory, and a driver offers it.
fn egm(case: &mut Case) {
    let size = Bytes(96 * GIB);
    case.gpu().egm = Some(varia_facts::EgmMemory {
        base: varia_facts::HostPhys(1 << 40),
        size,
        pxm: 17,
        retired_pages: None,
    });
    case.facts.host.egm = vec![varia_facts::EgmDevice {
        pxm: 17,
        size: Some(size),
        gpus: vec![bdf(super::GPU)],
        has_node: Some(true),
    }];
}

// a row stays a row
#[rustfmt::skip]
pub(super) const DEFINITION_ROWS: &[Row] = &[
    ("definition-drivers", false, |_| {}, NotApplicable, "no definition"),
    ("definition-drivers", false, |case| { define(case); }, Ok, "is bound"),
    ("definition-drivers", false, |case| {
        define(case).functions[0].is_managed = true;
        case.gpu().driver = Some("nvidia".into());
    },
        Ok, "libvirt binds"),
    ("definition-drivers", false, |case| { define(case); case.gpu().driver = Some("nvidia".into()); },
        Failure, "varia bind 0009:01:00.0"),
    ("definition-drivers", false, |case| { define(case); case.gpu().open = Some(true); }, Failure, "in use"),
    ("definition-drivers", false, |case| { define(case); case.facts.functions.clear(); }, Failure, "no such function"),
    ("definition-drivers", false, |case| define(case).unknown.push((7, "gpu0".into())), Unknown, "line 7, gpu0"),
    ("definition-drivers", false, |case| {
        let definition = define(case);
        definition.functions.clear();
        definition.unknown.push((7, String::new()));
    }, Unknown, "does not say which function"),
    ("definition-drivers", false, |case| define(case).has_more = true, Unknown, "varia explain names the part"),
    ("definition-drivers", false, |case| {
        define(case);
        case.gpu().driver = Some("nvidia".into());
        online(case);
    }, Failure, "take its memory offline first"),
    ("online-memory", false, |case| { define(case); online(case); }, Failure, "no VM can have"),
    ("memlock", false, |case| { define(case); case.facts.host.memlock = Some(Limit::Bytes(Bytes(GIB))); },
        Ok, "which libvirt raises"),
    ("memlock", false, |case| {
        define(case).libvirt = None;
        case.facts.host.memlock = Some(Limit::Bytes(Bytes(GIB)));
    }, Ok, "enough for the definition's RAM"),
    ("memlock", false, |case| {
        define(case).libvirt = None;
        case.facts.host.memlock = Some(Limit::Bytes(Bytes(8 << 20)));
    }, Failure, "the definition's RAM is 1 GiB"),
    ("definition-qemu", false, |_| {}, NotApplicable, "no definition"),
    ("definition-qemu", false, |case| { define(case); }, Ok, "acpi-generic-initiator"),
    ("definition-qemu", false, |case| { define(case); case.facts.vmm.qemu = None; }, Unknown, "on the host"),
    ("definition-qemu", false, |case| { define(case); case.without_feature("arm-smmuv3.accel"); },
        Failure, "QEMU 11.0 or newer"),
    ("definition-qemu", false, |case| {
        define(case).qemu = ["arm-smmuv3".to_owned(), "pxb-pcie".to_owned()].into();
    },
        Ok, "arm-smmuv3, pxb-pcie"),
    ("definition-qemu", false, |case| {
        define(case);
        let qemu = case.facts.vmm.qemu.as_mut().expect("a QEMU");
        qemu.features.clear();
        qemu.version = "10.1.0".to_owned();
    },
        Warning, "in builds of some vendors alone"),
    ("definition-libvirt", false, |_| {}, NotApplicable, "no definition"),
    ("definition-libvirt", false, |case| libvirt(case, "12.8.0"), Ok, "iommufd"),
    ("definition-libvirt", false, |case| libvirt(case, "11.9.0"), Warning, "vendor's build"),
    ("definition-libvirt", false, |case| libvirt(case, "9.0.0"), Failure, "does not have iommufd"),
    ("definition-libvirt", false, |case| { define(case); case.facts.vmm.libvirt = None; }, Unknown, "not known"),
    ("definition-memory", false, |_| {}, NotApplicable, "no definition"),
    ("definition-memory", false, |case| { define(case); }, Ok, "the definition needs 1 GiB"),
    ("definition-memory", false, |case| define(case).ram.clear(), Unknown, "not known"),
    ("definition-memory", false, |case| define(case).ram[0].size = Bytes(1 << 50), Warning, "end processes"),
    ("definition-memory", false, |case| {
        let ram = &mut define(case).ram;
        ram[0].size = Bytes(1 << 39);
        ram.push(ram[0].clone());
    }, Warning, "needs 1 TiB"),
    ("definition-memory", false, |case| define(case).pages = Pages::Huge(Bytes(16 << 30)), Failure, "16 GiB"),
    ("definition-memory", false, |case| define(case).pages = Pages::HugeDefault, Ok, "hugepages of 512 MiB are free"),
    ("definition-memory", false, |case| {
        define(case).pages = Pages::HugeDefault;
        case.facts.kernel.cmdline.push("default_hugepagesz=2M".to_owned());
    }, Failure, "there are no hugepages of 2 MiB"),
    ("definition-memory", false, |case| {
        define(case).pages = Pages::HugeDefault;
        case.facts.kernel.cmdline.clear();
        case.facts.kernel.page_size = None;
    }, Unknown, "default size of hugepages"),
    ("egm", false, |_| {}, NotApplicable, "no GPU reports"),
    ("egm", false, |case| egm(case), Ok, "96 GiB of EGM for"),
    ("egm", false, |case| { egm(case); case.facts.host.egm.clear(); }, Warning, "a kernel with nvgrace-egm"),
    ("egm", true, |case| { egm(case); case.plan().sockets[0].backing = Backing::Egm(17); }, Ok, "96 GiB of EGM for"),
    ("egm", true, |case| { egm(case); case.plan().sockets[0].backing = Backing::Egm(18); }, Failure, "no such device"),
    ("egm", true, |case| {
        egm(case);
        case.facts.host.egm[0].size = Some(Bytes(1 << 30));
        case.plan().sockets[0].backing = Backing::Egm(17);
    }, Failure, "the VM needs 8 GiB"),
    ("egm", true, |case| {
        egm(case);
        case.facts.host.egm[0].size = None;
        case.plan().sockets[0].backing = Backing::Egm(17);
    }, Unknown, "egm_size"),
    ("egm", true, |case| {
        egm(case);
        case.facts.host.egm[0].has_node = Some(false);
        case.plan().sockets[0].backing = Backing::Egm(17);
    }, Failure, "device node does not exist"),
    ("egm", false, |case| { egm(case); define(case).egm = vec![(17, Some(Bytes(1 << 40)))]; }, Failure, "the VM needs 1 TiB"),
    ("egm", false, |case| { egm(case); define(case).egm = vec![(17, None)]; }, Unknown, "does not say how much"),
    ("egm", false, |case| {
        egm(case);
        case.facts.host.egm[0].gpus.push(bdf(super::NEIGHBOUR));
        define(case).egm = vec![(17, Some(Bytes(GIB)))];
    }, Failure, "could reach the VM's RAM"),
    ("egm", false, |case| {
        egm(case);
        case.facts.host.egm.clear();
        case.facts.kernel.modules.entry("nvgrace_egm".into()).or_default().installed = true;
    }, Warning, "modprobe nvgrace-egm"),
];
