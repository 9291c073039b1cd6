//! PCI functions: `sys/bus/pci/devices`.
//!
//! The kernel serves these reads without a device access; `config`, which would reach the device,
//! is read of captured hosts only.

use std::collections::{BTreeMap, BTreeSet};

use varia_facts::{
    BarKind, Bdf, Bytes, CoherentMemory, CoherentSource, EgmMemory, Facts, GroupId, HostPhys,
    NodeId, PciFunction, PhysicalBar,
};
use varia_spec::nvidia::{chip::Identity, property};
use varia_variants::table;

use super::reading::Reading;
use crate::aml;
use crate::error::Error;
use crate::layout;
use crate::matching::{Aliases, Modalias, Why};
use crate::pci_ids::PciIds;
use crate::tree::{TABLES, Tree};

const DEVICES: &str = "sys/bus/pci/devices";
/// Properties with the place of a device's coherent memory.
const MEMORY: [&str; 4] = [
    property::MEM_BASE_PA,
    property::MEM_SIZE,
    property::MEM_PXM_START,
    property::MEM_PXM_COUNT,
];

/// Directory of a function's attributes.
#[must_use]
pub fn functions_folder(bdf: Bdf) -> String {
    format!("{DEVICES}/{bdf}")
}

/// Adds the functions and their groups.
pub(super) fn functions(
    reading: &Reading<'_>,
    extent: super::Extent,
    aliases: &Aliases,
    facts: &mut Facts,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let tree = reading.tree;
    let names = tree
        .list(DEVICES)
        .map_err(|_| Error::NoPci(DEVICES.to_owned()))?;
    let mut all = BTreeMap::new();
    let mut unread = 0_usize;
    for name in names {
        let modalias = tree.text(&format!("{DEVICES}/{name}/modalias"));
        match (name.parse::<Bdf>(), modalias.map(|text| text.parse())) {
            (Ok(bdf), Some(Ok(modalias))) => {
                all.insert(bdf, modalias);
            }
            _ => unread += 1,
        }
    }
    if unread > 0 {
        notes.push(format!(
            "{unread} PCI functions have no readable modalias and are left out: they may have \
             been removed during this command"
        ));
    }

    let served: BTreeSet<Bdf> = all
        .iter()
        .filter(|(_, modalias)| is_served(modalias, aliases))
        .map(|(bdf, _)| *bdf)
        .collect();
    let mut wanted: BTreeSet<Bdf> = match extent {
        super::Extent::All => all.keys().copied().collect(),
        super::Extent::Served => served.clone(),
    };
    let groups: BTreeSet<GroupId> = wanted.iter().filter_map(|bdf| group(tree, *bdf)).collect();
    for id in groups {
        let group = super::host::group(tree, id);
        wanted.extend(group.members.iter().filter(|bdf| all.contains_key(bdf)));
        facts.host.iommu.groups.push(group);
    }
    // adds the bridges above the functions, up to the root
    for bdf in wanted.clone() {
        let mut above = upstream(tree, bdf);
        while let Some(bridge) = above.filter(|bridge| all.contains_key(bridge)) {
            if !wanted.insert(bridge) {
                break;
            }
            above = upstream(tree, bridge);
        }
    }

    let ids = wanted.iter().filter_map(|bdf| all.get(bdf));
    let ids = PciIds::of(tree, &ids.map(Modalias::id).collect());
    if !ids.found() && !wanted.is_empty() {
        notes.push(
            "pci.ids does not exist, so that devices have no names: install the package pci.ids or \
             hwdata"
                .to_owned(),
        );
    }
    let properties = Firmware::of(reading, &served, notes);
    for bdf in wanted {
        let Some(modalias) = all.get(&bdf) else {
            continue;
        };
        let mut function = function(reading, bdf, modalias);
        if served.contains(&bdf) {
            function.best_driver = Some(aliases.choose(modalias).module);
        }
        function.name = ids.name(function.vendor, function.device);
        function.cpu_node = function
            .numa_node
            .and_then(|node| facts.host.nearest_with_cpus(node));
        if served.contains(&bdf) {
            memory(tree, &mut function, &properties, facts.kernel.page_size);
        }
        facts.functions.push(function);
    }
    Ok(())
}

/// True for a function to show: a function that a variant driver serves, of Varia's or installed,
/// and every data-centre GPU of NVIDIA's.
fn is_served(modalias: &Modalias, aliases: &Aliases) -> bool {
    let (vendor, device) = modalias.id();
    table::find(vendor, device).is_some()
        || Identity::of(vendor, device, modalias.class()) != Identity::Other
        || matches!(aliases.best(modalias).why, Why::Alias { .. })
}

fn group(tree: &Tree, bdf: Bdf) -> Option<GroupId> {
    let name = tree.link_name(&format!("{}/iommu_group", functions_folder(bdf)))?;
    name.parse().ok().map(GroupId)
}

/// Bridge above a function: the function of the parent directory.
fn upstream(tree: &Tree, bdf: Bdf) -> Option<Bdf> {
    let target = tree.link(&functions_folder(bdf)).ok()?;
    target.rsplit('/').nth(1)?.parse().ok()
}

fn function(reading: &Reading<'_>, bdf: Bdf, modalias: &Modalias) -> PciFunction {
    let tree = reading.tree;
    let folder = functions_folder(bdf);
    let text = |name: &str| tree.text(&format!("{folder}/{name}"));
    PciFunction {
        revision: text("revision").and_then(|text| {
            let digits = text.strip_prefix("0x")?;
            u8::from_str_radix(digits, 16).ok()
        }),
        driver: tree.link_name(&format!("{folder}/driver")),
        driver_override: text("driver_override")
            .filter(|name| name != "(null)" && !name.is_empty()),
        iommu_group: group(tree, bdf),
        iommu: tree.link_name(&format!("{folder}/iommu")),
        // -1 without a node by firmware
        numa_node: reading
            .value::<i64>(&format!("{folder}/numa_node"), "number of a node")
            .and_then(|node| u32::try_from(node).ok().map(NodeId)),
        upstream: upstream(tree, bdf),
        acpi_path: text("firmware_node/path"),
        bars: bars(&text("resource").unwrap_or_default()),
        ..PciFunction::new(bdf, modalias.id(), modalias.subsystem(), modalias.class())
    }
}

/// Parses the BARs in the first six lines of `resource`: first and last address, flags
/// (`include/linux/ioport.h`).
fn bars(resource: &str) -> Vec<PhysicalBar> {
    const IO: u64 = 0x100;
    const PREFETCH: u64 = 0x2000;
    const MEMORY_64: u64 = 0x10_0000;
    const UNSET: u64 = 0x2000_0000;

    let bar = |(line, index): (&str, u8)| {
        let mut numbers = line.split_whitespace().map(|number| {
            let digits = number.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        });
        let (first, last, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let size = last.checked_sub(first)?.checked_add(1)?;
        (flags != 0).then(|| PhysicalBar {
            index,
            address: (flags & UNSET == 0).then_some(HostPhys(first)),
            size: Bytes(size),
            kind: match flags {
                flags if flags & IO != 0 => BarKind::Io,
                flags if flags & MEMORY_64 != 0 => BarKind::Memory64,
                _ => BarKind::Memory32,
            },
            prefetchable: flags & PREFETCH != 0,
        })
    };
    resource.lines().take(6).zip(0..).filter_map(bar).collect()
}

/// Firmware's properties of the devices that variants serve.
struct Firmware {
    /// Table and properties, by the devices' ACPI paths.
    acpi: Vec<(String, aml::Properties)>,
}

impl Firmware {
    fn of(reading: &Reading<'_>, served: &BTreeSet<Bdf>, notes: &mut Vec<String>) -> Self {
        let tree = reading.tree;
        let mut acpi = Vec::new();
        // AML is large and is read only if a served device has an ACPI path
        let asked = served
            .iter()
            .any(|bdf| tree.exists(&format!("{}/firmware_node/path", functions_folder(*bdf))));
        if !asked {
            return Self { acpi };
        }
        let names = tree.list(TABLES).unwrap_or_else(|error| {
            reading.note(TABLES, error.to_string());
            Vec::new()
        });
        let dsdt = match tree.read(&format!("{TABLES}/DSDT")) {
            Ok(dsdt) => dsdt,
            Err(error) => {
                reading.note(&format!("{TABLES}/DSDT"), error.to_string());
                notes.push(format!(
                    "/{TABLES}/DSDT can't be read ({error}), so that coherent memory is not known: \
                     run this command as root"
                ));
                return Self { acpi };
            }
        };
        let wide = aml::wide_integers(&dsdt);
        let definition = |name: &&String| *name == "DSDT" || name.starts_with("SSDT");
        for name in names.iter().filter(definition) {
            let path = format!("{TABLES}/{name}");
            match tree.read(&path) {
                Ok(table) => {
                    let mut properties = aml::Properties::new();
                    aml::read(&table, wide, &mut properties);
                    acpi.push((name.clone(), properties));
                }
                Err(error) => reading.note(&path, error.to_string()),
            }
        }
        Self { acpi }
    }

    /// Table and properties of the device with an ACPI path.
    fn properties(&self, path: &str) -> Option<(&str, &BTreeMap<String, u64>)> {
        self.acpi.iter().find_map(|(table, devices)| {
            let properties = devices.get(path)?;
            let ours = MEMORY.iter().any(|name| properties.contains_key(*name));
            ours.then_some((table.as_str(), properties))
        })
    }
}

/// Fills in coherent memory and the variant's layout.
fn memory(tree: &Tree, function: &mut PciFunction, firmware: &Firmware, page: Option<Bytes>) {
    let folder = functions_folder(function.bdf);
    let acpi = function
        .acpi_path
        .as_deref()
        .and_then(|path| firmware.properties(path));
    let device_tree = |name: &str| {
        let bytes = tree.read(&format!("{folder}/of_node/{name}")).ok()?;
        Some(u64::from_be_bytes(*bytes.first_chunk()?))
    };
    let property_value = |name: &str| match acpi {
        Some((_, properties)) => properties.get(name).copied(),
        None => device_tree(name),
    };
    let [base, size, pxm_start, pxm_count] = MEMORY.map(property_value);
    let number = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok());
    if let (Some(base), Some(size)) = (base, size) {
        function.coherent_memory = Some(CoherentMemory {
            base: HostPhys(base),
            size: Bytes(size),
            pxm_start: number(pxm_start),
            pxm_count: number(pxm_count),
            source: match acpi {
                Some((table, _)) => CoherentSource::AcpiDsd(table.to_owned()),
                None => CoherentSource::DeviceTree,
            },
        });
    }
    if let (Some(base), Some(size), Some(pxm)) = (
        property_value(property::EGM_BASE_PA),
        // firmware without EGM has the properties too, with zeros
        property_value(property::EGM_SIZE).filter(|size| *size > 0),
        number(property_value(property::EGM_PXM)),
    ) {
        function.egm = Some(EgmMemory {
            base: HostPhys(base),
            size: Bytes(size),
            pxm,
            retired_pages: property_value(property::EGM_RETIRED_PAGES)
                .filter(|table| *table > 0)
                .map(HostPhys),
        });
    }
    let config = if tree.is_live() {
        None
    } else {
        tree.read(&format!("{folder}/config")).ok()
    };
    // the layout needs the extended capabilities
    let config = config.as_deref().filter(|config| config.len() > 256);
    layout::lay_out(function, config, page);
}
