//! Definitions of VMs that there are already: what is missing or wrong in them for their GPUs, and
//! the same text with that put right.
//!
//! A libvirt domain or a QEMU command line is read into one model ([`model`]); rules look at that
//! and at what is known of the host; a finding names its place and carries a fix; and each
//! language writes fixes into its text. The corrected text is what comes of one fix after
//! another, each made in the text that the one before left, until nothing is found that has one.
//! What a plan knows (windows, apertures, distances) is asked of the plan's own code.
//!
//! | module | what is in it |
//! |---|---|
//! | `words`, `properties`, `command` | a shell's words, QEMU's values, a command line that can be changed |
//! | `qemu`, `qemu_fix` | a command line into the model, a fix into a command line |
//! | `markup`, `libvirt`, `libvirt_fix` | XML that can be changed; the same for a domain |
//! | `model` | a definition, in whichever language |
//! | `case` | which functions are GPUs, and what is known of them |
//! | `rules`, `finding`, `fix` | what must be there, what was found, what would put it right |

mod case;
mod command;
mod error;
mod finding;
mod fix;
mod libvirt;
mod libvirt_fix;
mod markup;
mod model;
mod properties;
mod qemu;
mod qemu_fix;
mod rules;
mod words;

use std::collections::BTreeSet;

use similar::TextDiff;

pub use case::Knowledge;
pub use error::{MOST_BYTES, ReadError};
pub use finding::{Code, Finding, Weight};
pub use model::Language;

use case::Case;
use command::Command;
use fix::Fix;
use model::Definition;

/// No definition needs as many fixes.
const MOST_FIXES: usize = 100;

/// What is to be said of a definition.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Its language.
    pub language: Language,
    /// Its GPUs, by what messages call them.
    pub gpus: Vec<String>,
    /// Every function of a host or a server in it, by address and by id.
    pub functions: Vec<String>,
    /// Functions of hosts of which nobody said whether they are GPUs, by address or id.
    pub unknown: Vec<String>,
    /// What is missing or wrong, and whether the corrected text has it put right.
    pub findings: Vec<(Finding, bool)>,
    /// What could not be judged, and why.
    pub notes: Vec<String>,
    /// The definition, as text: what was given, or the arguments of a process as a shell has them.
    pub text: String,
    /// The same with everything put right that has a correction.
    pub corrected: String,
}

impl Examination {
    /// What changes from the text to the corrected one, as a unified diff of a file of this name;
    /// empty if nothing does.
    #[must_use]
    pub fn diff(&self, name: &str) -> String {
        if self.text == self.corrected {
            return String::new();
        }
        TextDiff::from_lines(&self.text, &self.corrected)
            .unified_diff()
            .header(name, name)
            .to_string()
    }
}

/// Reads a definition and says what is missing or wrong for the GPUs in it.
///
/// # Errors
/// [`ReadError`], with the line, if it is neither a libvirt domain nor a QEMU command line.
pub fn examine(bytes: &[u8], knowledge: &Knowledge<'_>) -> Result<Examination, ReadError> {
    let source = Source::read(bytes)?;
    let definition = source.definition()?;
    let case = Case::new(&definition, knowledge);
    let findings = rules::check(&case);
    let corrected = match findings.is_empty() {
        true => source.text().to_owned(),
        false => correct(&source, knowledge),
    };
    let rest = match Source::read(corrected.as_bytes()).and_then(|source| source.definition()) {
        Ok(definition) => rules::check(&Case::new(&definition, knowledge)),
        Err(_) => findings.clone(),
    };
    let is_left = |finding: &Finding| {
        let same = |other: &&Finding| other.code == finding.code && other.what == finding.what;
        rest.iter().find(same).is_some()
    };
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
        unknown: case
            .unknown
            .iter()
            .map(|function| function.label())
            .collect(),
        notes: notes(&case),
        findings: findings
            .into_iter()
            .map(|finding| {
                let is_corrected = !is_left(&finding);
                (finding, is_corrected)
            })
            .collect(),
        text: source.text().to_owned(),
        corrected,
    })
}

/// One fix after another.
fn correct(source: &Source, knowledge: &Knowledge<'_>) -> String {
    let mut text = source.text().to_owned();
    let mut seen = BTreeSet::from([text.clone()]);
    for _ in 0..MOST_FIXES {
        let Some(next) = corrected_once(&text, knowledge).filter(|next| !seen.contains(next))
        else {
            break;
        };
        seen.insert(next.clone());
        text = next;
    }
    text
}

fn corrected_once(text: &str, knowledge: &Knowledge<'_>) -> Option<String> {
    let source = Source::read(text.as_bytes()).ok()?;
    let definition = source.definition().ok()?;
    let findings = rules::check(&Case::new(&definition, knowledge));
    findings
        .iter()
        .filter_map(|finding| finding.fix.as_ref())
        .find_map(|fix| source.apply(&definition, fix).filter(|next| next != text))
}

fn notes(case: &Case<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for gpu in case.gpus.iter().filter(|gpu| gpu.bars.is_none()) {
        let name = match gpu.host {
            Some(host) => host.to_string(),
            None => gpu.id.clone(),
        };
        notes.push(format!(
            "{} is a GPU by the Generic Initiators that name it; its BARs are not known, so that \
             apertures were not judged: give the host's facts (--facts), or its chip (--gpu \
             {name}=gh200)",
            gpu.label()
        ));
    }
    for gpu in &case.gpus {
        let its = case
            .definition
            .initiators
            .iter()
            .filter(|one| one.device == gpu.id);
        if its.count() == 1 && gpu.nodes > 1 && !case.is_count_told {
            notes.push(format!(
                "{} has one node, which is enough without MIG; with MIG it needs {}",
                gpu.label(),
                gpu.nodes
            ));
        }
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

/// A definition's text, in its language.
enum Source {
    Qemu(Command),
    Libvirt(String),
}

impl Source {
    fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        if bytes.len() > MOST_BYTES {
            return Err(ReadError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            ReadError::NotText {
                line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            }
        })?;
        if text
            .trim_matches(|c: char| c.is_whitespace() || matches!(c, '\0' | '\u{feff}'))
            .is_empty()
        {
            return Err(ReadError::Empty);
        }
        let begin = text.trim_start_matches('\u{feff}').trim_start();
        if begin.starts_with('<') {
            libvirt::check(text)?;
            return Ok(Self::Libvirt(text.to_owned()));
        }
        Command::read(text.to_owned()).map(Self::Qemu)
    }

    fn text(&self) -> &str {
        match self {
            Self::Qemu(command) => command.text(),
            Self::Libvirt(text) => text,
        }
    }

    fn definition(&self) -> Result<Definition, ReadError> {
        match self {
            Self::Qemu(command) => Ok(qemu::definition(command)),
            Self::Libvirt(text) => libvirt::definition(text),
        }
    }

    fn apply(&self, definition: &Definition, fix: &Fix) -> Option<String> {
        match self {
            Self::Qemu(command) => qemu_fix::apply(command, definition, fix),
            Self::Libvirt(text) => libvirt_fix::apply(text, definition, fix),
        }
    }
}
