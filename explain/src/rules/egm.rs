//! Extended GPU Memory (EGM): nodes whose RAM it is, and their ties to GPUs.
//!
//! Source: the series "vfio/nvgrace-egm" (v2, February 2026) and NVIDIA's QEMU
//! (`acpi-egm-memory`).

use std::collections::BTreeMap;

use varia_facts::{Bdf, Bytes, EgmDevice, Facts, egm_path};
use varia_plan::{Error, egm_errors};

use crate::case::{Case, Subject};
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings, Value, optional};
use crate::model::{Backing, EgmTie, Node};
use crate::scope::Unjudged;

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    for (index, tie) in definition.egm.iter().enumerate() {
        match case.gpus.iter().find(|gpu| gpu.id == tie.device) {
            Some(gpu) => node(case, gpu, index, tie, out),
            None => device(case, index, tie, out),
        }
    }
    for (index, node) in definition.nodes.iter().enumerate() {
        if let Some((backing, pxm)) = egm(node) {
            backed(case, index, node, backing, pxm, out);
        }
    }
    for gpu in &case.gpus {
        missing(case, gpu, out);
    }
    whole(case, out);
}

/// Extended GPU Memory that is not judged: a second tie of a GPU, and a tie of a GPU whose socket is
/// not known.
pub(crate) fn unjudged(case: &Case<'_>) -> Vec<Unjudged> {
    let mut all = Vec::new();
    for gpu in &case.gpus {
        let ties = case.definition.egm.iter();
        let mut ties = ties.filter(|tie| !gpu.id.is_empty() && tie.device == gpu.id);
        let mut add = |tie: &EgmTie, why: &str| {
            all.push(Unjudged {
                line: tie.place.line,
                what: format!(
                    "Extended GPU Memory of {}, in node {}",
                    gpu.label(),
                    tie.node
                ),
                why: why.to_owned(),
            });
        };
        let is_unknown = known_host(case).is_none() && case.socket(gpu).is_none();
        if let Some(first) = ties.next().filter(|_| is_unknown) {
            add(
                first,
                "neither its host nor a root bus says which socket the GPU is on: give the facts of \
                 its host (--facts)",
            );
        }
        for more in ties {
            add(
                more,
                "Varia judges one node for the Extended GPU Memory of a GPU",
            );
        }
    }
    all
}

/// Devices of EGM that the host has, with the sum of the RAM that the VM takes from each: their size,
/// and their other GPUs.
fn whole(case: &Case<'_>, out: &mut Findings) {
    let Some(facts) = known_host(case) else {
        return;
    };
    let functions = case.definition.functions.iter();
    let gpus: Vec<Bdf> = functions.filter_map(|function| function.host).collect();
    let mut taken: BTreeMap<u32, (Bytes, usize)> = BTreeMap::new();
    for node in &case.definition.nodes {
        let Some((backing, pxm)) = egm(node) else {
            continue;
        };
        let (sum, line) = taken.entry(pxm).or_insert((Bytes(0), backing.place.line));
        sum.0 = sum.0.saturating_add(node.memory.unwrap_or_default().0);
        *line = backing.place.line.max(*line);
    }
    for (pxm, (sum, line)) in taken {
        let mut devices = facts.host.egm.iter();
        let Some(device) = devices.find(|device| device.pxm == pxm) else {
            continue;
        };
        for error in egm_errors(device, &gpus, sum) {
            match error {
                Error::EgmPartial { path, absent } => out.add(
                    Code::EgmPartial,
                    line,
                    &[("file", &path), ("absent", &absent)],
                    None,
                ),
                Error::EgmSize {
                    path,
                    there,
                    wanted,
                } => out.add(
                    Code::EgmSize,
                    line,
                    &[("file", &path), ("there", &there), ("wanted", &wanted)],
                    None,
                ),
                _ => {}
            }
        }
    }
}

/// Backing of a node whose RAM is EGM, and the proximity domain of the EGM.
fn egm(node: &Node) -> Option<(&Backing, u32)> {
    let backing = node.backing.as_ref()?;
    Some((backing, backing.egm()?))
}

/// Device of a GPU's EGM on the host.
fn on_host<'a>(case: &Case<'a>, gpu: &Subject) -> Option<&'a EgmDevice> {
    case.facts?.host.egm_of(gpu.host?)
}

/// The host has a device of this EGM.
fn is_there(case: &Case<'_>, pxm: u32) -> bool {
    let devices = case.facts.iter().flat_map(|facts| &facts.host.egm);
    devices.into_iter().any(|device| device.pxm == pxm)
}

/// Node whose RAM is from the device of a GPU's EGM; without a known host, the node of the GPU's
/// CPUs, if its RAM is EGM.
fn node_of<'a>(case: &Case<'a>, gpu: &Subject) -> Option<&'a Node> {
    let mut nodes = case.definition.nodes.iter();
    match known_host(case) {
        Some(_) => {
            let own = on_host(case, gpu)?.pxm;
            nodes.find(|node| egm(node).is_some_and(|(_, pxm)| pxm == own))
        }
        None => {
            let socket = case.socket(gpu)?;
            nodes.find(|node| node.id == socket && egm(node).is_some())
        }
    }
}

/// Facts of the VM's host; those of an assumption have no functions.
fn known_host<'a>(case: &Case<'a>) -> Option<&'a Facts> {
    case.facts.filter(|facts| !facts.functions.is_empty())
}

fn device(case: &Case<'_>, index: usize, tie: &EgmTie, out: &mut Findings) {
    let definition = case.definition;
    let is_there = definition.ids.iter().any(|name| name.id == tie.device);
    let mut without = case.gpus.iter().filter(|gpu| {
        let mut ties = definition.egm.iter();
        !gpu.id.is_empty() && !ties.any(|tie| tie.device == gpu.id)
    });
    let gpu = without.next().filter(|_| without.next().is_none());
    let values: &[Value<'_>] = &[
        ("node", &tie.node),
        (if is_there { "other" } else { "absent" }, &tie.device),
        ("gpu", &optional(gpu.map(Subject::label))),
    ];
    let fix = gpu.map(|gpu| Fix::EgmDevice {
        tie: index,
        device: gpu.id.clone(),
    });
    out.add(Code::EgmDevice, tie.place.line, values, fix);
}

/// The node that a GPU's EGM is tied to.
fn node(case: &Case<'_>, gpu: &Subject, index: usize, tie: &EgmTie, out: &mut Findings) {
    let nodes = &case.definition.nodes;
    let place = nodes.iter().position(|node| node.id == tie.node);
    let found = place.and_then(|place| nodes.get(place));
    let own = on_host(case, gpu);
    let path = own.map(EgmDevice::path);
    // libvirt names the file where it names the node
    let of_cpus = || {
        let mut nodes = nodes.iter();
        let own = nodes.find(|node| Some(node.id) == case.socket(gpu))?;
        (!case.is_qemu() && own.has_memory).then_some(own)
    };
    let wanted = node_of(case, gpu).or_else(of_cpus);
    let path_of = wanted.and_then(egm).map(|(_, pxm)| egm_path(pxm));
    let path = optional(path.or(path_of));
    let label = gpu.label();
    let mut values: Vec<Value<'_>> = vec![("gpu", &label), ("path", &path)];
    let number = optional(wanted.map(|node| node.id));
    values.push(("wanted", &number));
    let to_wanted = wanted.map(|node| Fix::EgmNode {
        tie: index,
        node: node.id,
    });
    let backing = found.and_then(|node| node.backing.as_ref());
    let file = optional(backing.and_then(|backing| backing.file.as_ref()));
    let to_path = || {
        backing.and_then(|backing| backing.file.as_ref())?;
        let (node, file) = (place?, own?.path());
        Some(Fix::File { node, file })
    };
    let code = match (found, found.and_then(egm), own) {
        (None, ..) => {
            values.push(("undefined", &tie.node));
            Code::EgmNode
        }
        (Some(node), None, _) if !node.has_memory => {
            values.push(("empty", &tie.node));
            Code::EgmNode
        }
        (Some(_), None, _) => {
            values.push(("node", &tie.node));
            Code::EgmNode
        }
        // a device that the host does not have is a finding of its own
        (Some(_), Some((_, pxm)), Some(own)) if pxm != own.pxm && is_there(case, pxm) => {
            values.extend::<[Value<'_>; 2]>([("node", &tie.node), ("file", &file)]);
            Code::EgmSocket
        }
        // without a known host the root bus says which socket the GPU is on
        (Some(node), Some(_), None)
            if known_host(case).is_none() && case.socket(gpu).is_some_and(|own| own != node.id) =>
        {
            values.extend::<[Value<'_>; 2]>([("node", &tie.node), ("file", &file)]);
            Code::EgmSocket
        }
        (Some(_), Some(_), _) => return,
    };
    out.add(code, tie.place.line, &values, to_wanted.or_else(to_path));
}

/// A node whose RAM is EGM.
fn backed(
    case: &Case<'_>,
    index: usize,
    node: &Node,
    backing: &Backing,
    pxm: u32,
    out: &mut Findings,
) {
    let file = egm_path(pxm);
    let line = backing.place.line;
    if !backing.is_shared {
        out.add(
            Code::EgmNotShared,
            line,
            &[("node", &node.id), ("file", &file)],
            case.is_qemu().then_some(Fix::Shared(index)),
        );
    }
    let Some(facts) = known_host(case) else {
        return;
    };
    let there = &facts.host.egm;
    if there.iter().any(|device| device.pxm == pxm) {
        return;
    }
    let paths: Vec<_> = there.iter().map(EgmDevice::path).collect();
    let mut ties = case.definition.egm.iter().filter(|tie| tie.node == node.id);
    let tied = ties.find_map(|tie| {
        let mut gpus = case.gpus.iter();
        on_host(case, gpus.find(|gpu| gpu.id == tie.device)?)
    });
    let only = there.first().filter(|_| there.len() == 1);
    let fix = tied.or(only).map(|device| Fix::File {
        node: index,
        file: device.path(),
    });
    let values: &[Value<'_>] = &[
        ("node", &node.id),
        ("file", &file),
        ("there", &paths.join(", ")),
    ];
    out.add(Code::EgmAbsent, line, values, fix);
}

/// A GPU whose socket's RAM is EGM, without a tie to the EGM.
fn missing(case: &Case<'_>, gpu: &Subject, out: &mut Findings) {
    let definition = case.definition;
    let has_tie = definition.egm.iter().any(|tie| tie.device == gpu.id);
    let is_hardware = case.function(gpu).is_some_and(|one| !one.is_served);
    let Some(node) = node_of(case, gpu).filter(|_| !has_tie && is_hardware) else {
        return;
    };
    // a tie of this node that names another device may be meant for the GPU
    if out.has(&[Code::EgmDevice]) || definition.scope.has_open_ties {
        return;
    }
    let fix = (case.is_qemu() && !gpu.id.is_empty()).then(|| Fix::AddEgm {
        device: gpu.id.clone(),
        node: node.id,
    });
    out.add(
        Code::EgmMissing,
        case.line(gpu),
        &[("node", &node.id), ("gpu", &gpu.label())],
        fix,
    );
}
