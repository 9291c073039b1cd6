//! PCI controllers of a domain.

use roxmltree::Node;

use super::elements::Domain;
use crate::parse::domain::{child, elements};
use varia_plan::xml::Element;

impl<'d, 'a> Domain<'d, 'a> {
    pub(crate) fn target(&mut self, bus: usize, name: &'static str, value: u32) -> Option<()> {
        let controller = self.controller(bus)?;
        self.upsert(controller, "target", &[(name, &value.to_string())]);
        Some(())
    }

    /// The first index that no controller has.
    pub(crate) fn free_index(&self) -> u32 {
        let buses = self
            .definition
            .buses
            .iter()
            .filter_map(|bus| bus.name.parse::<u32>().ok());
        buses.max().unwrap_or(0).saturating_add(1)
    }

    /// Adds a controller behind the last one.
    pub(crate) fn add_controller(&mut self, element: &Element) -> Option<()> {
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
    pub(crate) fn move_to(&mut self, node: Node<'d, 'a>, bus: u32) {
        let mut addresses = elements(node, "address");
        let text = format!("{bus:#04x}");
        match addresses.find(|one| one.attribute("type") == Some("pci")) {
            Some(address) => {
                self.changes.set(address, "bus", &text);
                self.changes.set(address, "slot", "0x00");
                self.changes.set(address, "function", "0x0");
                self.changes.unset(address, "multifunction");
            }
            None => self.changes.append(node, address(&text, 0)),
        }
    }

    pub(crate) fn root_port(
        &mut self,
        function: usize,
        name: &str,
        bus: &str,
        chassis: u32,
        slot: Option<u8>,
    ) -> Option<()> {
        let hostdev = self.function(function)?;
        let bus: u32 = bus.parse().ok()?;
        // a name that is a number is the index that an address has already
        let index = name.parse().unwrap_or_else(|_| self.free_index());
        let port = Element::new("controller")
            .with("type", "pci")
            .with("index", index)
            .with("model", "pcie-root-port")
            .child(Element::new("target").with("chassis", chassis));
        let port = match (bus, slot) {
            (0, None) => port,
            (bus, slot) => port.child(address(&format!("{bus:#04x}"), slot.unwrap_or(0))),
        };
        self.add_controller(&port)?;
        self.move_to(hostdev, index);
        Some(())
    }

    /// A controller's index is above that of the one that it is on. A port that is before the new
    /// root bus stays where it is, and the functions on it get a port of their own.
    pub(crate) fn root_bus(
        &mut self,
        port: usize,
        name: &str,
        (number, node): (u32, u32),
        slot: Option<u8>,
    ) -> Option<()> {
        let old = self.definition.buses.get(port)?;
        let controller = self.controller(port)?;
        let index: u32 = name.parse().unwrap_or_else(|_| self.free_index());
        let target = Element::new("target")
            .with("busNr", number)
            .text("node", node);
        let bus = Element::new("controller")
            .with("type", "pci")
            .with("index", index)
            .with("model", "pcie-expander-bus")
            .child(target)
            .maybe(slot.map(|slot| address("0x00", slot)));
        let own: u32 = old.name.parse().ok()?;
        if own > index {
            self.changes.add_before(controller, &bus);
            return Some(());
        }
        let new = self.free_index().max(index.saturating_add(1));
        // libvirt gives a port without a chassis the one of its index
        let chassis = self.definition.free_chassis().max(new.min(255));
        let port = Element::new("controller")
            .with("type", "pci")
            .with("index", new)
            .with("model", "pcie-root-port")
            .child(Element::new("target").with("chassis", chassis))
            .child(address(&format!("{index:#04x}"), 0));
        self.add_controller(&bus)?;
        self.add_controller(&port)?;
        let on_it = |bus: &Option<String>| bus.as_deref() == Some(&old.name);
        let functions = 0..self.definition.functions.len();
        for function in functions {
            let is_on_it = self.definition.functions.get(function);
            if is_on_it.is_some_and(|function| on_it(&function.bus)) {
                let node = self.function(function)?;
                self.move_to(node, new);
            }
        }
        Some(())
    }
}

fn address(bus: &str, slot: u8) -> Element {
    Element::new("address")
        .with("type", "pci")
        .with("domain", "0x0000")
        .with("bus", bus)
        .with("slot", format!("{slot:#04x}"))
        .with("function", "0x0")
}
