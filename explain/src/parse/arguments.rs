//! A QEMU command line -> a definition.
//!
//! Source: the QEMU 11.1 manual (`virt`, `pxb-pcie`, `pcie-root-port`, `arm-smmuv3`, `vfio-pci`,
//! `vfio-user-pci`, `acpi-generic-initiator`, `iommufd`).

use varia_facts::{Bdf, Bytes};
use varia_plan::versions::EGM_OBJECT;

use super::command::{Command, Opt};
use super::properties::{Properties, switch};
use crate::model::{
    Backing, Bus, BusKind, Definition, Distance, EgmTie, Function, Initiator, Language, Machine,
    Name, Node, Other, Place, Smmu, Unknown,
};
use crate::open::Open;
use crate::scope::known::BRIDGES;
use crate::scope::qemu;
use varia_facts::Arch;

/// Reads what matters to GPUs.
pub(crate) fn definition(command: &Command) -> Definition {
    let machine = machine(command);
    let of_program = command.program.as_deref().and_then(|name| {
        let (_, arch) = name.rsplit_once("qemu-system-")?;
        arch.parse().ok()
    });
    let arch = of_program.unwrap_or(match machine.kind.contains("q35") {
        true => Arch::X86_64,
        false => Arch::Aarch64,
    });
    let mut out = Definition::empty(Language::Qemu, arch, machine);
    out.buses.push(Bus {
        place: out.machine.place,
        name: "pcie.0".to_owned(),
        parent: None,
        slot: String::new(),
        kind: BusKind::Root,
        open: Open::default(),
    });
    for (index, option) in command.options.iter().enumerate() {
        let place = Place {
            line: option.line,
            index,
        };
        add(&mut out, command, option, place);
    }
    out.scope = qemu::scope(command, |index| {
        let mut functions = out.functions.iter();
        functions.position(|function| function.place.index == index)
    });
    // ties name devices by their ids
    let has_id = |function: &Function| !function.open.is("id");
    out.scope.has_open_ties |= !out.functions.iter().all(has_id);
    if !out.machine.has_firmware {
        let drives = command.options.iter().filter(|one| one.name == "drive");
        for drive in drives.filter(|one| unknown(one).contains(&Unknown::Firmware)) {
            let what = format!("-drive: {}", drive.open.join(", "));
            out.scope.add(drive.line, what, "firmware may come from it");
        }
    }
    if out.scope.has_open_options {
        let absent = absent(&out.machine);
        out.machine.open.extend(absent);
    }
    out
}

/// Parts of a machine that no option names.
fn absent(machine: &Machine) -> Vec<Unknown> {
    let parts = [
        (machine.accelerator.is_none(), Unknown::Accelerator),
        (machine.aperture.is_none(), Unknown::Aperture),
        (machine.cpu.is_none(), Unknown::Cpu),
        (!machine.has_firmware, Unknown::Firmware),
        (machine.gic.is_none(), Unknown::InterruptController),
        (machine.kind.is_empty(), Unknown::Kind),
    ];
    let parts = parts.into_iter().filter(|(is_absent, _)| *is_absent);
    parts.map(|(_, part)| part).collect()
}

/// Adds what one option says.
pub(crate) fn add(out: &mut Definition, command: &Command, option: &Opt, place: Place) {
    let properties = &option.properties;
    match option.name.as_str() {
        "device" => {
            let (driver, open) = (properties.kind("driver").to_owned(), Open::of(option));
            if let Some(id) = properties.id() {
                out.ids.push(Name {
                    id,
                    is_object: false,
                    place,
                });
            }
            device(out, command, &driver, properties, (place, &open));
        }
        "object" => {
            if let Some(id) = properties.get("id") {
                out.ids.push(Name {
                    id,
                    is_object: true,
                    place,
                });
            }
            object(out, properties, place);
        }
        "numa" => numa(out, command, properties, place),
        _ => {}
    }
}

fn machine(command: &Command) -> Machine {
    let mut machine = Machine {
        // where there is no option nothing can be changed
        place: Place {
            line: command.line,
            index: usize::MAX,
        },
        has_acpi: true,
        ..Machine::default()
    };
    // of its program's name alone
    if command
        .program
        .as_deref()
        .is_some_and(|name| name.ends_with("kvm"))
    {
        machine.accelerator_of_program = Some("kvm".to_owned());
    }
    for (index, option) in command.options.iter().enumerate() {
        let place = Place {
            line: option.line,
            index,
        };
        if option.name == "machine" {
            machine.place = place;
        }
        machine_option(&mut machine, option, place);
    }
    let of_program = machine.accelerator_of_program.take();
    machine.accelerator = machine.accelerator.or(of_program);
    machine
}

/// Adds what one option says of the machine.
pub(crate) fn machine_option(machine: &mut Machine, option: &Opt, place: Place) {
    let properties = &option.properties;
    machine.open.extend(unknown(option));
    match option.name.as_str() {
        "machine" => {
            let kind = properties.kind("type");
            if !kind.is_empty() {
                machine.kind = kind.to_owned();
            }
            if properties.switch("acpi") == Some(false) {
                machine.has_acpi = false;
            }
            machine.is_low |= ["highmem", "highmem-mmio"]
                .iter()
                .any(|key| properties.switch(key) == Some(false));
            if let Some(version) = properties.get("gic-version") {
                machine.gic = Some(version);
            }
            if let Some(text) = properties.get("highmem-mmio-size") {
                machine.aperture = Some((size(&text, 0), place));
            }
            if let Some(accelerators) = properties.get("accel") {
                let first = accelerators.split(':').next().map(str::to_owned);
                machine.accelerator = machine.accelerator.take().or(first);
            }
            machine.smmu |= properties.get("iommu").as_deref() == Some("smmuv3");
            machine.has_firmware |= properties.get("pflash0").is_some();
        }
        "object" if properties.kind("qom-type").starts_with("memory-backend-") => {
            let pages = properties
                .get("hugetlbsize")
                .and_then(|text| size(&text, 0));
            machine.hugepages = machine.hugepages.or(pages);
            let file = properties.get("mem-path").unwrap_or_default();
            machine.has_hugepages |= pages.is_some()
                || properties.switch("hugetlb") == Some(true)
                || is_hugetlbfs(&file);
        }
        "mem-path" => machine.has_hugepages |= is_hugetlbfs(&option.text),
        "no-acpi" => machine.has_acpi = false,
        "accel" => {
            let kind = properties.kind("accel").to_owned();
            machine.accelerator = machine.accelerator.take().or(Some(kind));
        }
        "enable-kvm" => machine.accelerator = Some("kvm".to_owned()),
        "cpu" => {
            machine.cpu = Some((properties.kind("model").to_owned(), place));
            let bits = properties.get("phys-bits").and_then(|bits| integer(&bits));
            machine.address_bits = bits.map(|bits| (bits, place));
        }
        "bios" | "pflash" => machine.has_firmware = true,
        "drive" => {
            machine.has_firmware |= properties.get("if").as_deref() == Some("pflash");
        }
        "m" => {
            let text = properties.get("size");
            machine.ram = size(text.as_deref().unwrap_or(properties.kind("size")), 20);
        }
        _ => {}
    }
}

/// Parts of the machine whose values in an option only a shell knows.
fn unknown(option: &Opt) -> Vec<Unknown> {
    let open = Open::of(option);
    let parts: &[(&str, Unknown)] = match option.name.as_str() {
        "machine" => &[
            ("accel", Unknown::Accelerator),
            ("gic-version", Unknown::InterruptController),
            ("highmem-mmio-size", Unknown::Aperture),
            ("pflash0", Unknown::Firmware),
        ],
        "accel" => &[("accel", Unknown::Accelerator)],
        "cpu" => &[("model", Unknown::Cpu)],
        "drive" => &[("if", Unknown::Firmware)],
        _ => &[],
    };
    // the first word has no name
    let is_open = |name: &str| match option.name.as_str() {
        "accel" | "cpu" => option.properties.kind(name).contains(['$', '`']),
        _ => open.is(name),
    };
    let parts = parts.iter().filter(|(name, _)| is_open(name));
    parts.map(|(_, part)| *part).collect()
}

/// The usual places where distributions mount hugepages.
fn is_hugetlbfs(file: &str) -> bool {
    ["/dev/hugepages", "/hugepages", "/mnt/huge"]
        .iter()
        .any(|place| file.starts_with(place))
}

/// Virtual CPUs, if the text says how many.
pub(crate) fn cpus(command: &Command) -> Option<u32> {
    let option = command
        .options
        .iter()
        .rfind(|option| option.name == "smp")?;
    let properties = &option.properties;
    let text = properties.get("cpus");
    text.as_deref()
        .unwrap_or(properties.kind("cpus"))
        .parse()
        .ok()
}

fn device(
    out: &mut Definition,
    command: &Command,
    driver: &str,
    properties: &Properties,
    (place, open): (Place, &Open),
) {
    let open = || open.clone();
    // what is said for every device of a driver
    let get = |key: &str| properties.get(key).or_else(|| global(command, driver, key));
    let state = |key: &str| get(key).and_then(|value| switch(&value));
    let is_on = |key: &str| state(key) == Some(true);
    let number = |key: &str| get(key).and_then(|text| integer(&text));
    let id = properties.id();
    match driver {
        "vfio-pci" | "vfio-pci-nohotplug" | "vfio-user-pci" => out.functions.push(Function {
            place,
            host: host(properties),
            is_served: driver == "vfio-user-pci",
            bus: get("bus"),
            slot: get("addr").unwrap_or_default(),
            iommufd: get("iommufd"),
            refuses_iommufd: false,
            is_unmapped: is_on("x-no-mmap"),
            has_rom: driver != "vfio-user-pci" && state("rombar") != Some(false),
            is_multifunction: is_on("multifunction"),
            is_managed: false,
            driver: None,
            id,
            open: open(),
        }),
        "pcie-root-port" | "ioh3420" | "cxl-rp" => out.buses.push(Bus {
            place,
            name: id.unwrap_or_default(),
            parent: get("bus"),
            slot: get("addr").unwrap_or_default(),
            kind: BusKind::Port {
                chassis: number("chassis"),
                slot: number("slot"),
                window: match driver {
                    // it has no such property
                    "ioh3420" => Some(None),
                    _ => get("pref64-reserve").map(|text| size(&text, 0)),
                },
            },
            open: open(),
        }),
        "pxb-pcie" | "pxb-cxl" | "pxb" => out.buses.push(Bus {
            place,
            name: id.unwrap_or_default(),
            parent: get("bus"),
            slot: get("addr").unwrap_or_default(),
            kind: BusKind::Expander {
                number: number("bus_nr"),
                node: number("numa_node"),
            },
            open: open(),
        }),
        name if BRIDGES.contains(&name) => out.buses.push(Bus {
            place,
            name: id.unwrap_or_default(),
            parent: get("bus"),
            slot: get("addr").unwrap_or_default(),
            kind: BusKind::Bridge,
            open: open(),
        }),
        "arm-smmuv3" => out.smmus.push(Smmu {
            place,
            bus: get("primary-bus"),
            is_accelerated: is_on("accel"),
            options: Smmu::options(|name| get(name).is_some()),
            accelerated_only: ["ats", "cmdqv", "oas", "pasid", "ril", "ssidsize"]
                .into_iter()
                .filter(|name| {
                    get(name).is_some_and(|value| Smmu::needs_acceleration(name, &value))
                })
                .map(str::to_owned)
                .collect(),
            open: open(),
        }),
        _ => out.others.push(Other {
            place,
            label: id.unwrap_or_else(|| format!("a {driver}")),
            bus: get("bus"),
            slot: get("addr").unwrap_or_default(),
        }),
    }
}

fn global(command: &Command, driver: &str, key: &str) -> Option<String> {
    let wanted = format!("{driver}.{key}");
    let said = command
        .options
        .iter()
        .rev()
        .filter(|one| one.name == "global");
    said.filter_map(|one| one.text.split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value.to_owned())
}

/// `host=`, with or without a domain, or the end of `sysfsdev=`.
fn host(properties: &Properties) -> Option<Bdf> {
    let text = properties.get("host").or_else(|| {
        let path = properties.get("sysfsdev")?;
        Some(path.trim_end_matches('/').rsplit('/').next()?.to_owned())
    })?;
    text.parse()
        .or_else(|_| format!("0000:{text}").parse())
        .ok()
}

fn object(out: &mut Definition, properties: &Properties, place: Place) {
    match properties.kind("qom-type") {
        "acpi-generic-initiator" => {
            let node = properties.get("node").and_then(|text| integer(&text));
            if let (Some(device), Some(node)) = (properties.get("pci-dev"), node) {
                out.initiators.push(Initiator {
                    place,
                    device,
                    node,
                });
            }
        }
        EGM_OBJECT => {
            let node = properties.get("node").and_then(|text| integer(&text));
            if let (Some(device), Some(node)) = (properties.get("pci-dev"), node) {
                out.egm.push(EgmTie {
                    place,
                    device,
                    node,
                });
            }
        }
        "iommufd" => {
            let id = properties.get("id").unwrap_or_default();
            out.iommufds.push((id, place));
        }
        _ => {}
    }
}

fn numa(out: &mut Definition, command: &Command, properties: &Properties, place: Place) {
    let number = |key: &str| properties.get(key).and_then(|text| integer(&text));
    match properties.kind("type") {
        "node" => {
            let id = number("nodeid").unwrap_or(out.nodes.len() as u32);
            let backend = properties
                .get("memdev")
                .and_then(|id| backend(command, &id));
            let own = properties.get("mem").and_then(|text| size(&text, 20));
            let memory = backend.as_ref().and_then(|(_, size)| *size).or(own);
            out.nodes.push(Node {
                place,
                id,
                cpus: properties.get("cpus"),
                has_memory: properties.get("memdev").is_some() || own.is_some_and(|own| own.0 > 0),
                memory,
                backing: backend.map(|(backing, _)| backing),
            });
        }
        "dist" => {
            if let (Some(from), Some(to), Some(value)) =
                (number("src"), number("dst"), number("val"))
            {
                out.distances.push(Distance {
                    place,
                    from,
                    to,
                    value,
                });
            }
        }
        "cpu" => {
            let node = number("node-id");
            if let Some(node) = out.nodes.iter_mut().find(|one| Some(one.id) == node) {
                node.cpus.get_or_insert_default();
            }
        }
        _ => {}
    }
}

/// A memory backend and its size, by its name.
fn backend(command: &Command, id: &str) -> Option<(Backing, Option<Bytes>)> {
    let mut options = command.options.iter().enumerate();
    let (index, option) = options.find(|(_, option)| {
        option.name == "object"
            && option
                .properties
                .kind("qom-type")
                .starts_with("memory-backend-")
            && option.properties.get("id").as_deref() == Some(id)
    })?;
    let properties = &option.properties;
    let backing = Backing {
        place: Place {
            line: option.line,
            index,
        },
        host_nodes: properties.get("host-nodes"),
        is_shared: properties.switch("share") == Some(true),
        file: properties.get("mem-path"),
    };
    let size = properties.get("size").and_then(|text| size(&text, 0));
    Some((backing, size))
}

/// A number as QEMU reads it: decimal, hexadecimal with `0x`, octal with `0`.
pub(crate) fn integer(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match (digits, text.strip_prefix('0')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// A size as QEMU reads it; a number alone has the unit of `shift` bits.
pub(crate) fn size(text: &str, shift: u32) -> Option<Bytes> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Bytes);
    }
    let text = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let (number, shift) = match text.chars().last()?.to_ascii_lowercase() {
        'k' => (text.get(..text.len() - 1)?, 10),
        'm' => (text.get(..text.len() - 1)?, 20),
        'g' => (text.get(..text.len() - 1)?, 30),
        't' => (text.get(..text.len() - 1)?, 40),
        'p' => (text.get(..text.len() - 1)?, 50),
        _ => (text, shift),
    };
    let unit = 1_u64 << shift;
    let Some((whole, part)) = number.split_once('.') else {
        return number.parse::<u64>().ok()?.checked_mul(unit).map(Bytes);
    };
    // a fraction, such as 1.5G
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let places = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = part.parse::<u64>().ok()?;
    let part = u128::from(part).checked_mul(unit.into())? / places;
    whole.checked_add(u64::try_from(part).ok()?).map(Bytes)
}
