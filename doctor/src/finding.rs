//! Findings of checks: severity, state and remedies.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Severity of a finding, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// The check does not apply; the finding has the reason.
    NotApplicable,
    /// The state is not known; the finding has the reason.
    Unknown,
    /// VMs work, but slowly or without some features.
    Warning,
    /// VMs do not work.
    Failure,
}

impl Severity {
    /// Every severity, from the best to the worst.
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::NotApplicable,
        Self::Unknown,
        Self::Warning,
        Self::Failure,
    ];

    /// Name in text: `not applicable`.
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

/// Remedy of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// A shell command for the host, as root where the command needs it.
    Command(String),
    /// Text: a line of a configuration file and its place, or something to install.
    Advice(String),
}

impl Remedy {
    /// Text of the command or the advice.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Command(text) | Self::Advice(text) => text,
        }
    }
}

/// Finding of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name of the check: `page-size`.
    pub check: String,
    /// Subject, if the check has several: a PCI address, `node 0`, a build option.
    #[serde(default)]
    pub subject: Option<String>,
    /// Severity.
    pub severity: Severity,
    /// State, with its values.
    pub found: String,
    /// Remedies, the first one first.
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

    /// True if a plan depends on what the finding does not know.
    #[must_use]
    pub fn leaves_plan_open(&self) -> bool {
        let check = crate::CHECKS.iter().find(|check| check.name == self.check);
        self.severity == Severity::Unknown && check.is_some_and(|check| check.is_depended)
    }

    /// Adds the subject.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    /// Adds remedies.
    #[must_use]
    pub(crate) fn remedied(mut self, remedies: Vec<Remedy>) -> Self {
        self.remedies.extend(remedies);
        self
    }

    /// Adds a remedy that is a command.
    #[must_use]
    pub fn run(mut self, command: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Command(command.into()));
        self
    }

    /// Adds a remedy that is text.
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
