//! Files in which Linux shows a host, made from the facts of the host.
//!
//! Facts leave out what no reader of facts needs, such as serial numbers, the words of the kernel's
//! command line that name disks, or the names of all chips: that is added here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;
use varia_facts::{BarKind, Bdf, CpuList, Facts, Host, Kernel, NumaNode, PciFunction};
use varia_firmware::{DeviceProperties, Oem, empty_dsdt, ssdt};
use varia_spec::nvidia::chip;

use super::MachineError;
use super::facts::{NAMES, SSDT};

/// A file's bytes, or where a symbolic link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File(Vec<u8>),
    /// A symbolic link.
    Link(String),
    /// A folder that may be empty.
    Folder,
}

/// Entries by path, from the root and without a leading slash. Folders on the way are implied.
pub type Files = BTreeMap<String, Entry>;

/// Serial number of the machine and of its GPUs.
const SERIAL: &str = "1234567890123";

/// Files of the host with these facts. `configs` has the configuration spaces of functions.
pub(super) fn of(facts: &Facts, configs: &BTreeMap<Bdf, Vec<u8>>) -> Result<Files, MachineError> {
    let mut tree = Tree(Files::new());
    tree.host(&facts.host);
    tree.kernel(&facts.kernel);
    for node in &facts.host.nodes {
        tree.node(node);
    }
    let initiators = facts.host.nodes.iter();
    let initiators = initiators.filter(|node| node.generic_initiator);
    let initiators: CpuList = initiators.map(|node| node.id.0).collect();
    tree.text(
        "sys/devices/system/node/has_generic_initiator",
        initiators.to_string(),
    );
    let mut described = Vec::new();
    for function in &facts.functions {
        let folder = tree.function(function);
        if let Some(config) = configs.get(&function.bdf) {
            tree.file(&format!("{folder}/config"), config.clone());
            tree.file(&format!("{folder}/vpd"), format!("SN{SERIAL}"));
        }
        if let (Some(path), Some(memory)) = (&function.acpi_path, &function.coherent_memory) {
            let start = memory.pxm_start.unwrap_or(0);
            let domains = start..start + memory.pxm_count.unwrap_or(0);
            let properties = DeviceProperties::coherent_memory(
                path.parse()?,
                memory.base.0,
                memory.size.0,
                domains,
            );
            described.push(match function.egm {
                Some(egm) => properties.with_egm(
                    egm.base.0,
                    egm.size.0,
                    egm.pxm,
                    egm.retired_pages.unwrap_or_default().0,
                ),
                None => properties,
            });
        }
    }
    for group in &facts.host.iommu.groups {
        let folder = format!("sys/kernel/iommu_groups/{}", group.id);
        tree.text(
            &format!("{folder}/type"),
            group.kind.as_deref().unwrap_or_default(),
        );
        for member in &group.members {
            tree.link(
                &format!("{folder}/devices/{member}"),
                format!("../../../../bus/pci/devices/{member}"),
            );
        }
    }
    for driver in ["nvidia", "nvme", "pcieport"] {
        tree.folder(&format!("sys/bus/pci/drivers/{driver}"));
    }
    let tables = "sys/firmware/acpi/tables";
    tree.file(&format!("{tables}/DSDT"), empty_dsdt(Oem::VARIA));
    if !described.is_empty() {
        tree.file(&format!("{tables}/{SSDT}"), ssdt(&described, Oem::VARIA));
    }
    let asked = json!({
        "arch": facts.host.arch,
        "page_size": facts.kernel.page_size,
        "memlock": facts.host.memlock,
        "vfio_container": facts.kernel.vfio_container,
        "iommufd": facts.kernel.iommufd,
        "kvm": facts.kernel.kvm,
    });
    tree.text("varia/asked.json", asked);
    tree.text("varia/programs.json", json!({ "vmm": facts.vmm }));
    Ok(tree.0)
}

/// Writes files below a folder.
pub(super) fn write(files: &Files, root: &Path) -> io::Result<()> {
    for (path, entry) in files {
        let path = root.join(path);
        if let (Some(folder), true) = (path.parent(), *entry != Entry::Folder) {
            fs::create_dir_all(folder)?;
        }
        match entry {
            Entry::File(bytes) => fs::write(path, bytes)?,
            Entry::Link(target) => std::os::unix::fs::symlink(target, path)?,
            Entry::Folder => fs::create_dir_all(path)?,
        }
    }
    Ok(())
}

struct Tree(Files);

impl Tree {
    fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), Entry::File(bytes.into()));
    }

    fn text(&mut self, path: &str, text: impl std::fmt::Display) {
        self.file(path, format!("{text}\n"));
    }

    fn link(&mut self, path: &str, target: String) {
        self.0.insert(path.to_owned(), Entry::Link(target));
    }

    fn folder(&mut self, path: &str) {
        self.0.insert(path.to_owned(), Entry::Folder);
    }

    fn host(&mut self, host: &Host) {
        if let Some(midr) = host.midr {
            self.text(
                "sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
                format!("{midr:#018x}"),
            );
        }
        let kib = |bytes: Option<varia_facts::Bytes>| bytes.unwrap_or_default().0 / 1024;
        self.text(
            "proc/meminfo",
            format!(
                "MemTotal: {} kB\nMemAvailable: {} kB",
                kib(host.memory),
                kib(host.memory_available)
            ),
        );
        self.text("sys/devices/system/cpu/online", &host.cpus);
        let product = host.product.as_deref().unwrap_or_default();
        let (vendor, product) = product.split_once(' ').unwrap_or((product, ""));
        self.text("sys/class/dmi/id/sys_vendor", vendor);
        self.text("sys/class/dmi/id/product_name", product);
        self.text("sys/class/dmi/id/product_serial", SERIAL);
        for device in &host.egm {
            let folder = format!("sys/class/egm/egm{}", device.pxm);
            let size = device.size.unwrap_or_default().0;
            self.text(&format!("{folder}/egm_size"), format!("{size:#x}"));
            let gpus: Vec<_> = device.gpus.iter().map(ToString::to_string).collect();
            self.text(&format!("{folder}/gpu_devices"), gpus.join("\n"));
            self.file(device.path().trim_start_matches('/'), "");
        }
        for instance in &host.iommu.instances {
            self.folder(&format!("sys/class/iommu/{instance}"));
        }
        let mut vendors: BTreeMap<_, (&str, BTreeMap<_, &str>)> = BTreeMap::new();
        for (vendor, vendor_name, device, name) in NAMES {
            let (_, devices) = vendors
                .entry(vendor)
                .or_insert((vendor_name, BTreeMap::new()));
            devices.insert(device, name);
        }
        if let Some((_, devices)) = vendors.get_mut(&varia_spec::nvidia::VENDOR_ID) {
            devices.extend(chip::skus().map(|(_, sku)| (sku.device.value, sku.name)));
        }
        let mut names = String::new();
        for (vendor, (name, devices)) in vendors {
            names += &format!("{vendor:04x}  {name}\n");
            for (device, name) in devices {
                names += &format!("\t{device:04x}  {name}\n");
            }
        }
        self.file("usr/share/misc/pci.ids", names);
    }

    fn kernel(&mut self, kernel: &Kernel) {
        let release = kernel.release.as_deref().unwrap_or_default();
        self.text("proc/sys/kernel/osrelease", release);
        self.text(
            "proc/cmdline",
            format!(
                "BOOT_IMAGE=/vmlinuz root=UUID=0 {}",
                kernel.cmdline.join(" ")
            ),
        );
        let modules = format!("lib/modules/{release}");
        let mut aliases = vec![
            "# Aliases extracted from modules themselves.".to_owned(),
            "alias pci:v000010DEd*sv*sd*bc03sc02i00* nvidia".to_owned(),
            "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci".to_owned(),
        ];
        let released = chip::skus().filter(|(_, sku)| sku.released);
        aliases.extend(released.map(|(chip, sku)| {
            format!(
                "alias vfio_pci:v000010DEd{:08X}sv*sd*bc*sc*i* {}",
                sku.device.value,
                chip.driver().name()
            )
        }));
        self.text(&format!("{modules}/modules.alias"), aliases.join("\n"));
        let installed = kernel.modules.iter().filter(|(_, module)| module.installed);
        let installed: Vec<_> = installed
            .map(|(name, _)| format!("kernel/drivers/{}.ko.zst:", name.replace('_', "-")))
            .collect();
        self.text(&format!("{modules}/modules.dep"), installed.join("\n"));
        if let (Some(config), Some(source)) = (&kernel.config, &kernel.config_source) {
            let options = config.iter();
            let options: Vec<_> = options
                .map(|(name, value)| format!("CONFIG_{name}={value}"))
                .collect();
            self.text(source, options.join("\n"));
        }
    }

    fn node(&mut self, node: &NumaNode) {
        let id = node.id;
        let folder = format!("sys/devices/system/node/node{id}");
        self.text(&format!("{folder}/cpulist"), &node.cpus);
        self.text(
            &format!("{folder}/meminfo"),
            format!(
                "Node {id} MemTotal:       {} kB\nNode {id} MemFree:        {} kB",
                node.memory.0 / 1024,
                node.memory_free.0 / 1024
            ),
        );
        let distances = node.distances.iter().map(u32::to_string);
        self.text(
            &format!("{folder}/distance"),
            distances.collect::<Vec<_>>().join(" "),
        );
        for pool in &node.hugepages {
            let pages = format!("{folder}/hugepages/hugepages-{}kB", pool.size.0 / 1024);
            self.text(&format!("{pages}/nr_hugepages"), pool.total);
            self.text(&format!("{pages}/free_hugepages"), pool.free);
        }
    }

    /// Adds a function, behind the bridge above it. Returns its folder.
    fn function(&mut self, function: &PciFunction) -> String {
        let bdf = function.bdf;
        let top = function.upstream.unwrap_or(bdf);
        let root = format!("pci{:04x}:{:02x}", top.domain, top.bus);
        let path: Vec<_> = [
            Some(root),
            function.upstream.map(|bridge| bridge.to_string()),
        ]
        .into_iter()
        .flatten()
        .chain([bdf.to_string()])
        .collect();
        let place = path.join("/");
        let folder = format!("sys/devices/{place}");
        let up = "../".repeat(path.len());
        let (vendor, device, class) = (function.vendor, function.device, function.class);
        let (subsystem_vendor, subsystem_device) =
            (function.subsystem_vendor, function.subsystem_device);
        let node = function.numa_node.map_or(-1, |node| i64::from(node.0));
        let numbers = [
            ("vendor", format!("{vendor:#06x}")),
            ("device", format!("{device:#06x}")),
            ("subsystem_vendor", format!("{subsystem_vendor:#06x}")),
            ("subsystem_device", format!("{subsystem_device:#06x}")),
            ("class", format!("{class:#08x}")),
            (
                "revision",
                format!("{:#04x}", function.revision.unwrap_or_default()),
            ),
            ("numa_node", node.to_string()),
            ("driver_override", "(null)".to_owned()),
            (
                "modalias",
                format!(
                    "pci:v{vendor:08X}d{device:08X}sv{subsystem_vendor:08X}\
                     sd{subsystem_device:08X}bc{:02X}sc{:02X}i{:02X}",
                    class >> 16,
                    class >> 8 & 0xff,
                    class & 0xff
                ),
            ),
        ];
        for (name, value) in numbers {
            self.text(&format!("{folder}/{name}"), value);
        }
        self.file(&format!("{folder}/resource"), resource(function));
        if let Some(path) = &function.acpi_path {
            self.text(&format!("{folder}/firmware_node/path"), path);
        }
        if let Some(driver) = &function.driver {
            let target = format!("{up}../bus/pci/drivers/{driver}");
            self.link(&format!("{folder}/driver"), target);
        }
        if let Some(group) = function.iommu_group {
            let target = format!("{up}../kernel/iommu_groups/{group}");
            self.link(&format!("{folder}/iommu_group"), target);
        }
        self.link(
            &format!("sys/bus/pci/devices/{bdf}"),
            format!("../../../devices/{place}"),
        );
        folder
    }
}

/// The first six lines of `resource`, one for each BAR; empty for a function without BARs.
fn resource(function: &PciFunction) -> String {
    // `IORESOURCE_IO`, `IORESOURCE_MEM`, `PREFETCH`, `MEM_64`, and the bits that pci sets beside
    // them (Linux 7.2 include/linux/ioport.h)
    const IO: u64 = 0x4_0101;
    const MEMORY: u64 = 0x4_0200;
    const PREFETCH: u64 = 0x200c;
    const MEMORY_64: u64 = 0x10_0000;

    if function.bars.is_empty() {
        return String::new();
    }
    let line = |index: u8| {
        let Some(bar) = function.bars.iter().find(|bar| bar.index == index) else {
            return (0, 0, 0);
        };
        let first = bar.address.unwrap_or_default().0;
        let kind = match bar.kind {
            BarKind::Io => IO,
            BarKind::Memory32 => MEMORY,
            BarKind::Memory64 => MEMORY | MEMORY_64,
        };
        let flags = kind | if bar.prefetchable { PREFETCH } else { 0 };
        (first, first + bar.size.0 - 1, flags)
    };
    let lines = (0..6).map(line);
    lines
        .map(|(first, last, flags)| format!("{first:#018x} {last:#018x} {flags:#018x}\n"))
        .collect()
}
