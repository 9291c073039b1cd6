//! Where GPUs are attached: each behind a root port of its own, on arm64 behind a root bus of its
//! own, which is on its CPUs' node.

use std::collections::BTreeSet;

use crate::case::{Case, Subject};
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};
use crate::model::BusKind;
use varia_plan::Arch;
use varia_plan::limits::BUSES;
use varia_plan::size;
use varia_plan::window;

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let mut roots = BTreeSet::new();
    let mut slots = BTreeSet::new();
    for gpu in &case.gpus {
        if is_bus_missing(case, gpu, out) || is_port_wrong(case, gpu, &mut slots, out) {
            continue;
        }
        root_bus(case, gpu, &mut roots, out);
        reserve(case, gpu, out);
    }
    numbers(case, out);
    chassis(case, out);
}

/// The node that a GPU's root bus should be on.
fn socket(case: &Case<'_>, gpu: &Subject) -> u32 {
    let sockets = case.sockets();
    case.socket_on_host(gpu)
        .or_else(|| nearest(case, gpu).map(|(node, _)| node))
        .or_else(|| sockets.first().copied())
        .unwrap_or(0)
}

/// The node with CPUs that is nearest to a GPU's nodes, by the definition's distances.
fn nearest(case: &Case<'_>, gpu: &Subject) -> Option<(u32, u32)> {
    let definition = case.definition;
    let its = definition
        .initiators
        .iter()
        .find(|one| one.device == gpu.id)?;
    let sockets = case.sockets().into_iter();
    let far = sockets.filter_map(|node| Some((node, definition.distance(node, its.node)?)));
    far.min_by_key(|(_, far)| *far)
}

fn free_number(case: &Case<'_>) -> Option<u32> {
    let numbers = case
        .definition
        .buses
        .iter()
        .filter_map(|bus| match bus.kind {
            BusKind::Expander { number, .. } => number,
            _ => None,
        });
    let step = u32::from(BUSES);
    let next = numbers.max().unwrap_or(0) / step * step + step;
    (next <= u32::from(u8::MAX - BUSES)).then_some(next)
}

fn free_chassis(case: &Case<'_>) -> u32 {
    let all = case
        .definition
        .buses
        .iter()
        .filter_map(|bus| match bus.kind {
            BusKind::Port { chassis, .. } => chassis,
            _ => None,
        });
    all.max().unwrap_or(0).saturating_add(1)
}

/// A root port for a GPU, of a name that is given or free.
fn new_port(case: &Case<'_>, gpu: &Subject, name: Option<&str>, bus: &str) -> Fix {
    let own = case.definition.unused(&format!("{}.port", gpu.id));
    Fix::RootPort {
        function: gpu.function,
        name: name.map_or(own, str::to_owned),
        bus: bus.to_owned(),
        chassis: free_chassis(case),
        window: gpu.bars.as_deref().and_then(|bars| window(bars).ok()),
    }
}

/// A root bus for a GPU's port, of a name that is given or free.
fn new_bus(case: &Case<'_>, gpu: &Subject, port: usize, name: Option<&str>) -> Option<Fix> {
    let own = case.definition.unused(&format!("{}.root", gpu.id));
    Some(Fix::RootBus {
        port,
        name: name.map_or(own, str::to_owned),
        number: free_number(case)?,
        node: socket(case, gpu),
    })
}

/// A bus that the GPU or its port is on, and that nothing makes.
fn is_bus_missing(case: &Case<'_>, gpu: &Subject, out: &mut Findings) -> bool {
    let definition = case.definition;
    let Some(function) = case.function(gpu) else {
        return true;
    };
    if let Some(name) = function
        .bus
        .as_deref()
        .filter(|name| case.bus(name).is_none())
    {
        out.add(
            Code::BusMissing,
            function.place.line,
            format!("{} is on the bus {name:?}, which is not there", gpu.label()),
            "add a root port of this name",
            new_port(case, gpu, Some(name), definition.root()),
        );
        return true;
    }
    let (port, _) = case.above(gpu);
    let Some((index, bus)) = port.and_then(|port| Some((port, definition.buses.get(port)?))) else {
        return false;
    };
    let Some(name) = bus
        .parent
        .as_deref()
        .filter(|name| case.bus(name).is_none())
    else {
        return false;
    };
    // GPUs that are to share it: one finding
    let is_new = !definition
        .buses
        .iter()
        .take(index)
        .any(|other| other.parent == bus.parent);
    if is_new {
        let fix = match definition.arch {
            Arch::Aarch64 => new_bus(case, gpu, index, Some(name)),
            Arch::X86_64 => None,
        };
        out.add(
            Code::BusMissing,
            bus.place.line,
            format!(
                "the root port {:?} is on the bus {name:?}, which is not there",
                bus.name
            ),
            "add a root bus of this name (pxb-pcie), on the node of the GPU's CPUs",
            fix,
        );
    }
    true
}

/// No port, or one that somebody else has.
fn is_port_wrong(
    case: &Case<'_>,
    gpu: &Subject,
    slots: &mut BTreeSet<(String, String)>,
    out: &mut Findings,
) -> bool {
    let definition = case.definition;
    let (port, root) = case.above(gpu);
    let Some(function) = case.function(gpu) else {
        return true;
    };
    let root_name = root
        .and_then(|root| definition.buses.get(root))
        .map(|bus| bus.name.as_str());
    if port.is_none() {
        // libvirt gives a device without an address a port on the first root bus
        let is_given_one = !case.is_qemu() && function.bus.is_none();
        let code = match (is_given_one, definition.arch) {
            (true, Arch::X86_64) => return false,
            (true, Arch::Aarch64) => Code::RootBusMissing,
            (false, _) => Code::RootPortMissing,
        };
        let what = if is_given_one {
            "has no address: it comes to the first root bus"
        } else {
            "is on a root bus, with no root port above it"
        };
        out.add(
            code,
            function.place.line,
            format!("{} {what}", gpu.label()),
            "put it behind a root port of its own",
            new_port(case, gpu, None, root_name.unwrap_or(definition.root())),
        );
        return true;
    }
    let slot = (
        function.bus.clone().unwrap_or_default(),
        function.slot.clone(),
    );
    if slots.insert(slot) {
        return false;
    }
    out.add(
        Code::PortShared,
        function.place.line,
        format!(
            "{} is in the slot of another GPU, on the bus {:?}",
            gpu.label(),
            function.bus.as_deref().unwrap_or_default()
        ),
        "put it behind a root port of its own",
        new_port(case, gpu, None, definition.root()),
    );
    true
}

fn root_bus(case: &Case<'_>, gpu: &Subject, seen: &mut BTreeSet<usize>, out: &mut Findings) {
    let definition = case.definition;
    let (Some(port), Some(root)) = case.above(gpu) else {
        return;
    };
    let (Some(port_bus), Some(root_bus)) = (definition.buses.get(port), definition.buses.get(root))
    else {
        return;
    };
    let BusKind::Expander { node, .. } = root_bus.kind else {
        if definition.arch == Arch::Aarch64 {
            out.add(
                Code::RootBusMissing,
                port_bus.place.line,
                format!("{} is behind the machine's own root bus", gpu.label()),
                format!(
                    "give it a root bus of its own (pxb-pcie) on node {}",
                    socket(case, gpu)
                ),
                new_bus(case, gpu, port, None),
            );
        }
        return;
    };
    if !seen.insert(root) {
        let code = match definition.smmus.is_empty() {
            false => Code::RootBusShared,
            true if is_of_another_node(case, gpu, root) => Code::RootBusFar,
            true => return,
        };
        let other = match code {
            Code::RootBusFar => "a GPU of another node",
            _ => "another GPU",
        };
        out.add(
            code,
            port_bus.place.line,
            format!(
                "{} is behind the root bus {:?}, as {other} is",
                gpu.label(),
                root_bus.name
            ),
            "give it one of its own (pxb-pcie)",
            new_bus(case, gpu, port, None),
        );
        return;
    }
    let sockets = case.sockets();
    if sockets.is_empty() {
        return;
    }
    let wanted = socket(case, gpu);
    let what = match node {
        None => "is on no node".to_owned(),
        Some(node) if !sockets.contains(&node) => {
            format!("is on node {node}, which has no CPUs")
        }
        Some(node)
            if case
                .socket_on_host(gpu)
                .is_some_and(|socket| socket != node) =>
        {
            format!("is on node {node}, and the GPU's CPUs are node {wanted}'s")
        }
        Some(node) => match (nearest(case, gpu), distance_to(case, gpu, node)) {
            (Some((near, far)), Some(own)) if case.socket_on_host(gpu).is_none() && far < own => {
                format!("is on node {node}, and the GPU's nodes are nearer to node {near}")
            }
            _ => return,
        },
    };
    out.add(
        Code::RootBusNode,
        root_bus.place.line,
        format!("the root bus {:?} of {} {what}", root_bus.name, gpu.label()),
        format!("put it on node {wanted}"),
        Fix::BusNode {
            bus: root,
            node: wanted,
        },
    );
}

/// The first GPU behind a root bus is known to be of another node with CPUs than this one.
fn is_of_another_node(case: &Case<'_>, gpu: &Subject, root: usize) -> bool {
    let own = |gpu: &Subject| {
        case.socket_on_host(gpu)
            .or_else(|| nearest(case, gpu).map(|(node, _)| node))
    };
    let mut gpus = case.gpus.iter();
    let first = gpus.find(|other| case.above(other).1 == Some(root));
    let nodes = first.and_then(own).zip(own(gpu));
    nodes.is_some_and(|(first, its)| first != its)
}

fn distance_to(case: &Case<'_>, gpu: &Subject, node: u32) -> Option<u32> {
    let its = case
        .definition
        .initiators
        .iter()
        .find(|one| one.device == gpu.id)?;
    case.definition.distance(node, its.node)
}

/// QEMU's ports reserve addresses; libvirt has no attribute for it.
fn reserve(case: &Case<'_>, gpu: &Subject, out: &mut Findings) {
    let (Some(port), _) = case.above(gpu) else {
        return;
    };
    let Some(wanted) = gpu.bars.as_deref().and_then(|bars| window(bars).ok()) else {
        return;
    };
    let Some(bus) = case.definition.buses.get(port).filter(|_| case.is_qemu()) else {
        return;
    };
    let BusKind::Port { window, .. } = bus.kind else {
        return;
    };
    let what = match window {
        None => "reserves no 64-bit prefetchable addresses".to_owned(),
        Some(Some(given)) if given < wanted => format!("reserves {}", size(given.0)),
        Some(_) => return,
    };
    out.add(
        Code::RootPortWindow,
        bus.place.line,
        format!(
            "the root port {:?} {what}, and the BARs of {} need {}",
            bus.name,
            gpu.label(),
            size(wanted.0)
        ),
        format!("let it reserve them: pref64-reserve={}M", wanted.0 >> 20),
        Fix::Window {
            bus: port,
            window: wanted,
        },
    );
}

fn numbers(case: &Case<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, bus) in case.definition.buses.iter().enumerate() {
        let BusKind::Expander { number, .. } = bus.kind else {
            continue;
        };
        // QEMU's own is 0, and libvirt chooses
        let number = match number {
            None if !case.is_qemu() => continue,
            number => number.unwrap_or(0),
        };
        if number != 0 && seen.insert(number) {
            continue;
        }
        let free = free_number(case);
        out.add(
            Code::RootBusNumber,
            bus.place.line,
            format!(
                "the root bus {:?} has the number {number}, as another one has",
                bus.name
            ),
            match free {
                Some(free) => format!("give it the number {free}"),
                None => "give it a number that is free".to_owned(),
            },
            free.map(|number| Fix::BusNumber { bus: index, number }),
        );
    }
}

fn chassis(case: &Case<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, bus) in case.definition.buses.iter().enumerate() {
        let BusKind::Port {
            chassis: Some(chassis),
            slot,
            ..
        } = bus.kind
        else {
            continue;
        };
        if seen.insert((chassis, slot.unwrap_or(0))) {
            continue;
        }
        let free = free_chassis(case);
        out.add(
            Code::ChassisTwice,
            bus.place.line,
            format!(
                "the root port {:?} is in chassis {chassis}, as another one is",
                bus.name
            ),
            format!("give it a chassis of its own: chassis={free}"),
            Fix::Chassis {
                bus: index,
                chassis: free,
            },
        );
    }
}
