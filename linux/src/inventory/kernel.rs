//! The kernel's release, options and modules.

use std::collections::BTreeMap;

use varia_facts::{Kernel, Module};

use crate::asked::Asked;
use crate::matching::module_name;
use crate::tree::Tree;

/// Build options that matter to giving devices to VMs.
pub(crate) const CONFIG: [&str; 16] = [
    "ARM64_4K_PAGES",
    "ARM64_16K_PAGES",
    "ARM64_64K_PAGES",
    "ARM_SMMU_V3",
    "ARM_SMMU_V3_IOMMUFD",
    "INTEL_IOMMU",
    "AMD_IOMMU",
    "IOMMUFD",
    "IOMMUFD_VFIO_CONTAINER",
    "KVM",
    "MEMORY_HOTPLUG",
    "VFIO",
    "VFIO_PCI",
    "VFIO_IOMMU_TYPE1",
    "VFIO_DEVICE_CDEV",
    "NVGRACE_GPU_VFIO_PCI",
];
/// Modules that matter.
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
/// What a word of the kernel's command line that matters has in it.
const CMDLINE: [&str; 10] = [
    "iommu", "vfio", "smmu", "hugepage", "numa", "kvm", "mem=", "movable", "pci=", "isolcpus",
];

/// The words of a kernel's command line that matter.
pub(crate) fn cmdline(text: &str) -> Vec<String> {
    let words = text.split_whitespace();
    let matters = |word: &&str| CMDLINE.iter().any(|part| word.contains(part));
    words.filter(matters).map(str::to_owned).collect()
}

pub(super) fn kernel(tree: &Tree) -> Kernel {
    let asked = Asked::of(tree);
    let release = tree
        .text("proc/sys/kernel/osrelease")
        .filter(|release| !release.is_empty() && !release.contains('/'));
    let config = release.as_deref().and_then(|release| config(tree, release));
    Kernel {
        page_size: asked.page_size,
        cmdline: cmdline(&tree.text("proc/cmdline").unwrap_or_default()),
        config,
        modules: modules(tree, release.as_deref()),
        vfio_container: asked.vfio_container,
        iommufd: asked.iommufd,
        kvm: asked.kvm,
        release,
    }
}

/// Where distributions put a kernel's build options, relative to the root.
pub(crate) fn config_places(release: &str) -> [String; 2] {
    [
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/config"),
    ]
}

fn config(tree: &Tree, release: &str) -> Option<BTreeMap<String, String>> {
    let places = config_places(release);
    let text = places.iter().find_map(|place| tree.text(place))?;
    let lines = text.lines();
    let option = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        CONFIG
            .contains(&name)
            .then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
    };
    Some(lines.filter_map(option).collect())
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
        };
        (name.to_owned(), module)
    };
    MODULES.into_iter().map(module).collect()
}

/// The modules that the lines of `modules.dep` or `modules.builtin` begin with, of those that
/// matter.
fn names(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let path = line.split(':').next()?;
        let file = path.rsplit('/').next()?;
        let name = module_name(file.split(".ko").next()?);
        MODULES.contains(&name.as_str()).then_some(name)
    };
    text.lines().filter_map(name).collect()
}
