//! What the checks look at.

use std::collections::BTreeMap;

use varia_facts::{Arch, Bdf, Facts, PciFunction};
use varia_plan::{Iommu, Plan, Source};

use crate::{Finding, ok, unknown};

/// The variant of GPUs with coherent memory.
pub(crate) const NVGRACE: &str = "nvgrace-gpu";

/// A host, and what of it is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The host.
    pub facts: &'a Facts,
    /// The devices that are asked about: one, those of a plan, or all that variants serve.
    pub devices: &'a [Bdf],
    /// The plan that is to run on it.
    pub plan: Option<&'a Plan>,
    /// Of the files that the plan names, whether they are there; those that are absent from this
    /// were not looked for.
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

    /// The devices that are there, in their order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &'a PciFunction> {
        let facts = self.facts;
        let devices = self.devices.iter();
        devices.filter_map(|bdf| facts.function(*bdf))
    }

    /// Those of them with coherent memory.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = &'a PciFunction> {
        self.functions().filter(|function| is_gpu(function))
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

    /// The plan goes through `/dev/iommu`.
    pub(crate) fn plans_iommufd(&self) -> bool {
        matches!(self.plan, Some(plan) if matches!(plan.iommu, Iommu::Iommufd { .. }))
    }

    /// The plan has SMMUs in the VM.
    pub(crate) fn plans_smmu(&self) -> bool {
        matches!(self.plan, Some(plan) if plan.iommu == Iommu::Iommufd { smmu: true })
    }

    /// A finding for each device; where there is none, that.
    pub(crate) fn each(&self, look: impl Fn(&'a PciFunction) -> Finding) -> Vec<Finding> {
        let about = |function: &'a PciFunction| look(function).about(function.bdf);
        or_none(
            self.functions().map(about).collect(),
            "no device is asked about",
        )
    }

    /// A finding for each device with coherent memory; where there is none, that.
    pub(crate) fn each_gpu(&self, look: impl Fn(&'a PciFunction) -> Finding) -> Vec<Finding> {
        let about = |function: &'a PciFunction| look(function).about(function.bdf);
        or_none(
            self.gpus().map(about).collect(),
            "no GPU with coherent memory is asked about",
        )
    }
}

/// It has coherent memory.
pub(crate) fn is_gpu(function: &PciFunction) -> bool {
    function.variant.as_deref() == Some(NVGRACE)
}

fn or_none(findings: Vec<Finding>, why: &str) -> Vec<Finding> {
    if findings.is_empty() {
        return vec![crate::not_applicable(why)];
    }
    findings
}

/// Files that should have told something.
pub(crate) fn files(scene: &Scene<'_>) -> Vec<Finding> {
    let unread = scene.facts.unread.iter();
    let findings: Vec<_> = unread
        .map(|unread| {
            unknown(unread.why.clone())
                .about(format!("/{}", unread.path))
                .advise("what depends on this file is not known; look at it, or run this as root")
        })
        .collect();
    if findings.is_empty() {
        return vec![ok("all that are there make sense")];
    }
    findings
}
