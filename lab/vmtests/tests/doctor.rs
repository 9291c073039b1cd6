//! `varia doctor`'s idea of QEMU, held against a real one: what plans use is there, and is found.

use std::collections::BTreeMap;

use varia_doctor::{Finding, Scene, Severity, examine};
use varia_facts::{Arch as HostArch, Facts};
use varia_lab::Arch;
use varia_linux::inventory::{Extent, Inventory};
use varia_linux::{Tree, programs};
use varia_plan::{Iommu, Plan, Request, What, make};
use varia_silicon::machine::GH200;
use varia_vmtests::{Result, command};

/// Devices of QEMU 11.1 among the ones that are checked.
const FEATURES: [&str; 14] = [
    "acpi-generic-initiator",
    "arm-smmuv3",
    "arm-smmuv3.accel",
    "arm-smmuv3.ats",
    "arm-smmuv3.oas",
    "arm-smmuv3.ril",
    "arm-smmuv3.ssidsize",
    "iommufd",
    "memory-backend-memfd.hugetlb",
    "pcie-root-port.pref64-reserve",
    "vfio-pci",
    "vfio-pci.iommufd",
    "vfio-user-pci",
    "virt.highmem-mmio-size",
];

fn examined(facts: &Facts, plan: &Plan) -> Vec<Finding> {
    let devices = Scene::devices_of(plan);
    let findings = examine(&Scene {
        facts,
        devices: &devices,
        plan: Some(plan),
        definition: None,
        files: &BTreeMap::new(),
    });
    let ours = |finding: &Finding| finding.check.starts_with("qemu");
    findings.into_iter().filter(ours).collect()
}

#[test]
fn a_real_qemu_is_asked_what_it_has_and_has_what_plans_use() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    GH200.write(&folder.path().join("host")).expect("a host");
    let tree = Tree::open(&folder.path().join("host")).expect("a host");
    let mut facts = Inventory::of(&tree, Extent::Served).expect("facts").facts;
    let qemu = command::qemu(folder.path(), Arch::Aarch64)?;
    facts.vmm = programs::vmm(Some(HostArch::Aarch64), Some(&qemu));
    let found = facts.vmm.qemu.as_ref().expect("a QEMU");
    assert!(found.number() >= Some((10, 1)), "{found:?}");
    let told = facts.vmm.unknown.get("qemu-features");
    assert_eq!(told, None);
    if found.number() >= Some((11, 1)) {
        for name in FEATURES {
            assert_eq!(found.has(name), Some(true), "{name}: {found:#?}");
        }
    }
    for name in ["acpi-generic-initiator", "vfio-pci", "vfio-user-pci"] {
        assert_eq!(found.has(name), Some(true), "{name}: {found:#?}");
    }

    let gpu: What = GH200.gpus()[0].parse().expect("an address");
    let mut plan = make(&facts, &Request::new([gpu])).expect("a plan");
    for iommu in [Iommu::Type1, Iommu::Iommufd { smmu: false }] {
        plan.iommu = iommu;
        let findings = examined(&facts, &plan);
        let fine = findings
            .iter()
            .all(|finding| finding.severity == Severity::Ok);
        assert!(fine, "{findings:#?}");
    }
    // one that lacks what the plan uses
    let qemu = facts.vmm.qemu.as_mut().expect("a QEMU");
    for feature in &mut qemu.features {
        feature.present &= feature.name != "vfio-pci.iommufd";
    }
    let findings = examined(&facts, &plan);
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Ok)
        .collect();
    assert!(
        matches!(bad.as_slice(), [one] if one.severity == Severity::Failure
            && one.subject.as_deref() == Some("vfio-pci.iommufd")),
        "{findings:#?}"
    );
    Ok(())
}
