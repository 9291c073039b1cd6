//! A fix -> the command line that has it.

use crate::edit::fix::Fix;
use crate::model::{Definition, slot_of};
use crate::parse::arguments::cpus;
use crate::parse::command::{Command, Opt};
use varia_facts::Arch;
use varia_plan::egm_object;
use varia_plan::qemu::{UEFI, size, smmu};

/// Applies a fix to a command line; the text of it, or `None` where it can't be done here.
pub(crate) fn apply(command: &Command, definition: &Definition, fix: &Fix) -> Option<String> {
    let mut command = command.clone();
    let of_function = |function: &usize| definition.functions.get(*function).map(|one| one.place);
    let of_bus = |bus: &usize| definition.buses.get(*bus).map(|one| one.place);
    let machine = definition.machine.place.index;
    match fix {
        Fix::FirstNode => first_node(&mut command, definition)?,
        Fix::Assign {
            numbers,
            define,
            remove,
            ties,
        } => {
            for (node, number) in numbers {
                let place = definition.nodes.get(*node)?.place;
                match number {
                    Some(number) => command.set(place.index, "nodeid", &number.to_string()),
                    None => command.remove(place.index),
                }
            }
            for node in define {
                command.add(is_node, "numa", format!("node,nodeid={node}"));
            }
            remove_nodes(&mut command, definition, remove);
            initiators(&mut command, definition, ties);
        }
        Fix::Renumber(pairs) => renumber(&mut command, pairs),
        Fix::EmptyNode(node) => {
            let place = definition.nodes.get(*node)?.place;
            command.unset(place.index, "memdev");
            command.unset(place.index, "mem");
        }
        Fix::Distances { set, remove } => {
            for one in remove
                .iter()
                .filter_map(|one| definition.distances.get(*one))
            {
                command.remove(one.place.index);
            }
            for (from, to, value) in set {
                distance(&mut command, definition, *from, *to, *value);
            }
        }
        Fix::Machine => {
            let machine = match definition.arch {
                Arch::Aarch64 => "virt,gic-version=3",
                Arch::X86_64 => "q35",
            };
            command.add_before(0, "machine", machine.to_owned());
        }
        Fix::Aperture(aperture) => {
            for (index, _) in machines(&command) {
                command.unset(index, "highmem");
                command.unset(index, "highmem-mmio");
            }
            command.set(machine, "highmem-mmio-size", &size(*aperture));
        }
        Fix::AddressBits(bits) => {
            let (_, place) = definition.machine.address_bits?;
            command.set(place.index, "phys-bits", &bits.to_string());
        }
        Fix::Gic => command.set(machine, "gic-version", "3"),
        Fix::Kvm => kvm(&mut command, machine),
        Fix::HostCpu => match &definition.machine.cpu {
            Some((_, place)) => {
                // software's alone
                command.unset(place.index, "pauth-impdef");
                command.set_kind(place.index, "model", "host");
            }
            None => command.add_behind(machine, "cpu", "host".to_owned()),
        },
        Fix::Acpi => {
            for (index, option) in options(&command) {
                if option.name == "no-acpi" {
                    command.remove(index);
                } else if option.name == "machine" {
                    command.unset(index, "acpi");
                }
            }
        }
        Fix::Firmware => command.add(|_| false, "bios", UEFI.to_owned()),
        Fix::NoMachineSmmu => {
            for (index, _) in machines(&command) {
                command.unset(index, "iommu");
            }
        }
        Fix::RootPort {
            function,
            name,
            bus,
            chassis,
            window,
            slot,
        } => {
            let place = of_function(function)?;
            let mut port = format!("pcie-root-port,id={name},bus={bus},chassis={chassis}");
            if let Some(slot) = slot {
                port += &format!(",addr={slot:#x}");
            }
            if let Some(window) = window {
                port += &format!(",pref64-reserve={}", size(*window));
            }
            command.set(place.index, "bus", name);
            // the one slot of a port
            leave_slot(&mut command, place.index);
            command.add_before(place.index, "device", port);
        }
        Fix::RootBus {
            port,
            name,
            number,
            node,
            slot,
        } => {
            let place = of_bus(port)?;
            promote(&mut command, definition, *port);
            command.set(place.index, "bus", name);
            leave_slot(&mut command, place.index);
            let slot = slot.map(|slot| format!(",addr={slot:#x}"));
            let slot = slot.unwrap_or_default();
            let bus =
                format!("pxb-pcie,id={name},bus=pcie.0{slot},bus_nr={number},numa_node={node}");
            command.add_before(place.index, "device", bus);
        }
        Fix::BusNode { bus, node } => {
            command.set(of_bus(bus)?.index, "numa_node", &node.to_string());
        }
        Fix::BusNumber { bus, number } => {
            command.set(of_bus(bus)?.index, "bus_nr", &number.to_string());
        }
        Fix::Window { bus, window } => {
            command.set(of_bus(bus)?.index, "pref64-reserve", &size(*window));
        }
        Fix::Chassis { bus, chassis } => {
            command.set(of_bus(bus)?.index, "chassis", &chassis.to_string());
        }
        Fix::Slot(place) => command.set(place.index, "addr", "0"),
        Fix::Id { function, id } => command.set(of_function(function)?.index, "id", id),
        Fix::Rename { name, id } => {
            let place = definition.ids.get(*name)?.place;
            command.set(place.index, "id", id);
        }
        Fix::AddIommufd(id) => {
            let first = definition.functions.iter().map(|one| one.place).next()?;
            command.add_before(first.index, "object", format!("iommufd,id={id}"));
        }
        Fix::UseIommufd { function, id } => {
            command.set(of_function(function)?.index, "iommufd", id);
        }
        Fix::Accelerate(smmu) => {
            command.set(definition.smmus.get(*smmu)?.place.index, "accel", "on");
        }
        Fix::SmmuOptions { smmu, names } => {
            let index = definition.smmus.get(*smmu)?.place.index;
            for name in names {
                command.unset(index, name);
            }
        }
        Fix::EgmDevice { tie, device } => {
            command.set(definition.egm.get(*tie)?.place.index, "pci-dev", device);
        }
        Fix::EgmNode { tie, node } => {
            let index = definition.egm.get(*tie)?.place.index;
            command.set(index, "node", &node.to_string());
        }
        Fix::File { node, file } => {
            let backing = definition.nodes.get(*node)?.backing.as_ref()?;
            command.set(backing.place.index, "mem-path", file);
        }
        Fix::AddEgm { device, node } => {
            let mut functions = definition.functions.iter();
            let own = functions.find(|one| one.id.as_ref() == Some(device))?;
            let id = definition.unused(&format!("{device}.egm"));
            let object = egm_object(&id, device, node);
            command.add_behind(own.place.index, "object", object);
        }
        Fix::SmmuBus { smmu, bus } => {
            let bus = &definition.buses.get(*bus)?.name;
            command.set(definition.smmus.get(*smmu)?.place.index, "primary-bus", bus);
        }
        Fix::AddSmmu { bus } => {
            let bus = definition.buses.get(*bus)?;
            let id = definition.unused(&format!("{}.smmu", bus.name));
            let like = definition.smmus.iter().find(|one| one.is_accelerated);
            let like = like.and_then(|like| command.options.get(like.place.index));
            let options = match like {
                Some(like) => like.properties.without(&["id", "primary-bus", "driver"]),
                None => smmu(),
            };
            let value = format!("arm-smmuv3,id={id},primary-bus={},{options}", bus.name);
            command.add_behind(bus.place.index, "device", value);
        }
        Fix::Mapped(function) => command.unset(of_function(function)?.index, "x-no-mmap"),
        Fix::NoRom(function) => command.set(of_function(function)?.index, "rombar", "0"),
        Fix::HostNode { node, host } => {
            let backing = definition.nodes.get(*node)?.backing.as_ref()?;
            let index = backing.place.index;
            command.set(index, "host-nodes", &host.to_string());
            command.set(index, "policy", "bind");
        }
        Fix::Shared(node) => {
            let backing = definition.nodes.get(*node)?.backing.as_ref()?;
            command.set(backing.place.index, "share", "on");
        }
        Fix::BestDriver(_) | Fix::Pins(_) => return None,
    }
    command.changed()
}

/// The options, while they are changed.
fn options(command: &Command) -> Vec<(usize, Opt)> {
    command.options.iter().cloned().enumerate().collect()
}

fn machines(command: &Command) -> Vec<(usize, Opt)> {
    let options = options(command).into_iter();
    options
        .filter(|(_, option)| option.name == "machine")
        .collect()
}

fn is_node(option: &Opt) -> bool {
    option.name == "numa" && option.properties.kind("type") == "node"
}

fn is_numa(option: &Opt) -> bool {
    option.name == "numa"
}

/// Takes the slot of a device away, which goes to another bus: it is then the first one there.
fn leave_slot(command: &mut Command, index: usize) {
    for key in ["addr", "multifunction"] {
        command.unset(index, key);
    }
}

/// Makes another port function 0 of a slot that a port leaves: without a function 0 a guest does not
/// find the others.
fn promote(command: &mut Command, definition: &Definition, port: usize) {
    let Some(own) = definition.buses.get(port) else {
        return;
    };
    let Some((slot, 0)) = slot_of(&own.slot) else {
        return;
    };
    let siblings = definition
        .buses
        .iter()
        .filter(|bus| bus.parent == own.parent);
    let next = siblings
        .filter_map(|bus| Some((bus, slot_of(&bus.slot)?)))
        .filter(|(_, (other, function))| *other == slot && *function > 0)
        .min_by_key(|(_, (_, function))| *function);
    if let Some((next, _)) = next {
        command.set(next.place.index, "addr", &format!("{slot:#x}"));
        command.set(next.place.index, "multifunction", "on");
    }
}

/// RAM and CPUs of a machine that has no nodes yet.
fn first_node(command: &mut Command, definition: &Definition) -> Option<()> {
    let ram = definition.machine.ram?;
    let id = definition.unused("ram0");
    let last = cpus(command).unwrap_or(1).max(1) - 1;
    let size = size(ram);
    let backend = format!("memory-backend-memfd,id={id},size={size},share=on");
    let is_ram = |option: &Opt| option.name == "m";
    command.add(is_ram, "object", backend);
    let node = format!("node,nodeid=0,cpus=0-{last},memdev={id}");
    command.add(is_ram, "numa", node);
    // it would be RAM without a node
    for (index, _) in machines(command) {
        command.unset(index, "memory-backend");
    }
    Some(())
}

fn remove_nodes(command: &mut Command, definition: &Definition, nodes: &[u32]) {
    for node in definition
        .nodes
        .iter()
        .filter(|one| nodes.contains(&one.id))
    {
        command.remove(node.place.index);
    }
    for one in &definition.distances {
        if nodes.contains(&one.from) || nodes.contains(&one.to) {
            command.remove(one.place.index);
        }
    }
}

fn renumber(command: &mut Command, pairs: &[(u32, u32)]) {
    for (index, option) in options(command) {
        let properties = &option.properties;
        let keys: &[&str] = match option.name.as_str() {
            "numa" => &["nodeid", "src", "dst", "node-id"],
            "object" if properties.kind("qom-type") == "acpi-generic-initiator" => &["node"],
            "device" if matches!(properties.kind("driver"), "pxb-pcie" | "pxb-cxl" | "pxb") => {
                &["numa_node"]
            }
            _ => &[],
        };
        for key in keys {
            let number = properties
                .get(key)
                .and_then(|text| text.parse::<u32>().ok());
            if let Some((_, to)) = pairs.iter().find(|(from, _)| Some(*from) == number) {
                command.set(index, key, &to.to_string());
            }
        }
    }
}

/// Leaves one object for each node of each device; objects that tie anything else are changed
/// before new ones are added.
fn initiators(command: &mut Command, definition: &Definition, ties: &[(String, Vec<u32>)]) {
    let all = ties
        .iter()
        .flat_map(|(device, nodes)| nodes.iter().map(move |node| (device.as_str(), *node)));
    let mut missing: Vec<(&str, u32)> = all.collect();
    let mut spare = Vec::new();
    for one in &definition.initiators {
        let tie = (one.device.as_str(), one.node);
        match missing.iter().position(|missing| *missing == tie) {
            Some(at) => drop(missing.remove(at)),
            None => spare.push(one),
        }
    }
    for (device, node) in missing {
        let same_node = spare.iter().position(|one| one.node == node);
        let same_device = || spare.iter().position(|one| one.device == device);
        let any = || (!spare.is_empty()).then_some(0);
        match same_node.or_else(same_device).or_else(any) {
            Some(at) => {
                let index = spare.remove(at).place.index;
                command.set(index, "pci-dev", device);
                command.set(index, "node", &node.to_string());
            }
            None => {
                let id = definition.unused(&format!("{device}.gi{node}"));
                let value = format!("acpi-generic-initiator,id={id},pci-dev={device},node={node}");
                let is_its = |option: &Opt| {
                    let properties = &option.properties;
                    properties.get("pci-dev").as_deref() == Some(device)
                        || option.name == "device"
                            && properties.get("id").as_deref() == Some(device)
                };
                command.add(is_its, "object", value);
            }
        }
    }
    for one in spare {
        command.remove(one.place.index);
    }
}

fn distance(command: &mut Command, definition: &Definition, from: u32, to: u32, value: u32) {
    let given = definition
        .distances
        .iter()
        .find(|one| (one.from, one.to) == (from, to));
    match given {
        Some(one) => command.set(one.place.index, "val", &value.to_string()),
        None => command.add(
            is_numa,
            "numa",
            format!("dist,src={from},dst={to},val={value}"),
        ),
    }
}

fn kvm(command: &mut Command, machine: usize) {
    let said = command
        .options
        .iter()
        .position(|option| option.name == "accel");
    let of_machine = command
        .options
        .iter()
        .position(|option| option.name == "machine" && option.properties.get("accel").is_some());
    match (said, of_machine) {
        (Some(index), _) => {
            // what is said of another accelerator is not said of KVM
            for key in ["thread", "tb-size", "split-wx"] {
                command.unset(index, key);
            }
            command.set_kind(index, "accel", "kvm");
        }
        (None, Some(index)) => command.set(index, "accel", "kvm"),
        (None, None) => command.add_behind(machine, "accel", "kvm".to_owned()),
    }
}
