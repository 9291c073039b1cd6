//! QEMU and libvirt of the host: features that the definition uses and that they lack.

use varia_plan::versions::{
    self, LIBVIRT, LIBVIRT_OF_VENDORS_ALONE, LIBVIRT_SEEN, QEMU_OF_VENDORS, vendor,
};

use crate::case::Case;
use crate::finding::{Code, Findings, Value, optional};
use crate::needs::{of_libvirt, of_qemu};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let Some(vmm) = case.facts.map(|facts| &facts.vmm) else {
        return;
    };
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
