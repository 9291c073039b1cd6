//! Requirements of a definition on its host.

use std::collections::BTreeSet;

use varia_facts::{Arch, Bdf, Bytes, NodeId};
use varia_plan::versions::{EGM_OBJECT, LIBVIRT};

use crate::model::{BusKind, Definition, Language, Node};
use crate::parse::Source;
use crate::parse::error::ReadError;

/// Requirements of a definition on its host: functions, programs and RAM.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Functions of the host, each with `true` if libvirt binds the function at the start.
    pub functions: Vec<(Bdf, bool)>,
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
    Ok(Needs {
        functions: functions
            .filter_map(|function| Some((function.host?, function.is_managed)))
            .collect(),
        qemu: of_qemu(&definition),
        libvirt: of_libvirt(&definition),
        ram,
        has_hugepages: definition.machine.has_hugepages,
        hugepages: definition.machine.hugepages,
        egm,
    })
}

fn egm(node: &Node) -> Option<(u32, Option<Bytes>)> {
    Some((node.backing.as_ref()?.egm()?, node.memory))
}

pub(crate) fn of_qemu(definition: &Definition) -> BTreeSet<String> {
    let is_expander = |kind: &BusKind| matches!(kind, BusKind::Expander { .. });
    let mut functions = definition.functions.iter();
    let uses = [
        ("vfio-pci", functions.clone().any(|one| !one.is_served)),
        ("vfio-user-pci", functions.any(|one| one.is_served)),
        (
            "pxb-pcie",
            definition.buses.iter().any(|bus| is_expander(&bus.kind)),
        ),
        ("acpi-generic-initiator", !definition.initiators.is_empty()),
        ("iommufd", uses_iommufd(definition)),
        (EGM_OBJECT, !definition.egm.is_empty()),
        ("arm-smmuv3", !definition.smmus.is_empty()),
        (
            "arm-smmuv3.accel",
            definition.smmus.iter().any(|smmu| smmu.is_accelerated),
        ),
        (
            "virt.highmem-mmio-size",
            definition.arch == Arch::Aarch64 && definition.machine.aperture.is_some(),
        ),
    ];
    let used = uses.into_iter().filter(|(_, is_used)| *is_used);
    used.map(|(name, _)| name.to_owned()).collect()
}

pub(crate) fn of_libvirt(definition: &Definition) -> Option<BTreeSet<String>> {
    let is_used = |name: &str| match name {
        "acpi-nodeset" => !definition.initiators.is_empty(),
        "smmu-pcibus" => !definition.smmus.is_empty(),
        "iommufd" => uses_iommufd(definition),
        _ => false,
    };
    let used = LIBVIRT.iter().filter(|(name, _)| is_used(name));
    (definition.language == Language::Libvirt)
        .then(|| used.map(|(_, element)| (*element).to_owned()).collect())
}

fn uses_iommufd(definition: &Definition) -> bool {
    let mut functions = definition.functions.iter();
    functions.any(|function| function.iommufd.is_some())
}
