//! Existing definitions of VMs: what is missing or wrong in them for their GPUs, and the same text
//! with corrections.
//!
//! A libvirt domain or a QEMU command line is read into one model; rules check the model against
//! what is known of the host; a finding has a line and a correction, which is written into the
//! text in its language. The corrected text results from one correction after another, each made
//! in the text that the one before left, until no finding has one. Windows, apertures and
//! distances are those of crate `plan`. No I/O.
//!
//! | module | what is in it |
//! |---|---|
//! | `model` | a definition, in either language |
//! | `parse` | a text -> the model |
//! | `case` | the functions that are GPUs, and what is known of them |
//! | `rules`, `finding` | the checks, and what they find |
//! | `open` | properties whose values only a shell knows |
//! | `needs` | requirements of a definition on its host |
//! | `scope` | the parts that are not judged |
//! | `edit`, `changes` | corrections of the text, and the diff that makes them |

mod assignment;
mod case;
mod changes;
mod edit;
mod finding;
mod model;
mod needs;
mod open;
mod parse;
mod rules;
mod scope;

pub use case::Knowledge;
pub use changes::Edit;
pub use finding::{Code, Finding, Texts, Weight};
pub use model::Language;
pub use needs::{Needs, needs};
pub use parse::error::{MOST_BYTES, ReadError};
pub use scope::Unjudged;

use case::Case;
use model::Function;
use parse::Source;

/// Result of an examination.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Language of the definition.
    pub language: Language,
    /// GPUs, by their names in messages.
    pub gpus: Vec<String>,
    /// Functions of the host or of a server, by address and by id.
    pub functions: Vec<String>,
    /// A shell alone knows the address of a function.
    pub has_open_functions: bool,
    /// Functions of the host that may be GPUs or not, by address or id, without those whose address
    /// a shell alone knows.
    pub unknown: Vec<String>,
    /// Findings, each with `true` if the corrected text does not have it any more.
    pub findings: Vec<(Finding, bool)>,
    /// Parts that were not judged, by line.
    pub unjudged: Vec<Unjudged>,
    /// Remarks: assumptions, and what else the VM needs.
    pub notes: Vec<String>,
    /// Text of the definition; the arguments of a process are written as in a shell.
    pub text: String,
    /// Text with all corrections.
    pub corrected: String,
    /// Changes of the text, each with the findings that it corrects.
    pub edits: Vec<Edit>,
}

impl Examination {
    /// Unified diff from the text to the corrected text, for a file of this name; empty if they are
    /// the same. The header of each hunk names its findings.
    #[must_use]
    pub fn diff(&self, name: &str) -> String {
        changes::diff(&self.text, &self.corrected, &self.edits, name)
    }

    /// True if a finding is a fault.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|(finding, _)| finding.code.weight() == Weight::Fault)
    }
}

/// Reads a definition and reports what is missing or wrong for its GPUs.
///
/// # Errors
/// [`ReadError`], with the line, if it is neither a libvirt domain nor a QEMU command line.
pub fn examine(bytes: &[u8], knowledge: &Knowledge<'_>) -> Result<Examination, ReadError> {
    let source = Source::read(bytes)?;
    let definition = source.definition()?;
    let case = Case::new(&definition, knowledge);
    let findings = rules::check(&case);
    let (corrected, edits) = match findings.is_empty() {
        true => (source.text().to_owned(), Vec::new()),
        false => edit::correct(&source, knowledge, &findings),
    };
    let rest = match Source::read(corrected.as_bytes()).and_then(|source| source.definition()) {
        Ok(definition) => rules::check(&Case::new(&definition, knowledge)),
        Err(_) => findings.clone(),
    };
    let is_left = |finding: &Finding| {
        let same = |other: &&Finding| other.code == finding.code && other.what == finding.what;
        rest.iter().find(same).is_some()
    };
    let mut notes = notes(&case);
    if let Source::Qemu(command) = &source {
        notes.extend(command.defaults.iter().map(|(line, name, default)| {
            format!(
                "line {line}: the script does not set {name}, so that its default {default:?} was \
                 taken"
            )
        }));
    }
    Ok(Examination {
        language: definition.language,
        gpus: case.gpus.iter().map(case::Subject::label).collect(),
        functions: definition
            .functions
            .iter()
            .flat_map(|function| {
                let host = function.host.map(|host| host.to_string());
                host.into_iter().chain(function.id.clone())
            })
            .collect(),
        unknown: case.named_unknown().map(Function::label).collect(),
        has_open_functions: definition
            .functions
            .iter()
            .any(|function| function.open.is("host")),
        unjudged: case.unjudged(),
        notes,
        findings: findings
            .into_iter()
            .map(|finding| {
                let is_corrected = !is_left(&finding);
                (finding, is_corrected)
            })
            .collect(),
        text: source.text().to_owned(),
        corrected,
        edits,
    })
}

fn notes(case: &Case<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for gpu in case.gpus.iter().filter(|gpu| gpu.bars.is_none()) {
        notes.push(format!(
            "{} is taken for a GPU because Generic Initiators name it",
            gpu.label()
        ));
    }
    for (gpu, nodes) in case.gpus.iter().zip(&case.assignment.nodes) {
        let is_known = !case.definition.scope.has_open_ties;
        if nodes.len() == 1 && gpu.nodes > 1 && !case.is_count_told && is_known {
            notes.push(format!(
                "{} has 1 node, which is enough without MIG; with MIG it needs {}",
                gpu.label(),
                gpu.nodes
            ));
        }
    }
    if !case.gpus.is_empty() {
        notes.extend(rules::assumed(case));
    }
    let nodes = case.definition.nodes.len() as u32;
    if nodes > varia_plan::limits::SMALL_LINUX_NODES && !case.gpus.is_empty() {
        notes.push(format!(
            "the VM has {nodes} NUMA nodes: its kernel needs CONFIG_NODES_SHIFT={} or more",
            nodes.next_power_of_two().trailing_zeros()
        ));
    }
    notes
}
