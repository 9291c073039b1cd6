//! Features of QEMU and libvirt that a plan uses, and those that the host's programs lack.

use std::collections::BTreeSet;

use varia_facts::Vmm;

use crate::error::Error;
use crate::gpu::Source;
use crate::plan::{Iommu, Plan, Socket};
use crate::qemu::{Argument, arguments};
use crate::versions::{self, EGM_ELEMENT, LIBVIRT, LIBVIRT_SEEN};

/// Devices, objects and machines in a plan's arguments, and properties that are set.
#[must_use]
pub fn of_qemu(plan: &Plan) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for Argument { option, value, .. } in arguments(plan) {
        // JSON names its driver elsewhere
        if !["-device", "-object", "-machine"].contains(&option) || value.starts_with('{') {
            continue;
        }
        let mut words = value.split(',');
        let Some(kind) = words.next() else { continue };
        used.insert(kind.to_owned());
        let properties = words.filter_map(|word| word.split_once('='));
        used.extend(properties.map(|(name, _)| format!("{kind}.{name}")));
    }
    let mut sources = plan.gpus.iter().map(|gpu| &gpu.memory.source);
    if sources.any(|source| matches!(source, Source::VfioUser(_))) {
        used.insert("vfio-user-pci".to_owned());
    }
    used
}

/// Names of [`LIBVIRT`] whose elements are in a plan's domain.
fn of_libvirt(plan: &Plan) -> Vec<&'static str> {
    let mut used = Vec::new();
    if plan
        .gpus
        .iter()
        .any(|gpu| gpu.memory.nodes().next().is_some())
    {
        used.push("acpi-nodeset");
    }
    if let Iommu::Iommufd { smmu } = plan.iommu {
        used.push("iommufd");
        used.extend(smmu.then_some("smmu-pcibus"));
    }
    if plan.sockets.iter().any(Socket::is_egm) {
        used.push(EGM_ELEMENT);
    }
    used
}

/// Checks that the host's QEMU, and for a domain also libvirt, have what a plan uses. A feature that
/// nothing says is absent counts as present: vendors' builds have features before their version.
/// Extended GPU Memory is the exception, which a libvirt has to be said to have.
///
/// # Errors
/// [`Error::Lacks`] with the first feature that is absent, [`Error::EgmLibvirt`].
pub fn check(vmm: &Vmm, plan: &Plan, is_domain: bool) -> Result<(), Error> {
    let is_absent = |feature: &String| versions::has(vmm, feature) == Some(false);
    if let (Some(qemu), Some(feature)) = (&vmm.qemu, of_qemu(plan).into_iter().find(is_absent)) {
        let remedy = match versions::first_qemu(&feature) {
            Some((major, minor)) => format!("use QEMU {major}.{minor} or newer"),
            None => "use a build of QEMU that has it".to_owned(),
        };
        return Err(Error::Lacks {
            program: format!("QEMU {}", qemu.version),
            feature,
            remedy,
        });
    }
    if !is_domain {
        return Ok(());
    }
    let used = of_libvirt(plan);
    let libvirt = vmm.libvirt.as_ref();
    if used.contains(&EGM_ELEMENT)
        && libvirt.and_then(|own| versions::libvirt_has(own, EGM_ELEMENT)) != Some(true)
    {
        return Err(Error::EgmLibvirt {
            libvirt: libvirt.map_or("libvirt".to_owned(), |own| {
                format!("libvirt {}", own.version)
            }),
        });
    }
    let Some(libvirt) = libvirt else {
        return Ok(());
    };
    let mut used = LIBVIRT.iter().filter(|(name, _)| used.contains(name));
    match used.find(|(name, _)| versions::libvirt_has(libvirt, name) == Some(false)) {
        None => Ok(()),
        Some((_, element)) => Err(Error::Lacks {
            program: format!("libvirt {}", libvirt.version),
            feature: (*element).to_owned(),
            remedy: format!(
                "use libvirt {}.{} or newer, or plan with --vmm qemu",
                LIBVIRT_SEEN.0, LIBVIRT_SEEN.1
            ),
        }),
    }
}
