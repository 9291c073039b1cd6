//! Programs that run virtual machines: QEMU, libvirt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// VMMs of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmm {
    /// QEMU for the machine's architecture.
    #[serde(default)]
    pub qemu: Option<Qemu>,
    /// libvirt's daemon.
    #[serde(default)]
    pub libvirt: Option<Libvirt>,
    /// Reasons for missing facts, by `qemu`, `qemu-features` or `libvirt`.
    #[serde(default)]
    pub unknown: BTreeMap<String, String>,
}

/// A QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Path of the program.
    pub path: String,
    /// Version, such as 11.1.0.
    pub version: String,
    /// Command or request that returned the version.
    #[serde(default)]
    pub source: String,
    /// Features for GPUs in VMs, present and absent; empty if QEMU could not be queried.
    #[serde(default)]
    pub features: Vec<Feature>,
}

/// A feature that a QEMU has or lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// A device or an object (`acpi-generic-initiator`), or a property of a device or object
    /// (`arm-smmuv3.accel`).
    pub name: String,
    /// True if the QEMU has the feature.
    pub present: bool,
    /// Request that returned this fact.
    #[serde(default)]
    pub source: String,
}

impl Qemu {
    /// Major and minor version.
    #[must_use]
    pub fn number(&self) -> Option<(u32, u32)> {
        number(&self.version)
    }

    /// True if QEMU has the feature; `None` if QEMU was not queried for the feature.
    #[must_use]
    pub fn has(&self, name: &str) -> Option<bool> {
        let mut features = self.features.iter();
        let feature = features.find(|feature| feature.name == name)?;
        Some(feature.present)
    }
}

/// A libvirt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Libvirt {
    /// Version, such as 12.8.0.
    pub version: String,
    /// Command that returned the version.
    #[serde(default)]
    pub source: String,
    /// Features that are known beside the version: those of an assumption.
    #[serde(default)]
    pub features: Vec<Feature>,
}

impl Libvirt {
    /// True if the libvirt is known to have the feature.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut features = self.features.iter();
        features.any(|feature| feature.name == name && feature.present)
    }

    /// Major and minor version.
    #[must_use]
    pub fn number(&self) -> Option<(u32, u32)> {
        number(&self.version)
    }
}

fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_is_not_absent() {
        let feature = |name: &str, present| Feature {
            name: name.to_owned(),
            present,
            ..Feature::default()
        };
        let qemu = Qemu {
            version: "11.1.2".to_owned(),
            features: vec![feature("iommufd", true), feature("vfio-pci", false)],
            ..Qemu::default()
        };
        assert_eq!(qemu.number(), Some((11, 1)));
        assert_eq!(qemu.has("iommufd"), Some(true));
        assert_eq!(qemu.has("vfio-pci"), Some(false));
        assert_eq!(qemu.has("arm-smmuv3"), None);
    }
}
