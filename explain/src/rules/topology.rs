//! Buses above GPUs: each GPU behind a root port of its own, on arm64 behind a root bus on the
//! node of the GPU's CPUs.

use std::collections::BTreeSet;

use crate::case::{Case, Subject};
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings, Value, optional};
use crate::model::{Bus, BusKind, Definition, Language, slot_of};
use varia_facts::Arch;
use varia_plan::limits::BUSES;
use varia_plan::qemu::size;
use varia_plan::topology::{Buses, Slots};
use varia_plan::window;

/// Bus, slot and function of a GPU, and true if the slot may have further functions.
type Slot = (String, (u8, u8), bool);

/// Number behind the last bus.
const LAST_BUS: u32 = 256;

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let mut roots = BTreeSet::new();
    let mut slots = BTreeSet::new();
    let is_placed = |gpu: &&Subject| {
        case.function(gpu)
            .is_some_and(|function| !function.open.is("bus"))
    };
    for gpu in case.gpus.iter().filter(is_placed) {
        if is_bus_missing(case, gpu, out) || is_port_wrong(case, gpu, &mut slots, out) {
            continue;
        }
        root_bus(case, gpu, &mut roots, out);
        reserve(case, gpu, out);
    }
    port_slots(case, out);
    numbers(case, out);
    chassis(case, out);
}

/// The node that a GPU's root bus should be on.
pub(super) fn socket(case: &Case<'_>, gpu: &Subject) -> u32 {
    let sockets = case.sockets();
    case.socket_on_host(gpu)
        .or_else(|| nearest(case, gpu).map(|(node, _)| node))
        .or_else(|| sockets.first().copied())
        .unwrap_or(0)
}

/// The node with CPUs that is nearest to a GPU's nodes, by the definition's distances.
fn nearest(case: &Case<'_>, gpu: &Subject) -> Option<(u32, u32)> {
    let definition = case.definition;
    let own = case.first_node(gpu)?;
    let sockets = case.sockets().into_iter();
    let far = sockets.filter_map(|node| Some((node, definition.distance(node, own)?)));
    far.min_by_key(|(_, far)| *far)
}

/// Root ports and other bridges below a root bus.
fn below(definition: &Definition, root: &str) -> usize {
    let buses = definition.buses.iter();
    let below = buses.filter(|bus| !matches!(bus.kind, BusKind::Root | BusKind::Expander { .. }));
    let below = below.filter(|bus| definition.root_of(bus) == Some(root));
    // libvirt gives each device without an address a root port
    let others = definition.others.iter();
    let is_added = definition.language == Language::Libvirt && root == definition.root();
    let added = others.filter(|one| is_added && one.bus.is_none());
    below.count() + added.count()
}

/// Numbers that the buses below each root bus take.
fn buses(case: &Case<'_>) -> Buses {
    let definition = case.definition;
    let on = |name: &str| below(definition, name);
    let root = definition.root();
    let mut buses = match definition.language {
        Language::Qemu => Buses::new(on(root)),
        Language::Libvirt => Buses::with_disks(on(root)),
    };
    for bus in &definition.buses {
        if let BusKind::Expander {
            number: Some(number),
            ..
        } = bus.kind
        {
            buses.take(number, Buses::of(on(&bus.name)));
        }
    }
    buses
}

/// A number for a root bus with so many root ports.
fn free_number(case: &Case<'_>, ports: usize) -> Option<u32> {
    if case.definition.has_open_numbers() {
        return None;
    }
    let count = Buses::of(ports).max(u32::from(BUSES));
    buses(case).free(count).map(u32::from)
}

/// A slot of the machine's own root bus that nothing takes.
fn free_slot(case: &Case<'_>) -> Option<u8> {
    let definition = case.definition;
    let mut slots = Slots::default();
    let root = definition.root();
    let is_root = |bus: &Option<String>| bus.as_deref().unwrap_or(root) == root;
    let functions = definition.functions.iter();
    let all = functions
        .map(|one| (&one.bus, &one.slot))
        .chain(definition.buses.iter().map(|one| (&one.parent, &one.slot)))
        .chain(definition.others.iter().map(|one| (&one.bus, &one.slot)));
    for (_, slot) in all.filter(|(bus, _)| is_root(bus)) {
        if let Some((slot, _)) = slot_of(slot) {
            slots.take(slot);
        }
    }
    slots.free()
}

/// A root port for a GPU, of a name that is given or free.
fn new_port(case: &Case<'_>, gpu: &Subject, name: Option<&str>, bus: &str) -> Fix {
    let own = case.definition.unused(&format!("{}.port", gpu.id));
    Fix::RootPort {
        function: gpu.function,
        name: name.map_or(own, str::to_owned),
        bus: bus.to_owned(),
        chassis: case.definition.free_chassis(),
        window: gpu.bars.as_deref().and_then(|bars| window(bars).ok()),
        slot: (bus == case.definition.root())
            .then(|| free_slot(case))
            .flatten(),
    }
}

/// A root bus for a GPU's port, of a name that is given or free.
fn new_bus(case: &Case<'_>, gpu: &Subject, port: usize, name: Option<&str>) -> Option<Fix> {
    let own = case.definition.unused(&format!("{}.root", gpu.id));
    Some(Fix::RootBus {
        port,
        name: name.map_or(own, str::to_owned),
        number: free_number(case, 1)?,
        node: socket(case, gpu),
        slot: free_slot(case),
    })
}

/// The name of a bus that does not exist, if something else has it: a device of a kind that is not
/// known here may make a bus.
fn taken(case: &Case<'_>, name: &str) -> String {
    optional(Some(format!("{name:?}")).filter(|_| !case.is_free(name)))
}

/// Reports a bus of the GPU or of its port that does not exist.
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
        // it may be made where nothing was read
        if definition.scope.has_more || name.contains(['$', '`']) {
            return true;
        }
        out.add(
            Code::BusMissing,
            function.place.line,
            &[
                ("gpu", &gpu.label()),
                ("bus", &format!("{name:?}")),
                ("taken", &taken(case, name)),
                ("root_port", &name),
            ],
            case.is_free(name)
                .then(|| new_port(case, gpu, Some(name), definition.root())),
        );
        return true;
    }
    let (port, _) = case.above(gpu);
    let Some((index, bus)) = port.and_then(|port| Some((port, definition.buses.get(port)?))) else {
        return false;
    };
    if bus.open.is("bus") {
        return true;
    }
    let Some(name) = bus
        .parent
        .as_deref()
        .filter(|name| case.bus(name).is_none())
    else {
        return false;
    };
    if definition.scope.has_more || name.contains(['$', '`']) {
        return true;
    }
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
            &[
                ("port", &format!("{:?}", bus.name)),
                ("bus", &format!("{name:?}")),
                ("taken", &taken(case, name)),
                ("root_bus", &name),
            ],
            fix.filter(|_| case.is_free(name)),
        );
    }
    true
}

/// Slot and function of a device behind a root port: the first one where the VMM chooses; `None` if
/// only a shell knows it.
fn place_of(slot: &str) -> Option<(u8, u8)> {
    match slot {
        "" => Some((0, 0)),
        slot => slot_of(slot),
    }
}

/// Reports a GPU without a root port, or in the slot of another device.
fn is_port_wrong(
    case: &Case<'_>,
    gpu: &Subject,
    slots: &mut BTreeSet<Slot>,
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
        let root_name = root_name.unwrap_or(definition.root());
        out.add(
            code,
            function.place.line,
            &[
                (if is_given_one { "unplaced" } else { "gpu" }, &gpu.label()),
                ("bus", &format!("{root_name:?}")),
            ],
            new_port(case, gpu, None, root_name),
        );
        return true;
    }
    let bus = function.bus.clone().unwrap_or_default();
    let kind = definition.bus(&bus).map(|bus| &bus.kind);
    // a bridge has slots for many
    let is_own = matches!(kind, Some(BusKind::Port { .. })) || !function.slot.is_empty();
    let Some(own) = place_of(&function.slot).filter(|_| is_own) else {
        return false;
    };
    // function 0 of a slot with several says so
    let is_single = own.1 == 0 && !function.is_multifunction;
    let is_taken = slots.iter().any(|(other_bus, other, is_multifunction)| {
        let is_refused = is_single || other.1 == own.1 || other.1 == 0 && !is_multifunction;
        *other_bus == bus && other.0 == own.0 && is_refused
    });
    slots.insert((bus.clone(), own, function.is_multifunction));
    // a device of another kind in the same place
    let mut others = definition.others.iter();
    let other =
        others.find(|one| one.bus.as_ref() == Some(&bus) && place_of(&one.slot) == Some(own));
    if !is_taken && other.is_none() {
        return false;
    }
    out.add(
        Code::PortShared,
        function.place.line,
        &[
            ("gpu", &gpu.label()),
            ("other", &optional(other.map(|one| &one.label))),
            ("bus", &format!("{bus:?}")),
        ],
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
                &[("gpu", &gpu.label()), ("node", &socket(case, gpu))],
                new_bus(case, gpu, port, None),
            );
        }
        return;
    };
    if !seen.insert(root) {
        let code = match definition.smmus.is_empty() {
            false if case.shares_smmu(gpu, root) != Some(false) => return,
            false => Code::RootBusShared,
            true if is_of_another_node(case, gpu, root) => Code::RootBusFar,
            true => return,
        };
        out.add(
            code,
            port_bus.place.line,
            &[
                ("gpu", &gpu.label()),
                ("bus", &format!("{:?}", root_bus.name)),
            ],
            new_bus(case, gpu, port, None),
        );
        return;
    }
    let sockets = case.sockets();
    if sockets.is_empty() || root_bus.open.is("numa_node") {
        return;
    }
    let wanted = socket(case, gpu);
    let of_host = case.socket_on_host(gpu);
    let own = of_host.filter(|own| Some(*own) != node);
    let near = match (node, nearest(case, gpu)) {
        (Some(node), Some((near, far))) if of_host.is_none() => distance_to(case, gpu, node)
            .filter(|own| far < *own)
            .map(|_| near),
        _ => None,
    };
    let has_cpus = node.is_some_and(|node| sockets.contains(&node));
    if has_cpus && own.is_none() && near.is_none() {
        return;
    }
    out.add(
        Code::RootBusNode,
        root_bus.place.line,
        &[
            ("bus", &format!("{:?}", root_bus.name)),
            ("gpu", &gpu.label()),
            ("node", &optional(node)),
            ("own", &optional(own.filter(|_| has_cpus))),
            ("near", &optional(near.filter(|_| has_cpus))),
            ("wanted", &wanted),
        ],
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
    case.definition.distance(node, case.first_node(gpu)?)
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
    let reserved = match window {
        None if bus.open.is("pref64-reserve") => return,
        None => None,
        Some(Some(given)) if given < wanted => Some(given),
        Some(_) => return,
    };
    out.add(
        Code::RootPortWindow,
        bus.place.line,
        &[
            ("port", &format!("{:?}", bus.name)),
            ("reserved", &optional(reserved)),
            ("gpu", &gpu.label()),
            ("wanted", &wanted),
            ("option", &size(wanted)),
        ],
        Fix::Window {
            bus: port,
            window: wanted,
        },
    );
}

/// Reports root buses without a number of their own, or without room for the buses below them. A
/// root bus that begins where another one still has buses gets another number.
fn numbers(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let number_of = |bus: &Bus| match bus.kind {
        BusKind::Root => Some(0),
        BusKind::Expander { .. } if bus.open.is("bus_nr") => None,
        // QEMU's own is 0, and libvirt chooses
        BusKind::Expander { number, .. } if case.is_qemu() => Some(number.unwrap_or(0)),
        BusKind::Expander { number, .. } => number,
        BusKind::Port { .. } | BusKind::Bridge => None,
    };
    let last_of = |name: &str, number: u32| {
        let count = Buses::of(below(definition, name));
        number.saturating_add(count - 1)
    };
    let root = definition.root();
    let expanders = definition.buses.iter().filter_map(|bus| {
        let is_expander = matches!(bus.kind, BusKind::Expander { .. });
        Some((bus.name.as_str(), number_of(bus).filter(|_| is_expander)?))
    });
    let roots: Vec<_> = [(root, 0)].into_iter().chain(expanders).collect();
    let mut seen = BTreeSet::new();
    for (index, bus) in definition.buses.iter().enumerate() {
        if !matches!(bus.kind, BusKind::Expander { .. }) {
            continue;
        }
        let Some(number) = number_of(bus) else {
            continue;
        };
        let is_own = number != 0 && seen.insert(number);
        let mut before = roots
            .iter()
            .filter(|(_, other)| *other < number)
            .map(|(name, other)| (*name, last_of(name, *other)))
            .filter(|(_, last)| *last >= number);
        let before = before.next().filter(|_| is_own);
        let beyond = last_of(&bus.name, number);
        if is_own && before.is_none() && beyond < LAST_BUS {
            continue;
        }
        let free = free_number(case, below(definition, &bus.name));
        let name = format!("{:?}", bus.name);
        let mut values: Vec<Value<'_>> = vec![("bus", &name)];
        let other = before.map(|(name, last)| (format!("{name:?}"), last));
        values.push(("number", &number));
        if let Some((other, last)) = &other {
            values.extend::<[Value<'_>; 2]>([("before", other), ("last", last)]);
        }
        let beyond = optional(Some(beyond).filter(|_| is_own));
        let free_text = optional(free);
        values.extend::<[Value<'_>; 2]>([("beyond", &beyond), ("free", &free_text)]);
        out.add(
            Code::RootBusNumber,
            bus.place.line,
            &values,
            free.map(|number| Fix::BusNumber { bus: index, number }),
        );
    }
}

/// Reports devices behind a root port that are not in its one slot, or are none of its function 0.
fn port_slots(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let functions = definition.functions.iter();
    let others = definition.others.iter();
    let all: Vec<_> = functions
        .map(|one| (one.bus.as_deref(), &one.slot, one.place, one.label()))
        .chain(others.map(|one| (one.bus.as_deref(), &one.slot, one.place, one.label.clone())))
        .filter_map(|(bus, slot, place, label)| {
            let bus = definition.bus(bus?)?;
            let is_port = matches!(bus.kind, BusKind::Port { .. });
            is_port.then_some((bus, place_of(slot)?, place, label))
        })
        .collect();
    for (bus, (slot, function), place, label) in &all {
        let beside = all
            .iter()
            .filter(|(other, _, own, _)| other.name == bus.name && own != place);
        let has_first = beside.clone().any(|(_, own, ..)| *own == (0, 0));
        if *slot == 0 && (*function == 0 || has_first) {
            continue;
        }
        let bus = format!("{:?}", bus.name);
        let values: &[Value<'_>] = &[
            ("device", label),
            ("bus", &bus),
            ("slot", &optional(Some(*slot).filter(|slot| *slot > 0))),
            ("function", function),
        ];
        let fix = (beside.count() == 0).then_some(Fix::Slot(*place));
        out.add(Code::PortSlot, place.line, values, fix);
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
        let slot = slot.unwrap_or(0);
        if seen.insert((chassis, slot)) {
            continue;
        }
        let free = case.definition.free_chassis();
        out.add(
            Code::ChassisTwice,
            bus.place.line,
            &[
                ("port", &format!("{:?}", bus.name)),
                ("chassis", &chassis),
                ("slot", &slot),
                ("free", &free),
            ],
            Fix::Chassis {
                bus: index,
                chassis: free,
            },
        );
    }
}
