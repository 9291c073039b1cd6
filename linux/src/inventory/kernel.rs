//! The kernel's release, options and modules.

use std::collections::BTreeMap;
use std::io::{self, Read};

use varia_facts::{Kernel, Module};

use super::reading::Reading;
use crate::asked::Asked;
use crate::matching::module_name;
use crate::tree::Tree;

const RELEASE: &str = "proc/sys/kernel/osrelease";
/// Build options that Varia needs.
const CONFIG: [&str; 23] = [
    "ARM64_4K_PAGES",
    "ARM64_16K_PAGES",
    "ARM64_64K_PAGES",
    "ARM_SMMU_V3",
    "ARM_SMMU_V3_IOMMUFD",
    "HUGETLBFS",
    "INTEL_IOMMU",
    "AMD_IOMMU",
    "IOMMUFD",
    "IOMMUFD_VFIO_CONTAINER",
    "KVM",
    "MEMORY_HOTPLUG",
    "NODES_SHIFT",
    "NUMA",
    "VFIO",
    "VFIO_CONTAINER",
    "VFIO_PCI",
    "VFIO_PCI_CORE",
    "VFIO_PCI_DMABUF",
    "VFIO_IOMMU_TYPE1",
    "VFIO_DEVICE_CDEV",
    "VFIO_NOIOMMU",
    "NVGRACE_GPU_VFIO_PCI",
];
/// Modules that Varia needs.
pub(crate) const MODULES: [&str; 9] = [
    "vfio",
    "vfio_pci",
    "vfio_pci_core",
    "vfio_iommu_type1",
    "iommufd",
    "nvgrace_gpu_vfio_pci",
    "nvgrace_egm",
    "kvm",
    "nvidia",
];
/// Parameters that Varia needs, by module.
pub(crate) const PARAMETERS: [(&str, &str); 2] = [
    ("vfio", "enable_unsafe_noiommu_mode"),
    ("vfio_iommu_type1", "allow_unsafe_interrupts"),
];
/// The kernel's own copy of its build options.
const CONFIG_COMPRESSED: &str = "proc/config.gz";
/// Path of the unpacked options in a captured host.
pub(crate) const CONFIG_CAPTURED: &str = "varia/config";
/// Limit of the unpacked options, in bytes.
const LONGEST_CONFIG: u64 = 16 << 20;
/// Parts of the words of the command line that Varia needs.
const CMDLINE: [&str; 10] = [
    "iommu", "vfio", "smmu", "hugepage", "numa", "kvm", "mem=", "movable", "pci=", "isolcpus",
];

/// Words of a kernel's command line that Varia needs.
pub(crate) fn cmdline(text: &str) -> Vec<String> {
    let words = text.split_whitespace();
    let matters = |word: &&str| CMDLINE.iter().any(|part| word.contains(part));
    words.filter(matters).map(str::to_owned).collect()
}

pub(super) fn kernel(reading: &Reading<'_>) -> Kernel {
    let asked = Asked::of(reading);
    let release = reading.text(RELEASE).filter(|release| {
        let is = !release.is_empty() && !release.contains('/');
        if !is {
            reading.garbage(RELEASE, release, "release of a kernel");
        }
        is
    });
    let (config, config_source) = config(reading, release.as_deref()).unzip();
    Kernel {
        page_size: asked.page_size,
        cmdline: cmdline(&reading.text("proc/cmdline").unwrap_or_default()),
        config,
        config_is_partial: false,
        config_source,
        modules: modules(reading.tree, release.as_deref()),
        vfio_container: asked.vfio_container,
        iommufd: asked.iommufd,
        kvm: asked.kvm,
        release,
    }
}

/// Paths of a kernel's build options on the known distributions, relative to the root.
pub(crate) fn config_places(release: &str) -> [String; 2] {
    [
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/config"),
    ]
}

/// Unpacks the build options that the kernel itself shows.
pub(crate) fn compressed_config(tree: &Tree) -> io::Result<String> {
    let bytes = tree.read(CONFIG_COMPRESSED)?;
    let mut text = String::new();
    let unpacked = flate2::read::GzDecoder::new(&*bytes);
    unpacked.take(LONGEST_CONFIG).read_to_string(&mut text)?;
    Ok(text)
}

/// The needed options, and the file that contains them.
fn config(
    reading: &Reading<'_>,
    release: Option<&str>,
) -> Option<(BTreeMap<String, String>, String)> {
    let places = release.map(config_places).into_iter().flatten();
    for place in places.chain([CONFIG_CAPTURED.to_owned()]) {
        let Some(text) = reading.text(&place) else {
            continue;
        };
        match options(&text) {
            Some(options) => return Some((options, place)),
            None => reading.garbage(&place, &text, "kernel configuration"),
        }
    }
    match compressed_config(reading.tree) {
        Ok(text) => options(&text).map(|options| (options, CONFIG_COMPRESSED.to_owned())),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                reading.note(CONFIG_COMPRESSED, error.to_string());
            }
            None
        }
    }
}

/// The needed options; `None` if the text has no option.
fn options(text: &str) -> Option<BTreeMap<String, String>> {
    let mut all = text.lines().filter_map(option).peekable();
    all.peek()?;
    let matter = all.filter(|(name, _)| CONFIG.contains(name));
    Some(
        matter
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// Name of an option without `CONFIG_`, and its value.
fn option(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
    Some((name, value.trim_matches('"')))
}

/// True for a line with a needed option.
pub(crate) fn is_option(line: &str) -> bool {
    option(line).is_some_and(|(name, _)| CONFIG.contains(&name))
}

fn modules(tree: &Tree, release: Option<&str>) -> BTreeMap<String, Module> {
    let file = |name: &str| {
        let path = release.map(|release| format!("lib/modules/{release}/{name}"));
        path.and_then(|path| tree.read(&path).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    let installed = names(&file("modules.dep"));
    let builtin = names(&file("modules.builtin"));
    let module = |name: &str| {
        let folder = format!("sys/module/{name}");
        let module = Module {
            installed: installed.iter().any(|other| other == name),
            builtin: builtin.iter().any(|other| other == name),
            loaded: tree.exists(&folder),
            version: tree.text(&format!("{folder}/version")),
            taint: tree
                .text(&format!("{folder}/taint"))
                .filter(|taint| !taint.is_empty()),
            parameters: parameters(tree, name),
            file: None,
            author: None,
        };
        (name.to_owned(), module)
    };
    MODULES.into_iter().map(module).collect()
}

fn parameters(tree: &Tree, module: &str) -> BTreeMap<String, String> {
    let own = PARAMETERS.iter().filter(|(name, _)| *name == module);
    let value = |(_, name): &(&str, &str)| {
        let text = tree.text(&format!("sys/module/{module}/parameters/{name}"))?;
        Some(((*name).to_owned(), text))
    };
    own.filter_map(value).collect()
}

/// Needed modules at the beginnings of the lines of `modules.dep` or `modules.builtin`.
fn names(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let path = line.split(':').next()?;
        let file = path.rsplit('/').next()?;
        let name = module_name(file.split(".ko").next()?);
        MODULES.contains(&name.as_str()).then_some(name)
    };
    text.lines().filter_map(name).collect()
}
