//! The kernel's build options and its page size.

use varia_facts::{Arch, Bytes};

use crate::scene::Scene;
use crate::{Finding, bad, failure, not_applicable, ok, unknown, warning};

const PAGE_64K: Bytes = Bytes(64 << 10);

/// A build option: its name, whether nothing works without it, and what it is for.
type Wanted = (&'static str, bool, &'static str);

const EVERYWHERE: [Wanted; 7] = [
    ("VFIO", true, "gives devices to user space"),
    ("VFIO_PCI", true, "gives PCI devices to user space"),
    ("KVM", true, "runs VMs at the CPU's speed"),
    (
        "VFIO_IOMMU_TYPE1",
        false,
        "maps a VM's memory for devices (VFIO type1)",
    ),
    ("IOMMUFD", false, "maps a VM's memory by /dev/iommu"),
    ("VFIO_DEVICE_CDEV", false, "opens devices for /dev/iommu"),
    ("HUGETLBFS", false, "gives hugepages to VMs"),
];
const ON_ARM: [Wanted; 1] = [("ARM_SMMU_V3", true, "drives Grace's IOMMU")];

pub(crate) fn options(scene: &Scene<'_>) -> Vec<Finding> {
    let kernel = &scene.facts.kernel;
    let Some(config) = &kernel.config else {
        let release = kernel.release.as_deref().unwrap_or("RELEASE");
        return vec![unknown(format!(
            "there is neither /boot/config-{release}, /lib/modules/{release}/config nor \
             /proc/config.gz"
        ))];
    };
    if kernel.config_is_partial {
        let named: Vec<_> = config.keys().map(|name| format!("CONFIG_{name}")).collect();
        return vec![unknown(format!(
            "{} is assumed, and the kernel's other options are not known",
            named.join(", ")
        ))];
    }
    let arm = ON_ARM.iter().filter(|_| scene.is_arm());
    let x86 = config.contains_key("INTEL_IOMMU") || config.contains_key("AMD_IOMMU");
    let mut findings = Vec::new();
    for (name, needed, purpose) in EVERYWHERE.iter().chain(arm) {
        if !config.contains_key(*name) {
            let needed = *needed || scene.plans_iommufd() && name.contains("IOMMUFD");
            findings.push(
                bad(needed, format!("is off: it {purpose}"))
                    .about(format!("CONFIG_{name}"))
                    .advise(format!("a kernel with CONFIG_{name}=y or =m")),
            );
        }
    }
    // without it a plan takes type1
    let dmabuf = "VFIO_PCI_DMABUF";
    let has_iommufd = kernel.iommufd == Some(true) && config.contains_key("IOMMUFD");
    let lacks_dmabuf = scene.has_gpus() && has_iommufd && !config.contains_key(dmabuf);
    if lacks_dmabuf && scene.plans_iommufd() {
        findings.push(
            failure("is off: it maps GPUs' memory by /dev/iommu")
                .about(format!("CONFIG_{dmabuf}"))
                .advise(format!(
                    "a kernel with CONFIG_{dmabuf}=y, or plan with --iommu type1"
                )),
        );
    }
    if scene.facts.host.arch == Some(Arch::X86_64) && !x86 {
        findings.push(
            failure("neither option is on, and the IOMMU needs one")
                .about("CONFIG_INTEL_IOMMU, CONFIG_AMD_IOMMU")
                .advise("boot a kernel with the option for this CPU"),
        );
    }
    // one way to map memory is enough
    let ways = ["VFIO_IOMMU_TYPE1", "IOMMUFD"];
    if ways.iter().all(|name| !config.contains_key(*name)) {
        findings.push(
            failure("neither option is on: nothing maps a VM's memory for devices")
                .about("CONFIG_VFIO_IOMMU_TYPE1, CONFIG_IOMMUFD")
                .advise("boot a kernel with one of these options"),
        );
    }
    if findings.is_empty() {
        let source = kernel
            .config_source
            .as_deref()
            .unwrap_or("the configuration");
        let more = match lacks_dmabuf {
            true => format!("; without CONFIG_{dmabuf} varia plan takes type1"),
            false => String::new(),
        };
        findings.push(ok(format!(
            "every option that matters is on (/{source}){more}"
        )));
    }
    findings
}

pub(crate) fn page_size(scene: &Scene<'_>) -> Vec<Finding> {
    if scene.is_x86() {
        return vec![not_applicable("x86_64 has pages of 4 KiB and no others")];
    }
    vec![match scene.facts.kernel.page_size {
        None => unknown("the page size of the running kernel was not read"),
        Some(PAGE_64K) => ok("64 KiB"),
        Some(other) => warning(format!(
            "{}: on Grace, pages of 64 KiB need fewer TLB entries for a GPU's memory, and NVIDIA \
             recommends them",
            other.rounded()
        ))
        .advise(
            "a kernel built with CONFIG_ARM64_64K_PAGES=y, such as a distribution's -64k flavour",
        ),
    }]
}
