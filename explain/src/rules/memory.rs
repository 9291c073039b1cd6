//! RAM and virtual CPUs: their nodes of the host, compared with that of the GPU.

use std::collections::{BTreeMap, BTreeSet};

use varia_facts::{Bytes, CpuList, NodeId};

use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings, Value, optional};
use crate::model::{Language, Node};
use varia_plan::pins;

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    sum(case, out);
    shared(case, out);
    let corrected = host_nodes(case, out);
    if case.definition.language == Language::Libvirt {
        processors(case, &corrected, out);
    }
}

fn sum(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let with_memory = definition.nodes.iter().filter(|node| node.has_memory);
    let sizes: Option<Vec<u64>> = with_memory.map(|node| Some(node.memory?.0)).collect();
    let (Some(ram), Some(sizes)) = (definition.machine.ram, sizes) else {
        return;
    };
    let all = sizes
        .iter()
        .fold(0_u64, |all, one| all.saturating_add(*one));
    let is_wrong = all != ram.0 && !definition.nodes.is_empty();
    if !is_wrong
        || !case.is_qemu()
        || out.has(&[Code::NodeHasMemory, Code::NodeTwice])
        || case.definition.scope.has_open_nodes
    {
        return;
    }
    out.add(
        Code::MemorySum,
        definition.machine.place.line,
        &[("nodes", &Bytes(all)), ("ram", &ram)],
        None,
    );
}

fn shared(case: &Case<'_>, out: &mut Findings) {
    let is_served = |gpu| {
        case.function(gpu)
            .is_some_and(|function| function.is_served)
    };
    if !case.gpus.iter().any(is_served) {
        return;
    }
    for (index, node) in case.definition.nodes.iter().enumerate() {
        let Some(backing) = node.backing.as_ref().filter(|backing| !backing.is_shared) else {
            continue;
        };
        out.add(
            Code::MemoryNotShared,
            backing.place.line,
            &[("node", &node.id)],
            Fix::Shared(index),
        );
    }
}

/// The host's node that the RAM of each GPU's socket is on. Returns the nodes of the host that the
/// RAM of the VM's nodes is bound to by corrections.
fn host_nodes(case: &Case<'_>, out: &mut Findings) -> BTreeMap<u32, NodeId> {
    // a root bus that is corrected is then on the GPU's node
    let is_corrected = out.has(&[
        Code::RootBusNode,
        Code::RootBusMissing,
        Code::RootPortMissing,
        Code::BusMissing,
    ]);
    let mut bound = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for gpu in &case.gpus {
        let sockets = case.sockets();
        let only = sockets.first().copied().filter(|_| sockets.len() == 1);
        let own = match is_corrected {
            true => Some(super::topology::socket(case, gpu)),
            false => case.socket(gpu).or(only),
        };
        let (Some(wanted), Some(socket)) = (gpu.cpu_node, own) else {
            continue;
        };
        let nodes = case.definition.nodes.iter().enumerate();
        let node = nodes.into_iter().find(|(_, node)| node.id == socket);
        let Some((index, node)) = node.filter(|_| seen.insert(socket)) else {
            continue;
        };
        // Extended GPU Memory is on its socket by itself; a node that is to be such has its own rules
        let mut ties = case.definition.egm.iter();
        let is_egm = ties.any(|tie| tie.node == socket);
        let backing = node
            .backing
            .as_ref()
            .filter(|one| !is_egm && one.egm().is_none());
        let Some(backing) = backing else {
            continue;
        };
        let fix = Fix::HostNode {
            node: index,
            host: wanted,
        };
        let host = backing.host_nodes.clone();
        let values: &[Value<'_>] = &[
            ("node", &socket),
            ("host", &optional(host)),
            ("gpu", &gpu.label()),
            ("wanted", &wanted),
        ];
        match backing.host_nodes.as_deref() {
            None => {
                bound.insert(socket, wanted);
                out.add(Code::MemoryAnywhere, backing.place.line, values, fix);
            }
            Some(text)
                if text
                    .parse::<CpuList>()
                    .is_ok_and(|list| !list.iter().any(|one| one == wanted.0)) =>
            {
                bound.insert(socket, wanted);
                out.add(Code::MemoryElsewhere, backing.place.line, values, fix);
            }
            Some(_) => {}
        }
    }
    bound
}

/// Virtual CPUs of a node whose RAM is on one node of the host.
fn processors(case: &Case<'_>, corrected: &BTreeMap<u32, NodeId>, out: &mut Findings) {
    let definition = case.definition;
    let (mut absent, mut elsewhere) = (Vec::new(), Vec::new());
    let mut first = None;
    for node in &definition.nodes {
        let Some((host, vcpus)) = bound(case, node, corrected.get(&node.id)) else {
            continue;
        };
        let Ok(chosen) = pins(host, vcpus.len() as u32) else {
            continue;
        };
        for (vcpu, cpu) in vcpus.into_iter().zip(chosen) {
            let pin = definition.pins.iter().find(|pin| pin.vcpu == vcpu);
            let is_near = |pin: &crate::model::Pin| match pin.cpus.parse::<CpuList>() {
                Ok(cpus) => cpus
                    .iter()
                    .all(|cpu| host.cpus.iter().any(|one| one == cpu)),
                Err(_) => true,
            };
            match pin {
                None => absent.push((vcpu, cpu)),
                Some(pin) if !is_near(pin) => {
                    first.get_or_insert((pin.place.line, host.id, pin.cpus.clone(), vcpu));
                    elsewhere.push((vcpu, cpu));
                }
                Some(_) => {}
            }
        }
    }
    if let Some((line, host, cpus, vcpu)) = first {
        out.add(
            Code::CpusElsewhere,
            line,
            &[("vcpu", &vcpu), ("cpus", &cpus), ("host", &host)],
            Fix::Pins(elsewhere),
        );
    }
    if !absent.is_empty() {
        let numbers: Vec<u32> = absent.iter().map(|(vcpu, _)| *vcpu).collect();
        out.add(
            Code::CpusAnywhere,
            definition.machine.place.line,
            &[("vcpus", &super::list(&numbers))],
            Fix::Pins(absent),
        );
    }
}

/// The one node of the host with a node's RAM, and the node's virtual CPUs.
fn bound<'a>(
    case: &Case<'a>,
    node: &Node,
    corrected: Option<&NodeId>,
) -> Option<(&'a varia_facts::NumaNode, Vec<u32>)> {
    let own = || node.backing.as_ref()?.host_nodes.as_deref()?.parse().ok();
    let host = corrected.copied().or_else(|| own().map(NodeId))?;
    let host = case.facts?.host.node(host)?;
    let vcpus: CpuList = node.cpus.as_deref()?.parse().ok()?;
    // a range of more CPUs than any machine has is a mistake
    (vcpus.count() <= 4096).then(|| (host, vcpus.iter().collect()))
}
