//! A fix -> the domain that has it.

use std::collections::BTreeMap;

use roxmltree::{Document, Node, NodeId};

use super::fix::Fix;
use super::libvirt::{child, elements, number, override_of, parse, path};
use super::markup::Changes;
use super::model::{Definition, Place};
use crate::xml::Element;

/// Applies a fix to a domain; its text, or `None` where it can't be done here.
pub(super) fn apply(text: &str, definition: &Definition, fix: &Fix) -> Option<String> {
    let document = parse(text).ok()?;
    let mut domain = Domain {
        document: &document,
        root: document.root_element(),
        definition,
        changes: Changes::new(&document),
    };
    domain.apply(fix)?;
    Some(domain.changes.text(&document))
}

struct Domain<'d, 'a> {
    document: &'d Document<'a>,
    root: Node<'d, 'a>,
    definition: &'d Definition,
    changes: Changes<'a>,
}

impl<'d, 'a> Domain<'d, 'a> {
    fn apply(&mut self, fix: &Fix) -> Option<()> {
        match fix {
            Fix::FirstNode => self.first_node()?,
            Fix::AddNodes(nodes) => {
                let numa = path(self.root, &["cpu", "numa"])?;
                for node in nodes {
                    self.changes.append(numa, cell(*node));
                }
            }
            Fix::RemoveNodes(nodes) => self.remove_nodes(nodes)?,
            Fix::Renumber(pairs) => self.renumber(pairs)?,
            Fix::EmptyNode(node) => {
                let cell = self.at(self.definition.nodes.get(*node)?.place)?;
                self.changes.set(cell, "memory", "0");
            }
            Fix::NodeId { node, id } => {
                let cell = self.at(self.definition.nodes.get(*node)?.place)?;
                self.changes.set(cell, "id", &id.to_string());
            }
            Fix::RemoveNode(node) => {
                let cell = self.at(self.definition.nodes.get(*node)?.place)?;
                self.changes.remove(cell);
            }
            Fix::Initiators { device, nodes } => self.initiators(device, nodes)?,
            Fix::Distances { set, remove } => self.distances(set, remove),
            Fix::Aperture(size) => self.aperture(size.0)?,
            Fix::AddressBits(bits) => {
                let (_, place) = self.definition.machine.address_bits?;
                let node = self.at(place)?;
                self.changes.set(node, "bits", &bits.to_string());
            }
            Fix::Gic => self.feature(Element::new("gic").with("version", 3)),
            Fix::Kvm => self.changes.set(self.root, "type", "kvm"),
            Fix::HostCpu => self.host_cpu(),
            Fix::Acpi => self.feature(Element::new("acpi")),
            Fix::Firmware => {
                let os = child(self.root, "os")?;
                self.changes.set(os, "firmware", "efi");
            }
            Fix::NoMachineSmmu => {
                let devices = child(self.root, "devices")?;
                let smmu = elements(devices, "iommu").find(|node| {
                    let driver = child(*node, "driver");
                    node.attribute("model") == Some("smmuv3")
                        && driver
                            .and_then(|driver| driver.attribute("pciBus"))
                            .is_none()
                });
                self.changes.remove(smmu?);
            }
            Fix::RootPort {
                function,
                name,
                bus,
                chassis,
                ..
            } => self.root_port(*function, name, bus, *chassis)?,
            Fix::RootBus {
                port,
                name,
                number,
                node,
            } => self.root_bus(*port, name, *number, *node)?,
            Fix::BusNode { bus, node } => {
                let controller = self.at(self.definition.buses.get(*bus)?.place)?;
                let element = Element::new("node").content(node);
                match child(controller, "target") {
                    Some(target) => match child(target, "node") {
                        Some(old) => self.changes.replace(old, &element),
                        None => self.changes.append(target, element),
                    },
                    None => self
                        .changes
                        .append(controller, Element::new("target").child(element)),
                }
            }
            Fix::BusNumber { bus, number } => self.target(*bus, "busNr", *number)?,
            Fix::Chassis { bus, chassis } => self.target(*bus, "chassis", *chassis)?,
            Fix::UseIommufd { .. } => self.upsert(self.root, "iommufd", &[("enabled", "yes")]),
            Fix::Accelerate(smmu) => {
                let node = self.at(self.definition.smmus.get(*smmu)?.place)?;
                self.upsert(node, "driver", &[("accel", "on")]);
            }
            Fix::SmmuBus { smmu, bus } => {
                let node = self.at(self.definition.smmus.get(*smmu)?.place)?;
                let name = &self.definition.buses.get(*bus)?.name;
                self.upsert(node, "driver", &[("pciBus", name)]);
            }
            Fix::AddSmmu { bus } => {
                let name = &self.definition.buses.get(*bus)?.name;
                let devices = child(self.root, "devices")?;
                let driver = Element::new("driver")
                    .with("pciBus", name)
                    .with("accel", "on");
                let smmu = Element::new("iommu").with("model", "smmuv3").child(driver);
                match elements(devices, "iommu").last() {
                    Some(last) => self.changes.add_behind(last, &smmu),
                    None => self.changes.append(devices, smmu),
                }
            }
            Fix::Mapped(function) => {
                let id = self.definition.functions.get(*function)?.id.as_deref()?;
                self.changes.remove(override_of(self.root, id)?);
            }
            Fix::NoRom(function) => {
                let hostdev = self.function(*function)?;
                self.upsert(hostdev, "rom", &[("bar", "off")]);
            }
            Fix::BestDriver(function) => {
                let driver = child(self.function(*function)?, "driver")?;
                self.changes.unset(driver, "model");
            }
            Fix::HostNode { node, host } => {
                let node = self.definition.nodes.get(*node)?.id;
                self.memnode(node, host.0);
            }
            Fix::Pins(pins) => self.pins(pins),
            // QEMU's alone
            Fix::Window { .. }
            | Fix::Id { .. }
            | Fix::Rename { .. }
            | Fix::AddIommufd(_)
            | Fix::Shared(_) => return None,
        }
        Some(())
    }

    fn at(&self, place: Place) -> Option<Node<'d, 'a>> {
        let id = u32::try_from(place.index).ok()?;
        self.document.get_node(NodeId::new(id))
    }

    fn function(&self, function: usize) -> Option<Node<'d, 'a>> {
        self.at(self.definition.functions.get(function)?.place)
    }

    /// Gives the first child of this name attributes; makes it if it is not there.
    fn upsert(
        &mut self,
        parent: Node<'d, 'a>,
        name: &'static str,
        attributes: &[(&'static str, &str)],
    ) {
        match child(parent, name) {
            Some(node) => {
                for (name, value) in attributes {
                    self.changes.set(node, name, value);
                }
            }
            None => {
                let element = attributes
                    .iter()
                    .fold(Element::new(name), |element, (name, value)| {
                        element.with(name, value)
                    });
                self.changes.append(parent, element);
            }
        }
    }

    /// Gives the machine a feature.
    fn feature(&mut self, feature: Element) {
        let name = feature.name();
        let Some(features) = child(self.root, "features") else {
            let features = Element::new("features").child(feature);
            return match child(self.root, "os") {
                Some(os) => self.changes.add_behind(os, &features),
                None => self.changes.append(self.root, features),
            };
        };
        match child(features, name) {
            Some(old) => self.changes.replace(old, &feature),
            None => self.changes.append(features, feature),
        }
    }

    fn first_node(&mut self) -> Option<()> {
        let ram = self.definition.machine.ram?;
        let vcpus: u32 = child(self.root, "vcpu")?.text()?.trim().parse().ok()?;
        let cell = Element::new("cell")
            .with("id", 0)
            .with("cpus", format!("0-{}", vcpus.max(1) - 1))
            .with("memory", ram.0 >> 10)
            .with("unit", "KiB");
        let numa = Element::new("numa").child(cell);
        match child(self.root, "cpu") {
            Some(cpu) => match child(cpu, "numa") {
                Some(old) => self.changes.replace(old, &numa),
                None => self.changes.append(cpu, numa),
            },
            None => {
                let cpu = Element::new("cpu").with("mode", "host-passthrough");
                self.changes.append(self.root, cpu.child(numa));
            }
        }
        Some(())
    }

    fn cells(&self) -> Vec<Node<'d, 'a>> {
        let numa = path(self.root, &["cpu", "numa"]);
        numa.map(|numa| elements(numa, "cell").collect())
            .unwrap_or_default()
    }

    fn siblings(&self) -> Vec<Node<'d, 'a>> {
        let cells = self.cells().into_iter();
        cells
            .filter_map(|cell| child(cell, "distances"))
            .flat_map(|distances| elements(distances, "sibling"))
            .collect()
    }

    fn remove_nodes(&mut self, nodes: &[u32]) -> Option<()> {
        let is_one = |node: &u32| nodes.contains(node);
        for node in &self.definition.nodes {
            if is_one(&node.id) {
                let cell = self.at(node.place)?;
                self.changes.remove(cell);
            }
        }
        for sibling in self.siblings() {
            if number(sibling, "id").is_some_and(|id| is_one(&id)) {
                self.changes.remove(sibling);
            }
        }
        self.map_initiators(|node| (!is_one(&node)).then_some(node))
    }

    fn renumber(&mut self, pairs: &[(u32, u32)]) -> Option<()> {
        let to = |node: u32| {
            let found = pairs.iter().find(|(from, _)| *from == node);
            found.map_or(node, |(_, to)| *to)
        };
        let mut set = |node: Node<'d, 'a>, name: &str| {
            if let Some(old) = number(node, name).filter(|old| to(*old) != *old) {
                self.changes.set(node, name, &to(old).to_string());
            }
        };
        let numa = path(self.root, &["cpu", "numa"])?;
        for cell in elements(numa, "cell") {
            set(cell, "id");
            for sibling in child(cell, "distances")
                .into_iter()
                .flat_map(|one| elements(one, "sibling"))
            {
                set(sibling, "id");
            }
        }
        if let Some(tune) = child(self.root, "numatune") {
            for node in elements(tune, "memnode") {
                set(node, "cellid");
            }
        }
        let devices = child(self.root, "devices")?;
        for controller in elements(devices, "controller") {
            let Some(node) = path(controller, &["target", "node"]) else {
                continue;
            };
            let old = node.text().and_then(|text| text.trim().parse().ok());
            if let Some(old) = old.filter(|old| to(*old) != *old) {
                self.changes
                    .replace(node, &Element::new("node").content(to(old)));
            }
        }
        self.map_initiators(|node| Some(to(node)))
    }

    /// Each device's nodes by its `<acpi nodeset>`; `None` if one is tied by QEMU's own arguments.
    fn nodesets(&self) -> Option<BTreeMap<String, Vec<u32>>> {
        let mut sets: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for one in &self.definition.initiators {
            if !self.at(one.place)?.has_tag_name("acpi") {
                return None;
            }
            sets.entry(one.device.clone()).or_default().push(one.node);
        }
        Some(sets)
    }

    fn map_initiators(&mut self, map: impl Fn(u32) -> Option<u32>) -> Option<()> {
        for (device, nodes) in self.nodesets()? {
            let mapped: Vec<u32> = nodes.iter().filter_map(|node| map(*node)).collect();
            if mapped != nodes {
                self.tie(&device, mapped)?;
            }
        }
        Some(())
    }

    fn initiators(&mut self, device: &str, nodes: &[u32]) -> Option<()> {
        for (other, old) in self.nodesets()? {
            let rest: Vec<u32> = old
                .iter()
                .copied()
                .filter(|node| !nodes.contains(node))
                .collect();
            if other != device && rest != old {
                self.tie(&other, rest)?;
            }
        }
        self.tie(device, nodes.to_vec())
    }

    /// Gives a device these nodes.
    fn tie(&mut self, device: &str, mut nodes: Vec<u32>) -> Option<()> {
        nodes.sort_unstable();
        nodes.dedup();
        let mut functions = self.definition.functions.iter();
        let function = functions.find(|one| one.id.as_deref() == Some(device))?;
        let hostdev = self.at(function.place)?;
        match child(hostdev, "acpi") {
            Some(acpi) if nodes.is_empty() => self.changes.remove(acpi),
            Some(acpi) => self.changes.set(acpi, "nodeset", &set(&nodes)),
            None => {
                let acpi = Element::new("acpi").with("nodeset", set(&nodes));
                match child(hostdev, "source") {
                    Some(source) => self.changes.add_behind(source, &acpi),
                    None => self.changes.append(hostdev, acpi),
                }
            }
        }
        Some(())
    }

    fn distances(&mut self, set: &[(u32, u32, u32)], remove: &[usize]) {
        let given = remove
            .iter()
            .filter_map(|one| self.definition.distances.get(*one));
        for node in given
            .filter_map(|one| self.at(one.place))
            .collect::<Vec<_>>()
        {
            self.changes.remove(node);
        }
        // by cell, with the way back
        let mut wanted: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
        for (from, to, value) in set {
            wanted.entry(*from).or_default().insert(*to, *value);
            let has_back = self
                .definition
                .distances
                .iter()
                .any(|one| (one.from, one.to) == (*to, *from));
            if !has_back {
                wanted.entry(*to).or_default().insert(*from, *value);
            }
        }
        let cells: Vec<_> = (0..).zip(self.cells()).collect();
        for (from, values) in wanted {
            let cell = cells
                .iter()
                .find(|(index, cell)| number(*cell, "id").unwrap_or(*index) == from);
            let Some((_, cell)) = cell.copied() else {
                continue;
            };
            let own = child(cell, "distances");
            let mut new = Vec::new();
            for (to, value) in values {
                let mut siblings = own.into_iter().flat_map(|own| elements(own, "sibling"));
                match siblings.find(|one| number(*one, "id") == Some(to)) {
                    Some(sibling) => self.changes.set(sibling, "value", &value.to_string()),
                    None => new.push(Element::new("sibling").with("id", to).with("value", value)),
                }
            }
            match own {
                Some(own) => new
                    .into_iter()
                    .for_each(|one| self.changes.append(own, one)),
                None if new.is_empty() => {}
                None => {
                    let all = new
                        .into_iter()
                        .fold(Element::new("distances"), Element::child);
                    self.changes.append(cell, all);
                }
            }
        }
    }

    fn aperture(&mut self, size: u64) -> Option<()> {
        let hole = Element::new("pcihole64")
            .with("unit", "KiB")
            .content(size >> 10);
        if let Some((_, place)) = self.definition.machine.aperture {
            let old = self
                .at(place)
                .filter(|node| node.has_tag_name("pcihole64"))?;
            self.changes.replace(old, &hole);
            return Some(());
        }
        let devices = child(self.root, "devices")?;
        let root = elements(devices, "controller")
            .find(|node| matches!(node.attribute("model"), Some("pcie-root" | "pci-root")));
        match root {
            Some(root) => self.changes.append(root, hole),
            None => {
                let root = Element::new("controller")
                    .with("type", "pci")
                    .with("index", 0)
                    .with("model", "pcie-root")
                    .child(hole);
                match elements(devices, "controller").next() {
                    Some(first) => self.changes.add_before(first, &root),
                    None => self.changes.append(devices, root),
                }
            }
        }
        Some(())
    }

    fn host_cpu(&mut self) {
        let Some(cpu) = child(self.root, "cpu") else {
            let cpu = Element::new("cpu").with("mode", "host-passthrough");
            return self.changes.append(self.root, cpu);
        };
        self.changes.set(cpu, "mode", "host-passthrough");
        // what only another mode has
        self.changes.unset(cpu, "match");
        for name in ["model", "vendor"] {
            if let Some(node) = child(cpu, name) {
                self.changes.remove(node);
            }
        }
    }

    fn target(&mut self, bus: usize, name: &'static str, value: u32) -> Option<()> {
        let controller = self.at(self.definition.buses.get(bus)?.place)?;
        self.upsert(controller, "target", &[(name, &value.to_string())]);
        Some(())
    }

    /// The first index that no controller has.
    fn free_index(&self) -> u32 {
        let buses = self
            .definition
            .buses
            .iter()
            .filter_map(|bus| bus.name.parse::<u32>().ok());
        buses.max().unwrap_or(0) + 1
    }

    /// Adds a controller behind the last one.
    fn add_controller(&mut self, element: &Element) -> Option<()> {
        let devices = child(self.root, "devices")?;
        let mut controllers = elements(devices, "controller");
        match controllers
            .by_ref()
            .filter(|node| node.attribute("type") == Some("pci"))
            .last()
        {
            Some(last) => self.changes.add_behind(last, element),
            None => self.changes.append(devices, element.clone()),
        }
        Some(())
    }

    /// Puts a device on a bus, as its first.
    fn move_to(&mut self, node: Node<'d, 'a>, bus: u32) {
        let mut addresses = elements(node, "address");
        let text = format!("{bus:#04x}");
        match addresses.find(|one| one.attribute("type") == Some("pci")) {
            Some(address) => {
                self.changes.set(address, "bus", &text);
                self.changes.set(address, "slot", "0x00");
                self.changes.set(address, "function", "0x0");
            }
            None => self.changes.append(node, address(&text)),
        }
    }

    fn root_port(&mut self, function: usize, name: &str, bus: &str, chassis: u32) -> Option<()> {
        let hostdev = self.function(function)?;
        let bus: u32 = bus.parse().ok()?;
        // a name that is a number is the index that an address has already
        let index = name.parse().unwrap_or_else(|_| self.free_index());
        let port = Element::new("controller")
            .with("type", "pci")
            .with("index", index)
            .with("model", "pcie-root-port")
            .child(Element::new("target").with("chassis", chassis));
        let port = match bus {
            0 => port,
            bus => port.child(address(&format!("{bus:#04x}"))),
        };
        self.add_controller(&port)?;
        self.move_to(hostdev, index);
        Some(())
    }

    /// A controller's index is above that of the one that it is on.
    fn root_bus(&mut self, port: usize, name: &str, number: u32, node: u32) -> Option<()> {
        let old = self.definition.buses.get(port)?;
        let controller = self.at(old.place)?;
        let index: u32 = name.parse().unwrap_or_else(|_| self.free_index());
        let target = Element::new("target")
            .with("busNr", number)
            .text("node", node);
        let bus = Element::new("controller")
            .with("type", "pci")
            .with("index", index)
            .with("model", "pcie-expander-bus")
            .child(target);
        let own: u32 = old.name.parse().ok()?;
        self.changes.add_before(controller, &bus);
        self.move_to(controller, index);
        if own <= index {
            let own = self.free_index().max(index + 1);
            self.changes.set(controller, "index", &own.to_string());
            let on_it = |bus: &Option<String>| bus.as_deref() == Some(&old.name);
            for function in self
                .definition
                .functions
                .iter()
                .filter(|one| on_it(&one.bus))
            {
                let node = self.at(function.place)?;
                self.move_to(node, own);
            }
        }
        Some(())
    }

    fn memnode(&mut self, node: u32, host: u32) {
        let element = Element::new("memnode")
            .with("cellid", node)
            .with("mode", "strict")
            .with("nodeset", host);
        let Some(tune) = child(self.root, "numatune") else {
            let tune = Element::new("numatune").child(element);
            return match child(self.root, "os") {
                Some(os) => self.changes.add_before(os, &tune),
                None => self.changes.append(self.root, tune),
            };
        };
        match elements(tune, "memnode").find(|one| number(*one, "cellid") == Some(node)) {
            Some(old) => self.changes.set(old, "nodeset", &host.to_string()),
            None => self.changes.append(tune, element),
        }
    }

    fn pins(&mut self, pins: &[(u32, u32)]) {
        let tune = child(self.root, "cputune");
        let mut new = Vec::new();
        for (vcpu, cpu) in pins {
            let mut old = tune.into_iter().flat_map(|tune| elements(tune, "vcpupin"));
            match old.find(|one| number(*one, "vcpu") == Some(*vcpu)) {
                Some(pin) => self.changes.set(pin, "cpuset", &cpu.to_string()),
                None => new.push(
                    Element::new("vcpupin")
                        .with("vcpu", vcpu)
                        .with("cpuset", cpu),
                ),
            }
        }
        match tune {
            Some(tune) => new
                .into_iter()
                .for_each(|one| self.changes.append(tune, one)),
            None => {
                let all = new
                    .into_iter()
                    .fold(Element::new("cputune"), Element::child);
                match child(self.root, "os") {
                    Some(os) => self.changes.add_before(os, &all),
                    None => self.changes.append(self.root, all),
                }
            }
        }
    }
}

/// A node in which nothing is.
fn cell(node: u32) -> Element {
    Element::new("cell")
        .with("id", node)
        .with("memory", 0)
        .with("unit", "KiB")
}

fn address(bus: &str) -> Element {
    Element::new("address")
        .with("type", "pci")
        .with("domain", "0x0000")
        .with("bus", bus)
        .with("slot", "0x00")
        .with("function", "0x0")
}

/// `1-8,10`.
fn set(nodes: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for node in nodes {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*node) => *last = *node,
            _ => runs.push((*node, *node)),
        }
    }
    let run = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}
