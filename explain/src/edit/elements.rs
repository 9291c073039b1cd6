//! A fix -> the domain that has it.

use roxmltree::{Document, Node, NodeId};

use super::markup::Changes;
use crate::edit::fix::Fix;
use crate::model::{Definition, Place};
use crate::parse::document::parse;
use crate::parse::domain::{child, elements, override_of, path};
use crate::scope::known_elements::SMMU_DRIVER;
use varia_facts::Bytes;
use varia_plan::libvirt::{sized, smmu};
use varia_plan::xml::Element;

/// An SMMU with the options of another one, for the root bus of a controller's index.
fn like_smmu(like: Node<'_, '_>, bus: &str) -> Element {
    let mut driver = Element::new("driver").with("pciBus", bus);
    for name in SMMU_DRIVER.iter().copied().filter(|name| *name != "pciBus") {
        if let Some(value) = like.attribute(name) {
            driver = driver.with(name, value);
        }
    }
    Element::new("iommu").with("model", "smmuv3").child(driver)
}

/// Applies a fix to a domain; its text, or `None` where it can't be done here.
pub(crate) fn apply(text: &str, definition: &Definition, fix: &Fix) -> Option<String> {
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

/// A domain while it is changed.
pub(crate) struct Domain<'d, 'a> {
    pub(crate) document: &'d Document<'a>,
    pub(crate) root: Node<'d, 'a>,
    pub(crate) definition: &'d Definition,
    pub(crate) changes: Changes<'a>,
}

impl<'d, 'a> Domain<'d, 'a> {
    fn apply(&mut self, fix: &Fix) -> Option<()> {
        match fix {
            Fix::FirstNode => self.first_node()?,
            Fix::Assign {
                numbers,
                define,
                remove,
                ties,
            } => self.assign(numbers, define, remove, ties)?,
            Fix::Renumber(pairs) => self.renumber(pairs)?,
            Fix::EmptyNode(node) => {
                let cell = self.at(self.definition.nodes.get(*node)?.place)?;
                self.changes.set(cell, "memory", "0");
            }
            Fix::Distances { set, remove } => self.distances(set, remove),
            Fix::Aperture(size) => self.aperture(*size)?,
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
                slot,
                ..
            } => self.root_port(*function, name, bus, *chassis, *slot)?,
            Fix::RootBus {
                port,
                name,
                number,
                node,
                slot,
            } => self.root_bus(*port, name, (*number, *node), *slot)?,
            Fix::BusNode { bus, node } => {
                let controller = self.controller(*bus)?;
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
            Fix::Slot(place) => {
                let mut addresses = elements(self.at(*place)?, "address");
                let address = addresses.find(|one| one.attribute("type") == Some("pci"))?;
                for name in ["slot", "function"] {
                    if address.has_attribute(name) {
                        self.changes.set(address, name, "0x0");
                    }
                }
            }
            Fix::UseIommufd { function, .. } => {
                let hostdev = self.function(*function)?;
                match child(hostdev, "driver").filter(|driver| driver.has_attribute("iommufd")) {
                    Some(driver) => self.changes.set(driver, "iommufd", "yes"),
                    None => self.upsert(self.root, "iommufd", &[("enabled", "yes")]),
                }
            }
            Fix::Accelerate(smmu) => {
                let node = self.smmu(*smmu)?;
                self.upsert(node, "driver", &[("accel", "on")]);
            }
            Fix::SmmuOptions { smmu, names } => {
                let driver = child(self.smmu(*smmu)?, "driver")?;
                for name in names {
                    self.changes.unset(driver, name);
                }
            }
            Fix::EgmDevice { tie, device } => {
                self.replaced(self.egm(*tie)?, &["target", "pciDev"], device)?;
            }
            Fix::EgmNode { tie, node } => {
                let node = node.to_string();
                self.replaced(self.egm(*tie)?, &["target", "node"], &node)?;
            }
            Fix::File { node, file } => {
                let id = self.definition.nodes.get(*node)?.id;
                let mut ties = (0..).zip(&self.definition.egm);
                let (tie, _) = ties.find(|(_, tie)| tie.node == id)?;
                self.replaced(self.egm(tie)?, &["source", "path"], file)?;
            }
            Fix::SmmuBus { smmu, bus } => {
                let node = self.smmu(*smmu)?;
                let name = &self.definition.buses.get(*bus)?.name;
                self.upsert(node, "driver", &[("pciBus", name)]);
            }
            Fix::AddSmmu { bus } => {
                let name = &self.definition.buses.get(*bus)?.name;
                let devices = child(self.root, "devices")?;
                let accelerated = self
                    .definition
                    .smmus
                    .iter()
                    .position(|one| one.is_accelerated);
                let like = accelerated.and_then(|like| child(self.smmu(like)?, "driver"));
                let smmu = match like {
                    Some(like) => like_smmu(like, name),
                    None => smmu(name),
                };
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
            Fix::Machine
            | Fix::Window { .. }
            | Fix::Id { .. }
            | Fix::Rename { .. }
            | Fix::AddIommufd(_)
            | Fix::AddEgm { .. }
            | Fix::Shared(_) => return None,
        }
        Some(())
    }

    pub(crate) fn at(&self, place: Place) -> Option<Node<'d, 'a>> {
        let id = u32::try_from(place.index).ok()?;
        self.document.get_node(NodeId::new(id))
    }

    /// Element of a function; `None` if QEMU's own arguments have it.
    pub(crate) fn function(&self, function: usize) -> Option<Node<'d, 'a>> {
        let node = self.at(self.definition.functions.get(function)?.place)?;
        node.has_tag_name("hostdev").then_some(node)
    }

    /// Element of a bus; `None` if QEMU's own arguments have it.
    pub(crate) fn controller(&self, bus: usize) -> Option<Node<'d, 'a>> {
        let node = self.at(self.definition.buses.get(bus)?.place)?;
        node.has_tag_name("controller").then_some(node)
    }

    fn smmu(&self, smmu: usize) -> Option<Node<'d, 'a>> {
        let node = self.at(self.definition.smmus.get(smmu)?.place)?;
        node.has_tag_name("iommu").then_some(node)
    }

    fn egm(&self, tie: usize) -> Option<Node<'d, 'a>> {
        let node = self.at(self.definition.egm.get(tie)?.place)?;
        node.has_tag_name("memory").then_some(node)
    }

    /// Gives the element at the end of a path of names another text.
    fn replaced(&mut self, node: Node<'d, 'a>, names: &[&'static str], text: &str) -> Option<()> {
        let old = path(node, names)?;
        let element = Element::new(names.last()?).content(text);
        self.changes.replace(old, &element);
        Some(())
    }

    /// Gives the first child of this name attributes; makes it if it is not there.
    pub(crate) fn upsert(
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
    pub(crate) fn feature(&mut self, feature: Element) {
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
    pub(crate) fn aperture(&mut self, size: Bytes) -> Option<()> {
        let hole = sized("pcihole64", size);
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

    pub(crate) fn host_cpu(&mut self) {
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
}
