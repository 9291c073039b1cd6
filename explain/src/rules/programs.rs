//! QEMU, libvirt and kernel of the host: features that the definition uses and that they lack.

use varia_facts::{Arch, Facts, Vmm};
use varia_plan::versions::{
    self, LIBVIRT, LIBVIRT_OF_VENDORS_ALONE, LIBVIRT_SEEN, LINUX, LINUX_CACHEABLE_PFNMAP,
    QEMU_OF_VENDORS, Version, vendor,
};

use crate::case::{Case, Subject};
use crate::finding::{Code, Findings, Value, optional};
use crate::needs::{of_libvirt, of_qemu};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    if let Some(facts) = case.facts {
        of_vmm(case, &facts.vmm, out);
        if is_of_host(case, facts) {
            of_kernel(case, facts, out);
        }
    }
}

fn of_vmm(case: &Case<'_>, vmm: &Vmm, out: &mut Findings) {
    let qemu = vmm
        .qemu
        .as_ref()
        .map(|qemu| format!("QEMU {}", qemu.version));
    for (feature, line) in of_qemu(case.definition) {
        if versions::has(vmm, &feature) != Some(false) {
            continue;
        }
        let first = versions::first_qemu(&feature);
        let newer = first.map(|(major, minor)| format!("QEMU {major}.{minor} or newer"));
        let values: &[Value<'_>] = &[
            ("feature", &feature),
            ("vmm", &optional(qemu.as_ref())),
            ("newer", &optional(newer)),
            ("vendor", &optional(vendor(QEMU_OF_VENDORS, &feature))),
        ];
        out.add(Code::VmmFeature, line, values, None);
    }
    let used = of_libvirt(case.definition).unwrap_or_default();
    for (name, element) in LIBVIRT {
        let (Some(libvirt), Some(line)) = (&vmm.libvirt, used.get(element)) else {
            continue;
        };
        if versions::libvirt_has(libvirt, name) != Some(false) {
            continue;
        }
        let vendor = vendor(LIBVIRT_OF_VENDORS_ALONE, name);
        let (major, minor) = LIBVIRT_SEEN;
        let newer = vendor
            .is_none()
            .then(|| format!("libvirt {major}.{minor} or newer"));
        let values: &[Value<'_>] = &[
            ("feature", element),
            ("vmm", &format!("libvirt {}", libvirt.version)),
            ("newer", &optional(newer)),
            ("vendor", &optional(vendor)),
        ];
        out.add(Code::VmmFeature, *line, values, None);
    }
}

/// Options of the kernel that iommufd and accelerated SMMUs need, and memory of GPUs as KVM maps it.
fn of_kernel(case: &Case<'_>, facts: &Facts, out: &mut Findings) {
    let kernel = &facts.kernel;
    let release = optional(kernel.release.as_ref());
    let newer = |(major, minor): Version| {
        let is_older = kernel.version().is_some_and(|own| own < (major, minor));
        is_older.then(|| format!("{major}.{minor}"))
    };
    let used = of_qemu(case.definition);
    let of_option = |name: &str| kernel.option(name);
    for (feature, option, is_there) in [
        ("iommufd", "IOMMUFD", kernel.iommufd),
        ("iommufd", "VFIO_DEVICE_CDEV", of_option("VFIO_DEVICE_CDEV")),
        (
            "arm-smmuv3.accel",
            "ARM_SMMU_V3_IOMMUFD",
            of_option("ARM_SMMU_V3_IOMMUFD"),
        ),
    ] {
        let Some(line) = used.get(feature).filter(|_| is_there == Some(false)) else {
            continue;
        };
        let mut first = LINUX.iter().filter(|(name, _)| *name == option);
        let newer = first.find_map(|(_, first)| newer(*first));
        let values: &[Value<'_>] = &[
            ("feature", &feature),
            ("release", &release),
            ("option", &option),
            ("newer", &optional(newer)),
        ];
        out.add(Code::KernelFeature, *line, values, None);
        // the others need it
        if option == "IOMMUFD" {
            break;
        }
    }
    let is_device_memory = kernel.kvm.cacheable_pfnmap == Some(false)
        && kernel.kvm.present != Some(false)
        && case.definition.arch == Arch::Aarch64;
    for gpu in case.gpus.iter().filter(|_| is_device_memory) {
        if case.function(gpu).is_none_or(|function| function.is_served) {
            continue;
        }
        let values: &[Value<'_>] = &[
            ("gpu", &gpu.label()),
            ("release", &release),
            ("newer", &optional(newer(LINUX_CACHEABLE_PFNMAP))),
        ];
        out.add(Code::KernelMemory, case.line(gpu), values, None);
    }
}

/// True if the facts are those of the VM's host: it has one of the GPUs, or nothing but what is
/// assumed.
fn is_of_host(case: &Case<'_>, facts: &Facts) -> bool {
    let mut gpus = case.gpus.iter();
    let is_there = |gpu: &Subject| gpu.host.is_some_and(|bdf| facts.function(bdf).is_some());
    facts.functions.is_empty() || gpus.any(is_there)
}

/// Remarks on features that the version alone does not have: a vendor's build may have them.
pub(crate) fn assumed(case: &Case<'_>) -> Vec<String> {
    let Some(vmm) = case.facts.map(|facts| &facts.vmm) else {
        return Vec::new();
    };
    let mut notes = Vec::new();
    if let Some(qemu) = &vmm.qemu {
        let used = of_qemu(case.definition);
        let unsaid = used
            .keys()
            .filter(|name| versions::has(vmm, name).is_none());
        // what every version has is not in the table
        let later = |name: &&String| {
            let first = versions::first_qemu(name);
            vendor(QEMU_OF_VENDORS, name).is_some()
                || first
                    .zip(qemu.number())
                    .is_some_and(|(first, own)| own < first)
        };
        let unsaid: Vec<&str> = unsaid.filter(later).map(String::as_str).collect();
        if !unsaid.is_empty() {
            notes.push(format!(
                "QEMU {} could not be asked for {}, which QEMU of qemu.org has in other versions: a \
                 vendor's build that has them is assumed",
                qemu.version,
                unsaid.join(", ")
            ));
        }
    }
    if let Some(libvirt) = &vmm.libvirt {
        let used = of_libvirt(case.definition).unwrap_or_default();
        let is_unsaid =
            |name| libvirt.number().is_some() && versions::libvirt_has(libvirt, name).is_none();
        let unsaid = LIBVIRT
            .iter()
            .filter(|(name, element)| used.contains_key(element) && is_unsaid(name));
        let unsaid: Vec<&str> = unsaid.map(|(_, element)| *element).collect();
        if !unsaid.is_empty() {
            notes.push(format!(
                "libvirt {} has {} in builds of some vendors alone: such a build is assumed",
                libvirt.version,
                unsaid.join(", ")
            ));
        }
    }
    notes
}
