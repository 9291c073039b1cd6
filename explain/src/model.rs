//! Model of a definition in either language: the parts that matter to GPUs, with their places in the
//! text.

use serde::Serialize;
use varia_facts::{Bdf, Bytes};
use varia_plan::versions::SMMU_OPTIONS;

use crate::open::Open;
use crate::parse::properties::switch;
use crate::scope::Scope;
use varia_facts::Arch;

/// The language of a definition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// A QEMU command line.
    Qemu,
    /// libvirt's domain XML.
    Libvirt,
}

/// Place in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The option's index on a command line, the element's in XML.
    pub(crate) index: usize,
}

/// Definition of a VM, as far as it matters to GPUs.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) language: Language,
    pub(crate) arch: Arch,
    pub(crate) machine: Machine,
    pub(crate) nodes: Vec<Node>,
    pub(crate) distances: Vec<Distance>,
    pub(crate) initiators: Vec<Initiator>,
    /// Ties of functions to Extended GPU Memory.
    pub(crate) egm: Vec<EgmTie>,
    pub(crate) functions: Vec<Function>,
    pub(crate) buses: Vec<Bus>,
    pub(crate) smmus: Vec<Smmu>,
    /// Names of iommufd objects.
    pub(crate) iommufds: Vec<(String, Place)>,
    /// Every name of a device or an object.
    pub(crate) ids: Vec<Name>,
    /// A host's CPUs for a virtual one: libvirt alone has them.
    pub(crate) pins: Vec<Pin>,
    /// Devices on a bus that the rules do not judge, for the allocation of slots and buses.
    pub(crate) others: Vec<Other>,
    /// Parts that are not judged.
    pub(crate) scope: Scope,
}

/// Device that takes a slot.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) place: Place,
    /// Name in messages.
    pub(crate) label: String,
    /// The bus that the device is on; none where the VMM chooses.
    pub(crate) bus: Option<String>,
    /// Slot and function on the bus, as they are written; empty where the VMM chooses.
    pub(crate) slot: String,
}

impl Definition {
    /// A machine with nothing in it.
    pub(crate) fn empty(language: Language, arch: Arch, machine: Machine) -> Self {
        Self {
            language,
            arch,
            machine,
            nodes: Vec::new(),
            distances: Vec::new(),
            initiators: Vec::new(),
            egm: Vec::new(),
            functions: Vec::new(),
            buses: Vec::new(),
            smmus: Vec::new(),
            iommufds: Vec::new(),
            ids: Vec::new(),
            pins: Vec::new(),
            others: Vec::new(),
            scope: Scope::default(),
        }
    }
}

/// The name of a device or an object.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) id: String,
    /// Devices and objects have names of their own.
    pub(crate) is_object: bool,
    pub(crate) place: Place,
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) place: Place,
    pub(crate) kind: String,
    pub(crate) has_acpi: bool,
    /// The interrupt controller's version, as it is written.
    pub(crate) gic: Option<String>,
    /// The aperture, and its size if that is a number.
    pub(crate) aperture: Option<(Option<Bytes>, Place)>,
    /// No addresses above 4 GiB for devices.
    pub(crate) is_low: bool,
    /// Accelerator, as it is written.
    pub(crate) accelerator: Option<String>,
    /// Accelerator that the program's name says, if no option names one.
    pub(crate) accelerator_of_program: Option<String>,
    /// The CPU model, as it is written.
    pub(crate) cpu: Option<(String, Place)>,
    /// Width of the guest's addresses, if given.
    pub(crate) address_bits: Option<(u32, Place)>,
    pub(crate) has_firmware: bool,
    /// An SMMU for the whole machine.
    pub(crate) smmu: bool,
    pub(crate) ram: Option<Bytes>,
    /// RAM comes from hugepages.
    pub(crate) has_hugepages: bool,
    /// Size of the hugepages of the RAM, if it is named.
    pub(crate) hugepages: Option<Bytes>,
    /// Parts that are not known.
    pub(crate) open: Vec<Unknown>,
}

/// Part of a machine that only a shell knows, or that an option may give which was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    Accelerator,
    Aperture,
    Cpu,
    Firmware,
    InterruptController,
    Kind,
}

/// A NUMA node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) id: u32,
    /// Virtual CPUs, as they are written.
    pub(crate) cpus: Option<String>,
    pub(crate) has_memory: bool,
    /// Size of the memory, if known.
    pub(crate) memory: Option<Bytes>,
    /// Backend or element with the host's nodes of the memory.
    pub(crate) backing: Option<Backing>,
}

/// The memory behind a node.
#[derive(Clone, Debug)]
pub(crate) struct Backing {
    pub(crate) place: Place,
    /// The host's nodes, as they are written.
    pub(crate) host_nodes: Option<String>,
    pub(crate) is_shared: bool,
    /// File of the memory, if one is named.
    pub(crate) file: Option<String>,
}

impl Backing {
    /// Proximity domain of the Extended GPU Memory that the memory comes from.
    pub(crate) fn egm(&self) -> Option<u32> {
        varia_facts::egm_pxm(self.file.as_deref()?)
    }
}

/// A node whose RAM is the Extended GPU Memory of a function.
#[derive(Clone, Debug)]
pub(crate) struct EgmTie {
    pub(crate) place: Place,
    /// The function's name.
    pub(crate) device: String,
    pub(crate) node: u32,
}

impl Node {
    /// A node for a GPU has neither CPUs nor memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.cpus.is_none() && !self.has_memory
    }
}

/// A distance from one node to another.
#[derive(Clone, Debug)]
pub(crate) struct Distance {
    pub(crate) place: Place,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) value: u32,
}

/// A Generic Initiator: a node that is tied to a function.
#[derive(Clone, Debug)]
pub(crate) struct Initiator {
    pub(crate) place: Place,
    /// The function's name.
    pub(crate) device: String,
    pub(crate) node: u32,
}

/// A function of the host, or one that a vfio-user server offers.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) place: Place,
    pub(crate) id: Option<String>,
    /// Its address on the host; none for one of a server, or if the text does not say.
    pub(crate) host: Option<Bdf>,
    pub(crate) is_served: bool,
    /// The bus that it is on; none where the VMM chooses.
    pub(crate) bus: Option<String>,
    /// Slot and function on it.
    pub(crate) slot: String,
    /// The iommufd that it uses.
    pub(crate) iommufd: Option<String>,
    /// The definition says that it uses none.
    pub(crate) refuses_iommufd: bool,
    /// Its BARs are not mapped.
    pub(crate) is_unmapped: bool,
    /// Its expansion ROM is shown.
    pub(crate) has_rom: bool,
    /// Further functions may be in its slot.
    pub(crate) is_multifunction: bool,
    /// libvirt binds it to a VFIO driver at the start.
    pub(crate) is_managed: bool,
    /// The host's driver that libvirt is told to bind.
    pub(crate) driver: Option<String>,
    pub(crate) open: Open,
}

impl Function {
    /// Name in messages.
    pub(crate) fn label(&self) -> String {
        match (self.host, &self.id) {
            (Some(host), _) => host.to_string(),
            (None, Some(id)) => id.clone(),
            (None, None) => format!("the device in line {}", self.place.line),
        }
    }
}

/// A PCI bus and the device that makes it.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    pub(crate) place: Place,
    pub(crate) name: String,
    /// The bus that its bridge is on; none where the VMM chooses.
    pub(crate) parent: Option<String>,
    /// Slot and function of its bridge, as they are written; empty where the VMM chooses.
    pub(crate) slot: String,
    pub(crate) kind: BusKind,
    pub(crate) open: Open,
}

/// Device that makes a bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BusKind {
    /// The machine.
    Root,
    /// An expander: another root bus.
    Expander {
        number: Option<u32>,
        node: Option<u32>,
    },
    /// A root port.
    Port {
        chassis: Option<u32>,
        slot: Option<u32>,
        /// Reserved 64-bit prefetchable addresses, if given as a number.
        window: Option<Option<Bytes>>,
    },
    /// Another bridge.
    Bridge,
}

/// An SMMUv3 of one root bus.
#[derive(Clone, Debug)]
pub(crate) struct Smmu {
    pub(crate) place: Place,
    pub(crate) bus: Option<String>,
    pub(crate) is_accelerated: bool,
    /// Names of properties that not every QEMU's SMMU has.
    pub(crate) options: Vec<&'static str>,
    /// Names of properties with values that an accelerated SMMU alone can have.
    pub(crate) accelerated_only: Vec<String>,
    pub(crate) open: Open,
}

impl Smmu {
    /// Properties that not every QEMU's SMMU has, of those that are set. libvirt writes one name in
    /// another way.
    pub(crate) fn options(is_set: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let is_used = |name: &&&str| is_set(name) || **name == "ssidsize" && is_set("ssidSize");
        SMMU_OPTIONS.iter().filter(is_used).copied().collect()
    }

    /// Values of properties that QEMU refuses without `accel=on`. Source: QEMU 11.1
    /// `hw/arm/smmuv3.c:smmu_validate_property`.
    pub(crate) fn needs_acceleration(name: &str, value: &str) -> bool {
        let state = switch(value);
        match name {
            "ats" | "cmdqv" | "pasid" => state == Some(true),
            "ril" => state == Some(false),
            "oas" => !matches!(value, "44" | "auto"),
            "ssidsize" | "ssidSize" => !matches!(value, "0" | "auto"),
            _ => false,
        }
    }
}

/// A virtual CPU's host CPUs, as they are written.
#[derive(Clone, Debug)]
pub(crate) struct Pin {
    pub(crate) place: Place,
    pub(crate) vcpu: u32,
    pub(crate) cpus: String,
}

/// Slot and function of an address as it is written: `0x1.0x2`, `04.0`, `5`.
pub(crate) fn slot_of(text: &str) -> Option<(u8, u8)> {
    let number = |text: &str| u8::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| match text.trim().trim_start_matches("0x") {
        "" => Some(0),
        _ => number(text),
    };
    let slot = (!slot.is_empty()).then(|| number(slot)).flatten()?;
    Some((slot, number(function)?))
}

/// Chassis that scripts do not count up to.
const BEHIND_UNKNOWN_CHASSIS: u32 = 128;

impl Definition {
    /// The name of the machine's own root bus.
    pub(crate) fn root(&self) -> &'static str {
        match self.language {
            Language::Qemu => "pcie.0",
            Language::Libvirt => "0",
        }
    }

    pub(crate) fn bus(&self, name: &str) -> Option<&Bus> {
        self.buses.iter().find(|bus| bus.name == name)
    }

    /// The root bus that a bus is below, by name.
    pub(crate) fn root_of<'a>(&'a self, bus: &'a Bus) -> Option<&'a str> {
        let mut name = bus.parent.as_deref().unwrap_or(self.root());
        // buses that are below each other end nowhere
        for _ in 0..=self.buses.len() {
            let above = self.bus(name)?;
            if matches!(above.kind, BusKind::Root | BusKind::Expander { .. }) {
                return Some(name);
            }
            name = above.parent.as_deref().unwrap_or(self.root());
        }
        None
    }

    /// Distance from one node to another, or the one in the other direction.
    pub(crate) fn distance(&self, from: u32, to: u32) -> Option<u32> {
        let find = |from, to| {
            self.distances
                .iter()
                .find(|one| (one.from, one.to) == (from, to))
        };
        let found = find(from, to).or_else(|| find(to, from));
        found.map(|one| one.value)
    }

    /// A chassis that no root port has.
    pub(crate) fn free_chassis(&self) -> u32 {
        let all = self.buses.iter().filter_map(|bus| match bus.kind {
            BusKind::Port { chassis, .. } => chassis,
            _ => None,
        });
        let is_open = self.buses.iter().any(|bus| bus.open.is("chassis"));
        let least = if is_open { BEHIND_UNKNOWN_CHASSIS } else { 0 };
        all.max().unwrap_or(0).max(least).saturating_add(1)
    }

    /// Numbers of root buses are not known, so that none is known to be free.
    pub(crate) fn has_open_numbers(&self) -> bool {
        self.buses.iter().any(|bus| bus.open.is("bus_nr"))
    }

    /// A free name.
    pub(crate) fn unused(&self, wanted: &str) -> String {
        let is_used =
            |name: &str| self.ids.iter().any(|one| one.id == name) || self.bus(name).is_some();
        let mut name = wanted.to_owned();
        let mut count = 1;
        while is_used(&name) {
            count += 1;
            name = format!("{wanted}.{count}");
        }
        name
    }
}
