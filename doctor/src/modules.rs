//! Kernel modules: VFIO's and the variant driver's.

use varia_facts::Module;
use varia_plan::Iommu;
use varia_spec::nvidia::chip::Driver;

use crate::scene::Scene;
use crate::{Finding, bad, failure, not_applicable, ok, unknown, warning};

/// The variant driver of GPUs with coherent memory, by its name in sysfs.
pub(crate) const VARIANT: &str = Driver::NvgraceGpu.name();
/// Author in the information of Varia's module.
const OURS: &str = "The Varia developers";
/// Module by which the variant driver of NVIDIA's kernels gives a VM the host's memory (EGM). It
/// works with that driver alone.
pub(crate) const EGM: &str = "nvgrace_egm";

fn module<'a>(scene: &Scene<'a>, name: &str) -> Option<&'a Module> {
    scene.facts.kernel.modules.get(name)
}

pub(crate) fn vfio(scene: &Scene<'_>) -> Vec<Finding> {
    if scene.facts.kernel.modules.is_empty() {
        return vec![unknown("the kernel's modules are not known")];
    }
    let mut findings = Vec::new();
    // vfio_pci itself only serves what no variant driver does
    for name in ["vfio", "vfio_pci_core"] {
        let module = module(scene, name);
        let state = module.map_or((false, false), |module| {
            (module.usable(), is_running(module))
        });
        match state {
            (_, true) => {}
            (true, false) => findings.push(
                warning("is not loaded; varia bind loads it")
                    .about(name)
                    .run(format!("modprobe {name}")),
            ),
            (false, false) => {
                findings.push(failure("is not installed").about(name).advise(
                    "the kernel's package of extra modules, or a kernel with CONFIG_VFIO_PCI",
                ))
            }
        }
    }
    if findings.is_empty() {
        findings.push(ok("vfio and vfio_pci_core are loaded or built in"));
    }
    findings
}

fn is_running(module: &Module) -> bool {
    module.loaded || module.builtin
}

pub(crate) fn backend(scene: &Scene<'_>) -> Vec<Finding> {
    let kernel = &scene.facts.kernel;
    let wanted = scene.plan.map(|plan| plan.iommu);
    if wanted == Some(Iommu::None) {
        return vec![not_applicable("the plan takes no device from the host")];
    }
    let type1 = kernel.vfio_container;
    let iommufd = kernel.iommufd;
    let load = "modprobe -a vfio vfio_iommu_type1";
    vec![match (wanted, type1, iommufd) {
        (Some(Iommu::Type1), Some(false), _) => {
            failure("the plan uses /dev/vfio/vfio, which does not exist").run(load)
        }
        (Some(Iommu::Iommufd { .. }), _, Some(false)) => {
            failure("the plan uses /dev/iommu, which does not exist")
                .run("modprobe iommufd")
                .advise("or plan with --iommu type1")
        }
        (Some(Iommu::Type1), Some(true), _) => ok("/dev/vfio/vfio, which the plan uses"),
        (Some(Iommu::Iommufd { .. }), _, Some(true)) => ok("/dev/iommu, which the plan uses"),
        (Some(_), ..) | (None, None, _) | (None, _, None) => {
            unknown(
                "the facts don't say whether /dev/vfio/vfio and /dev/iommu exist: run varia doctor on \
                 the host",
            )
        }
        (None, Some(false), Some(false)) => {
            failure("neither /dev/vfio/vfio nor /dev/iommu exists").run(load)
        }
        (None, Some(true), Some(true)) => ok("/dev/vfio/vfio and /dev/iommu"),
        (None, Some(true), Some(false)) => ok("/dev/vfio/vfio (no /dev/iommu)"),
        (None, Some(false), Some(true)) => warning(
            "/dev/iommu alone: it maps GPUs' memory only where the kernel has CONFIG_VFIO_PCI_DMABUF",
        )
        .run(load),
    }]
}

pub(crate) fn variant_driver(scene: &Scene<'_>) -> Vec<Finding> {
    let needed = scene.has_gpus();
    let Some(module) = module(scene, VARIANT) else {
        return vec![unknown("the kernel's modules are not known")];
    };
    // plain vfio-pci is right for the others
    if !needed && !is_running(module) {
        let state = match module.usable() {
            true => "loaded",
            false => "installed",
        };
        return vec![not_applicable(format!(
            "the driver is not {state}, and no GPU with coherent memory was selected"
        ))];
    }
    if !module.usable() {
        return vec![
            failure("the driver is not installed, and vfio-pci gives a VM no GPU memory")
                .advise("Varia's: ./x kernel deb makes a DKMS package (docs/kernel.md)")
                .advise("or a kernel with CONFIG_NVGRACE_GPU_VFIO_PCI"),
        ];
    }
    // the kernel marks what is not of its own tree
    let outside = module.taint.as_ref().is_some_and(|it| it.contains('O'));
    let mut about = match &module.author {
        Some(author) if author == OURS => "Varia's".to_owned(),
        Some(author) => format!("the original, by {author}"),
        None if outside => "built outside the kernel's tree, probably Varia's".to_owned(),
        None if module.loaded || module.builtin => "the kernel's own".to_owned(),
        None => "of an unknown author (modinfo failed)".to_owned(),
    };
    if let Some(version) = &module.version {
        about += &format!(", version {version}");
    }
    if let Some(file) = &module.file {
        about += &format!(", {file}");
    }
    let displaces = module
        .author
        .as_ref()
        .map_or(outside, |author| author == OURS);
    let mut findings = vec![if is_running(module) {
        ok(format!("is loaded: {about}"))
    } else {
        bad(
            false,
            format!("is not loaded; varia bind loads it ({about})"),
        )
        .run("modprobe nvgrace-gpu-vfio-pci")
    }];
    if displaces && self::module(scene, EGM).is_some_and(Module::usable) {
        let lost = format!(
            "takes the place of the kernel's own driver, which has EGM ({EGM}): this one has none"
        );
        let advice = "to keep EGM, remove this module (apt remove nvgrace-gpu-vfio-pci-dkms)";
        findings.push(warning(lost).about(EGM).advise(advice));
    }
    findings
}
