//! Health of a device: a VM that gets the device now can use it.
//!
//! Driver, group, firmware's properties, readiness and memory that the host uses are judged by
//! crate `doctor`; sanity of the regions and completeness of EGM are judged here.

use std::collections::{BTreeMap, BTreeSet};

use varia_doctor::{Finding, Scene, Severity, examine_some};
use varia_facts::{Bdf, Facts, PciFunction};

/// Checks of crate `doctor` that a device's health depends on, each with its constraint.
const CHECKS: [(&str, Constraint); 5] = [
    ("group", Constraint::Group),
    ("driver", Constraint::Driver),
    ("online-memory", Constraint::Memory),
    ("firmware", Constraint::Firmware),
    ("readiness", Constraint::Readiness),
];

/// Constraint that a device does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Constraint {
    /// The device is bound to its best VFIO driver.
    Driver,
    /// The device's IOMMU group can be given away as a whole.
    Group,
    /// Firmware describes the device's memory.
    Firmware,
    /// The host does not use the device's memory as RAM.
    Memory,
    /// C2C link or CXL, and training: the device's memory is ready.
    Readiness,
    /// BARs and coherent memory have sizes and addresses that fit.
    Regions,
    /// The device's EGM has a device node, and all of its GPUs are there.
    Egm,
    /// No error was reported since the device was last seen without errors.
    Errors,
}

impl Constraint {
    /// Every constraint.
    pub const ALL: [Self; 8] = [
        Self::Driver,
        Self::Group,
        Self::Firmware,
        Self::Memory,
        Self::Readiness,
        Self::Regions,
        Self::Egm,
        Self::Errors,
    ];

    /// Name in metrics: `readiness`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Group => "group",
            Self::Firmware => "firmware",
            Self::Memory => "memory",
            Self::Readiness => "readiness",
            Self::Regions => "regions",
            Self::Egm => "egm",
            Self::Errors => "errors",
        }
    }
}

/// Reason why a device is not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The constraint.
    pub constraint: Constraint,
    /// State with its values, and the remedy.
    pub text: String,
}

/// Health of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The device can be given to a VM as it is.
    Healthy,
    /// The device can be given to a VM after its group is bound.
    Bindable {
        /// State of the driver.
        text: String,
    },
    /// The device can't be given to a VM.
    Unhealthy(Vec<Reason>),
}

impl Health {
    /// True if a VM can get the device.
    #[must_use]
    pub fn is_allocatable(&self) -> bool {
        !matches!(self, Self::Unhealthy(_))
    }

    /// Reasons why a VM can't get the device.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Unhealthy(reasons) => reasons,
            Self::Healthy | Self::Bindable { .. } => &[],
        }
    }
}

/// Observations that facts of one moment do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Errors that devices reported, such as fatal errors of AER; the text has the remedy.
    pub errors: BTreeMap<Bdf, String>,
    /// For each device that is not bound to its best driver, the result of the check whether its
    /// group can be bound on demand. A device without a result is not bound on demand.
    pub bindable: BTreeMap<Bdf, Result<(), String>>,
}

/// Health of each of the devices.
pub(crate) fn of(facts: &Facts, devices: &[Bdf], observed: &Observed) -> BTreeMap<Bdf, Health> {
    let files = BTreeMap::new();
    let scene = Scene {
        facts,
        devices,
        plan: None,
        definition: None,
        files: &files,
    };
    let mut findings: BTreeMap<String, Vec<(Constraint, Finding)>> = BTreeMap::new();
    for finding in examine_some(&scene, &CHECKS.map(|(name, _)| name)) {
        let constraint = CHECKS.iter().find(|(name, _)| *name == finding.check);
        if let (Some(subject), Some((_, constraint))) = (finding.subject.clone(), constraint) {
            let list = findings.entry(subject).or_default();
            list.push((*constraint, finding));
        }
    }
    let overlapping = overlapping(facts);
    let each = devices.iter().map(|bdf| {
        let list = findings.remove(&bdf.to_string()).unwrap_or_default();
        let function = facts.function(*bdf);
        let mut reasons = Vec::new();
        let mut bindable = None;
        for (constraint, finding) in list {
            if is_met(constraint, &finding) {
                continue;
            }
            let text = sentence(*bdf, &finding);
            match (constraint, observed.bindable.get(bdf)) {
                (Constraint::Driver, Some(Ok(()))) => bindable = Some(text),
                (Constraint::Driver, Some(Err(why))) => reasons.push(Reason {
                    constraint,
                    text: format!("{} {}; it can't be bound: {why}", bdf, finding.found),
                }),
                _ => reasons.push(Reason { constraint, text }),
            }
        }
        if let Some(function) = function {
            regions(function, &overlapping, &mut reasons);
            egm(facts, function, &mut reasons);
        }
        if let Some(text) = observed.errors.get(bdf) {
            reasons.push(Reason {
                constraint: Constraint::Errors,
                text: text.clone(),
            });
        }
        let health = match (reasons.is_empty(), bindable) {
            (true, None) => Health::Healthy,
            (true, Some(text)) => Health::Bindable { text },
            (false, _) => Health::Unhealthy(reasons),
        };
        (*bdf, health)
    });
    each.collect()
}

/// True if a finding allows that a VM gets the device.
fn is_met(constraint: Constraint, finding: &Finding) -> bool {
    match (constraint, finding.severity) {
        (_, Severity::Ok) => true,
        // a function that the host may keep is not for a VM
        (Constraint::Driver, _) => false,
        // registers are read only if nothing is disturbed; a container's start waits for them
        (Constraint::Readiness, Severity::Unknown) => true,
        (Constraint::Memory, Severity::Warning) => false,
        (_, Severity::NotApplicable | Severity::Warning) => true,
        (_, Severity::Unknown | Severity::Failure) => false,
    }
}

/// State and first remedy of a finding, in one sentence.
fn sentence(bdf: Bdf, finding: &Finding) -> String {
    let mut text = format!("{bdf}: {}", finding.found);
    if let Some(remedy) = finding.remedies.first() {
        text += &format!(" (remedy: {})", remedy.text());
    }
    text
}

/// Devices whose coherent memory overlaps that of another device, with the other device.
fn overlapping(facts: &Facts) -> BTreeMap<Bdf, Bdf> {
    let mut ranges: Vec<_> = facts
        .functions
        .iter()
        .filter_map(|function| {
            let memory = function.coherent_memory.as_ref()?;
            let end = u128::from(memory.base.0) + u128::from(memory.size.0);
            Some((u128::from(memory.base.0), end, function.bdf))
        })
        .collect();
    ranges.sort_unstable();
    let mut found = BTreeMap::new();
    let mut furthest: Option<(u128, Bdf)> = None;
    for (base, end, bdf) in ranges {
        if let Some((reach, other)) = furthest.filter(|(reach, _)| base < *reach && base < end) {
            found.insert(bdf, other);
            found.insert(other, bdf);
            if reach >= end {
                continue;
            }
        }
        furthest = Some((end, bdf));
    }
    found
}

/// Sanity of BARs and coherent memory.
fn regions(function: &PciFunction, overlapping: &BTreeMap<Bdf, Bdf>, reasons: &mut Vec<Reason>) {
    let bdf = function.bdf;
    let mut wrong = |text: String| {
        reasons.push(Reason {
            constraint: Constraint::Regions,
            text,
        });
    };
    if let Some(other) = overlapping.get(&bdf) {
        wrong(format!(
            "{bdf}: its coherent memory overlaps that of {other}: update the firmware, which \
             describes both"
        ));
    }
    for bar in &function.bars {
        if bar.address.is_none() {
            wrong(format!(
                "{bdf}: BAR{} of {} has no address: give the GPUs a larger MMIO window in the \
                 firmware's setup",
                bar.index,
                bar.size.rounded()
            ));
        }
    }
    for bar in &function.virtual_bars {
        if !bar.size.0.is_power_of_two() || bar.length > bar.size {
            wrong(format!(
                "{bdf}: BAR{} of a VM would have {} with {} of memory, which is no size of a BAR: \
                 report this GPU's `varia list`",
                bar.index, bar.size, bar.length
            ));
        }
    }
}

/// Completeness of the device's EGM. A host without a device of EGM has none to give away.
fn egm(facts: &Facts, function: &PciFunction, reasons: &mut Vec<Reason>) {
    let Some(egm) = facts.host.egm_of(function.bdf) else {
        return;
    };
    let mut wrong = |what: String| {
        reasons.push(Reason {
            constraint: Constraint::Egm,
            text: format!("{}: {what}", function.bdf),
        });
    };
    if egm.has_node == Some(false) {
        wrong(format!(
            "{} does not exist, and its GPUs share it: load the EGM driver again",
            egm.path()
        ));
    }
    let absent: BTreeSet<_> = egm
        .gpus
        .iter()
        .filter(|gpu| facts.function(**gpu).is_none())
        .map(Bdf::to_string)
        .collect();
    if !absent.is_empty() {
        let absent: Vec<_> = absent.into_iter().collect();
        wrong(format!(
            "{} belongs to {} too, and the host has no such function: EGM of this socket can't be \
             complete until the function is back (echo 1 > /sys/bus/pci/rescan)",
            egm.path(),
            absent.join(", ")
        ));
    }
}
