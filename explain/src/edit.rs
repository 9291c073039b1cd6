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
use crate::model::Definition;
use crate::parse::Source;
use crate::rules;
use fix::Fix;

/// Limit of corrections, above the need of any definition.
const MOST_FIXES: usize = 100;

/// Text with one correction after another.
pub(crate) fn correct(source: &Source, knowledge: &Knowledge<'_>) -> String {
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
        .find_map(|fix| apply(&source, &definition, fix).filter(|next| next != text))
}

fn apply(source: &Source, definition: &Definition, fix: &Fix) -> Option<String> {
    match source {
        Source::Qemu(command) => options::apply(command, definition, fix),
        Source::Libvirt(text) => elements::apply(text, definition, fix),
    }
}
