//! QEMU and libvirt of the host: features that the definition uses and that they lack.

use varia_plan::versions::{self, LIBVIRT, LIBVIRT_OF_VENDORS, LIBVIRT_SEEN, QEMU_OF_VENDORS};

use crate::case::Case;
use crate::finding::{Code, Findings, Value, optional};
use crate::needs::{of_libvirt, of_qemu};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let Some(vmm) = case.facts.map(|facts| &facts.vmm) else {
        return;
    };
    let line = case.definition.machine.place.line;
    let qemu = vmm
        .qemu
        .as_ref()
        .map(|qemu| format!("QEMU {}", qemu.version));
    for feature in of_qemu(case.definition) {
        if versions::has(vmm, &feature) != Some(false) {
            continue;
        }
        let first = versions::first_qemu(&feature);
        let newer = first.map(|(major, minor)| format!("QEMU {major}.{minor} or newer"));
        let mut vendors = QEMU_OF_VENDORS.iter();
        let vendor = vendors.find(|(name, _)| *name == feature);
        let values: &[Value<'_>] = &[
            ("feature", &feature),
            ("vmm", &optional(qemu.as_ref())),
            ("newer", &optional(newer)),
            ("vendor", &optional(vendor.map(|(_, source)| source))),
        ];
        out.add(Code::VmmFeature, line, values, None);
    }
    let libvirt = vmm.libvirt.as_ref();
    let old = libvirt.filter(|own| own.number().is_some_and(|own| own < LIBVIRT_OF_VENDORS));
    for (name, element) in LIBVIRT {
        let is_used = of_libvirt(case.definition).is_some_and(|used| used.contains(*element));
        let Some(own) = old.filter(|own| is_used && !own.has(name)) else {
            continue;
        };
        let (major, minor) = LIBVIRT_SEEN;
        let values: &[Value<'_>] = &[
            ("feature", element),
            ("vmm", &format!("libvirt {}", own.version)),
            ("newer", &format!("libvirt {major}.{minor} or newer")),
        ];
        out.add(Code::VmmFeature, line, values, None);
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
            .iter()
            .filter(|name| versions::has(vmm, name).is_none());
        // what every version has is not in the table
        let later = |name: &&String| {
            let first = versions::first_qemu(name);
            let is_vendors = QEMU_OF_VENDORS.iter().any(|(own, _)| own == *name);
            is_vendors
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
    let number = vmm.libvirt.as_ref().and_then(|own| own.number());
    let is_between = number.is_some_and(|own| own >= LIBVIRT_OF_VENDORS && own < LIBVIRT_SEEN);
    if let (true, Some(libvirt)) = (is_between, &vmm.libvirt) {
        let used = of_libvirt(case.definition).unwrap_or_default();
        let unsaid = LIBVIRT
            .iter()
            .filter(|(name, element)| used.contains(*element) && !libvirt.has(name));
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
