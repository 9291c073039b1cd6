//! Finding in a definition: its code, its line, its text and its correction.

mod table;

use std::fmt::Display;

use serde::Serialize;

use crate::edit::fix::Fix;

pub use table::Code;

/// Consequence of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The VM does not start, or a GPU in it can't be used.
    Fault,
    /// The VM works, but more slowly or with fewer features than it could.
    Advice,
}

impl Weight {
    /// Name in the documentation and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Advice => "advice",
        }
    }
}

/// Texts of a kind of finding. Each is a list of alternatives with names of values in braces, of
/// which a finding takes the first whose values it has.
#[derive(Clone, Copy, Debug)]
pub struct Texts {
    /// Name in the documentation and in JSON.
    pub name: &'static str,
    /// Consequence.
    pub weight: Weight,
    /// State of the definition.
    pub found: &'static [&'static str],
    /// Reason why the state matters.
    pub why: &'static [&'static str],
    /// Change that corrects the state.
    pub remedy: &'static [&'static str],
}

/// Something that is missing or wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Kind.
    pub code: Code,
    /// Line of the definition, from 1: of the faulty element, or of the one that lacks something.
    pub line: usize,
    /// State, with its values.
    pub what: String,
    /// Reason why the state matters.
    pub why: String,
    /// Change that corrects the state.
    pub remedy: String,
    /// Correction; none if only the author of the definition knows it.
    pub(crate) fix: Option<Fix>,
}

/// A value of a finding's text, by its name there; an empty one is not given.
pub(crate) type Value<'a> = (&'static str, &'a dyn Display);

/// A value that is not always given.
pub(crate) fn optional(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Findings as they are gathered.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn add(
        &mut self,
        code: Code,
        line: usize,
        values: &[Value<'_>],
        fix: impl Into<Option<Fix>>,
    ) {
        let texts = code.texts();
        self.0.push(Finding {
            code,
            line,
            what: filled(texts.found, values),
            why: filled(texts.why, values),
            remedy: filled(texts.remedy, values),
            fix: fix.into(),
        });
    }

    pub(crate) fn has(&self, codes: &[Code]) -> bool {
        self.0.iter().any(|finding| codes.contains(&finding.code))
    }
}

/// The first alternative whose values are all given, with the values; the last alternative if none
/// is complete.
fn filled(alternatives: &[&str], values: &[Value<'_>]) -> String {
    let mut text = String::new();
    for alternative in alternatives {
        let complete;
        (text, complete) = fill(alternative, values);
        if complete {
            break;
        }
    }
    text
}

/// A template with its values, and whether all of them are given.
fn fill(template: &str, values: &[Value<'_>]) -> (String, bool) {
    let (mut text, mut complete) = (String::new(), true);
    let mut parts = template.split('{');
    text += parts.next().unwrap_or_default();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        let value = values.iter().find(|(key, _)| *key == name);
        let value = value.map_or_else(|| format!("{{{name}}}"), |(_, value)| value.to_string());
        complete &= !value.is_empty() && values.iter().any(|(key, _)| *key == name);
        text += &value;
        text += rest;
    }
    (text, complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_alternative_with_all_its_values_is_taken() {
        let alternatives = ["{a} and {b}", "{a} alone", "nothing"];
        assert_eq!(
            filled(&alternatives, &[("b", &2), ("a", &"{b}")]),
            "{b} and 2"
        );
        assert_eq!(filled(&alternatives, &[("a", &1)]), "1 alone");
        assert_eq!(filled(&alternatives, &[("a", &"")]), "nothing");
        assert_eq!(filled(&alternatives, &[]), "nothing");
        assert_eq!(filled(&["{a}"], &[]), "{a}");
    }

    #[test]
    fn names_are_unique_and_texts_are_clauses() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let Texts {
                found, why, remedy, ..
            } = code.texts();
            for texts in [found, why, remedy] {
                assert!(!texts.is_empty(), "{}", code.name());
                for text in texts {
                    let is_clause = !text.is_empty() && !text.ends_with(['.', ':', ' ']);
                    assert!(is_clause, "{}: {text:?}", code.name());
                    assert_eq!(
                        text.matches('{').count(),
                        text.matches('}').count(),
                        "{text}"
                    );
                }
            }
        }
    }
}
