//! `varia list` and `varia capture`: the devices of a host that variant drivers serve.

use std::collections::BTreeMap;

use serde::Serialize;
use varia_facts::{
    BarKind, Bdf, Bytes, CoherentSource, EgmDevice, GroupId, Host, NodeId, PciFunction,
};
use varia_linux::bind;
use varia_linux::capture::{self, Options};
use varia_linux::inventory::{Extent, Inventory};
use varia_linux::matching::same_name;
use varia_linux::{Tree, probe};
use varia_spec::nvidia::chip::Identity;

use crate::{
    Failure,
    args::{CaptureArgs, HostArgs, ListArgs},
    output::{print, printable},
};

/// The version of the JSON's schema. A field may be added within a version.
const SCHEMA: &str = "varia-list/1";

/// The printed list; the JSON's schema.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    schema: &'static str,
    product: Option<&'a str>,
    kernel: Option<&'a str>,
    devices: Vec<Device<'a>>,
    /// Facts that could not be read, and the reasons; files of `bind --persist` without a listed
    /// device.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Device<'a> {
    #[serde(flatten)]
    function: &'a PciFunction,
    best_driver: Best,
    /// Name of the GPU's chip; none for a chip that is not known, and for other devices.
    chip: Option<&'static str>,
    /// The other members of its IOMMU group.
    group_members: Vec<Member<'a>>,
    /// The binding that `bind --persist` saved.
    persistent: Option<Saved>,
}

/// A saved binding.
#[derive(Debug, Serialize)]
struct Saved {
    file: String,
    driver: Option<String>,
    /// Reason why the next start does not bind the device.
    fault: Option<String>,
}

#[derive(Debug, Serialize)]
struct Best {
    module: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Member<'a> {
    bdf: Bdf,
    driver: Option<&'a str>,
    name: Option<&'a str>,
}

/// The requested host.
pub(crate) fn host(args: &HostArgs) -> Result<Tree, Failure> {
    Ok(match &args.sysfs {
        Some(path) => Tree::open(path)?,
        None => Tree::live(),
    })
}

/// Prints the list.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let tree = host(&args.host)?;
    let extent = if args.all || args.facts {
        Extent::All
    } else {
        Extent::Served
    };
    let mut inventory = Inventory::of(&tree, extent)?;
    if args.probe {
        probe::probe(&tree, &mut inventory)?;
    }
    if args.facts {
        inventory.ask_programs(&tree, None);
        return print(&(serde_json::to_string_pretty(&inventory.facts)? + "\n"));
    }
    let listing = Listing::new(&tree, &inventory, args.all);
    if args.json {
        return print(&(serde_json::to_string_pretty(&listing)? + "\n"));
    }
    print(&listing.text(&inventory.facts.host))
}

/// Writes a captured host.
pub(crate) fn capture(args: &CaptureArgs) -> Result<(), Failure> {
    let options = Options {
        config: args.config,
    };
    let captured = capture::capture(&host(&args.host)?, &args.file, options)?;
    print(&format!(
        "captured {} PCI functions, of which variant drivers serve {}, into {} ({})\n\
         the file contains no serial number; `tar -tvf` lists its contents\n",
        captured.functions,
        captured.served,
        args.file.display(),
        Bytes(captured.bytes).rounded()
    ))
}

impl<'a> Listing<'a> {
    fn new(tree: &Tree, inventory: &'a Inventory, all: bool) -> Self {
        let facts = &inventory.facts;
        let served = inventory.served();
        let shown = facts.functions.iter();
        let shown = shown.filter(|function| all || served.contains(&function.bdf));
        let mut notes = inventory.notes.clone();
        let mut saved = saved(tree, &mut notes);
        let devices = shown.map(|function| {
            let persistent = saved.remove(&function.bdf);
            Device::new(inventory, function, persistent)
        });
        let devices = devices.collect();
        // bindings of devices that are not listed
        notes.extend(saved.into_iter().map(|(bdf, saved)| match saved.fault {
            Some(fault) => fault,
            None => format!(
                "{bdf} is bound to {} at each start ({})",
                saved.driver.unwrap_or_default(),
                saved.file
            ),
        }));
        Self {
            schema: SCHEMA,
            product: facts.host.product.as_deref(),
            kernel: facts.kernel.release.as_deref(),
            devices,
            notes,
        }
    }

    fn text(&self, host: &Host) -> String {
        let mut out = String::new();
        for device in &self.devices {
            if !out.is_empty() {
                out.push('\n');
            }
            out += &device.text(host);
        }
        if self.devices.is_empty() {
            out += "no variant driver serves a PCI device of this host (`--all` lists every function)\n";
        }
        for note in &self.notes {
            out += &format!("\nnote: {}\n", printable(note));
        }
        out
    }
}

impl<'a> Device<'a> {
    fn new(inventory: &'a Inventory, function: &'a PciFunction, persistent: Option<Saved>) -> Self {
        let best = inventory.best(function);
        let facts = &inventory.facts;
        let groups = &facts.host.iommu.groups;
        let group = groups
            .iter()
            .find(|group| Some(group.id) == function.iommu_group);
        let members = group.map(|group| group.members.as_slice());
        let members = members.unwrap_or_default().iter();
        let others = members.filter(|bdf| **bdf != function.bdf).map(|bdf| {
            let member = facts.function(*bdf);
            Member {
                bdf: *bdf,
                driver: member.and_then(|member| member.driver.as_deref()),
                name: member.and_then(|member| member.name.as_deref()),
            }
        });
        Self {
            function,
            best_driver: Best {
                module: best.module,
                why: best.why.to_string(),
            },
            chip: identity(function).chip().map(|chip| chip.name),
            group_members: others.collect(),
            persistent,
        }
    }

    fn text(&self, host: &Host) -> String {
        let function = self.function;
        let mut out = format!(
            "{} {} [{:04x}:{:04x}]\n",
            function.bdf,
            function.name.as_deref().unwrap_or("(no name)"),
            function.vendor,
            function.device
        );
        // names are others' texts
        let mut line = |key: &str, value: String| {
            out += &format!("  {key:<16} {}\n", printable(&value));
        };
        let driver = function.driver.as_deref();
        line("driver", driver.unwrap_or("none").to_owned());
        let bound = driver.is_some_and(|driver| same_name(driver, &self.best_driver.module));
        line(
            "best driver",
            format!(
                "{}{}: {}",
                self.best_driver.module,
                if bound { " (bound)" } else { "" },
                self.best_driver.why
            ),
        );
        if let (Some(variant), Some(reason)) = (&function.variant, &function.variant_reason) {
            line("variant", format!("{variant}, selected by {reason}"));
        }
        if let Some(saved) = &self.persistent {
            let text = match (&saved.driver, &saved.fault) {
                (_, Some(fault)) => format!("not bound: {fault}"),
                (driver, None) => format!(
                    "bound to {} ({})",
                    driver.as_deref().unwrap_or_default(),
                    saved.file
                ),
            };
            line("at each start", text);
        }
        line("IOMMU group", self.group(function.iommu_group));
        line(
            "NUMA node",
            node(host, function.numa_node, function.cpu_node),
        );
        match identity(function) {
            Identity::Known(chip, _) => line("chip", chip.name.to_owned()),
            Identity::Unknown => line(
                "chip",
                "not known: probe it (varia list --probe)".to_owned(),
            ),
            Identity::Other => {}
        }
        line("coherent memory", memory(function));
        if let Some(egm) = &function.egm {
            let device = host.egm_of(function.bdf).map(EgmDevice::path);
            let device = device.unwrap_or_else(|| "which no driver offers".to_owned());
            line("EGM", format!("{}, {device}", egm.size.rounded()));
        }
        for bar in &function.bars {
            let kind = match bar.kind {
                BarKind::Io => "ports",
                BarKind::Memory32 => "32-bit memory",
                BarKind::Memory64 => "64-bit memory",
            };
            let prefetchable = if bar.prefetchable {
                ", prefetchable"
            } else {
                ""
            };
            let place = match bar.address {
                Some(address) => format!("at {:#x}", address.0),
                None => "without an address".to_owned(),
            };
            line(
                &format!("BAR{}", bar.index),
                format!("{} {place}, {kind}{prefetchable}", bar.size),
            );
        }
        for bar in &function.virtual_bars {
            let memory = match &bar.memory {
                Some(memory) => format!(": {memory}, {}", bar.length),
                None => String::new(),
            };
            line(
                &format!("in a VM, BAR{}", bar.index),
                format!("{}{memory}", bar.size),
            );
        }
        if let Some(note) = &function.layout_note {
            line("layout", note.clone());
        }
        if let Some(ready) = function.ready {
            let text = if ready { "ready" } else { "not ready" };
            line("memory", text.to_owned());
        }
        out
    }

    fn group(&self, group: Option<GroupId>) -> String {
        let Some(group) = group else {
            return "none: no IOMMU translates for the device, so that no VM can get it".to_owned();
        };
        if self.group_members.is_empty() {
            return format!("{group}, alone");
        }
        let members = self.group_members.iter().map(|member| {
            let driver = member.driver.unwrap_or("no driver");
            format!("{} ({driver})", member.bdf)
        });
        let members: Vec<_> = members.collect();
        format!("{group}, with {}", members.join(", "))
    }
}

/// Saved bindings by device; the faults of other files become notes.
fn saved(tree: &Tree, notes: &mut Vec<String>) -> BTreeMap<Bdf, Saved> {
    let files = match bind::persistent(tree) {
        Ok(files) => files,
        Err(error) => {
            notes.push(error.to_string());
            return BTreeMap::new();
        }
    };
    let mut saved = BTreeMap::new();
    for file in files {
        let (driver, fault) = match file.binding {
            Ok(binding) => (Some(binding.driver), None),
            Err(error) => (None, Some(error.to_string())),
        };
        match file.device.filter(|_| file.is_own) {
            Some(bdf) => {
                let file = file.path;
                saved.insert(
                    bdf,
                    Saved {
                        file,
                        driver,
                        fault,
                    },
                );
            }
            None => notes.extend(fault),
        }
    }
    saved
}

fn node(host: &Host, own: Option<NodeId>, nearest: Option<NodeId>) -> String {
    let cpus = |id: NodeId| host.node(id).map(|node| node.cpus.to_string());
    let Some(own) = own else {
        return "not given by firmware".to_owned();
    };
    match nearest {
        Some(nearest) if nearest == own => {
            format!("{own}, CPUs {}", cpus(own).unwrap_or_default())
        }
        Some(nearest) => format!(
            "{own}, without CPUs; the nearest node with CPUs is {nearest}, CPUs {}",
            cpus(nearest).unwrap_or_default()
        ),
        None => format!("{own}"),
    }
}

fn identity(function: &PciFunction) -> Identity {
    Identity::of(function.vendor, function.device, function.class)
}

fn memory(function: &PciFunction) -> String {
    let Some(memory) = &function.coherent_memory else {
        let chip = identity(function).chip();
        return match chip.is_some_and(|chip| chip.coherent.is_none()) {
            true => "none: the memory is behind a BAR".to_owned(),
            false => "not known".to_owned(),
        };
    };
    let mut text = format!("{} at {:#x}", memory.size, memory.base.0);
    if let (Some(start), Some(count)) = (memory.pxm_start, memory.pxm_count) {
        text += &format!(", {count} proximity domains from {start}");
    }
    text += &match &memory.source {
        CoherentSource::AcpiDsd(table) => format!(" (_DSD in {table})"),
        CoherentSource::DeviceTree => " (device tree)".to_owned(),
    };
    text
}
