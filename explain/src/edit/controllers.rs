//! PCI controllers of a domain.

use roxmltree::Node;

use super::elements::Domain;
use crate::parse::domain::{child, elements};
use varia_plan::xml::Element;

impl<'d, 'a> Domain<'d, 'a> {
    pub(crate) fn target(&mut self, bus: usize, name: &'static str, value: u32) -> Option<()> {
        let controller = self.at(self.definition.buses.get(bus)?.place)?;
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
            }
            None => self.changes.append(node, address(&text)),
        }
    }

    pub(crate) fn root_port(
        &mut self,
        function: usize,
        name: &str,
        bus: &str,
        chassis: u32,
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
        let port = match bus {
            0 => port,
            bus => port.child(address(&format!("{bus:#04x}"))),
        };
        self.add_controller(&port)?;
        self.move_to(hostdev, index);
        Some(())
    }

    /// A controller's index is above that of the one that it is on.
    pub(crate) fn root_bus(
        &mut self,
        port: usize,
        name: &str,
        number: u32,
        node: u32,
    ) -> Option<()> {
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
            let own = self.free_index().max(index.saturating_add(1));
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
}

fn address(bus: &str) -> Element {
    Element::new("address")
        .with("type", "pci")
        .with("domain", "0x0000")
        .with("bus", bus)
        .with("slot", "0x00")
        .with("function", "0x0")
}
