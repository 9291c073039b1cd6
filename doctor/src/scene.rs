//! Input of the checks.

use std::collections::BTreeMap;

use varia_facts::{Arch, Bdf, Facts, PciFunction};
use varia_plan::{Iommu, Plan, Source};
use varia_spec::nvidia::chip::{Driver, Identity};

use crate::{Definition, Finding, ok, unknown};

/// The variant of GPUs with coherent memory.
pub(crate) const NVGRACE: &str = "nvgrace-gpu";

/// A host, the selected devices and the plan.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The host.
    pub facts: &'a Facts,
    /// Selected devices: one, those of a plan, or all that variants serve.
    pub devices: &'a [Bdf],
    /// The plan that is to run on it.
    pub plan: Option<&'a Plan>,
    /// The definition of a VM that is to run on it.
    pub definition: Option<&'a Definition>,
    /// Files that the plan names, with `true` if the file exists; a file that was not checked is
    /// absent.
    pub files: &'a BTreeMap<String, bool>,
}

impl<'a> Scene<'a> {
    /// The devices that a plan takes from the host.
    #[must_use]
    pub fn devices_of(plan: &Plan) -> Vec<Bdf> {
        let sources = plan.gpus.iter().map(|gpu| &gpu.memory.source);
        let functions = sources.filter_map(|source| match source {
            Source::Function(bdf) => Some(*bdf),
            Source::VfioUser(_) => None,
        });
        functions.collect()
    }

    /// The files that a plan names.
    #[must_use]
    pub fn files_of(plan: &Plan) -> Vec<String> {
        crate::plan::named_files(plan)
    }

    /// Selected devices that the host has, in their order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &'a PciFunction> {
        let facts = self.facts;
        let devices = self.devices.iter();
        devices.filter_map(|bdf| facts.function(*bdf))
    }

    /// Selected devices with coherent memory.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = &'a PciFunction> {
        self.functions().filter(|function| is_gpu(function))
    }

    /// Selected GPUs without coherent memory.
    pub(crate) fn plain_gpus(&self) -> impl Iterator<Item = &'a PciFunction> {
        self.functions().filter(|function| {
            let chip = identity(function).chip();
            chip.is_some_and(|chip| chip.driver() == Driver::VfioPci)
        })
    }

    pub(crate) fn has_gpus(&self) -> bool {
        self.gpus().next().is_some()
    }

    pub(crate) fn is_arm(&self) -> bool {
        self.facts.host.arch == Some(Arch::Aarch64)
    }

    pub(crate) fn is_x86(&self) -> bool {
        self.facts.host.arch == Some(Arch::X86_64)
    }

    /// A plan or a definition is to run on the host.
    pub(crate) fn is_for_a_vm(&self) -> bool {
        self.plan.is_some() || self.definition.is_some()
    }

    /// The plan uses `/dev/iommu`.
    pub(crate) fn plans_iommufd(&self) -> bool {
        matches!(self.plan, Some(plan) if matches!(plan.iommu, Iommu::Iommufd { .. }))
    }

    /// The VM of the plan has SMMUs.
    pub(crate) fn plans_smmu(&self) -> bool {
        matches!(self.plan, Some(plan) if plan.iommu == Iommu::Iommufd { smmu: true })
    }

    /// A finding for each selected device, or one finding that there is no device.
    pub(crate) fn each(&self, look: impl Fn(&'a PciFunction) -> Finding) -> Vec<Finding> {
        let about = |function: &'a PciFunction| look(function).about(function.bdf);
        or_none(
            self.functions().map(about).collect(),
            "no device was selected",
        )
    }

    /// A finding for each GPU with coherent memory, or one finding that there is no GPU.
    pub(crate) fn each_gpu(&self, look: impl Fn(&'a PciFunction) -> Finding) -> Vec<Finding> {
        let about = |function: &'a PciFunction| look(function).about(function.bdf);
        or_none(
            self.gpus().map(about).collect(),
            "no GPU with coherent memory was selected",
        )
    }
}

/// Chip of a device.
pub(crate) fn identity(function: &PciFunction) -> Identity {
    Identity::of(function.vendor, function.device, function.class)
}

/// The function has coherent memory.
pub(crate) fn is_gpu(function: &PciFunction) -> bool {
    function.variant.as_deref() == Some(NVGRACE)
}

fn or_none(findings: Vec<Finding>, why: &str) -> Vec<Finding> {
    if findings.is_empty() {
        return vec![crate::not_applicable(why)];
    }
    findings
}

/// Reports files that could not be read or parsed.
pub(crate) fn files(scene: &Scene<'_>) -> Vec<Finding> {
    let unread = scene.facts.unread.iter();
    let findings: Vec<_> = unread
        .map(|unread| {
            unknown(unread.why.clone())
                .about(format!("/{}", unread.path))
                .advise(
                    "read the file, or run varia doctor as root: what depends on it is not known",
                )
        })
        .collect();
    if findings.is_empty() {
        return vec![ok("every file could be read and parsed")];
    }
    findings
}
