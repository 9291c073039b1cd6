//! Changes of a text, each with the findings that it corrects.
//!
//! One correction is made after another; a line remembers the findings for which it was added or
//! changed, so that each hunk of the diff can name its findings.

use std::collections::BTreeSet;

use serde::Serialize;
use similar::{ChangeTag, DiffOp, TextDiff};

use crate::finding::Code;

/// Unchanged lines around a change in a diff: `patch` leaves out two of them on each side, and the
/// beginnings of two devices are alike for three.
const CONTEXT: usize = 5;

/// A change of a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Edit {
    /// First line of the text that is removed, or before which lines are added; from 1.
    pub line: usize,
    /// Names of the findings that the change corrects.
    pub findings: Vec<&'static str>,
    /// Removed lines.
    pub removed: Vec<String>,
    /// Added lines.
    pub added: Vec<String>,
}

/// A text that is corrected, with the findings of each line and of what was removed before it.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    pub(crate) text: String,
    lines: Vec<BTreeSet<Code>>,
    gaps: Vec<BTreeSet<Code>>,
}

impl Traced {
    pub(crate) fn new(text: &str) -> Self {
        let count = text.split_inclusive('\n').count();
        Self {
            text: text.to_owned(),
            lines: vec![BTreeSet::new(); count],
            gaps: vec![BTreeSet::new(); count + 1],
        }
    }

    /// Takes the text of a further correction.
    pub(crate) fn change(&mut self, next: String, code: Code) {
        let diff = TextDiff::from_lines(&self.text, &next);
        let (mut lines, mut gaps) = (Vec::new(), Vec::new());
        let mut gap = BTreeSet::new();
        let take = |list: &[BTreeSet<Code>], at: usize| list.get(at).cloned().unwrap_or_default();
        for op in diff.ops() {
            let (old, new) = (op.old_range(), op.new_range());
            if let DiffOp::Equal { .. } = op {
                for at in old {
                    gap.extend(take(&self.gaps, at));
                    gaps.push(std::mem::take(&mut gap));
                    lines.push(take(&self.lines, at));
                }
                continue;
            }
            let mut codes = BTreeSet::from([code]);
            for at in old {
                codes.extend(take(&self.lines, at));
                codes.extend(take(&self.gaps, at));
            }
            if new.is_empty() {
                gap.extend(codes);
                continue;
            }
            for _ in new {
                gaps.push(std::mem::take(&mut gap));
                lines.push(codes.clone());
            }
        }
        gap.extend(take(&self.gaps, self.lines.len()));
        gaps.push(gap);
        (self.lines, self.gaps) = (lines, gaps);
        self.text = next;
    }

    /// Changes from the first text to this one.
    pub(crate) fn edits(&self, first: &str) -> Vec<Edit> {
        let diff = TextDiff::from_lines(first, &self.text);
        let edit = |op: &DiffOp| {
            let (old, new) = (op.old_range(), op.new_range());
            let mut codes: BTreeSet<Code> = BTreeSet::new();
            for at in new.clone() {
                codes.extend(self.lines.get(at).into_iter().flatten());
                codes.extend(self.gaps.get(at).into_iter().flatten());
            }
            codes.extend(self.gaps.get(new.end).into_iter().flatten());
            let lines = |tag: ChangeTag| {
                let changes = diff.iter_changes(op).filter(|change| change.tag() == tag);
                let texts = changes.map(|change| change.value().trim_end_matches('\n').to_owned());
                texts.collect()
            };
            Edit {
                line: old.start + 1,
                findings: codes.into_iter().map(|code| code.name()).collect(),
                removed: lines(ChangeTag::Delete),
                added: lines(ChangeTag::Insert),
            }
        };
        let changed = |op: &&DiffOp| !matches!(op, DiffOp::Equal { .. });
        diff.ops().iter().filter(changed).map(edit).collect()
    }
}

/// Unified diff; each hunk names its findings behind its lines.
pub(crate) fn diff(text: &str, corrected: &str, edits: &[Edit], name: &str) -> String {
    if text == corrected {
        return String::new();
    }
    let diff = TextDiff::from_lines(text, corrected);
    let mut out = format!("--- {name}\n+++ {name}\n");
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        let lines = hunk.ops().first().zip(hunk.ops().last());
        let range = lines.map_or(0..0, |(first, last)| {
            first.old_range().start..last.old_range().end
        });
        let own = edits
            .iter()
            .filter(|edit| (range.start..=range.end).contains(&(edit.line - 1)));
        let names: BTreeSet<&str> = own.flat_map(|edit| edit.findings.iter().copied()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        out += &format!("{} {}\n", hunk.header(), names.join(", "));
        for change in hunk.iter_changes() {
            out += &format!("{}{}", change.tag(), change.value());
            if change.missing_newline() {
                out += "\n\\ No newline at end of file\n";
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hunk_names_its_findings() {
        let first = "a\nb\nc\nd\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\ne\n";
        let mut traced = Traced::new(first);
        let texts = [
            (
                "a\nb\nX\nc\nd\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\ne\n",
                Code::AcpiOff,
            ),
            (
                "a\nb\nY\nd\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\ne\n",
                Code::GicVersion,
            ),
            (
                "a\nb\nY\nd\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n",
                Code::RomShown,
            ),
        ];
        for (text, code) in texts {
            traced.change(text.to_owned(), code);
        }
        let edits = traced.edits(first);
        assert_eq!(edits.len(), 2, "{edits:?}");
        assert_eq!(edits[0].findings, ["gic-version", "acpi-off"]);
        assert_eq!((edits[0].line, edits[1].line), (3, 17));
        assert_eq!(edits[1].removed, ["e"]);
        let text = diff(first, &traced.text, &edits, "vm");
        assert!(text.contains("@@ acpi-off, gic-version\n"), "{text}");
        assert!(text.contains("@@ rom-shown\n"), "{text}");
        assert_eq!(diff(first, first, &[], "vm"), "");
    }
}
