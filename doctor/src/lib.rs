//! Checks of a host, a device or a plan for a VM with GPUs.
//!
//! Facts, and optionally a plan, become findings. Pure: crate `linux` gathers the facts, and nothing
//! is changed. Every check has a finding: also a check that does not apply, and one whose facts are
//! unknown.
//!
//! | module | what is checked |
//! |---|---|
//! | `scene` | input of the checks |
//! | `iommu` | IOMMU, SMMU, the kernel's command line |
//! | `kernel` | build options, page size |
//! | `kvm` | KVM, cacheable device memory, stage-2 write-back |
//! | `modules` | VFIO, the variant driver |
//! | `device` | IOMMU group, driver, memory that is online, firmware's properties, readiness |
//! | `memory` | RAM, hugepages, limits |
//! | `egm` | Extended GPU Memory |
//! | `numa` | nodes and CPUs |
//! | `aperture` | room for BARs |
//! | `vmm` | QEMU, libvirt |
//! | `plan` | devices, CPUs and files of a plan |
//! | `definition` | drivers, programs and RAM of a definition |
//! | `finding` | findings: severity, state, remedies |

mod aperture;
mod definition;
mod device;
mod egm;
mod finding;
mod iommu;
mod kernel;
mod kvm;
mod memory;
mod modules;
mod numa;
mod plan;
mod scene;
#[cfg(test)]
mod tests;
mod vmm;

use Severity::{Failure, NotApplicable, Ok, Unknown, Warning};

pub use definition::{Assigned, Definition, Pages, Ram};
pub use finding::{Finding, Remedy, Severity};
pub use scene::Scene;

/// A check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Name, which its findings have.
    pub name: &'static str,
    /// Condition that holds if the finding is ok, for the documentation.
    pub about: &'static str,
    /// Severities that its findings can have.
    pub states: &'static [Severity],
    /// A plan or a definition depends on the result. A kernel's build options are not such: other
    /// checks find what the options switch on.
    is_depended: bool,
    /// Findings, at least one; their `check` is filled in by [`examine`].
    look: fn(&Scene<'_>) -> Vec<Finding>,
}

const fn check(
    name: &'static str,
    about: &'static str,
    states: &'static [Severity],
    look: fn(&Scene<'_>) -> Vec<Finding>,
) -> Check {
    Check {
        name,
        about,
        states,
        is_depended: false,
        look,
    }
}

impl Check {
    const fn depended(mut self) -> Self {
        self.is_depended = true;
        self
    }
}

/// All checks, in the order of their findings.
pub const CHECKS: &[Check] = &[
    check(
        "files",
        "every file of the host can be read and parsed",
        &[Ok, Unknown],
        scene::files,
    ),
    check(
        "iommu",
        "the host has an IOMMU, switched on",
        &[Ok, Failure],
        iommu::present,
    )
    .depended(),
    check(
        "smmu",
        "on arm64 the IOMMU is an SMMUv3",
        &[Ok, NotApplicable, Warning],
        iommu::is_smmuv3,
    ),
    check(
        "nested-smmu",
        "a VM can have an SMMU of its own: iommufd, the kernel's option, QEMU's arm-smmuv3 with accel",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        iommu::nested,
    )
    .depended(),
    check(
        "command-line",
        "the kernel's command line does not switch the IOMMU off; iommu.passthrough is reported",
        &[Ok, Failure],
        iommu::command_line,
    ),
    check(
        "unsafe-parameters",
        "module parameters that weaken isolation are off",
        &[Ok, Warning],
        iommu::parameters,
    ),
    check(
        "kernel-options",
        "the kernel is built with VFIO, the IOMMU's driver, KVM",
        &[Ok, Unknown, Warning, Failure],
        kernel::options,
    ),
    check(
        "page-size",
        "a Grace host runs 64 KiB pages",
        &[Ok, NotApplicable, Unknown, Warning],
        kernel::page_size,
    ),
    check(
        "kvm",
        "/dev/kvm exists and can be opened",
        &[Ok, Unknown, Failure],
        kvm::present,
    )
    .depended(),
    check(
        "cacheable-pfnmap",
        "KVM gives cacheable device memory to guests (KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED, 243)",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        kvm::cacheable,
    )
    .depended(),
    check(
        "stage-2-write-back",
        "the CPU can force write-back in stage 2 (FEAT_S2FWB)",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        kvm::write_back,
    )
    .depended(),
    check(
        "vfio-modules",
        "VFIO's modules are loaded or installed",
        &[Ok, Unknown, Warning, Failure],
        modules::vfio,
    )
    .depended(),
    check(
        "backend",
        "/dev/vfio/vfio or /dev/iommu, whichever the plan uses",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        modules::backend,
    )
    .depended(),
    check(
        "variant-driver",
        "nvgrace-gpu-vfio-pci is loaded; its author and version; a kernel's own EGM",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        modules::variant_driver,
    )
    .depended(),
    check(
        "group",
        "the host uses nothing else in a device's IOMMU group",
        &[Ok, NotApplicable, Unknown, Failure],
        device::group,
    )
    .depended(),
    check(
        "chip",
        "a GPU's chip is one that Varia knows",
        &[Ok, NotApplicable, Unknown, Failure],
        device::chip,
    ),
    check(
        "driver",
        "a device is bound to its best VFIO driver",
        &[Ok, NotApplicable, Warning, Failure],
        device::driver,
    ),
    check(
        "online-memory",
        "no memory of a GPU is online as RAM of the host",
        &[Ok, NotApplicable, Warning, Failure],
        device::online,
    ),
    check(
        "firmware",
        "firmware describes a GPU's memory: nvidia,gpu-mem-base-pa, -size, -pxm-start, -pxm-count",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        device::firmware,
    ),
    check(
        "readiness",
        "a GPU's memory is ready (registers are read with --probe)",
        &[Ok, NotApplicable, Unknown, Failure],
        device::readiness,
    ),
    check(
        "memory",
        "RAM is free for the VM",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        memory::ram,
    )
    .depended(),
    check(
        "hugepages",
        "hugepages are reserved and free",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        memory::hugepages,
    )
    .depended(),
    check(
        "memlock",
        "the VM's memory may be locked (RLIMIT_MEMLOCK)",
        &[Ok, Unknown, Warning, Failure],
        memory::memlock,
    ),
    check(
        "egm",
        "Extended GPU Memory that firmware reserves has a device (/dev/egmN)",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        egm::devices,
    )
    .depended(),
    check(
        "numa",
        "a GPU's node is known, and the nearest one with CPUs",
        &[Ok, NotApplicable, Warning],
        numa::nodes,
    ),
    check(
        "node-ids",
        "the kernel has room for all nodes (CONFIG_NODES_SHIFT), and sysfs lists the GPUs' nodes",
        &[Ok, NotApplicable, Unknown, Warning],
        numa::ids,
    ),
    check(
        "aperture",
        "the GPUs' BARs fit into a guest's address space",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        aperture::fits,
    )
    .depended(),
    check(
        "qemu",
        "QEMU is installed and new enough",
        &[Ok, Unknown, Warning, Failure],
        vmm::qemu,
    )
    .depended(),
    check(
        "qemu-features",
        "QEMU has the devices, objects and properties that a plan uses",
        &[Ok, Unknown, Warning, Failure],
        vmm::features,
    )
    .depended(),
    check(
        "libvirt",
        "libvirt is installed and new enough",
        &[Ok, NotApplicable, Unknown, Warning],
        vmm::libvirt,
    ),
    check(
        "plan-devices",
        "the plan's devices exist and have the BARs of the plan",
        &[Ok, NotApplicable, Unknown, Failure],
        plan::devices,
    )
    .depended(),
    check(
        "plan-cpus",
        "the CPUs that the plan pins to are online, and KVM takes as many",
        &[Ok, NotApplicable, Unknown, Failure],
        plan::cpus,
    ),
    check(
        "plan-files",
        "the plan's firmware, kernel and disks exist",
        &[Ok, NotApplicable, Unknown, Failure],
        plan::files,
    ),
    check(
        "definition-drivers",
        "the definition's functions exist, and a VFIO driver is bound or libvirt binds one",
        &[Ok, NotApplicable, Unknown, Failure],
        definition::drivers,
    )
    .depended(),
    check(
        "definition-qemu",
        "QEMU has the devices, objects and properties that the definition uses",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        definition::qemu,
    )
    .depended(),
    check(
        "definition-libvirt",
        "libvirt has the elements that the definition uses",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        definition::libvirt,
    )
    .depended(),
    check(
        "definition-memory",
        "the definition's RAM or hugepages are free on their nodes",
        &[Ok, NotApplicable, Unknown, Warning, Failure],
        definition::memory,
    )
    .depended(),
];

/// Runs all checks.
#[must_use]
pub fn examine(scene: &Scene<'_>) -> Vec<Finding> {
    run(scene, CHECKS.iter())
}

/// Runs the checks with these names.
#[must_use]
pub fn examine_some(scene: &Scene<'_>, names: &[&str]) -> Vec<Finding> {
    let checks = CHECKS.iter().filter(|check| names.contains(&check.name));
    run(scene, checks)
}

fn run<'a>(scene: &Scene<'_>, checks: impl Iterator<Item = &'a Check>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in checks {
        for mut finding in (check.look)(scene) {
            finding.check = check.name.to_owned();
            if finding.severity == NotApplicable {
                // nothing is to be done
                finding.remedies.clear();
            }
            findings.push(finding);
        }
    }
    findings
}

/// The worst of the findings.
#[must_use]
pub fn worst(findings: &[Finding]) -> Severity {
    let severities = findings.iter().map(|finding| finding.severity);
    severities.max().unwrap_or(Severity::Ok)
}

fn ok(found: impl Into<String>) -> Finding {
    Finding::new("", Severity::Ok, found)
}

fn not_applicable(why: impl Into<String>) -> Finding {
    Finding::new("", Severity::NotApplicable, why)
}

fn unknown(why: impl Into<String>) -> Finding {
    Finding::new("", Severity::Unknown, why)
}

fn warning(found: impl Into<String>) -> Finding {
    Finding::new("", Severity::Warning, found)
}

fn failure(found: impl Into<String>) -> Finding {
    Finding::new("", Severity::Failure, found)
}

/// A failure if the thing is needed, else a warning.
fn bad(needed: bool, found: impl Into<String>) -> Finding {
    if needed {
        failure(found)
    } else {
        warning(found)
    }
}
