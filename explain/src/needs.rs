//! Requirements of a definition on its host.

use std::collections::{BTreeMap, BTreeSet};

use varia_facts::{Arch, Bdf, Bytes, NodeId};
use varia_plan::versions::{EGM_ELEMENT, EGM_OBJECT, LIBVIRT};

use crate::model::{BusKind, Definition, Language, Node, Place};
use crate::parse::Source;
use crate::parse::error::ReadError;

/// Requirements of a definition on its host: functions, programs and RAM.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Functions of the host, each with `true` if libvirt binds the function at the start.
    pub functions: Vec<(Bdf, bool)>,
    /// Functions of the host whose addresses the definition does not say, by line.
    pub unknown: Vec<(usize, String)>,
    /// True if further devices may come from a part that is not judged.
    pub has_more: bool,
    /// Devices, objects and properties of QEMU.
    pub qemu: BTreeSet<String>,
    /// Elements that not every libvirt has; `None` for a QEMU command line.
    pub libvirt: Option<BTreeSet<String>>,
    /// RAM of each node, and the node of the host that the RAM is bound to.
    pub ram: Vec<(Bytes, Option<NodeId>)>,
    /// True if RAM comes from hugepages.
    pub has_hugepages: bool,
    /// Size of the hugepages; `None` if the definition leaves it to the host.
    pub hugepages: Option<Bytes>,
    /// RAM that is Extended GPU Memory: proximity domain, size if known.
    pub egm: Vec<(u32, Option<Bytes>)>,
}

/// Reads the requirements of a definition.
///
/// # Errors
/// [`ReadError`], as of [`examine`](crate::examine).
pub fn needs(bytes: &[u8]) -> Result<Needs, ReadError> {
    let definition = Source::read(bytes)?.definition()?;
    let mut ram: Vec<_> = definition
        .nodes
        .iter()
        .filter(|node| egm(node).is_none())
        .filter_map(|node| {
            let backing = node.backing.as_ref();
            let host = backing.and_then(|backing| backing.host_nodes.as_deref());
            let host = host.and_then(|text| text.parse().ok()).map(NodeId);
            Some((node.memory?, host))
        })
        .collect();
    let egm: Vec<_> = definition.nodes.iter().filter_map(egm).collect();
    if ram.is_empty() && egm.is_empty() {
        ram.extend(definition.machine.ram.map(|ram| (ram, None)));
    }
    let functions = definition.functions.iter();
    let unknown = functions
        .clone()
        .filter(|function| function.host.is_none() && !function.is_served)
        .map(|function| {
            let name = function.id.clone().unwrap_or_default();
            (function.place.line, name)
        });
    Ok(Needs {
        unknown: unknown.collect(),
        has_more: definition.scope.has_more,
        functions: functions
            .filter_map(|function| Some((function.host?, function.is_managed)))
            .collect(),
        qemu: of_qemu(&definition).into_keys().collect(),
        libvirt: of_libvirt(&definition).map(|used| used.into_keys().map(str::to_owned).collect()),
        ram,
        has_hugepages: definition.machine.has_hugepages,
        hugepages: definition.machine.hugepages,
        egm,
    })
}

fn egm(node: &Node) -> Option<(u32, Option<Bytes>)> {
    Some((node.backing.as_ref()?.egm()?, node.memory))
}

/// Devices, objects and properties of QEMU, each with the line of the first option that needs it.
pub(crate) fn of_qemu(definition: &Definition) -> BTreeMap<String, usize> {
    let mut used = BTreeMap::new();
    let mut add = |name: &str, place: &Place| {
        let line = used.entry(name.to_owned()).or_insert(place.line);
        *line = place.line.min(*line);
    };
    for function in &definition.functions {
        let driver = match function.is_served {
            true => "vfio-user-pci",
            false => "vfio-pci",
        };
        add(driver, &function.place);
    }
    for bus in &definition.buses {
        if matches!(bus.kind, BusKind::Expander { .. }) {
            add("pxb-pcie", &bus.place);
        }
    }
    for initiator in &definition.initiators {
        add("acpi-generic-initiator", &initiator.place);
    }
    for place in iommufds(definition) {
        add("iommufd", place);
    }
    for tie in &definition.egm {
        add(EGM_OBJECT, &tie.place);
    }
    for smmu in &definition.smmus {
        add("arm-smmuv3", &smmu.place);
        if smmu.is_accelerated {
            add("arm-smmuv3.accel", &smmu.place);
        }
        for option in &smmu.options {
            add(&format!("arm-smmuv3.{option}"), &smmu.place);
        }
    }
    if let (Arch::Aarch64, Some((_, place))) = (definition.arch, &definition.machine.aperture) {
        add("virt.highmem-mmio-size", place);
    }
    used
}

/// Elements that not every libvirt has, each with the line of the first one; `None` for a QEMU
/// command line.
pub(crate) fn of_libvirt(definition: &Definition) -> Option<BTreeMap<&'static str, usize>> {
    let first = |name: &str| match name {
        "acpi-nodeset" => lines(definition.initiators.iter().map(|one| &one.place)),
        "smmu-pcibus" => lines(definition.smmus.iter().map(|one| &one.place)),
        "iommufd" => lines(iommufds(definition)),
        EGM_ELEMENT => lines(definition.egm.iter().map(|one| &one.place)),
        _ => None,
    };
    let used = LIBVIRT
        .iter()
        .filter_map(|(name, element)| Some((*element, first(name)?)));
    (definition.language == Language::Libvirt).then(|| used.collect())
}

fn lines<'a>(places: impl Iterator<Item = &'a Place>) -> Option<usize> {
    places.map(|place| place.line).min()
}

/// Objects of iommufd and the functions that use them; an object alone is not used.
fn iommufds(definition: &Definition) -> impl Iterator<Item = &Place> {
    let functions = definition.functions.iter();
    let users = functions.filter(|function| function.iommufd.is_some());
    let objects = definition.iommufds.iter().map(|(_, place)| place);
    let is_used = users.clone().next().is_some();
    users
        .map(|function| &function.place)
        .chain(objects.filter(move |_| is_used))
}
