//! A libvirt domain -> a definition.
//!
//! Source: libvirt 12.8 `docs/formatdomain` and its schema. A bus is called by the index of the
//! controller that makes it.

use roxmltree::Node;
use varia_facts::{Arch, Bdf, Bytes, CpuList};

use super::arguments;
use super::command::{Command, Opt};
use super::document::parse;
use super::error::ReadError;
use crate::model::{
    Backing, Bus, BusKind, Definition, Distance, EgmTie, Function, Initiator, Language, Machine,
    Name, Node as Numa, Other, Pin, Place, Smmu,
};
use crate::open::Open;
use crate::scope::libvirt::scope as elements_of;
use crate::scope::qemu;

/// QEMU's own arguments in a domain.
pub(crate) const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// libvirt's name of a domain's iommufd.
const IOMMUFD: &str = "iommufd0";
/// Reads what matters to GPUs.
pub(crate) fn definition(text: &str) -> Result<Definition, ReadError> {
    let document = parse(text)?;
    let reader = Reader {
        lines: text.match_indices('\n').map(|(at, _)| at).collect(),
    };
    let domain = document.root_element();
    let arch = path(domain, &["os", "type"]).and_then(|node| node.attribute("arch"));
    let arch = arch
        .and_then(|arch| arch.parse().ok())
        .unwrap_or(Arch::Aarch64);
    let mut out = Definition::empty(Language::Libvirt, arch, reader.machine(domain));
    let iommufd = child(domain, "iommufd");
    if let Some(node) = iommufd.filter(|node| node.attribute("enabled") == Some("yes")) {
        out.iommufds.push((IOMMUFD.to_owned(), reader.place(node)));
    }
    reader.numa(domain, &mut out);
    reader.devices(domain, &mut out);
    reader.arguments(domain, &mut out)?;
    if let Some(tune) = child(domain, "cputune") {
        for node in elements(tune, "vcpupin") {
            if let (Some(vcpu), Some(cpus)) = (number(node, "vcpu"), node.attribute("cpuset")) {
                out.pins.push(Pin {
                    place: reader.place(node),
                    vcpu,
                    cpus: cpus.to_owned(),
                });
            }
        }
    }
    let mut scope = elements_of(domain, &out, |node| reader.place(node).line);
    scope.unjudged.append(&mut out.scope.unjudged);
    out.scope.unjudged = scope.unjudged;
    out.scope.has_more |= scope.has_more;
    Ok(out)
}

/// The first child of this name.
pub(crate) fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// The element at the end of a path of names.
pub(crate) fn path<'a, 'i>(node: Node<'a, 'i>, names: &[&str]) -> Option<Node<'a, 'i>> {
    names.iter().try_fold(node, |node, name| child(node, name))
}

/// The children of this name.
pub(crate) fn elements<'a, 'i>(
    node: Node<'a, 'i>,
    name: &str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children()
        .filter(move |child| child.has_tag_name(name))
}

/// A number that an attribute has, decimal or hexadecimal.
pub(crate) fn number(node: Node<'_, '_>, name: &str) -> Option<u32> {
    let text = node.attribute(name)?.trim();
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A size with its unit, which is KiB where nothing is said.
pub(crate) fn scaled(text: &str, unit: Option<&str>) -> Option<Bytes> {
    // case does not matter
    let unit: u64 = match unit.unwrap_or("KiB").to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "tb" => 1000 * 1000 * 1000 * 1000,
        _ => return None,
    };
    text.trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)
        .map(Bytes)
}

/// Finds lines.
struct Reader {
    lines: Vec<usize>,
}

impl Reader {
    fn place(&self, node: Node<'_, '_>) -> Place {
        let at = node.range().start;
        Place {
            line: 1 + self.lines.partition_point(|line| *line < at),
            index: node.id().get_usize(),
        }
    }

    fn machine(&self, domain: Node<'_, '_>) -> Machine {
        let features = child(domain, "features");
        let feature = |name: &str| features.and_then(|features| child(features, name));
        let os = child(domain, "os");
        let cpu = child(domain, "cpu");
        let model = cpu.map(|cpu| {
            let model = match cpu.attribute("mode") {
                Some("host-passthrough") => "host".to_owned(),
                Some("maximum") => "max".to_owned(),
                Some("host-model") => "host-model".to_owned(),
                _ => child(cpu, "model")
                    .and_then(|model| model.text())
                    .unwrap_or("default")
                    .to_owned(),
            };
            (model, self.place(cpu))
        });
        let width = cpu.and_then(|cpu| child(cpu, "maxphysaddr"));
        let memory = child(domain, "memory");
        Machine {
            place: self.place(domain),
            kind: os
                .and_then(|os| child(os, "type")?.attribute("machine"))
                .unwrap_or_default()
                .to_owned(),
            has_acpi: feature("acpi").is_some(),
            gic: feature("gic").and_then(|gic| gic.attribute("version").map(str::to_owned)),
            aperture: None,
            is_low: false,
            accelerator: domain.attribute("type").map(str::to_owned),
            accelerator_of_program: None,
            cpu: model,
            address_bits: width.and_then(|node| Some((number(node, "bits")?, self.place(node)))),
            has_firmware: os.is_some_and(|os| {
                os.attribute("firmware").is_some() || child(os, "loader").is_some()
            }),
            smmu: false,
            has_hugepages: path(domain, &["memoryBacking", "hugepages"]).is_some(),
            hugepages: path(domain, &["memoryBacking", "hugepages", "page"]).and_then(|page| {
                let size = page.attribute("size")?;
                scaled(size, page.attribute("unit"))
            }),
            open: Vec::new(),
            ram: memory.and_then(|memory| scaled(memory.text()?, memory.attribute("unit"))),
        }
    }

    fn numa(&self, domain: Node<'_, '_>, out: &mut Definition) {
        let Some(numa) = path(domain, &["cpu", "numa"]) else {
            return;
        };
        let tune = child(domain, "numatune");
        let host = |id: u32| {
            let own = tune.and_then(|tune| {
                elements(tune, "memnode").find(|node| number(*node, "cellid") == Some(id))
            });
            let all = || tune.and_then(|tune| child(tune, "memory"));
            own.or_else(all)?.attribute("nodeset").map(str::to_owned)
        };
        let shared = path(domain, &["memoryBacking", "access"])
            .is_some_and(|access| access.attribute("mode") == Some("shared"));
        for (index, cell) in (0..).zip(elements(numa, "cell")) {
            let id = number(cell, "id").unwrap_or(index);
            let memory = cell
                .attribute("memory")
                .and_then(|text| scaled(text, cell.attribute("unit")));
            let has_memory = memory.is_some_and(|memory| memory.0 > 0);
            let place = self.place(cell);
            out.nodes.push(Numa {
                place,
                id,
                cpus: cell
                    .attribute("cpus")
                    .filter(|cpus| !cpus.trim().is_empty())
                    .map(str::to_owned),
                has_memory,
                memory: memory.filter(|_| has_memory),
                backing: has_memory.then(|| Backing {
                    place,
                    host_nodes: host(id),
                    is_shared: shared || cell.attribute("memAccess") == Some("shared"),
                    file: None,
                }),
            });
            let Some(distances) = child(cell, "distances") else {
                continue;
            };
            for sibling in elements(distances, "sibling") {
                if let (Some(to), Some(value)) = (number(sibling, "id"), number(sibling, "value")) {
                    out.distances.push(Distance {
                        place: self.place(sibling),
                        from: id,
                        to,
                        value,
                    });
                }
            }
        }
    }

    fn devices(&self, domain: Node<'_, '_>, out: &mut Definition) {
        let Some(devices) = child(domain, "devices") else {
            return;
        };
        for node in elements(devices, "controller") {
            if node.attribute("type") == Some("pci") {
                self.controller(node, out);
            }
        }
        if out.bus("0").is_none() {
            out.buses.push(Bus {
                place: self.place(devices),
                name: "0".to_owned(),
                parent: None,
                slot: String::new(),
                kind: BusKind::Root,
                open: Open::default(),
            });
        }
        for node in elements(devices, "iommu") {
            if node.attribute("model") != Some("smmuv3") {
                continue;
            }
            let driver = child(node, "driver");
            let bus = driver.and_then(|driver| number(driver, "pciBus"));
            match bus {
                None => out.machine.smmu = true,
                Some(bus) => out.smmus.push(Smmu {
                    place: self.place(node),
                    bus: Some(bus.to_string()),
                    is_accelerated: driver.and_then(|one| one.attribute("accel")) == Some("on"),
                    options: Smmu::options(|name| {
                        driver.is_some_and(|driver| driver.has_attribute(name))
                    }),
                    accelerated_only: driver
                        .iter()
                        .flat_map(Node::attributes)
                        .filter(|one| Smmu::needs_acceleration(one.name(), one.value()))
                        .map(|one| one.name().to_owned())
                        .collect(),
                    open: Open::default(),
                }),
            }
        }
        for node in elements(devices, "memory") {
            if node.attribute("model") == Some("egm") {
                self.egm(node, out);
            }
        }
        // devices whose place libvirt may choose
        const ON_PCI: [&str; 12] = [
            "disk",
            "interface",
            "video",
            "sound",
            "memballoon",
            "rng",
            "vsock",
            "filesystem",
            "input",
            "crypto",
            "shmem",
            "watchdog",
        ];
        for node in devices.children().filter(|node| node.is_element()) {
            let is_controller =
                node.has_tag_name("controller") && node.attribute("type") != Some("pci");
            if is_controller || ON_PCI.contains(&node.tag_name().name()) {
                out.others.push(Other {
                    place: self.place(node),
                    label: format!("a {}", node.tag_name().name()),
                    bus: bus_of(node),
                    slot: slot_of(node),
                });
            }
        }
        // iommufd of one function is that of all that ask for it
        let asks = |node: Node<'_, '_>| {
            child(node, "driver").and_then(|one| one.attribute("iommufd")) == Some("yes")
        };
        let asking = elements(devices, "hostdev").find(|node| asks(*node));
        if let Some(node) = asking.filter(|_| out.iommufds.is_empty()) {
            out.iommufds.push((IOMMUFD.to_owned(), self.place(node)));
        }
        for (index, node) in elements(devices, "hostdev").enumerate() {
            let is_pci = node.attribute("type") == Some("pci");
            if is_pci && node.attribute("mode") != Some("capabilities") {
                self.hostdev(index, node, domain, out);
            }
        }
    }

    /// Extended GPU Memory of a function: the RAM of a cell. Source: the series "qemu: Implement
    /// support for EGM" (RFC v3, November 2025), which is in no release of libvirt.
    fn egm(&self, memory: Node<'_, '_>, out: &mut Definition) {
        let text = |names: &[&str]| path(memory, names).and_then(|node| node.text());
        let device = text(&["target", "pciDev"]).map(str::trim);
        let node = text(&["target", "node"]).and_then(|text| text.trim().parse().ok());
        let (Some(device), Some(node)) = (device, node) else {
            let why = "it lacks a pciDev or a node that is a number";
            let line = self.place(memory).line;
            out.scope.add(line, "<memory model='egm'>", why);
            return;
        };
        out.egm.push(EgmTie {
            place: self.place(memory),
            device: device.to_owned(),
            node,
        });
        let cell = out.nodes.iter_mut().find(|cell| cell.id == node);
        if let Some(backing) = cell.and_then(|cell| cell.backing.as_mut()) {
            backing.file = text(&["source", "path"]).map(|file| file.trim().to_owned());
            backing.is_shared |= memory.attribute("access") == Some("shared");
        }
    }

    fn controller(&self, node: Node<'_, '_>, out: &mut Definition) {
        let place = self.place(node);
        let target = child(node, "target");
        let of_target = |name: &str| target.and_then(|target| number(target, name));
        let kind = match node.attribute("model") {
            Some("pcie-root" | "pci-root") => {
                if let Some(hole) = child(node, "pcihole64") {
                    let size = hole
                        .text()
                        .and_then(|text| scaled(text, hole.attribute("unit")));
                    out.machine.aperture = Some((size, self.place(hole)));
                }
                BusKind::Root
            }
            Some("pcie-expander-bus") => BusKind::Expander {
                number: of_target("busNr"),
                node: target
                    .and_then(|target| child(target, "node")?.text())
                    .and_then(|text| text.trim().parse().ok()),
            },
            Some("pcie-root-port") => BusKind::Port {
                chassis: of_target("chassis"),
                slot: None,
                window: None,
            },
            _ => BusKind::Bridge,
        };
        out.buses.push(Bus {
            place,
            name: number(node, "index")
                .map(|index| index.to_string())
                .unwrap_or_default(),
            parent: bus_of(node),
            slot: slot_of(node),
            kind,
            open: Open::default(),
        });
    }

    fn hostdev(
        &self,
        index: usize,
        node: Node<'_, '_>,
        domain: Node<'_, '_>,
        out: &mut Definition,
    ) {
        let place = self.place(node);
        let alias = child(node, "alias").and_then(|alias| alias.attribute("name"));
        let id = alias.map_or_else(|| format!("hostdev{index}"), str::to_owned);
        let source = path(node, &["source", "address"]);
        let rom = child(node, "rom");
        let is_off = |name: &str, off: &str| rom.and_then(|rom| rom.attribute(name)) == Some(off);
        if let Some(acpi) = child(node, "acpi") {
            let nodes: Option<CpuList> =
                acpi.attribute("nodeset").and_then(|text| text.parse().ok());
            for node in nodes.iter().flat_map(CpuList::iter).take(1024) {
                out.initiators.push(Initiator {
                    place: self.place(acpi),
                    device: id.clone(),
                    node,
                });
            }
        }
        if alias.is_some() {
            out.ids.push(Name {
                id: id.clone(),
                is_object: false,
                place,
            });
        }
        let own = child(node, "driver").and_then(|driver| driver.attribute("iommufd"));
        let of_domain = child(domain, "iommufd")
            .filter(|node| node.attribute("enabled") == Some("yes"))
            .map(|_| IOMMUFD.to_owned());
        out.functions.push(Function {
            place,
            host: source.and_then(bdf),
            is_served: false,
            bus: bus_of(node),
            slot: slot_of(node),
            iommufd: match own {
                Some("yes") => Some(of_domain.unwrap_or_else(|| IOMMUFD.to_owned())),
                Some("no") => None,
                _ => of_domain,
            },
            refuses_iommufd: own == Some("no"),
            is_unmapped: override_of(domain, &id)
                .is_some_and(|property| property.attribute("value") == Some("true")),
            has_rom: !is_off("bar", "off") && !is_off("enabled", "no"),
            is_multifunction: child(node, "address")
                .is_some_and(|address| address.attribute("multifunction") == Some("on")),
            is_managed: node.attribute("managed") == Some("yes"),
            driver: child(node, "driver")
                .and_then(|driver| driver.attribute("model"))
                .map(str::to_owned),
            id: Some(id),
            open: Open::default(),
        });
    }

    /// Arguments that libvirt passes on to QEMU.
    fn arguments(&self, domain: Node<'_, '_>, out: &mut Definition) -> Result<(), ReadError> {
        let lines = domain
            .children()
            .filter(|node| node.has_tag_name((QEMU, "commandline")));
        let mut args = lines
            .flat_map(|line| {
                line.children()
                    .filter(|node| node.has_tag_name((QEMU, "arg")))
            })
            .peekable();
        let text = |node: &Node<'_, '_>| node.attribute("value").unwrap_or_default().to_owned();
        let (mut options, mut places) = (Vec::new(), Vec::new());
        while let Some(arg) = args.next() {
            let name = text(&arg);
            if !name.starts_with('-') {
                continue;
            }
            let value = args.next_if(|next| !text(next).starts_with('-'));
            let place = self.place(value.unwrap_or(arg));
            let value = value.as_ref().map(text).unwrap_or_default();
            options.push(Opt::given(&name, &value, place.line)?);
            places.push(place);
        }
        let command = Command {
            text: String::new(),
            blanked: String::new(),
            program: None,
            line: 1,
            end: 0,
            options,
            open: Vec::new(),
            defaults: Vec::new(),
        };
        let first = (out.buses.len(), out.functions.len(), out.smmus.len());
        for (option, place) in command.options.iter().zip(&places) {
            arguments::machine_option(&mut out.machine, option, *place);
            arguments::add(out, &command, option, *place);
            qemu::global_of_a_domain(option, place.line, &mut out.scope);
        }
        // buses by libvirt's names
        let named = |bus: &mut Option<String>| {
            if let Some(name) = bus {
                let index = match name.as_str() {
                    "pcie.0" => Some("0"),
                    name => name.strip_prefix("pci."),
                };
                *bus = Some(index.unwrap_or(name).to_owned());
            }
        };
        let buses = out.buses.iter_mut().skip(first.0);
        buses.for_each(|bus| named(&mut bus.parent));
        let functions = out.functions.iter_mut().skip(first.1);
        functions.for_each(|function| named(&mut function.bus));
        let smmus = out.smmus.iter_mut().skip(first.2);
        smmus.for_each(|smmu| named(&mut smmu.bus));
        let indexes: Vec<usize> = places.iter().map(|place| place.index).collect();
        let mut scope = qemu::scope(&command, |at| {
            let index = indexes.get(at)?;
            let mut functions = out.functions.iter();
            functions.position(|function| function.place.index == *index)
        });
        scope.unjudged.append(&mut out.scope.unjudged);
        out.scope = scope;
        Ok(())
    }
}

/// The property that keeps a device's BARs from being mapped.
pub(crate) fn override_of<'a, 'i>(domain: Node<'a, 'i>, id: &str) -> Option<Node<'a, 'i>> {
    let mut devices = domain
        .descendants()
        .filter(|node| node.has_tag_name((QEMU, "device")) && node.attribute("alias") == Some(id));
    let device = devices.next()?;
    let mut properties = device
        .descendants()
        .filter(|node| node.has_tag_name((QEMU, "property")));
    properties.find(|node| node.attribute("name") == Some("x-no-mmap"))
}

/// The bus of an element's address.
fn bus_of(node: Node<'_, '_>) -> Option<String> {
    let mut addresses = elements(node, "address");
    let address = addresses.find(|one| one.attribute("type") == Some("pci"))?;
    number(address, "bus").map(|bus| bus.to_string())
}

/// Slot and function of an element's address; empty where libvirt chooses.
fn slot_of(node: Node<'_, '_>) -> String {
    let mut addresses = elements(node, "address");
    let address =
        addresses.find(|one| one.attribute("type") == Some("pci") && one.has_attribute("bus"));
    address.map_or_else(String::new, |address| {
        let part = |name: &str| number(address, name).unwrap_or(0);
        format!("{:#x}.{:#x}", part("slot"), part("function"))
    })
}

fn bdf(address: Node<'_, '_>) -> Option<Bdf> {
    let part = |name: &str| number(address, name).unwrap_or(0);
    let byte = |name: &str| u8::try_from(part(name)).ok();
    Bdf::new(
        part("domain"),
        byte("bus")?,
        byte("slot")?,
        byte("function")?,
    )
}
