//! First versions of QEMU, libvirt and Linux with a feature that VMs with GPUs use.
//!
//! A VMM or a kernel that could be asked says by itself what it has. This table is for one that could
//! not: a captured host without its programs, or a version of `--assume`. A vendor's build may have
//! a feature before its version.

use varia_facts::{Libvirt, Vmm};

/// Major and minor version.
pub type Version = (u32, u32);

/// First QEMU with acpi-generic-initiator, which every VM with such GPUs needs.
pub const QEMU_NEEDED: Version = (9, 0);
/// First QEMU with vfio-user-pci, which emulated devices need.
pub const QEMU_WANTED: Version = (10, 1);

/// First versions of QEMU with a device, an object or a property. Source: QEMU's change logs of
/// these versions.
pub const QEMU: &[(&str, Version)] = &[
    ("acpi-generic-initiator", QEMU_NEEDED),
    ("iommufd", (9, 0)),
    ("vfio-pci.iommufd", (9, 0)),
    ("virt.highmem-mmio-size", (10, 0)),
    ("vfio-user-pci", QEMU_WANTED),
    ("arm-smmuv3", (10, 2)),
    ("arm-smmuv3.accel", (11, 0)),
    ("arm-smmuv3.ats", (11, 0)),
    ("arm-smmuv3.oas", (11, 0)),
    ("arm-smmuv3.ril", (11, 0)),
    ("arm-smmuv3.ssidsize", (11, 0)),
];

/// Devices that every QEMU has with which VMs of GPUs run.
pub const QEMU_ALWAYS: &[&str] = &["vfio-pci", "pxb-pcie"];

/// Object of QEMU that ties a GPU to Extended GPU Memory.
pub const EGM_OBJECT: &str = "acpi-egm-memory";

/// Properties of QEMU's SMMU beside those that say where it is.
pub const SMMU_OPTIONS: &[&str] = &["ats", "cmdqv", "oas", "ril", "ssidsize"];

/// Features that no QEMU of qemu.org has up to 11.1, with their source.
pub const QEMU_OF_VENDORS: &[(&str, &str)] = &[
    (
        EGM_OBJECT,
        "NVIDIA's QEMU and the series \"qemu: Implement support for EGM\" for libvirt (RFC v3, \
         November 2025)",
    ),
    (
        "arm-smmuv3.cmdqv",
        "NVIDIA's QEMU, and the tree of qemu.org after 11.1",
    ),
];

/// First QEMU that takes from the host what is not said of an accelerated SMMU (`ril`, `oas`): Grace
/// refuses what older versions take.
pub const QEMU_TAKES_THE_HOSTS: Version = (11, 1);

/// Elements that not every libvirt has, by the names of features.
pub const LIBVIRT: &[(&str, &str)] = &[
    ("acpi-nodeset", "<acpi nodeset>"),
    ("smmu-pcibus", "<driver pciBus> of an SMMU"),
    ("iommufd", "iommufd"),
    (EGM_ELEMENT, "<memory model='egm'>"),
];
/// Feature of libvirt: Extended GPU Memory.
pub const EGM_ELEMENT: &str = "egm";
/// Features of [`LIBVIRT`] that no libvirt of libvirt.org has, with their source.
pub const LIBVIRT_OF_VENDORS_ALONE: &[(&str, &str)] = &[(
    EGM_ELEMENT,
    "NVIDIA's libvirt and the series \"qemu: Implement support for EGM\" (RFC v3, November 2025)",
)];
/// First libvirt of a vendor with an SMMU for each root bus, Generic Initiators and iommufd; the
/// first one of libvirt's own has them later.
pub const LIBVIRT_OF_VENDORS: Version = (11, 9);
/// The libvirt that plans and definitions are tested with.
pub const LIBVIRT_SEEN: Version = (12, 8);

/// First Linux whose KVM gives cacheable device memory to guests
/// (`KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED`).
pub const LINUX_CACHEABLE_PFNMAP: Version = (6, 17);

/// First Linux with an option of its build. A vendor's kernel may have an option before.
/// `VFIO_PCI_DMABUF` lets iommufd map BARs.
pub const LINUX: &[(&str, Version)] = &[
    ("IOMMUFD", (6, 2)),
    ("VFIO_DEVICE_CDEV", (6, 6)),
    ("ARM_SMMU_V3_IOMMUFD", (6, 13)),
    ("VFIO_PCI_DMABUF", (6, 19)),
];

/// First version of QEMU with a feature; `None` if the table does not have the feature.
#[must_use]
pub fn first_qemu(feature: &str) -> Option<Version> {
    let mut table = QEMU.iter();
    let (_, version) = table.find(|(name, _)| *name == feature)?;
    Some(*version)
}

/// True if the QEMU has the feature, by its own reply or else by its version; `None` if neither says
/// so, as for a version whose vendor may have added the feature.
#[must_use]
pub fn has(vmm: &Vmm, feature: &str) -> Option<bool> {
    let qemu = vmm.qemu.as_ref()?;
    let by_version = || {
        let is_new = qemu.number()? >= first_qemu(feature)?;
        is_new.then_some(true)
    };
    let always = || QEMU_ALWAYS.contains(&feature).then_some(true);
    let known = match qemu.features.is_empty() {
        true => by_version(),
        false => {
            // a device with a property that was found is there, too
            let property = format!("{feature}.");
            let mut features = qemu.features.iter();
            let is_device = || {
                let found = features.any(|own| own.present && own.name.starts_with(&property));
                found.then_some(true)
            };
            qemu.has(feature).or_else(is_device)
        }
    };
    known.or_else(always)
}

/// Source of a feature that builds of some vendors alone have.
#[must_use]
pub fn vendor(table: &[(&str, &'static str)], feature: &str) -> Option<&'static str> {
    let (_, source) = table.iter().find(|(name, _)| *name == feature)?;
    Some(source)
}

/// True if a libvirt has a feature of [`LIBVIRT`], as an assumption says or else by its version;
/// `None` if neither says so, as for a version whose vendor may have added the feature.
#[must_use]
pub fn libvirt_has(libvirt: &Libvirt, feature: &str) -> Option<bool> {
    let mut features = libvirt.features.iter();
    if let Some(own) = features.find(|own| own.name == feature) {
        return Some(own.present);
    }
    let of_vendors = vendor(LIBVIRT_OF_VENDORS_ALONE, feature).is_some();
    match libvirt.number()? {
        own if own < LIBVIRT_OF_VENDORS => Some(false),
        own if own >= LIBVIRT_SEEN && !of_vendors => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use varia_facts::{Feature, Qemu};

    #[test]
    fn a_libvirt_has_what_its_version_or_an_assumption_says() {
        let libvirt = |version: &str, features: &[(&str, bool)]| Libvirt {
            version: version.to_owned(),
            features: features
                .iter()
                .map(|(name, present)| Feature {
                    name: (*name).to_owned(),
                    present: *present,
                    ..Feature::default()
                })
                .collect(),
            ..Libvirt::default()
        };
        for (version, features, name, has) in [
            ("9.0.0", &[][..], "iommufd", Some(false)),
            ("11.9.0", &[], "iommufd", None),
            ("12.8.0", &[], "iommufd", Some(true)),
            ("of today", &[], "iommufd", None),
            ("9.0.0", &[("iommufd", true)], "iommufd", Some(true)),
            ("9.0.0", &[], EGM_ELEMENT, Some(false)),
            ("12.8.0", &[], EGM_ELEMENT, None),
            ("12.8.0", &[(EGM_ELEMENT, false)], EGM_ELEMENT, Some(false)),
            ("12.8.0", &[(EGM_ELEMENT, true)], EGM_ELEMENT, Some(true)),
        ] {
            let own = libvirt(version, features);
            assert_eq!(
                libvirt_has(&own, name),
                has,
                "{version} {features:?} {name}"
            );
        }
    }

    #[test]
    fn a_reply_counts_before_the_version() {
        let vmm = |version: &str, features: Vec<Feature>| Vmm {
            qemu: Some(Qemu {
                version: version.to_owned(),
                features,
                ..Qemu::default()
            }),
            ..Vmm::default()
        };
        let asked = |present| {
            vec![Feature {
                name: "iommufd".to_owned(),
                present,
                ..Feature::default()
            }]
        };
        assert_eq!(has(&vmm("8.0.0", asked(true)), "iommufd"), Some(true));
        assert_eq!(has(&vmm("11.1.0", asked(false)), "iommufd"), Some(false));
        assert_eq!(has(&vmm("11.1.0", asked(true)), "vfio-user-pci"), None);
        assert_eq!(has(&vmm("9.0.0", Vec::new()), "iommufd"), Some(true));
        assert_eq!(has(&vmm("8.2.2", Vec::new()), "iommufd"), None);
        assert_eq!(has(&vmm("11.1.0", Vec::new()), EGM_OBJECT), None);
        assert_eq!(has(&Vmm::default(), "iommufd"), None);
        assert_eq!(has(&vmm("9.0.0", Vec::new()), "pxb-pcie"), Some(true));
        assert_eq!(has(&vmm("9.0.0", asked(true)), "pxb-pcie"), Some(true));
        let mut without = asked(false);
        without[0].name = "pxb-pcie".to_owned();
        assert_eq!(has(&vmm("9.0.0", without), "pxb-pcie"), Some(false));
    }
}
