//! What a check found, how bad it is, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad it is, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Of no concern here; the finding says why.
    NotApplicable,
    /// It could not be found out; the finding says why.
    Unknown,
    /// It works, but not as well as it could, or not for everything.
    Warning,
    /// It does not work.
    Failure,
}

impl Severity {
    /// From the best to the worst.
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::NotApplicable,
        Self::Unknown,
        Self::Warning,
        Self::Failure,
    ];

    /// As people read it: `not applicable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotApplicable => "not applicable",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// A command for a shell of the machine, as root where that is needed.
    Command(String),
    /// Words: a line of a configuration file and where it goes, something to install.
    Advice(String),
}

impl Remedy {
    /// The text, whichever it is.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Command(text) | Self::Advice(text) => text,
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check, by a name that stays: `page-size`.
    pub check: String,
    /// What it is about where there are several: a PCI address, `node 0`, a build option.
    #[serde(default)]
    pub subject: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with its values.
    pub found: String,
    /// What to do, in this order; empty if there is nothing to do.
    #[serde(default)]
    pub remedies: Vec<Remedy>,
}

impl Finding {
    /// A finding without a remedy.
    #[must_use]
    pub fn new(check: &str, severity: Severity, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            subject: None,
            severity,
            found: found.into(),
            remedies: Vec::new(),
        }
    }

    /// The same about one thing of several.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    /// The same with a command that remedies it.
    #[must_use]
    pub fn run(mut self, command: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Command(command.into()));
        self
    }

    /// The same with something else to do.
    #[must_use]
    pub fn advise(mut self, words: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Advice(words.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_go_from_the_best_to_the_worst() {
        assert!(Severity::ALL.is_sorted());
        assert_eq!(format!("{:<8}|", Severity::Ok), "ok      |");
    }

    #[test]
    fn json_keeps_the_kind_of_a_remedy() {
        let finding = Finding::new("hugepages", Severity::Warning, "none")
            .about("node 0")
            .run("echo 8 > nr_hugepages")
            .advise("add hugepages=8");
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["severity"], "warning");
        assert_eq!(json["remedies"][0]["command"], "echo 8 > nr_hugepages");
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
    }
}
