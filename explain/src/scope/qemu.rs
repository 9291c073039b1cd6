//! Options of a QEMU command that are not judged.

use varia_plan::versions::EGM_OBJECT;

use super::Scope;
use super::known::{
    APART, APART_DEVICES, APART_GLOBALS, APART_OBJECTS, BACKEND, BRIDGES, EGM_BACKEND, EXPANDER,
    FUNCTION, MACHINE, MACHINE_VALUES, NUMA, PORT, READ, SMMU,
};
use crate::parse::arguments::integer;
use crate::parse::command::{Command, Opt};
use crate::parse::properties::{Properties, switch};

/// Begin of the paths of Extended GPU Memory.
const EGM: &str = "/dev/egm";
/// Why an unknown property is not judged.
const UNKNOWN: &str = "Varia does not know it";

/// Parts of a command that are not judged. `function`: the place in the list of functions of the
/// option at an index.
pub(crate) fn scope(command: &Command, function: impl Fn(usize) -> Option<usize>) -> Scope {
    let mut out = Scope::default();
    for (line, text) in &command.open {
        out.add(*line, text.clone(), "options may come from it");
        out.has_more = true;
        // arguments of a script are seldom nodes
        let has_nodes = !matches!(text.as_str(), "$@" | "$*");
        out.has_open_options |= has_nodes;
        out.has_open_ties |= has_nodes;
        out.has_open_nodes |= has_nodes;
    }
    for (index, option) in command.options.iter().enumerate() {
        let before = out.unjudged.len();
        judge(option, option.line, &mut out);
        let has_ties = matches!(option.name.as_str(), "object" | "numa");
        out.has_open_ties |= has_ties && !option.open.is_empty();
        out.has_open_nodes |= option.name == "numa" && !option.open.is_empty();
        if option.name == "object" && !is_memory_of_a_node(command, option) {
            let file = option.properties.get("mem-path").unwrap_or_default();
            unused_egm(&file, "-object", option.line, &mut out);
        }
        let own = function(index);
        for (_, place) in out.unjudged.iter_mut().skip(before) {
            *place = own;
        }
    }
    out
}

/// A node's memory is from this backend.
fn is_memory_of_a_node(command: &Command, backend: &Opt) -> bool {
    let id = backend.properties.get("id");
    let mut options = command.options.iter();
    let memdev = |option: &Opt| option.properties.get("memdev");
    options.any(|option| option.name == "numa" && memdev(option).is_some_and(|it| Some(it) == id))
}

/// Adds RAM that is from Extended GPU Memory and is no node's.
fn unused_egm(file: &str, what: &str, line: usize, out: &mut Scope) {
    if file.starts_with(EGM) {
        let why = "Varia judges Extended GPU Memory as the RAM of a node";
        out.add(line, format!("{what}: {file}"), why);
    }
}

/// Adds what is not judged of one option.
pub(crate) fn judge(option: &Opt, line: usize, out: &mut Scope) {
    let name = option.name.as_str();
    let properties = &option.properties;
    let kind = match name {
        "device" => properties.kind("driver"),
        "object" => properties.kind("qom-type"),
        "numa" => properties.kind("type"),
        _ => "",
    };
    if is_apart(name, kind) {
        return;
    }
    let what = format!("-{name} {kind}").trim_end().to_owned();
    for open in &option.open {
        out.add(
            line,
            format!("{what}: {open}"),
            "only a shell knows the value",
        );
    }
    match name {
        "set" => {
            out.add(
                line,
                format!("-set {}", option.text),
                "it changes another option",
            );
        }
        "readconfig" => {
            out.has_more = true;
            out.has_open_options = true;
            out.has_open_ties = true;
            out.has_open_nodes = true;
            out.add(
                line,
                format!("-readconfig {}", option.text),
                "root buses, root ports and other devices may come from that file",
            );
        }
        "device" => device(kind, option, line, &what, out),
        "object" => object(kind, option, line, &what, out),
        "numa" => {
            let known = NUMA.iter().find(|(name, _)| *name == kind);
            match known {
                Some((_, known)) => properties_of(option, known, line, &what, out),
                None => out.add(line, what, UNKNOWN),
            }
        }
        "machine" => {
            let kind = properties.kind("type");
            let family = kind.split(['-', '+']).next().unwrap_or_default();
            if !matches!(family, "virt" | "q35" | "pc" | "" | "none") {
                out.add(
                    line,
                    format!("-machine {kind}"),
                    "Varia knows the machines virt and q35",
                );
            }
            let is_list = |name: &str| {
                let lists = ["smp.", "smp-cache", "cxl-fmw", "sgx-epc"];
                lists.iter().any(|begin| name.starts_with(begin))
            };
            for name in properties.names() {
                if !MACHINE.contains(&name) && !is_list(name) {
                    out.add(line, format!("{what}: {name}"), UNKNOWN);
                }
            }
            for (name, harmless) in MACHINE_VALUES {
                if properties.switch(name) == Some(!harmless) {
                    let value = properties.get(name).unwrap_or_default();
                    let why = "Varia judges machines without it";
                    out.add(line, format!("{what}: {name}={value}"), why);
                }
            }
        }
        "global" => global(option, line, out),
        "mem-path" => unused_egm(&option.text, "-mem-path", line, out),
        name if READ.contains(&name) => {}
        _ => out.add(line, what, UNKNOWN),
    }
}

/// The option can't concern a GPU.
fn is_apart(name: &str, kind: &str) -> bool {
    let begins = |list: &[&str]| list.iter().any(|begin| kind.starts_with(begin));
    match name {
        "device" => begins(APART_DEVICES) && !kind.contains('$'),
        "object" => begins(APART_OBJECTS),
        "fw_cfg" => true,
        _ => APART.contains(&name),
    }
}

/// Properties of a device's driver; `None` for a driver that is not known.
fn known(driver: &str) -> Option<&'static [&'static str]> {
    Some(match driver {
        "vfio-pci" | "vfio-pci-nohotplug" | "vfio-user-pci" => FUNCTION,
        "pcie-root-port" | "ioh3420" | "cxl-rp" => PORT,
        "pxb-pcie" | "pxb-cxl" | "pxb" => EXPANDER,
        "arm-smmuv3" => SMMU,
        "q35-pcihost" => &["pci-hole64-size"],
        _ => return None,
    })
}

fn device(driver: &str, option: &Opt, line: usize, what: &str, out: &mut Scope) {
    if BRIDGES.contains(&driver) {
        return;
    }
    let why = match driver {
        "virtio-iommu-pci" | "intel-iommu" | "amd-iommu" => {
            "Varia knows the SMMUv3 alone of a VM's IOMMUs"
        }
        "nvdimm" | "pc-dimm" => "RAM that is added to nodes is not known to Varia",
        _ if driver.starts_with("virtio-mem") || driver.starts_with("virtio-pmem") => {
            "RAM that is added to nodes is not known to Varia"
        }
        _ => match known(driver) {
            Some(known) => return properties_of(option, known, line, what, out),
            None => {
                out.has_more = true;
                "Varia does not know the device"
            }
        },
    };
    out.add(line, what, why);
}

fn object(kind: &str, option: &Opt, line: usize, what: &str, out: &mut Scope) {
    let before = out.unjudged.len();
    let mut is_whole = true;
    let known: &[&str] = match kind {
        "acpi-generic-initiator" | EGM_OBJECT => {
            let number = option.properties.get("node");
            let is_read = number.is_some_and(|node| integer(&node).is_some());
            let is_tie = is_read && option.properties.has("pci-dev");
            out.has_open_ties |= !is_tie;
            is_whole = is_tie || !option.open.is_empty();
            &["id", "qom-type", "pci-dev", "node"]
        }
        "iommufd" => &["id", "qom-type", "fd"],
        _ if kind.starts_with("memory-backend-") => BACKEND,
        _ => return out.add(line, what, "Varia does not know the object"),
    };
    properties_of(option, known, line, what, out);
    if let Some(file) = option
        .properties
        .get("mem-path")
        .filter(|it| it.starts_with(EGM))
    {
        egm_backend(&file, option, line, what, out);
    }
    if !is_whole && out.unjudged.len() == before {
        let why = "it lacks a pci-dev or a node that is a number";
        out.add(line, what.to_owned(), why);
    }
}

/// What is not judged of a backend whose memory is Extended GPU Memory.
fn egm_backend(file: &str, option: &Opt, line: usize, what: &str, out: &mut Scope) {
    if varia_facts::egm_pxm(file).is_none() {
        let why = "it is not the name of a device of Extended GPU Memory";
        out.add(line, format!("{what}: mem-path={file}"), why);
    }
    for name in EGM_BACKEND {
        let value = option.properties.get(name).unwrap_or_default();
        let is_off = matches!(value.as_str(), "" | "0" | "auto") || switch(&value) == Some(false);
        if !is_off {
            let why = "Varia judges backends of Extended GPU Memory without it";
            out.add(line, format!("{what}: {name}={value}"), why);
        }
    }
}

fn properties_of(option: &Opt, known: &[&str], line: usize, what: &str, out: &mut Scope) {
    for name in option.properties.names() {
        // a part of a list: host-nodes.0, socket.path
        let own = name.split('.').next().unwrap_or(name);
        let is_open = name.contains(['$', '`']);
        if !known.contains(&name) && !known.contains(&own) && !is_open {
            out.add(
                line,
                format!("{what}: {name}"),
                format!("{} has no such property that Varia knows", kind_of(what)),
            );
        }
    }
}

/// `vfio-pci` of `-device vfio-pci`.
fn kind_of(what: &str) -> &str {
    what.rsplit(' ').next().unwrap_or(what)
}

/// Properties of all devices of a driver: those of the drivers that matter are read.
fn global(option: &Opt, line: usize, out: &mut Scope) {
    match of_global(option) {
        None => out.add(line, format!("-global {}", option.text), UNKNOWN),
        Some((driver, property)) => match known(&driver) {
            Some(known) if known.contains(&property.as_str()) => {}
            None if is_apart("device", &driver) || APART_GLOBALS.contains(&driver.as_str()) => {}
            // a type that others are made of is not known either
            Some(_) | None => out.add(line, format!("-global {driver}.{property}"), UNKNOWN),
        },
    }
}

/// Driver and property of a `-global`, in its short or its long form.
fn of_global(option: &Opt) -> Option<(String, String)> {
    let properties = Properties::read(&option.text).ok();
    let get = |key| properties.as_ref()?.get(key);
    let long = get("driver").zip(get("property"));
    let short = || {
        let (name, _) = option.text.split_once('=')?;
        let (driver, property) = name.split_once('.')?;
        Some((driver.to_owned(), property.to_owned()))
    };
    long.or_else(short)
}

/// Adds a `-global` of a domain for GPUs, ports, root buses or SMMUs: libvirt's elements of them are
/// judged without it.
pub(crate) fn global_of_a_domain(option: &Opt, line: usize, out: &mut Scope) {
    let is_judged = |(driver, property): (String, String)| {
        known(&driver).is_some_and(|known| known.contains(&property.as_str()))
    };
    if option.name == "global" && of_global(option).is_some_and(is_judged) {
        let why = "it also holds for libvirt's own devices, which Varia judges without it";
        out.add(line, format!("-global {}", option.text), why);
    }
}

/// True if the driver has the property, or the driver is not known.
pub(crate) fn is_known_property(driver: &str, property: &str) -> bool {
    known(driver).is_none_or(|known| known.contains(&property))
}
