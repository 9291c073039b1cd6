//! Elements and attributes of a libvirt domain that are not judged.

use roxmltree::Node;

use super::known_elements::{
    APART_OF_DEVICES, APART_OF_DOMAIN, ATTRIBUTES, ELEMENTS, FEATURES, FUNCTION_DRIVER,
    READ_OF_DOMAIN, SMMU_DRIVER,
};
use super::qemu::is_known_property;
use super::{Scope, Unjudged};
use crate::model::{BusKind, Definition};
use crate::parse::domain::{QEMU, child, scaled};

const UNKNOWN: &str = "Varia does not know it";
/// Properties whose values libvirt's own elements say otherwise.
const PLACING: [&str; 10] = [
    "id",
    "host",
    "sysfsdev",
    "bus",
    "addr",
    "iommufd",
    "bus_nr",
    "numa_node",
    "chassis",
    "slot",
];

/// Parts of a domain that are not judged, without QEMU's own arguments.
pub(crate) fn scope(
    domain: Node<'_, '_>,
    definition: &Definition,
    line: impl Fn(Node<'_, '_>) -> usize,
) -> Scope {
    let mut reader = Reader {
        line: &line,
        out: Scope::default(),
    };
    for node in children(domain) {
        let name = node.tag_name().name();
        if node.tag_name().namespace() == Some(QEMU) {
            if name == "override" {
                reader.overrides(node, definition);
            }
            continue;
        }
        match name {
            "devices" => reader.devices(node, definition),
            "features" => reader.features(node),
            "cpu" | "numatune" => reader.known(node, name),
            "iommufd" => reader.attributes(node, name),
            "memtune" => reader.limit(node, definition),
            _ if APART_OF_DOMAIN.contains(&name) || READ_OF_DOMAIN.contains(&name) => {}
            _ => reader.unknown(node, format!("<{name}>"), UNKNOWN),
        }
    }
    let kind = definition.machine.kind.as_str();
    let family = kind.split('-').next().unwrap_or_default();
    let known = ["virt", "q35", "pc", ""];
    let is_known = known.contains(&family) || kind.contains("-q35-") || kind.contains("-i440fx-");
    if !is_known {
        reader.unknown(
            domain,
            format!("machine {kind:?}"),
            "Varia knows the machines virt and q35",
        );
    }
    reader.out
}

fn children<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

fn listed(
    table: &[(&str, &'static [&'static str])],
    name: &str,
) -> Option<&'static [&'static str]> {
    let found = table.iter().find(|(own, _)| *own == name);
    found.map(|(_, known)| *known)
}

struct Reader<'r> {
    line: &'r dyn Fn(Node<'_, '_>) -> usize,
    out: Scope,
}

impl Reader<'_> {
    fn unknown(&mut self, node: Node<'_, '_>, what: String, why: &str) {
        self.out.add((self.line)(node), what, why);
    }

    /// Reports unknown elements and attributes in an element that is read.
    fn known(&mut self, node: Node<'_, '_>, name: &str) {
        self.attributes(node, name);
        let Some(known) = listed(ELEMENTS, name) else {
            return;
        };
        for inner in children(node) {
            let own = inner.tag_name().name();
            match known.contains(&own) {
                true => self.known(inner, own),
                false => self.unknown(inner, format!("<{own}> in <{name}>"), UNKNOWN),
            }
        }
    }

    /// A limit of QEMU's memory that is below what VFIO pins: the RAM, and what QEMU itself needs, for
    /// which libvirt adds 1 GiB.
    fn limit(&mut self, node: Node<'_, '_>, definition: &Definition) {
        let Some(limit) = child(node, "hard_limit") else {
            return;
        };
        let size = scaled(limit.text().unwrap_or_default(), limit.attribute("unit"));
        let needed = definition
            .machine
            .ram
            .map(|ram| ram.0.saturating_add(1 << 30));
        let is_enough = size
            .zip(needed)
            .is_some_and(|(size, needed)| size.0 >= needed);
        if !is_enough {
            let why = "VFIO pins all RAM of the VM, and libvirt pins no more than that";
            self.unknown(limit, "<hard_limit> in <memtune>".to_owned(), why);
        }
    }

    fn attributes(&mut self, node: Node<'_, '_>, name: &str) {
        if let Some(known) = listed(ATTRIBUTES, name) {
            self.attributes_of(node, name, known);
        }
    }

    fn attributes_of(&mut self, node: Node<'_, '_>, name: &str, known: &[&str]) {
        for attribute in node.attributes() {
            let own = attribute.name();
            if !known.contains(&own) {
                self.unknown(node, format!("{own}= of <{name}>"), UNKNOWN);
            }
        }
    }

    fn features(&mut self, node: Node<'_, '_>) {
        for inner in children(node) {
            let own = inner.tag_name().name();
            if !FEATURES.contains(&own) {
                self.unknown(inner, format!("<{own}> in <features>"), UNKNOWN);
            }
        }
    }

    fn devices(&mut self, devices: Node<'_, '_>, definition: &Definition) {
        for node in children(devices) {
            let name = node.tag_name().name();
            match name {
                "controller" => {
                    if node.attribute("type") == Some("pci") {
                        self.known(node, name);
                    }
                }
                "iommu" => self.iommu(node),
                "hostdev" => self.hostdev(node, definition),
                "memory" if node.attribute("model") == Some("egm") => self.known(node, "egm"),
                "memory" => self.unknown(
                    node,
                    "<memory> in <devices>".to_owned(),
                    "RAM that is added to nodes is not known to Varia",
                ),
                _ if APART_OF_DEVICES.contains(&name) => {}
                _ => self.unknown(node, format!("<{name}> in <devices>"), UNKNOWN),
            }
        }
    }

    fn iommu(&mut self, node: Node<'_, '_>) {
        let model = node.attribute("model").unwrap_or_default();
        if model != "smmuv3" {
            return self.unknown(
                node,
                format!("<iommu model={model:?}>"),
                "Varia knows the SMMUv3 alone of a VM's IOMMUs",
            );
        }
        self.known(node, "iommu");
        if let Some(driver) = child(node, "driver") {
            self.attributes_of(driver, "driver", SMMU_DRIVER);
        }
    }

    fn hostdev(&mut self, node: Node<'_, '_>, definition: &Definition) {
        if node.attribute("type") == Some("mdev") {
            self.out.has_more = true;
            let why =
                "Varia judges functions of the host, and a mediated device may be one of a GPU";
            return self.unknown(node, "<hostdev type='mdev'>".to_owned(), why);
        }
        if node.attribute("type") != Some("pci") || node.attribute("mode") == Some("capabilities") {
            return;
        }
        let before = self.out.unjudged.len();
        self.known(node, "hostdev");
        if let Some(driver) = child(node, "driver") {
            self.attributes_of(driver, "driver", FUNCTION_DRIVER);
            let name = driver.attribute("name").unwrap_or("vfio");
            if name != "vfio" {
                let why = "Varia judges functions that VFIO assigns";
                self.unknown(driver, format!("name={name:?} of <driver>"), why);
            }
        }
        let index = node.id().get_usize();
        let mut functions = definition.functions.iter();
        let own = functions.position(|function| function.place.index == index);
        for (_, place) in self.out.unjudged.iter_mut().skip(before) {
            *place = own;
        }
    }

    /// Properties of devices that QEMU gets instead of libvirt's.
    fn overrides(&mut self, node: Node<'_, '_>, definition: &Definition) {
        let devices = node
            .children()
            .filter(|node| node.has_tag_name((QEMU, "device")));
        for device in devices {
            let alias = device.attribute("alias").unwrap_or_default();
            let mut functions = definition.functions.iter();
            let function = functions.position(|function| function.id.as_deref() == Some(alias));
            let bus = alias
                .strip_prefix("pci.")
                .and_then(|index| definition.bus(index));
            let driver = match (function, bus.map(|bus| &bus.kind)) {
                (Some(_), _) => "vfio-pci",
                (None, Some(BusKind::Port { .. })) => "pcie-root-port",
                (None, Some(BusKind::Expander { .. })) => "pxb-pcie",
                (None, _) => continue,
            };
            let properties = device
                .descendants()
                .filter(|node| node.has_tag_name((QEMU, "property")));
            for property in properties {
                let name = property.attribute("name").unwrap_or_default();
                if is_known_property(driver, name) && !PLACING.contains(&name) {
                    continue;
                }
                let unjudged = Unjudged {
                    line: (self.line)(property),
                    what: format!("{name} of {alias} in <qemu:override>"),
                    why: UNKNOWN.to_owned(),
                };
                self.out.unjudged.push((unjudged, function));
            }
        }
    }
}
