//! The kernel: release, options, modules, KVM.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use varia_units::Bytes;

/// A kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// What `uname -r` prints.
    #[serde(default)]
    pub release: Option<String>,
    /// Its page size.
    #[serde(default)]
    pub page_size: Option<Bytes>,
    /// The words of its command line that concern IOMMU, VFIO, hugepages and NUMA.
    #[serde(default)]
    pub cmdline: Vec<String>,
    /// Build options without their `CONFIG_`, with `y`, `m` or a value; one that is off is
    /// absent. Only those that matter here; none if no configuration was found.
    #[serde(default)]
    pub config: Option<BTreeMap<String, String>>,
    /// The file that has them.
    #[serde(default)]
    pub config_source: Option<String>,
    /// Modules that matter here, by their names with underscores.
    #[serde(default)]
    pub modules: BTreeMap<String, Module>,
    /// `/dev/vfio/vfio` is there: containers and groups.
    #[serde(default)]
    pub vfio_container: Option<bool>,
    /// `/dev/iommu` is there.
    #[serde(default)]
    pub iommufd: Option<bool>,
    /// KVM.
    #[serde(default)]
    pub kvm: Kvm,
}

impl Kernel {
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
    /// It can be loaded: `modules.dep` has it.
    #[serde(default)]
    pub installed: bool,
    /// It is part of the kernel.
    #[serde(default)]
    pub builtin: bool,
    /// It is loaded, or part of the kernel and running.
    #[serde(default)]
    pub loaded: bool,
    /// What `/sys/module/NAME/version` says.
    #[serde(default)]
    pub version: Option<String>,
    /// `/sys/module/NAME/taint`: `O` for one from outside the kernel's tree.
    #[serde(default)]
    pub taint: Option<String>,
    /// Its parameters that matter here.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The file that would be loaded, as `modinfo` says.
    #[serde(default)]
    pub file: Option<String>,
    /// Who wrote it, as `modinfo` says: tells drivers of one name apart.
    #[serde(default)]
    pub author: Option<String>,
}

impl Module {
    /// It is there, or can be loaded.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.installed || self.builtin || self.loaded
    }
}

/// What KVM can do. Each is none where nobody could ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kvm {
    /// `/dev/kvm` is there.
    #[serde(default)]
    pub present: Option<bool>,
    /// Why it could not be asked.
    #[serde(default)]
    pub error: Option<String>,
    /// `KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED` (243): device memory can be mapped into a guest
    /// as cacheable. The kernel says so only where the CPU has stage-2 forced write-back.
    #[serde(default)]
    pub cacheable_pfnmap: Option<bool>,
    /// Bits of a guest's physical addresses, `KVM_CAP_ARM_VM_IPA_SIZE`.
    #[serde(default)]
    pub ipa_bits: Option<u32>,
    /// The most CPUs of a guest, `KVM_CAP_MAX_VCPUS`.
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
