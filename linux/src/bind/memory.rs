//! Memory of a bound GPU: a driver can take a GPU and decline to serve the GPU's coherent memory, so
//! that a VM gets the BARs alone.
//!
//! Varia's module says so in debugfs (docs/kernel.md). The kernel's own driver says so nowhere; then
//! the firmware's properties, by which that driver decides, are the source.

use std::fmt;

use serde::{Deserialize, Serialize};
use varia_facts::{Bdf, PciFunction};
use varia_spec::Errno;
use varia_spec::nvidia::chip::{Driver, Identity};
use varia_spec::nvidia::property;
use varia_variant::Decline;

use crate::inventory::{Extent, Inventory};
use crate::matching::{module_name, same_name};
use crate::tree::{TABLES, Tree};

/// Begin of vendor and of product in the firmware of virtual machines. A cloud's machine may be the
/// hardware itself, so that a cloud's name alone tells nothing.
const VIRTUAL: [(&str, &str); 8] = [
    ("QEMU", ""),
    ("KVM", ""),
    ("Red Hat", "KVM"),
    ("OpenStack Foundation", ""),
    ("KubeVirt", ""),
    ("VMware", ""),
    ("Xen", ""),
    ("Microsoft Corporation", "Virtual Machine"),
];

/// Lack of a GPU's memory in a VM, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The driver does not serve the memory.
    Missing(String),
    /// It is not known whether the driver serves the memory.
    Unknown(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => write!(f, "WITHOUT ITS MEMORY ({why})"),
            Self::Unknown(why) => write!(f, "and it is not known whether with its memory ({why})"),
        }
    }
}

impl Lack {
    /// Lack of the memory of a device that is bound to a driver, or that is to be bound; `None` if
    /// the driver serves the memory or the device has none.
    pub(super) fn of(tree: &Tree, bdf: Bdf, driver: &str) -> Option<Self> {
        let inventory = match Inventory::of(tree, Extent::Served) {
            Ok(inventory) => inventory,
            Err(error) => return Some(Self::Unknown(error.to_string())),
        };
        let facts = &inventory.facts;
        let function = facts.function(bdf).filter(|it| is_coherent(it))?;
        if !same_name(driver, Driver::NvgraceGpu.name()) {
            return Some(Self::Missing(format!(
                "{driver} serves the GPU's own BARs alone"
            )));
        }
        let module = module_name(driver);
        let layout = tree.text(&format!("sys/kernel/debug/{module}/{bdf}/layout"));
        let is_bound = |now: &String| same_name(now, driver);
        if let Some(layout) = layout.filter(|_| function.driver.as_ref().is_some_and(is_bound)) {
            let outcome = layout.lines().next().unwrap_or_default();
            let reason = outcome.strip_prefix("declined: ")?;
            return Some(Self::Missing(reason.to_owned()));
        }
        let name = property::MEM_BASE_PA;
        let errno = Errno::ENOENT;
        if let Some(memory) = &function.coherent_memory {
            let is_down = memory.size.0 == 0;
            return is_down.then(|| Self::Missing(Decline::LinkDown.to_string()));
        }
        let mut unread = facts.unread.iter();
        Some(match unread.find(|file| file.path.starts_with(TABLES)) {
            Some(file) => Self::Unknown(format!("/{} can't be read: {}", file.path, file.why)),
            None => Self::Missing(Decline::Property { name, errno }.to_string()),
        })
    }
}

/// Demand on the memory of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Demand {
    /// The driver may leave the memory out.
    #[default]
    None,
    /// The driver does not say, or the firmware, that the memory is left out.
    NotMissing,
    /// The driver is known to serve the memory.
    Served,
}

impl Demand {
    /// True if a driver with this lack does not meet the demand.
    pub(super) fn is_unmet(self, lack: &Lack) -> bool {
        match lack {
            Lack::Missing(_) => self != Self::None,
            Lack::Unknown(_) => self == Self::Served,
        }
    }
}

/// True for a GPU whose chip has coherent memory.
fn is_coherent(function: &PciFunction) -> bool {
    let identity = Identity::of(function.vendor, function.device, function.class);
    identity
        .chip()
        .is_some_and(|chip| chip.driver() == Driver::NvgraceGpu)
}

/// True if this machine is a VM by its firmware or its CPU. Inside a VM no firmware describes a
/// GPU's memory, and a GPU without the description is normal.
pub(super) fn is_vm(tree: &Tree) -> bool {
    let text = |name| tree.text(&format!("sys/class/dmi/id/{name}"));
    let vendor = text("sys_vendor").unwrap_or_default();
    let product = text("product_name").unwrap_or_default();
    let cpu = tree.text("proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags"));
    let named = |(of, name): &(&str, &str)| vendor.starts_with(of) && product.starts_with(name);
    VIRTUAL.iter().any(named)
        || flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
        || tree.exists("sys/firmware/devicetree/base/hypervisor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_whose_functions_can_not_be_read_is_not_known_to_serve_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("sys/bus")).expect("a bus");
        let tree = Tree::open(folder.path()).expect("a tree");
        let bdf = "0009:01:00.0".parse().expect("an address");
        let lack = Lack::of(&tree, bdf, Driver::NvgraceGpu.name()).expect("no answer");
        let Lack::Unknown(why) = &lack else {
            panic!("{lack}");
        };
        assert!(why.contains("sys/bus/pci/devices"), "{why}");
        assert!(Demand::Served.is_unmet(&lack));
        assert!(!Demand::NotMissing.is_unmet(&lack));
        assert!(!Demand::None.is_unmet(&Lack::Missing(String::new())));
    }
}
