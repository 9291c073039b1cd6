//! What could run virtual machines: QEMU, libvirt.

use serde::{Deserialize, Serialize};

/// The VMMs that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmm {
    /// QEMU for the machine's architecture.
    #[serde(default)]
    pub qemu: Option<Qemu>,
    /// libvirt's daemon.
    #[serde(default)]
    pub libvirt: Option<Libvirt>,
}

/// A QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Where it is.
    pub path: String,
    /// Its version, such as 11.1.0.
    pub version: String,
    /// Of the devices and objects that GPUs in a VM need, those that it has, such as
    /// `acpi-generic-initiator`, `iommufd`, `arm-smmuv3`.
    #[serde(default)]
    pub features: Vec<String>,
}

impl Qemu {
    /// Major and minor version.
    #[must_use]
    pub fn number(&self) -> Option<(u32, u32)> {
        number(&self.version)
    }
}

/// A libvirt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Libvirt {
    /// Its version, such as 12.8.0.
    pub version: String,
}

impl Libvirt {
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
