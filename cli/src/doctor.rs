//! `varia doctor`: checks of a host for a VM with GPUs.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use varia_doctor::{
    Assigned, Definition, Finding, Pages, Ram, Remedy, Scene, Severity, examine, worst,
};
use varia_explain::{Needs, needs};
use varia_facts::{Bdf, Facts, PciFunction};
use varia_linux::inventory::{Extent, Inventory};
use varia_linux::{Error, probe, users};
use varia_plan::Plan;
use varia_spec::nvidia::chip::Identity;

use crate::{
    Failure, args::DoctorArgs, assume, files, list::host, output, plan::read_facts, status,
};

/// The version of the JSON's schema. A field may be added within a version.
const SCHEMA: &str = "varia-doctor/1";
/// Columns of a finding's text: its severity, the check's name.
const SEVERITY: usize = 15;
const NAME: usize = 19;

/// Subject of the checks.
enum What {
    Host,
    Device(Bdf),
    Plan(Box<Plan>),
    Definition(Box<Definition>),
}

impl What {
    fn read(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text else {
            return Ok(Self::Host);
        };
        if let Ok(bdf) = text.parse() {
            return Ok(Self::Device(bdf));
        }
        let json = files::read_json(Path::new(text)).map_err(|error| {
            format!(
                "{text:?} is neither a PCI address (0009:01:00.0) nor a readable file with a plan or \
                 a definition: {error}"
            )
        })?;
        if !json.trim_start().starts_with('{') {
            let needs = needs(json.as_bytes()).map_err(|error| {
                format!("{text} is neither a plan of `varia plan --json` nor a definition of a VM: {error}")
            })?;
            return Ok(Self::Definition(Box::new(of_needs(needs))));
        }
        let plan = Plan::from_json(&json).map_err(|error| {
            format!("{text} is not a plan that `varia plan --json` printed: {error}")
        })?;
        Ok(Self::Plan(Box::new(plan)))
    }

    /// The devices to check.
    fn devices(&self, facts: &Facts) -> Vec<Bdf> {
        match self {
            Self::Host => served(facts),
            Self::Device(bdf) => vec![*bdf],
            Self::Plan(plan) => Scene::devices_of(plan),
            Self::Definition(definition) => {
                let functions = definition.functions.iter();
                functions.map(|function| function.bdf).collect()
            }
        }
    }
}

/// Requirements of a definition, for the checks.
fn of_needs(needs: Needs) -> Definition {
    let functions = needs.functions.into_iter();
    let ram = needs.ram.into_iter();
    Definition {
        functions: functions
            .map(|(bdf, is_managed)| Assigned { bdf, is_managed })
            .collect(),
        unknown: needs.unknown,
        has_more: needs.has_more,
        qemu: needs.qemu,
        libvirt: needs.libvirt,
        ram: ram
            .map(|(size, host_node)| Ram { size, host_node })
            .collect(),
        pages: match (needs.has_hugepages, needs.hugepages) {
            (_, Some(size)) => Pages::Huge(size),
            (true, None) => Pages::HugeDefault,
            (false, None) => Pages::Ordinary,
        },
        egm: needs.egm,
    }
}

/// Facts, and where they are from.
struct Gathered {
    facts: Facts,
    notes: Vec<String>,
    /// True for this machine, whose files can be checked.
    live: bool,
}

/// The printed report; the JSON's schema.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    product: Option<&'a str>,
    kernel: Option<&'a str>,
    /// Checked devices.
    devices: &'a [Bdf],
    /// The worst severity.
    worst: Severity,
    findings: &'a [Finding],
    /// Facts that could not be read, and the reasons.
    notes: &'a [String],
}

/// Prints the findings; fails if one of them is a failure.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let what = What::read(args.what.as_deref())?;
    let mut gathered = match &args.known.facts {
        Some(file) => of_facts(file)?,
        None => gather(args, &what)?,
    };
    assume::apply(&mut gathered.facts, &args.known.assume);
    let facts = &gathered.facts;
    match &what {
        What::Device(bdf) if facts.function(*bdf).is_none() => {
            let (bdf, nearest) = (*bdf, served(facts));
            return Err(Error::NoFunction { bdf, nearest }.into());
        }
        _ => {}
    }
    let devices = what.devices(facts);
    let plan = match &what {
        What::Plan(plan) => Some(&**plan),
        What::Host | What::Device(_) | What::Definition(_) => None,
    };
    let definition = match &what {
        What::Definition(definition) => Some(&**definition),
        What::Host | What::Device(_) | What::Plan(_) => None,
    };
    let named = plan.map(Scene::files_of).unwrap_or_default();
    let named = named.into_iter().filter(|_| gathered.live);
    let files = named.map(|file| {
        let there = Path::new(&file).exists();
        (file, there)
    });
    let findings = examine(&Scene {
        facts,
        devices: &devices,
        plan,
        definition,
        files: &files.collect(),
    });
    let report = Report {
        schema: SCHEMA,
        product: facts.host.product.as_deref(),
        kernel: facts.kernel.release.as_deref(),
        devices: &devices,
        worst: worst(&findings),
        findings: &findings,
        notes: &gathered.notes,
    };
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        report.text(is_coloured())
    })?;
    let has_warning = findings.iter().any(|one| one.severity == Severity::Warning);
    let depends = plan.is_some() || definition.is_some();
    Ok(status::of(
        report.worst == Severity::Failure || args.strict && has_warning,
        depends && findings.iter().any(Finding::leaves_plan_open),
    ))
}

fn of_facts(file: &Path) -> Result<Gathered, Failure> {
    Ok(Gathered {
        facts: read_facts(file)?,
        notes: Vec::new(),
        live: false,
    })
}

fn gather(args: &DoctorArgs, what: &What) -> Result<Gathered, Failure> {
    let tree = host(&args.known.host)?;
    let extent = match what {
        What::Device(_) | What::Definition(_) => Extent::All,
        What::Host | What::Plan(_) => Extent::Served,
    };
    let mut inventory = Inventory::of(&tree, extent)?;
    inventory.ask_programs(&tree, args.qemu.as_deref());
    if args.probe {
        match probe::probe(&tree, &mut inventory) {
            Err(error @ Error::InUse { .. }) => {
                for function in &mut inventory.facts.functions {
                    function.unprobed = Some(error.to_string());
                }
            }
            other => other?,
        }
    }
    let devices = what.devices(&inventory.facts);
    users::note(&tree, &mut inventory.facts, &devices);
    Ok(Gathered {
        live: tree.is_live(),
        facts: inventory.facts,
        notes: inventory.notes,
    })
}

/// The functions that have a variant, GPUs of data centres, and what is bound to VFIO: what an
/// operator gives to VMs. A network card or a disk of the host is none of them.
fn served(facts: &Facts) -> Vec<Bdf> {
    let is_vfio = |one: &PciFunction| {
        let driver = one.driver.as_deref().unwrap_or_default();
        driver.replace('-', "_").contains("vfio")
    };
    let served = |one: &&PciFunction| {
        let identity = Identity::of(one.vendor, one.device, one.class);
        one.variant.is_some() || identity != Identity::Other || is_vfio(one)
    };
    let functions = facts.functions.iter().filter(served);
    functions.map(|function| function.bdf).collect()
}

/// True if standard output is a terminal whose user wants colours (no-color.org).
fn is_coloured() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !set("NO_COLOR")
}

impl Report<'_> {
    fn text(&self, coloured: bool) -> String {
        let product = self.product.unwrap_or("this host");
        let kernel = self.kernel.unwrap_or("of an unknown release");
        let devices: Vec<_> = self.devices.iter().map(Bdf::to_string).collect();
        let about = match devices.as_slice() {
            [] => "no device".to_owned(),
            devices => devices.join(", "),
        };
        let mut out = format!("{product}, Linux {kernel}: {about}\n");
        for finding in self.findings {
            out += &line(finding, coloured);
        }
        for note in self.notes {
            out += &format!("note: {}\n", output::printable(note));
        }
        let count = |severity| {
            let same = self.findings.iter().filter(|one| one.severity == severity);
            (same.count(), severity)
        };
        let counts = Severity::ALL.map(count).into_iter();
        let counts = counts
            .filter(|(count, _)| *count > 0)
            .map(|(count, severity)| {
                let many = matches!(severity, Severity::Warning | Severity::Failure) && count > 1;
                format!("{count} {severity}{}", if many { "s" } else { "" })
            });
        out + &counts.collect::<Vec<_>>().join(", ") + "\n"
    }
}

/// A finding, and a line for each thing to do.
fn line(finding: &Finding, coloured: bool) -> String {
    let severity = format!("{:<SEVERITY$}", finding.severity);
    let severity = if coloured {
        format!("\x1b[{}m{severity}\x1b[0m", colour(finding.severity))
    } else {
        severity
    };
    let subject = finding.subject.iter().map(|subject| format!("{subject}: "));
    let found = subject.collect::<String>() + &finding.found;
    let mut out = format!(
        "{severity}{:<NAME$}{}\n",
        finding.check,
        output::printable(&found)
    );
    for remedy in &finding.remedies {
        let (verb, text) = match remedy {
            Remedy::Command(text) => ("run", text),
            Remedy::Advice(text) => ("do", text),
        };
        out += &format!("{:SEVERITY$}  {verb:<5}{}\n", "", output::printable(text));
    }
    out
}

/// The number of a terminal's colour.
fn colour(severity: Severity) -> u8 {
    match severity {
        Severity::Ok => 32,
        Severity::NotApplicable => 2,
        Severity::Unknown => 36,
        Severity::Warning => 33,
        Severity::Failure => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_what_to_do_another() {
        let finding = Finding::new("hugepages", Severity::Warning, "none\u{7}").run("echo 2");
        assert_eq!(
            line(&finding, false),
            "warning        hugepages          none\\u{7}\n                 run  echo 2\n"
        );
        let coloured = line(&finding.about("node 0"), true);
        assert!(coloured.starts_with("\u{1b}[33mwarning"), "{coloured}");
        assert!(coloured.contains("node 0: none"), "{coloured}");
    }
}
