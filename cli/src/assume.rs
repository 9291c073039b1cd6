//! Versions of `--assume`: a QEMU, a libvirt or a kernel that can't be asked.

use std::str::FromStr;

use varia_facts::{Arch, Facts, Feature, Kernel, Libvirt, Qemu};
use varia_plan::versions::{
    LIBVIRT, LIBVIRT_OF_VENDORS_ALONE, LINUX, LINUX_CACHEABLE_PFNMAP, QEMU, QEMU_ALWAYS,
    QEMU_OF_VENDORS, Version, libvirt_has, vendor,
};

/// Source of the facts, as facts name it.
const SOURCE: &str = "--assume";

/// An assumed program or kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Assume {
    of: Of,
    version: String,
    features: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Qemu,
    Libvirt,
    Kernel,
}

impl FromStr for Assume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not QEMU, LIBVIRT or KERNEL with a version and features: write for \
                 example QEMU=11.1, LIBVIRT=12.8 or KERNEL=6.17+VFIO_PCI_DMABUF"
            )
        };
        let (of, rest) = text.split_once('=').ok_or_else(wrong)?;
        let of = match of.to_ascii_uppercase().as_str() {
            "QEMU" => Of::Qemu,
            "LIBVIRT" => Of::Libvirt,
            "KERNEL" => Of::Kernel,
            _ => return Err(wrong()),
        };
        let (version, features) = rest.split_once('+').unwrap_or((rest, ""));
        let features = features.split([',', '+']).filter(|name| !name.is_empty());
        let assume = Self {
            of,
            version: version.to_owned(),
            features: features.map(str::to_owned).collect(),
        };
        assume.number().ok_or_else(wrong)?;
        assume.check()?;
        Ok(assume)
    }
}

impl Assume {
    /// Refuses features that no rule asks for: they would be ignored.
    fn check(&self) -> Result<(), String> {
        let known: Vec<&str> = match self.of {
            Of::Qemu => {
                let own = QEMU.iter().map(|(name, _)| *name);
                own.chain(QEMU_OF_VENDORS.iter().map(|(name, _)| *name))
                    .collect()
            }
            Of::Libvirt => LIBVIRT.iter().map(|(name, _)| *name).collect(),
            Of::Kernel => Vec::new(),
        };
        let mut features = self.features.iter();
        if self.of == Of::Kernel {
            let is_option = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            return match features.find(|name| !name.chars().all(is_option)) {
                Some(name) => Err(format!(
                    "{name:?} is no option of a kernel's build: write for example \
                     KERNEL=6.17+VFIO_PCI_DMABUF, the version without a part behind a +"
                )),
                None => Ok(()),
            };
        }
        match features.find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!(
                "{name:?} is no feature that Varia knows of; those are {}",
                known.join(", ")
            )),
            None => Ok(()),
        }
    }

    fn number(&self) -> Option<Version> {
        match self.of {
            Of::Qemu | Of::Libvirt => Qemu {
                version: self.version.clone(),
                ..Qemu::default()
            }
            .number(),
            Of::Kernel => Kernel {
                release: Some(self.version.clone()),
                ..Kernel::default()
            }
            .version(),
        }
    }

    /// A feature that is named, or whose property is.
    fn has(&self, name: &str) -> bool {
        let is_property = |own: &str| {
            own.split_once('.')
                .is_some_and(|(device, _)| device == name)
        };
        let mut features = self.features.iter();
        features.any(|own| own == name || is_property(own))
    }

    fn feature(&self, name: &str, present: bool) -> Feature {
        Feature {
            name: name.to_owned(),
            present: present || self.has(name),
            source: SOURCE.to_owned(),
        }
    }
}

/// Puts assumed versions in the place of those of the facts. What `--assume` does not name stays.
pub(crate) fn apply(facts: &mut Facts, all: &[Assume]) {
    for assume in all {
        match assume.of {
            Of::Qemu => qemu(facts, assume),
            Of::Libvirt => libvirt(facts, assume),
            Of::Kernel => kernel(facts, assume),
        }
    }
}

fn qemu(facts: &mut Facts, assume: &Assume) {
    let arch = facts.host.arch.unwrap_or(Arch::Aarch64);
    let old = facts.vmm.qemu.take();
    let mut qemu = Qemu {
        path: old.map_or_else(|| format!("qemu-system-{arch}"), |old| old.path),
        version: assume.version.clone(),
        source: SOURCE.to_owned(),
        features: Vec::new(),
    };
    let number = assume.number();
    let own = QEMU.iter().map(|(name, first)| {
        let present = number.is_some_and(|number| number >= *first);
        assume.feature(name, present)
    });
    let vendors = QEMU_OF_VENDORS.iter();
    let vendors = vendors.map(|(name, _)| assume.feature(name, false));
    let every = QEMU_ALWAYS.iter();
    let every = every.map(|name| assume.feature(name, true));
    qemu.features = own.chain(vendors).chain(every).collect();
    for why in ["qemu", "qemu-features"] {
        facts.vmm.unknown.remove(why);
    }
    facts.vmm.qemu = Some(qemu);
}

fn libvirt(facts: &mut Facts, assume: &Assume) {
    let mut libvirt = Libvirt {
        version: assume.version.clone(),
        source: SOURCE.to_owned(),
        features: Vec::new(),
    };
    // what is only a vendor's is not there unless it is named
    let known = LIBVIRT.iter().filter_map(|(name, _)| {
        let by_version = libvirt_has(&libvirt, name);
        let is_vendors = vendor(LIBVIRT_OF_VENDORS_ALONE, name).is_some();
        let present = match assume.has(name) {
            true => Some(true),
            false => by_version.or(is_vendors.then_some(false)),
        };
        Some(assume.feature(name, present?))
    });
    libvirt.features = known.collect();
    facts.vmm.libvirt = Some(libvirt);
    facts.vmm.unknown.remove("libvirt");
}

fn kernel(facts: &mut Facts, assume: &Assume) {
    let kernel = &mut facts.kernel;
    if kernel.version() != assume.number() {
        // the options are another kernel's
        kernel.config = None;
        kernel.config_is_partial = false;
        kernel.iommufd = None;
    }
    kernel.release = Some(assume.version.clone());
    kernel.kvm.cacheable_pfnmap = assume
        .number()
        .map(|number| number >= LINUX_CACHEABLE_PFNMAP);
    let named: Vec<&str> = assume
        .features
        .iter()
        .map(|name| name.strip_prefix("CONFIG_").unwrap_or(name))
        .collect();
    let number = assume.number();
    let is_older = |first| number.is_some_and(|number| number < first);
    let later = LINUX.iter().filter(|(_, first)| is_older(*first));
    let later = later.map(|(name, _)| *name);
    let absent: Vec<&str> = later.filter(|name| !named.contains(name)).collect();
    if named.contains(&"IOMMUFD") || named.contains(&"VFIO_DEVICE_CDEV") {
        kernel.iommufd = Some(true);
    } else if absent.contains(&"IOMMUFD") {
        kernel.iommufd = Some(false);
    }
    if named.is_empty() && absent.is_empty() {
        return;
    }
    kernel.config_is_partial |= kernel.config.is_none();
    let config = kernel.config.get_or_insert_default();
    let named = named.into_iter().map(|name| (name, "y"));
    let absent = absent.into_iter().map(|name| (name, "n"));
    config.extend(
        named
            .chain(absent)
            .map(|(name, is)| (name.to_owned(), is.to_owned())),
    );
}

#[cfg(test)]
mod tests {
    use varia_facts::{Host, Kernel, Vmm};

    use super::*;

    fn assumed(texts: &[&str]) -> Facts {
        let mut facts = Facts::new(Host::default(), Kernel::default(), Vmm::default());
        let all: Vec<Assume> = texts.iter().map(|text| text.parse().expect(text)).collect();
        apply(&mut facts, &all);
        facts
    }

    #[test]
    fn a_version_has_the_features_of_its_release_and_those_that_are_named() {
        let facts = assumed(&["QEMU=10.1.0nvidia1+acpi-egm-memory,arm-smmuv3.accel"]);
        let qemu = facts.vmm.qemu.expect("a QEMU");
        for (name, has) in [
            ("iommufd", true),
            ("vfio-user-pci", true),
            ("arm-smmuv3", true),
            ("pxb-pcie", true),
            ("arm-smmuv3.accel", true),
            ("arm-smmuv3.ats", false),
            ("acpi-egm-memory", true),
        ] {
            assert_eq!(qemu.has(name), Some(has), "{name}");
        }
        assert_eq!(
            assumed(&["qemu=11.1"])
                .vmm
                .qemu
                .expect("a QEMU")
                .has("acpi-egm-memory"),
            Some(false)
        );
    }

    #[test]
    fn a_kernel_has_its_options_and_a_libvirt_its_version() {
        let facts = assumed(&[
            "KERNEL=6.17.0-1014-nvidia-64k+CONFIG_VFIO_PCI_DMABUF,VFIO_DEVICE_CDEV",
            "LIBVIRT=11.9+iommufd",
        ]);
        let config = facts.kernel.config.expect("options");
        assert_eq!(
            config.keys().collect::<Vec<_>>(),
            ["VFIO_DEVICE_CDEV", "VFIO_PCI_DMABUF"]
        );
        assert_eq!(facts.kernel.iommufd, Some(true));
        // what is not named is not known to be absent
        let option = |name: &str| {
            assumed(&["KERNEL=6.17+VFIO_PCI_DMABUF"])
                .kernel
                .option(name)
        };
        assert_eq!(option("VFIO_PCI_DMABUF"), Some(true));
        assert_eq!(option("VFIO_DEVICE_CDEV"), None);
        assert_eq!(facts.kernel.kvm.cacheable_pfnmap, Some(true));
        let old = assumed(&["KERNEL=6.8"]).kernel;
        assert_eq!((old.kvm.cacheable_pfnmap, old.iommufd), (Some(false), None));
        // 6.8 is older than the third
        let options = ["IOMMUFD", "VFIO_DEVICE_CDEV", "ARM_SMMU_V3_IOMMUFD"];
        let options = options.map(|name| old.option(name));
        assert_eq!(options, [None, None, Some(false)]);
        assert_eq!(assumed(&["KERNEL=5.15"]).kernel.iommufd, Some(false));
        let vendors = assumed(&["KERNEL=5.15+IOMMUFD,VFIO_DEVICE_CDEV"]).kernel;
        assert_eq!(vendors.option("VFIO_DEVICE_CDEV"), Some(true));
        assert_eq!(vendors.option("VFIO_PCI_DMABUF"), Some(false));
        assert_eq!(vendors.iommufd, Some(true));
        let libvirt = facts.vmm.libvirt.expect("a libvirt");
        assert_eq!(libvirt.number(), Some((11, 9)));
        assert!(libvirt.has("iommufd"));
    }

    #[test]
    fn an_assumed_kernel_has_no_option_of_the_kernel_that_was_found() {
        let found = Kernel {
            release: Some("5.15.0-100".to_owned()),
            config: Some([("IOMMUFD".to_owned(), "y".to_owned())].into()),
            iommufd: Some(false),
            ..Kernel::default()
        };
        let with = |text: &str| {
            let mut facts = Facts::new(Host::default(), found.clone(), Vmm::default());
            apply(&mut facts, &[text.parse().expect(text)]);
            facts.kernel
        };
        let newer = with("KERNEL=6.19");
        assert_eq!((newer.iommufd, newer.option("IOMMUFD")), (None, None));
        let newer = with("KERNEL=6.19+VFIO_PCI_DMABUF");
        assert_eq!(newer.option("VFIO_PCI_DMABUF"), Some(true));
        assert_eq!(newer.option("VFIO_DEVICE_CDEV"), None);
        // the same kernel has its own options still
        assert_eq!(with("KERNEL=5.15.0-200").option("IOMMUFD"), Some(false));
    }

    #[test]
    fn what_is_no_version_or_no_feature_is_refused() {
        for text in [
            "QEMU",
            "QEMU=",
            "QEMU=new",
            "XEN=4.19",
            "=1.2",
            "KERNEL=+VFIO",
        ] {
            assert!(text.parse::<Assume>().is_err(), "{text}");
        }
        let error = "QEMU=11.1+iommufdd".parse::<Assume>().expect_err("a typo");
        assert!(
            error.contains("\"iommufdd\"") && error.contains("iommufd,"),
            "{error}"
        );
    }
}
