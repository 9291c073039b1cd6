//! Suites of Debian that the lab takes packages from.

use serde::{Deserialize, Serialize};

/// A release of Debian to take packages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// The release after trixie.
    Forky,
    /// trixie with its backports preferred.
    TrixieBackports,
    /// The suite that every package enters first.
    Sid,
}

impl Suite {
    /// The lab's order of preference.
    pub const ALL: [Self; 3] = [Self::Forky, Self::TrixieBackports, Self::Sid];

    /// Debian's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forky => "forky",
            Self::TrixieBackports => "trixie-backports",
            Self::Sid => "sid",
        }
    }

    /// The suites that a source list names, by Debian's names.
    pub(crate) const fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Forky => &["forky"],
            Self::TrixieBackports => &["trixie", "trixie-backports"],
            Self::Sid => &["sid"],
        }
    }

    /// The suite whose packages are preferred over those of the other sources; empty if there is
    /// one source alone.
    pub(crate) const fn preferred(self) -> &'static str {
        match self {
            Self::Forky | Self::Sid => "",
            Self::TrixieBackports => "trixie-backports",
        }
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
