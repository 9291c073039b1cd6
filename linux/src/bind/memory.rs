//! Memory of a bound GPU: a driver can take a GPU and decline to serve the GPU's coherent memory, so
//! that a VM gets the BARs alone.
//!
//! Varia's module says so in debugfs (docs/kernel.md). The kernel's own driver says so nowhere; then
//! the firmware's properties, by which that driver decides, are the source.

use serde::{Deserialize, Serialize};
use varia_facts::{Bdf, PciFunction};
use varia_spec::Errno;
use varia_spec::nvidia::chip::{Driver, Identity};
use varia_spec::nvidia::property;
use varia_variant::Decline;

use crate::inventory::{Extent, Inventory};
use crate::matching::{module_name, same_name};
use crate::tree::Tree;

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

/// Memory of a GPU, as a VM gets the memory from a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// The driver serves the memory, or the device has none.
    Served,
    /// The driver does not serve the memory, for this reason.
    Missing(String),
    /// Not known, for this reason.
    Unknown(String),
}

impl Memory {
    /// Memory of a device that is bound to a driver, or that is to be bound.
    pub(super) fn of(tree: &Tree, bdf: Bdf, driver: &str) -> Self {
        let Ok(inventory) = Inventory::of(tree, Extent::Served) else {
            return Self::Served;
        };
        let facts = &inventory.facts;
        let Some(function) = facts.function(bdf).filter(|it| is_coherent(it)) else {
            return Self::Served;
        };
        if !same_name(driver, Driver::NvgraceGpu.name()) {
            return Self::Missing(format!("{driver} serves the GPU's own BARs alone"));
        }
        let module = module_name(driver);
        let layout = tree.text(&format!("sys/kernel/debug/{module}/{bdf}/layout"));
        let is_bound = |now: &String| same_name(now, driver);
        if let Some(layout) = layout.filter(|_| function.driver.as_ref().is_some_and(is_bound)) {
            let outcome = layout.lines().next().unwrap_or_default();
            return match outcome.strip_prefix("declined: ") {
                Some(reason) => Self::Missing(reason.to_owned()),
                None => Self::Served,
            };
        }
        let name = property::MEM_BASE_PA;
        let errno = Errno::ENOENT;
        match &function.coherent_memory {
            Some(memory) if memory.size.0 == 0 => Self::Missing(Decline::LinkDown.to_string()),
            Some(_) => Self::Served,
            None => match facts.unread.iter().find(|file| file.path.ends_with("DSDT")) {
                Some(file) => Self::Unknown(format!("{} can't be read: {}", file.path, file.why)),
                None => Self::Missing(Decline::Property { name, errno }.to_string()),
            },
        }
    }

    /// Reason why the memory is not served, or why that is not known.
    pub(super) fn reason(self) -> Option<String> {
        match self {
            Self::Served => None,
            Self::Missing(why) => Some(why),
            Self::Unknown(why) => Some(format!("not known: {why}")),
        }
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
    /// Reason why a driver does not meet the demand.
    pub(super) fn unmet(self, memory: Memory) -> Option<String> {
        match (self, memory) {
            (Self::NotMissing | Self::Served, Memory::Missing(why))
            | (Self::Served, Memory::Unknown(why)) => Some(why),
            _ => None,
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
