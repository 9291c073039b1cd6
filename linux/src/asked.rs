//! Facts that only the running system knows, not its files: page size, limits, KVM, device nodes.
//!
//! A captured host contains these facts in the file [`PATH`].

use serde::{Deserialize, Serialize};
use varia_facts::{Arch, Bytes, Kvm, Limit};

use crate::inventory::{Reading, arch_here};
use crate::tree::Tree;

/// Path of these facts in a captured host.
pub(crate) const PATH: &str = "varia/asked.json";

/// Facts from the running system; all absent for a sysfs alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) arch: Option<Arch>,
    pub(crate) page_size: Option<Bytes>,
    pub(crate) memlock: Option<Limit>,
    pub(crate) vfio_container: Option<bool>,
    pub(crate) iommufd: Option<bool>,
    #[serde(default)]
    pub(crate) kvm: Kvm,
}

impl Asked {
    pub(crate) fn of(reading: &Reading<'_>) -> Self {
        let tree = reading.tree;
        if !tree.is_live() {
            let Some(text) = reading.text(PATH) else {
                return Self::default();
            };
            return serde_json::from_str(&text).unwrap_or_else(|error| {
                reading.note(PATH, error.to_string());
                Self::default()
            });
        }
        Self {
            arch: arch_here(),
            page_size: Some(Bytes(varia_sys::mapping::page_size() as u64)),
            memlock: Some(match varia_sys::limits::memlock() {
                Some(bytes) => Limit::Bytes(Bytes(bytes)),
                None => Limit::Unlimited,
            }),
            vfio_container: Some(tree.exists("dev/vfio/vfio")),
            iommufd: Some(tree.exists("dev/iommu")),
            kvm: kvm(tree),
        }
    }
}

fn kvm(tree: &Tree) -> Kvm {
    if !tree.exists("dev/kvm") {
        return Kvm {
            present: Some(false),
            ..Kvm::default()
        };
    }
    let kvm = Kvm {
        present: Some(true),
        ..Kvm::default()
    };
    match varia_sys::kvm::capabilities() {
        Ok(capabilities) => Kvm {
            cacheable_pfnmap: capabilities.cacheable_pfnmap,
            ipa_bits: capabilities.ipa_bits,
            max_vcpus: Some(capabilities.max_vcpus),
            ..kvm
        },
        Err(errno) => Kvm {
            error: Some(errno.name().to_owned()),
            ..kvm
        },
    }
}
