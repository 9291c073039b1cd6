//! Nodes of a domain: cells, distances, what ties them, and where their RAM and CPUs are.

use std::collections::BTreeMap;

use roxmltree::Node;

use super::elements::Domain;
use crate::parse::domain::{child, elements, number, path};
use varia_plan::libvirt::scaled;
use varia_plan::xml::Element;

impl<'d, 'a> Domain<'d, 'a> {
    pub(crate) fn first_node(&mut self) -> Option<()> {
        let ram = self.definition.machine.ram?;
        let vcpus: u32 = child(self.root, "vcpu")?.text()?.trim().parse().ok()?;
        let (memory, unit) = scaled(ram);
        let cell = Element::new("cell")
            .with("id", 0)
            .with("cpus", format!("0-{}", vcpus.max(1) - 1))
            .with("memory", memory)
            .with("unit", unit);
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

    pub(crate) fn cells(&self) -> Vec<Node<'d, 'a>> {
        let numa = path(self.root, &["cpu", "numa"]);
        numa.map(|numa| elements(numa, "cell").collect())
            .unwrap_or_default()
    }

    pub(crate) fn siblings(&self) -> Vec<Node<'d, 'a>> {
        let cells = self.cells().into_iter();
        cells
            .filter_map(|cell| child(cell, "distances"))
            .flat_map(|distances| elements(distances, "sibling"))
            .collect()
    }

    /// Nodes and what ties them, as an assignment has them.
    pub(crate) fn assign(
        &mut self,
        numbers: &[(usize, Option<u32>)],
        define: &[u32],
        remove: &[u32],
        ties: &[(String, Vec<u32>)],
    ) -> Option<()> {
        for (node, number) in numbers {
            let cell = self.at(self.definition.nodes.get(*node)?.place)?;
            match number {
                Some(number) => self.changes.set(cell, "id", &number.to_string()),
                None => self.changes.remove(cell),
            }
        }
        let numa = path(self.root, &["cpu", "numa"])?;
        for node in define {
            self.changes.append(numa, cell(*node));
        }
        for node in &self.definition.nodes {
            if remove.contains(&node.id) {
                let cell = self.at(node.place)?;
                self.changes.remove(cell);
            }
        }
        for sibling in self.siblings() {
            if number(sibling, "id").is_some_and(|id| remove.contains(&id)) {
                self.changes.remove(sibling);
            }
        }
        let mut wanted: BTreeMap<String, Vec<u32>> = ties.iter().cloned().collect();
        wanted.retain(|_, nodes| !nodes.is_empty());
        let mut current: BTreeMap<&String, Vec<u32>> = BTreeMap::new();
        for one in &self.definition.initiators {
            current.entry(&one.device).or_default().push(one.node);
        }
        current.values_mut().for_each(|nodes| nodes.sort_unstable());
        if wanted
            .iter()
            .eq(current.iter().map(|(device, nodes)| (*device, nodes)))
        {
            return Some(());
        }
        // initiators of QEMU's own arguments stay
        self.nodesets()?;
        for (device, nodes) in ties {
            if current.get(device).map_or(&[][..], Vec::as_slice) != nodes {
                self.tie(device, nodes.clone())?;
            }
        }
        Some(())
    }

    pub(crate) fn renumber(&mut self, pairs: &[(u32, u32)]) -> Option<()> {
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
    pub(crate) fn nodesets(&self) -> Option<BTreeMap<String, Vec<u32>>> {
        let mut sets: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for one in &self.definition.initiators {
            if !self.at(one.place)?.has_tag_name("acpi") {
                return None;
            }
            sets.entry(one.device.clone()).or_default().push(one.node);
        }
        Some(sets)
    }

    pub(crate) fn map_initiators(&mut self, map: impl Fn(u32) -> Option<u32>) -> Option<()> {
        for (device, nodes) in self.nodesets()? {
            let mapped: Vec<u32> = nodes.iter().filter_map(|node| map(*node)).collect();
            if mapped != nodes {
                self.tie(&device, mapped)?;
            }
        }
        Some(())
    }

    /// Gives a device these nodes.
    pub(crate) fn tie(&mut self, device: &str, mut nodes: Vec<u32>) -> Option<()> {
        nodes.sort_unstable();
        nodes.dedup();
        let mut functions = self.definition.functions.iter();
        let function = functions.find(|one| one.id.as_deref() == Some(device))?;
        let hostdev = self.at(function.place)?;
        if !hostdev.has_tag_name("hostdev") {
            return None;
        }
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

    pub(crate) fn distances(&mut self, set: &[(u32, u32, u32)], remove: &[usize]) {
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

    pub(crate) fn memnode(&mut self, node: u32, host: u32) {
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

    pub(crate) fn pins(&mut self, pins: &[(u32, u32)]) {
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
pub(crate) fn cell(node: u32) -> Element {
    Element::new("cell")
        .with("id", node)
        .with("memory", 0)
        .with("unit", "KiB")
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
