//! Writing a captured host: the input of an inventory in one archive, without serial numbers.
//!
//! A capture contains only the files named here: no VPD; of DMI only vendor and product; of the
//! kernel's command line only words that Varia needs; of ACPI only tables with properties of a GPU.
//! A captured configuration space has its Device Serial Number and its VPD data zeroed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use varia_facts::Bdf;
use varia_spec::nvidia::property;
use varia_spec::pci::{cap, ext_cap, header};

use crate::archive::Writer;
use crate::asked::{self, Asked};
use crate::bind::PERSISTENT_FOLDER;
use crate::error::Error;
use crate::inventory::{
    self, ADDRESS_SIZES, CONFIG_CAPTURED, CPUINFO, EGM_CLASS, EGM_GPUS, EGM_SIZE, Extent,
    Inventory, MIDR, MODULES, PARAMETERS, Reading, SPEED, SPEED_BANDWIDTHS, SPEED_LATENCIES,
};
use crate::matching::module_name;
use crate::pci_ids::{self, PciIds};
use crate::programs::{self, Programs};
use crate::tree::{TABLES, Tree};

/// Files of a function; `modalias` has the ids and the class.
const FUNCTION_FILES: [&str; 6] = [
    "driver_override",
    "firmware_node/path",
    "modalias",
    "numa_node",
    "resource",
    "revision",
];
const FUNCTION_LINKS: [&str; 3] = ["driver", "iommu", "iommu_group"];
/// Files of the whole host.
const FILES: [&str; 7] = [
    "proc/meminfo",
    "proc/sys/kernel/osrelease",
    "sys/class/dmi/id/product_name",
    "sys/class/dmi/id/sys_vendor",
    MIDR,
    "sys/devices/system/cpu/online",
    "sys/devices/system/node/has_generic_initiator",
];
const NODE_FILES: [&str; 3] = ["cpulist", "distance", "meminfo"];
const DEVICES: &str = "sys/bus/pci/devices";
const DRIVERS: &str = "sys/bus/pci/drivers";
const GROUPS: &str = "sys/kernel/iommu_groups";
const NODES: &str = "sys/devices/system/node";
const IOMMUS: &str = "sys/class/iommu";
/// Length of an ACPI table's header in bytes.
const TABLE_HEADER: usize = 36;

/// Optional contents of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Adds the configuration spaces of devices that variant drivers serve, which reads the
    /// devices' registers.
    pub config: bool,
}

/// Summary of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Captured {
    /// Number of PCI functions.
    pub functions: usize,
    /// Number of PCI functions that a variant driver serves.
    pub served: usize,
    /// Size of the archive in bytes.
    pub bytes: u64,
}

/// Captures a host into a file, which is complete or absent.
///
/// # Errors
/// [`Error::Io`], and errors of the inventory.
pub fn capture(tree: &Tree, to: &Path, options: Options) -> Result<Captured, Error> {
    let to = &place(to)?;
    let inventory = Inventory::of(tree, Extent::All)?;
    let partial = partial(to);
    let result = write(tree, &inventory, &partial, to, options);
    if result.is_err() {
        // the write may have failed before the file was created
        let _ = fs::remove_file(&partial);
    }
    result
}

/// Path to write to, with links followed. Refuses an existing path that is not a regular file.
fn place(to: &Path) -> Result<PathBuf, Error> {
    let error = |source: io::Error| Error::Io {
        what: "write",
        path: to.to_owned(),
        source,
    };
    // metadata follows links, also the links in /proc/self/fd, which lead to no path
    match fs::metadata(to) {
        Ok(there) if there.is_file() => fs::canonicalize(to).map_err(error),
        Err(missing)
            if missing.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(to).is_err() =>
        {
            Ok(to.to_owned())
        }
        _ => Err(error(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path exists and is not a regular file",
        ))),
    }
}

/// Path of the incomplete file, beside the final path.
fn partial(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    to.with_file_name(name)
}

fn write(
    tree: &Tree,
    inventory: &Inventory,
    partial: &Path,
    to: &Path,
    options: Options,
) -> Result<Captured, Error> {
    let error = |source: io::Error| Error::Io {
        what: "write",
        path: to.to_owned(),
        source,
    };
    let file = File::create_new(partial).map_err(error)?;
    let mut capture = Capture {
        tree,
        out: Writer::new(BufWriter::new(file)),
    };
    let served = inventory.served();
    capture.all(inventory, &served, options).map_err(error)?;
    let mut file = capture.out.finish().map_err(error)?;
    file.flush().map_err(error)?;
    let bytes = file.get_ref().metadata().map_err(error)?.len();
    fs::rename(partial, to).map_err(error)?;
    Ok(Captured {
        functions: inventory.facts.functions.len(),
        served: served.len(),
        bytes,
    })
}

struct Capture<'a, W: io::Write> {
    tree: &'a Tree,
    out: Writer<W>,
}

impl<W: io::Write> Capture<'_, W> {
    fn all(&mut self, inventory: &Inventory, served: &[Bdf], options: Options) -> io::Result<()> {
        for path in FILES {
            self.file(path)?;
        }
        self.kernel(inventory.facts.kernel.release.as_deref())?;
        self.nodes()?;
        for device in &inventory.facts.host.egm {
            let folder = format!("{EGM_CLASS}/egm{}", device.pxm);
            self.file(&format!("{folder}/{EGM_SIZE}"))?;
            let gpus = device.gpus.iter().map(|gpu| format!("{gpu}\n"));
            let gpus: String = gpus.collect();
            self.out
                .file(&format!("{folder}/{EGM_GPUS}"), gpus.as_bytes())?;
            if device.has_node == Some(true) {
                let node = device.path();
                self.out.file(node.trim_start_matches('/'), b"")?;
            }
        }
        for folder in [IOMMUS, DRIVERS] {
            for name in self.tree.list(folder).unwrap_or_default() {
                self.out.folder(&format!("{folder}/{name}"))?;
            }
        }
        for name in self.tree.list(PERSISTENT_FOLDER).unwrap_or_default() {
            self.file(&format!("{PERSISTENT_FOLDER}/{name}"))?;
        }
        self.tables()?;
        // the directory marks a host without PCI functions, too
        self.out.folder(DEVICES)?;
        for function in &inventory.facts.functions {
            let config = options.config && served.contains(&function.bdf);
            self.function(function.bdf, config)?;
        }
        for group in &inventory.facts.host.iommu.groups {
            let folder = format!("{GROUPS}/{}", group.id);
            self.file(&format!("{folder}/type"))?;
            for bdf in &group.members {
                self.link(&format!("{folder}/devices/{bdf}"))?;
            }
        }
        if let Some(cpuinfo) = self.tree.text(CPUINFO) {
            // only the first CPU, as all CPUs have the same line
            let mut lines = cpuinfo.lines();
            let line = lines.find(|line| line.starts_with(ADDRESS_SIZES));
            self.out
                .file(CPUINFO, line.unwrap_or_default().as_bytes())?;
        }
        let reading = Reading::of(self.tree);
        let asked = serde_json::to_vec(&Asked::of(&reading)).map_err(io::Error::other)?;
        self.out.file(asked::PATH, &asked)?;
        let programs = if self.tree.is_live() {
            Programs::ask(inventory.facts.host.arch, None)
        } else {
            Programs::captured(&reading)
        };
        let programs = serde_json::to_vec(&programs).map_err(io::Error::other)?;
        self.out.file(programs::PATH, &programs)?;
        let ids = inventory.facts.functions.iter();
        let ids = ids.map(|function| (function.vendor, function.device));
        let ids = PciIds::of(self.tree, &ids.collect());
        if ids.found() {
            let place = pci_ids::PLACES[0];
            self.out.file(place, ids.excerpt().as_bytes())?;
        }
        Ok(())
    }

    /// Adds a file unchanged; a file that can't be read is left out.
    fn file(&mut self, path: &str) -> io::Result<()> {
        match self.tree.read(path) {
            Ok(bytes) => self.out.file(path, &bytes),
            Err(_) => Ok(()),
        }
    }

    fn link(&mut self, path: &str) -> io::Result<()> {
        match self.tree.link(path) {
            Ok(target) => self.out.link(path, &target),
            Err(_) => Ok(()),
        }
    }

    /// Adds the lines of a file that `matters` accepts.
    fn lines(&mut self, path: &str, matters: impl Fn(&str) -> bool) -> io::Result<()> {
        let Ok(bytes) = self.tree.read(path) else {
            return Ok(());
        };
        let lines = matching(&String::from_utf8_lossy(&bytes), matters);
        self.out.file(path, lines.as_bytes())
    }

    fn kernel(&mut self, release: Option<&str>) -> io::Result<()> {
        if let Some(words) = self.tree.text("proc/cmdline") {
            let words = inventory::cmdline(&words).join(" ");
            self.out.file("proc/cmdline", words.as_bytes())?;
        }
        for module in MODULES {
            let folder = format!("sys/module/{module}");
            if self.tree.exists(&folder) {
                self.out.folder(&folder)?;
                self.file(&format!("{folder}/version"))?;
                self.file(&format!("{folder}/taint"))?;
                for (_, name) in PARAMETERS.iter().filter(|(of, _)| *of == module) {
                    self.file(&format!("{folder}/parameters/{name}"))?;
                }
            }
        }
        self.lines(CONFIG_CAPTURED, inventory::is_option)?;
        if let Ok(text) = inventory::compressed_config(self.tree) {
            let text = matching(&text, inventory::is_option);
            self.out.file(CONFIG_CAPTURED, text.as_bytes())?;
        }
        let Some(release) = release else {
            return Ok(());
        };
        for place in inventory::config_places(release) {
            self.lines(&place, inventory::is_option)?;
        }
        let folder = format!("lib/modules/{release}");
        self.lines(&format!("{folder}/modules.alias"), |line| {
            line.starts_with("alias vfio_pci:")
        })?;
        let about_vfio = |line: &str| {
            let name = module_name(line.split(':').next().unwrap_or(line));
            MODULES.iter().any(|module| name.contains(module))
        };
        self.lines(&format!("{folder}/modules.dep"), about_vfio)?;
        self.lines(&format!("{folder}/modules.builtin"), about_vfio)
    }

    fn nodes(&mut self) -> io::Result<()> {
        for node in self.tree.list(NODES).unwrap_or_default() {
            if !node.starts_with("node") {
                continue;
            }
            let folder = format!("{NODES}/{node}");
            for file in NODE_FILES {
                self.file(&format!("{folder}/{file}"))?;
            }
            let speed = format!("{folder}/{SPEED}");
            for file in SPEED_LATENCIES.iter().chain(&SPEED_BANDWIDTHS) {
                self.file(&format!("{speed}/{file}"))?;
            }
            for name in self.tree.list(&speed).unwrap_or_default() {
                let path = format!("{speed}/{name}");
                if let Ok(place) = self.tree.link(&path) {
                    self.out.link(&path, &place)?;
                }
            }
            let pools = format!("{folder}/hugepages");
            for pool in self.tree.list(&pools).unwrap_or_default() {
                for file in ["nr_hugepages", "free_hugepages"] {
                    self.file(&format!("{pools}/{pool}/{file}"))?;
                }
            }
        }
        Ok(())
    }

    /// Adds the DSDT's header, and the tables with a GPU's properties.
    fn tables(&mut self) -> io::Result<()> {
        for name in self.tree.list(TABLES).unwrap_or_default() {
            let path = format!("{TABLES}/{name}");
            let definition = name == "DSDT" || name.starts_with("SSDT");
            let Ok(table) = self.tree.read(&path) else {
                continue;
            };
            let wanted = property::MEM_BASE_PA.as_bytes();
            let has = table.windows(wanted.len()).any(|bytes| bytes == wanted);
            if definition && has {
                self.out.file(&path, &table)?;
            } else if name == "DSDT" {
                let header = table.get(..TABLE_HEADER).unwrap_or_default();
                self.out.file(&path, header)?;
            }
        }
        Ok(())
    }

    fn function(&mut self, bdf: Bdf, config: bool) -> io::Result<()> {
        let Ok(place) = self.tree.link(&format!("{DEVICES}/{bdf}")) else {
            return Ok(());
        };
        self.out.link(&format!("{DEVICES}/{bdf}"), &place)?;
        // sysfs writes the link relative to the link's own directory
        let Some((_, place)) = place.split_once("devices/") else {
            return Ok(());
        };
        let folder = format!("sys/devices/{place}");
        for file in FUNCTION_FILES {
            self.file(&format!("{folder}/{file}"))?;
        }
        for link in FUNCTION_LINKS {
            self.link(&format!("{folder}/{link}"))?;
        }
        if !config {
            return Ok(());
        }
        if let Ok(config) = self.tree.read(&format!("{folder}/config")) {
            let mut config = config.into_owned();
            blank_serials(&mut config);
            self.out.file(&format!("{folder}/config"), &config)?;
        }
        Ok(())
    }
}

/// Lines that `matters` accepts.
fn matching(text: &str, matters: impl Fn(&str) -> bool) -> String {
    let lines = text.lines().filter(|line| matters(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Zeroes the Device Serial Number and the VPD data in a configuration space.
pub(crate) fn blank_serials(config: &mut [u8]) {
    let byte = |config: &[u8], at: usize| config.get(at).copied().unwrap_or_default();
    let mut at = usize::from(byte(config, header::CAPABILITY_LIST.into()) & 0xfc);
    // configuration space has room for fewer than 64 capabilities, so a longer list is a loop
    for _ in 0..64 {
        if at == 0 {
            break;
        }
        if byte(config, at) == cap::id::VPD {
            zero(config, at + 4, 4);
        }
        at = usize::from(byte(config, at + 1) & 0xfc);
    }
    let mut at = usize::from(ext_cap::START);
    for _ in 0..config.len() / 4 {
        let Some(header) = config.get(at..).and_then(|bytes| bytes.first_chunk()) else {
            break;
        };
        let header = u32::from_le_bytes(*header);
        if ext_cap::header_id(header) == ext_cap::id::DSN {
            zero(config, at + 4, 8);
        }
        at = usize::from(ext_cap::header_next(header));
        if at < usize::from(ext_cap::START) {
            break;
        }
    }
}

fn zero(config: &mut [u8], at: usize, len: usize) {
    if let Some(bytes) = config.get_mut(at..).and_then(|rest| rest.get_mut(..len)) {
        bytes.fill(0);
    }
}
