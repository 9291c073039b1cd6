//! Words of the public documentation: the parts of CONTRIBUTING's `plain-english` that a program
//! can judge.

use std::fs;

use crate::{root, sources};

/// First words with which no docstring begins: a docstring begins with a noun or a verb.
const NO_BEGINNING: [&str; 16] = [
    "What", "Whatever", "Whether", "Who", "Whom", "Whose", "Which", "One", "Those", "These", "How",
    "Why", "Where", "When", "Somebody", "Nobody",
];

/// Phrases that a field term replaces, anywhere in a public docstring.
const NO_PHRASE: [&str; 8] = [
    "that there is not",
    "and first beyond",
    "the first beyond",
    "somebody",
    "nobody",
    "patience",
    "a look at",
    "in the hold",
];

/// A docstring of a public item, or of a module's file.
#[derive(Debug)]
struct Docstring {
    line: usize,
    text: String,
}

/// Docstrings of a source's public items, enum variants and public fields, and of the file itself.
fn docstrings(source: &str) -> Vec<Docstring> {
    let mut found = Vec::new();
    let mut doc: Option<Docstring> = None;
    let mut enum_is_public = false;
    let mut enum_indent = None;
    for (index, raw) in source.lines().enumerate() {
        let line = raw.trim_start();
        let indent = raw.len() - line.len();
        if let Some(text) = line.strip_prefix("//!") {
            if index == 0 {
                found.push(Docstring {
                    line: 1,
                    text: text.trim().to_owned(),
                });
            } else if let Some(last) = found.last_mut().filter(|last| last.line == 1) {
                last.text += " ";
                last.text += text.trim();
            }
        } else if let Some(text) = line.strip_prefix("///") {
            let doc = doc.get_or_insert(Docstring {
                line: index + 1,
                text: String::new(),
            });
            if !doc.text.is_empty() {
                doc.text.push(' ');
            }
            doc.text += text.trim();
        } else if line.starts_with("#[") || line.is_empty() {
        } else {
            if enum_indent.is_some_and(|at| indent <= at && line.starts_with('}')) {
                enum_indent = None;
            }
            let variant = enum_indent.is_some_and(|at| indent == at + 4) && enum_is_public;
            let public = line.starts_with("pub ");
            if line.contains("enum ") && line.ends_with('{') {
                enum_is_public = public;
                enum_indent = Some(indent);
            }
            found.extend(doc.take().filter(|_| public || variant));
        }
    }
    found
}

/// Faults of a docstring, in words.
fn faults(doc: &str) -> Vec<String> {
    let first = doc.split([' ', ',', ':', '.']).next().unwrap_or_default();
    let beginning = NO_BEGINNING
        .contains(&first)
        .then(|| format!("begins with {first:?}"));
    let lower = doc.to_lowercase();
    let phrases = NO_PHRASE
        .iter()
        .filter(|phrase| lower.contains(*phrase))
        .map(|phrase| format!("says {phrase:?}"));
    beginning.into_iter().chain(phrases).collect()
}

#[test]
fn public_docstrings_begin_with_a_noun_or_a_verb_and_use_field_terms() {
    let root = root();
    let (mut files, mut wrong, mut judged) = (Vec::new(), Vec::new(), 0);
    sources(&root, &mut files);
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        for doc in docstrings(&source) {
            judged += 1;
            for fault in faults(&doc.text) {
                let file = file.strip_prefix(&root).unwrap_or(&file);
                wrong.push(format!(
                    "{}:{}: {fault}: {}",
                    file.display(),
                    doc.line,
                    doc.text
                ));
            }
        }
    }
    assert!(judged > 1000, "{judged} docstrings");
    assert!(
        wrong.is_empty(),
        "{} of {judged}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_docstring_of_each_kind_is_judged() {
    let source = "//! What a file is.\n\n/// Whether it is set.\n#[must_use]\npub fn set() {}\n\n\
                  /// A kind.\npub enum Kind {\n    /// One that there is not.\n    A,\n}\n\n\
                  /// Who asks.\nfn private() {}\n";
    let judged: Vec<_> = docstrings(source)
        .iter()
        .map(|doc| (doc.line, faults(&doc.text)))
        .collect();
    let expected: [(usize, &[&str]); 4] = [
        (1, &["begins with \"What\""]),
        (3, &["begins with \"Whether\""]),
        (7, &[]),
        (9, &["begins with \"One\"", "says \"that there is not\""]),
    ];
    assert_eq!(judged.len(), expected.len(), "{judged:?}");
    for ((line, faults), (expected_line, expected)) in judged.iter().zip(expected) {
        assert_eq!(
            (*line, faults.as_slice()),
            (
                expected_line,
                &*expected.iter().map(|s| s.to_string()).collect::<Vec<_>>()
            )
        );
    }
}
