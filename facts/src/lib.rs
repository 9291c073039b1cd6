//! Facts of a host, of its PCI functions, its kernel and its VMM: plain data.
//!
//! The inventory (crate `linux`) writes facts; planners, checks and cluster tools read them. This
//! crate decides nothing and reads no host. An unknown fact is absent (`None`, or an empty list),
//! never a default. The JSON has a version, [`SCHEMA`]: fields may be added within a version, a
//! reader ignores unknown fields, and refuses a file of another version.
//!
//! | module | contents |
//! |---|---|
//! | `ids` | PCI addresses, numbers of nodes and groups, lists of CPUs |
//! | `pci` | PCI functions, their BARs, coherent memory |
//! | `host` | CPUs, NUMA nodes, hugepages, IOMMU groups |
//! | `kernel` | release, options, modules, KVM |
//! | `platform` | facts of firmware about one function: device tree, zPCI |
//! | `root` | functions beside it, registers that firmware has written |
//! | `vmm` | QEMU, libvirt |

mod host;
mod ids;
mod kernel;
mod pci;
mod platform;
mod root;
mod vmm;

pub use host::{
    EgmDevice, Host, HugePages, Iommu, IommuGroup, Limit, NumaNode, Speed, egm_number, egm_path,
    egm_pxm,
};
pub use ids::{Bdf, BdfError, CpuList, CpuListError, GroupId, NodeId};
pub use kernel::{Kernel, Kvm, Module};
pub use pci::{
    BarKind, CoherentMemory, CoherentSource, EgmMemory, OnlineMemory, PciFunction, PhysicalBar,
    VirtualBar,
};
pub use platform::{
    BadPlatform, DeviceTree, HexBytes, Number, PLATFORM_SCHEMA, PlatformFacts, PlatformMemory,
    TreeNode, ZpciFacts,
};
pub use root::{ConfigDword, RootFunction};
pub use varia_units::{Arch, Bytes, HostPhys};
pub use vmm::{Feature, Libvirt, Qemu, Vmm};

use serde::{Deserialize, Deserializer, Serialize, de};

/// The version of the JSON's schema.
pub const SCHEMA: &str = "varia-facts/1";

/// Facts of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// [`SCHEMA`].
    #[serde(deserialize_with = "schema")]
    pub schema: String,
    /// Hardware of the machine.
    pub host: Host,
    /// Kernel of the machine.
    pub kernel: Kernel,
    /// Programs that can run virtual machines on the machine.
    #[serde(default)]
    pub vmm: Vmm,
    /// PCI functions, by address.
    #[serde(default)]
    pub functions: Vec<PciFunction>,
    /// Files that could not be read or parsed.
    #[serde(default)]
    pub unread: Vec<Unread>,
}

/// A file that could not be read or parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Path from the root.
    pub path: String,
    /// Fault of the file.
    pub why: String,
}

impl Facts {
    /// Facts of a machine without its PCI functions.
    #[must_use]
    pub fn new(host: Host, kernel: Kernel, vmm: Vmm) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            host,
            kernel,
            vmm,
            functions: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// The function at an address.
    #[must_use]
    pub fn function(&self, bdf: Bdf) -> Option<&PciFunction> {
        self.functions.iter().find(|function| function.bdf == bdf)
    }
}

fn schema<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let found = String::deserialize(from)?;
    if found == SCHEMA {
        return Ok(found);
    }
    Err(de::Error::custom(format!(
        "the facts have schema {found:?}, and this program reads {SCHEMA:?}: write the facts again \
         with `varia list --facts` of this program"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_by_its_name() {
        let mut facts = serde_json::to_value(Facts::new(
            Host::default(),
            Kernel::default(),
            Vmm::default(),
        ))
        .unwrap();
        serde_json::from_value::<Facts>(facts.clone()).unwrap();
        facts["schema"] = "varia-facts/2".into();
        let error = serde_json::from_value::<Facts>(facts).unwrap_err();
        assert!(error.to_string().contains("\"varia-facts/2\""), "{error}");
    }

    #[test]
    fn a_field_of_a_later_program_is_ignored() {
        let mut facts = serde_json::to_value(Facts::new(
            Host::default(),
            Kernel::default(),
            Vmm::default(),
        ))
        .unwrap();
        facts["host"]["colour"] = "green".into();
        serde_json::from_value::<Facts>(facts).unwrap();
    }
}
