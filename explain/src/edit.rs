//! Corrections of a definition's text.
//!
//! | module | what is in it |
//! |---|---|
//! | `fix` | corrections, in no language |
//! | `options`, `rewrite` | a correction -> a QEMU command line; changes of its text |
//! | `elements`, `cells`, `controllers`, `markup` | a correction -> a libvirt domain; changes of XML |

mod cells;
mod controllers;
mod elements;
pub(crate) mod fix;
mod markup;
mod options;
mod rewrite;

use std::collections::BTreeSet;

use crate::case::{Case, Knowledge};
use crate::changes::{Edit, Traced};
use crate::finding::{Code, Finding, Weight};
use crate::model::Definition;
use crate::parse::Source;
use crate::rules;
use fix::Fix;

/// Limit of corrections, above the need of any definition.
const MOST_FIXES: usize = 100;

/// Text with one correction after another, and its changes.
///
/// A correction may have others in its train: new nodes need distances, a new root port a root bus.
/// Those belong to the finding of `found` that was corrected before them.
pub(crate) fn correct(
    source: &Source,
    knowledge: &Knowledge<'_>,
    found: &[Finding],
) -> (String, Vec<Edit>) {
    let mut cause = None;
    let mut traced = Traced::new(source.text());
    let mut seen = BTreeSet::from([traced.text.clone()]);
    for _ in 0..MOST_FIXES {
        let next = corrected_once(&traced.text, knowledge);
        let Some((next, code)) = next.filter(|(next, _)| !seen.contains(next)) else {
            break;
        };
        seen.insert(next.clone());
        let is_found = found.iter().any(|finding| finding.code == code);
        let cause = match (is_found, cause) {
            (false, Some(cause)) => cause,
            _ => *cause.insert(code),
        };
        traced.change(next, cause);
    }
    let edits = traced.edits(source.text());
    (traced.text, edits)
}

fn corrected_once(text: &str, knowledge: &Knowledge<'_>) -> Option<(String, Code)> {
    let source = Source::read(text.as_bytes()).ok()?;
    let definition = source.definition().ok()?;
    let findings = rules::check(&Case::new(&definition, knowledge));
    // many findings may have the same correction, which can't be written where a loop repeats it
    let mut failed: Vec<&Fix> = Vec::new();
    for finding in &findings {
        let Some(fix) = finding.fix.as_ref().filter(|fix| !failed.contains(fix)) else {
            continue;
        };
        if let Some(next) = apply(&source, &definition, fix).filter(|next| next != text) {
            // a name that only a shell knows may not be written again
            let is_better = Source::read(next.as_bytes())
                .and_then(|next| next.definition())
                .is_ok_and(|next| {
                    let left = rules::check(&Case::new(&next, knowledge));
                    count(&left, finding) < count(&findings, finding)
                        && incorrigible(&left) <= incorrigible(&findings)
                });
            if is_better {
                return Some((next, finding.code));
            }
        }
        failed.push(fix);
        if failed.len() >= MOST_FIXES {
            break;
        }
    }
    None
}

/// Findings that say the same and have the same correction: one that stays was not corrected by it.
fn count(all: &[Finding], one: &Finding) -> usize {
    let same =
        |other: &&Finding| other.code == one.code && other.what == one.what && other.fix == one.fix;
    all.iter().filter(same).count()
}

/// Faults without a correction: none may come of the correction of another finding.
fn incorrigible(all: &[Finding]) -> usize {
    let is_one = |one: &&Finding| one.fix.is_none() && one.code.weight() == Weight::Fault;
    all.iter().filter(is_one).count()
}

fn apply(source: &Source, definition: &Definition, fix: &Fix) -> Option<String> {
    // slots and buses may be those of devices that are not known
    let places = matches!(
        fix,
        Fix::RootPort { .. } | Fix::RootBus { .. } | Fix::BusNumber { .. }
    );
    if places && (definition.scope.has_more || definition.has_open_numbers()) {
        return None;
    }
    match source {
        Source::Qemu(command) => options::apply(command, definition, fix),
        Source::Libvirt(text) => elements::apply(text, definition, fix),
    }
}
