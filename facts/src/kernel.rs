//! The kernel: release, options, modules, KVM.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use varia_units::Bytes;

/// A kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Release, as `uname -r` prints it.
    #[serde(default)]
    pub release: Option<String>,
    /// Base page size.
    #[serde(default)]
    pub page_size: Option<Bytes>,
    /// Words of the command line that concern IOMMU, VFIO, hugepages and NUMA.
    #[serde(default)]
    pub cmdline: Vec<String>,
    /// Build options without their `CONFIG_`, with `y`, `m` or a value; an option that is off
    /// is absent, or `n`. Only the options that Varia needs; `None` if no configuration was found.
    #[serde(default)]
    pub config: Option<BTreeMap<String, String>>,
    /// True if options that `config` does not have are not known, for a kernel that is assumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub config_is_partial: bool,
    /// File of the configuration.
    #[serde(default)]
    pub config_source: Option<String>,
    /// Modules that Varia needs, by name with underscores.
    #[serde(default)]
    pub modules: BTreeMap<String, Module>,
    /// True if `/dev/vfio/vfio` exists: containers and groups.
    #[serde(default)]
    pub vfio_container: Option<bool>,
    /// True if `/dev/iommu` exists.
    #[serde(default)]
    pub iommufd: Option<bool>,
    /// Capabilities of KVM.
    #[serde(default)]
    pub kvm: Kvm,
}

impl Kernel {
    /// True if the kernel is built with this option, named without `CONFIG_`; `None` if that is not
    /// known.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<bool> {
        match self.config.as_ref()?.get(name) {
            Some(value) => Some(value != "n"),
            None => (!self.config_is_partial).then_some(false),
        }
    }

    /// Version and patch level: 6 and 17 of `6.17.4-64k`.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.as_deref()?.split(['.', '-', '+']);
        let version = numbers.next()?.parse().ok()?;
        Some((version, numbers.next()?.parse().ok()?))
    }
}

/// A kernel module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// True if the module can be loaded: `modules.dep` lists the module.
    #[serde(default)]
    pub installed: bool,
    /// True if the module is built into the kernel.
    #[serde(default)]
    pub builtin: bool,
    /// True if the module is loaded, or built in and running.
    #[serde(default)]
    pub loaded: bool,
    /// Content of `/sys/module/NAME/version`.
    #[serde(default)]
    pub version: Option<String>,
    /// Content of `/sys/module/NAME/taint`: `O` for a module from outside the kernel's tree.
    #[serde(default)]
    pub taint: Option<String>,
    /// Parameters that Varia needs.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// File that would be loaded, by `modinfo`.
    #[serde(default)]
    pub file: Option<String>,
    /// Author by `modinfo`, which distinguishes drivers with one name.
    #[serde(default)]
    pub author: Option<String>,
}

impl Module {
    /// True if the module is loaded or built in, or can be loaded.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.installed || self.builtin || self.loaded
    }
}

/// Capabilities of KVM, each `None` if it could not be queried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kvm {
    /// True if `/dev/kvm` exists.
    #[serde(default)]
    pub present: Option<bool>,
    /// Reason why KVM could not be queried.
    #[serde(default)]
    pub error: Option<String>,
    /// `KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED` (243): device memory can be mapped into a guest
    /// as cacheable. The kernel reports the capability only on CPUs with stage-2 forced write-back.
    #[serde(default)]
    pub cacheable_pfnmap: Option<bool>,
    /// Bits of a guest's physical addresses, `KVM_CAP_ARM_VM_IPA_SIZE`.
    #[serde(default)]
    pub ipa_bits: Option<u32>,
    /// Largest number of CPUs of a guest, `KVM_CAP_MAX_VCPUS`.
    #[serde(default)]
    pub max_vcpus: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_gives_its_version() {
        let version = |release: &str| {
            let release = Some(release.to_owned());
            Kernel {
                release,
                ..Kernel::default()
            }
            .version()
        };
        assert_eq!(version("6.17.4-64k"), Some((6, 17)));
        assert_eq!(version("7.2.12+deb14-arm64-16k"), Some((7, 2)));
        assert_eq!(version("6.8-rc1"), Some((6, 8)));
        assert_eq!(version("next"), None);
    }
}
