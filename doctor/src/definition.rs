//! Definitions of VMs against a host: drivers, programs, RAM.

use std::collections::{BTreeMap, BTreeSet};

use varia_facts::{Bdf, Bytes, NodeId};
use varia_plan::versions::{
    self, LIBVIRT, LIBVIRT_OF_VENDORS_ALONE, LIBVIRT_SEEN, QEMU_OF_VENDORS, vendor,
};

use crate::device;
use crate::memory::default_hugepage;
use crate::scene::Scene;
use crate::{Finding, failure, not_applicable, ok, unknown, warning};

const NO_DEFINITION: &str = "no definition was given";
/// Requirements of a VM's definition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Definition {
    /// Functions that the VM takes from the host.
    pub functions: Vec<Assigned>,
    /// Functions whose addresses the definition does not say: line and id, which may be empty.
    pub unknown: Vec<(usize, String)>,
    /// Further devices may come from a part that was not read.
    pub has_more: bool,
    /// Devices, objects and properties of QEMU that the definition uses.
    pub qemu: BTreeSet<String>,
    /// Elements of libvirt that not every libvirt has; `None` for a QEMU command line.
    pub libvirt: Option<BTreeSet<String>>,
    /// RAM of each node.
    pub ram: Vec<Ram>,
    /// Pages of the RAM.
    pub pages: Pages,
    /// RAM that is Extended GPU Memory: proximity domain, size if known.
    pub egm: Vec<(u32, Option<Bytes>)>,
}

/// Pages of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pages {
    /// Ordinary pages.
    #[default]
    Ordinary,
    /// Hugepages of the kernel's default size.
    HugeDefault,
    /// Hugepages of this size.
    Huge(Bytes),
}

/// A function that a VM takes from the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// Address on the host.
    pub bdf: Bdf,
    /// libvirt binds the function to a VFIO driver at the start.
    pub is_managed: bool,
}

/// RAM of a node of the VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ram {
    /// Size.
    pub size: Bytes,
    /// Node of the host that the RAM is bound to.
    pub host_node: Option<NodeId>,
}

impl Definition {
    /// All RAM, if a size is known.
    pub(crate) fn all_ram(&self) -> Option<Bytes> {
        let sizes = self.ram.iter().map(|ram| ram.size.0);
        let sizes = sizes.chain(self.egm.iter().filter_map(|(_, size)| Some((*size)?.0)));
        sizes.reduce(u64::saturating_add).map(Bytes)
    }
}

pub(crate) fn drivers(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(definition) = scene.definition else {
        return vec![not_applicable(NO_DEFINITION)];
    };
    let look =
        |assigned: &Assigned| {
            let bdf = assigned.bdf;
            let Some(function) = scene.facts.function(bdf) else {
                return failure("this host has no such function")
                    .advise("correct the address in the definition: varia list shows the GPUs")
                    .about(bdf);
            };
            if function.open == Some(true) {
                let user = function.user.as_deref().unwrap_or("a process");
                return failure(format!("the function is in use by {user}"))
                    .advise("end the VM or the process")
                    .about(bdf);
            }
            let driver = function.driver.as_deref();
            let is_vfio = driver.is_some_and(|driver| driver.replace('-', "_").contains("vfio"));
            let bound = driver.unwrap_or("no driver");
            match (is_vfio, assigned.is_managed) {
            (true, _) => ok(format!("{bound} is bound")),
            (false, true) => ok(format!("{bound} is bound; libvirt binds a VFIO driver (managed)")),
            (false, false) => failure(format!(
                "{bound} is bound, which is no VFIO driver, and the definition leaves that to the \
                 host"
            ))
            .remedied(device::remedies(scene, function)),
        }
        .about(bdf)
        };
    let mut findings: Vec<_> = definition.functions.iter().map(look).collect();
    findings.extend(definition.unknown.iter().map(|(line, id)| {
        let text = "the definition does not say which function of the host it is";
        let subject = match id.as_str() {
            "" => format!("line {line}"),
            id => format!("line {line}, {id}"),
        };
        unknown(text)
            .advise("give the command of the running VM: /proc/PID/cmdline")
            .about(subject)
    }));
    if definition.has_more {
        let text = "further functions may come from a part that was not read";
        findings.push(unknown(text).advise("varia explain names the part"));
    }
    if findings.is_empty() {
        findings.push(not_applicable(
            "the definition takes no function from the host",
        ));
    }
    findings
}

pub(crate) fn qemu(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(definition) = scene.definition else {
        return vec![not_applicable(NO_DEFINITION)];
    };
    let Some(qemu) = &scene.facts.vmm.qemu else {
        return vec![unknown(
            "QEMU was not queried: run varia doctor on the host",
        )];
    };
    let mut findings = Vec::new();
    let mut there = Vec::new();
    for name in &definition.qemu {
        let first = versions::first_qemu(name);
        let is_old = first.zip(qemu.number()).map(|(first, own)| own < first);
        let vendors = vendor(QEMU_OF_VENDORS, name);
        let newer = match (first, vendors) {
            (Some((major, minor)), _) => format!("QEMU {major}.{minor} or newer"),
            (None, Some(source)) => format!("a build that has it: {source}"),
            (None, None) => "a newer QEMU".to_owned(),
        };
        let is_old = is_old.or(vendors.map(|_| true));
        match (versions::has(&scene.facts.vmm, name), is_old) {
            (Some(true), _) => there.push(name.as_str()),
            (Some(false), _) => findings.push(
                failure(format!(
                    "QEMU {} does not have it, and the definition uses it",
                    qemu.version
                ))
                .about(name)
                .advise(newer),
            ),
            // a feature of this version that QEMU was not asked for
            (None, Some(false)) => there.push(name.as_str()),
            (None, Some(true)) => findings.push(
                warning(format!(
                    "QEMU {} has it in builds of some vendors alone, and the definition uses it",
                    qemu.version
                ))
                .about(name)
                .advise(match vendors {
                    Some(_) => newer,
                    None => format!("{newer}, or a vendor's build"),
                }),
            ),
            (None, None) => findings.push(unknown("QEMU was not asked for it").about(name)),
        }
    }
    if !there.is_empty() {
        findings.insert(
            0,
            ok(format!("QEMU {} has {}", qemu.version, there.join(", "))),
        );
    }
    if findings.is_empty() {
        findings.push(ok("the definition uses features of every QEMU alone"));
    }
    findings
}

pub(crate) fn libvirt(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(definition) = scene.definition else {
        return vec![not_applicable(NO_DEFINITION)];
    };
    let Some(used) = &definition.libvirt else {
        return vec![not_applicable("the definition is QEMU's alone")];
    };
    if used.is_empty() {
        return vec![ok("the definition uses elements of every libvirt alone")];
    }
    let libvirt = scene.facts.vmm.libvirt.as_ref();
    let Some(libvirt) = libvirt.filter(|libvirt| libvirt.number().is_some()) else {
        let used: Vec<&str> = used.iter().map(String::as_str).collect();
        return vec![
            unknown(format!(
                "the version of libvirt is not known, and the definition uses {}",
                used.join(", ")
            ))
            .advise("run varia doctor on the host"),
        ];
    };
    let own = format!("libvirt {}", libvirt.version);
    let newer = |element: &str| {
        let named = LIBVIRT.iter().find(|(_, own)| *own == element);
        let source = named.and_then(|(name, _)| vendor(LIBVIRT_OF_VENDORS_ALONE, name));
        let (major, minor) = LIBVIRT_SEEN;
        source.map_or_else(
            || format!("libvirt {major}.{minor} or newer"),
            |source| format!("a build that has it: {source}"),
        )
    };
    let has = |element: &str| {
        let named = LIBVIRT.iter().find(|(_, own)| *own == element);
        named.and_then(|(name, _)| versions::libvirt_has(libvirt, name))
    };
    let mut findings = Vec::new();
    let (mut there, mut unsaid) = (Vec::new(), Vec::new());
    for element in used {
        match has(element) {
            Some(true) => there.push(element.as_str()),
            Some(false) => findings.push(
                failure(format!(
                    "{own} does not have {element}, which the definition uses"
                ))
                .advise(newer(element)),
            ),
            None => unsaid.push(element.as_str()),
        }
    }
    if let Some(first) = unsaid.first() {
        findings.push(
            warning(format!(
                "{own} has {} in builds of some vendors alone",
                unsaid.join(", ")
            ))
            .advise(format!("{}, or a vendor's build", newer(first))),
        );
    }
    if !there.is_empty() {
        findings.insert(0, ok(format!("{own} has {}", there.join(", "))));
    }
    findings
}

pub(crate) fn memory(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(definition) = scene.definition else {
        return vec![not_applicable(NO_DEFINITION)];
    };
    let host = &scene.facts.host;
    let hugepages = match definition.pages {
        Pages::Ordinary => None,
        Pages::Huge(size) => Some(size),
        Pages::HugeDefault => match default_hugepage(scene.facts) {
            Some(size) => Some(size),
            None => {
                return vec![
                    unknown(
                        "the default size of hugepages is not known, and the definition names none",
                    )
                    .advise("run varia doctor on the host, or give the size in the definition"),
                ];
            }
        },
    };
    let look = |(host_node, wanted): (Option<NodeId>, Bytes)| {
        let on = || {
            let nodes = host.nodes.iter();
            nodes.filter(|node| host_node.is_none_or(|id| node.id == id))
        };
        let place = match host_node {
            Some(id) => format!("node {id}"),
            None => "the host".to_owned(),
        };
        let free = match hugepages {
            None => Some(on().map(|node| node.memory_free.0).sum::<u64>()),
            Some(size) => {
                let pools = on().flat_map(|node| &node.hugepages);
                let pools: Vec<_> = pools.filter(|pool| pool.size == size).collect();
                let free = pools.iter().map(|pool| pool.free.saturating_mul(size.0));
                (!pools.is_empty()).then(|| free.fold(0, u64::saturating_add))
            }
        };
        let what = match hugepages {
            None => "RAM".to_owned(),
            Some(size) => format!("hugepages of {}", size.rounded()),
        };
        if host.nodes.is_empty() {
            return unknown("/sys/devices/system/node has no nodes").about(place);
        }
        match free {
            None => failure(format!(
                "there are no {what}, and the definition needs {}",
                wanted.rounded()
            ))
            .advise("hugepages of a size that the kernel has: ls /sys/kernel/mm/hugepages"),
            Some(free) if free < wanted.0 => {
                let text = format!(
                    "{} of {what} are free, and the definition needs {}",
                    Bytes(free).rounded(),
                    wanted.rounded()
                );
                match hugepages {
                    Some(_) => failure(text).advise("reserve more hugepages: see hugepages"),
                    None => warning(text).advise("end processes that use the memory"),
                }
            }
            Some(free) => ok(format!(
                "{} of {what} are free, and the definition needs {}",
                Bytes(free).rounded(),
                wanted.rounded()
            )),
        }
        .about(place)
    };
    // cells on one node share its memory
    let mut wanted: BTreeMap<Option<NodeId>, Bytes> = BTreeMap::new();
    for ram in &definition.ram {
        let sum = wanted.entry(ram.host_node).or_default();
        sum.0 = sum.0.saturating_add(ram.size.0);
    }
    let mut findings: Vec<_> = wanted.into_iter().map(look).collect();
    if findings.is_empty() && !definition.egm.is_empty() {
        findings.push(not_applicable(
            "the definition's RAM is Extended GPU Memory",
        ));
    }
    if findings.is_empty() {
        findings.push(unknown("the size of the definition's RAM is not known"));
    }
    findings
}
