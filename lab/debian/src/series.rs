//! Kernel series that the lab works with beside the one that it chooses: what the kernel module is
//! built for and compared on too, and what it has to decline.

use std::collections::BTreeSet;

use crate::apt::natural_key;
use crate::choice::{Pick, series_of};
use crate::error::{Error, Result};
use crate::suite::Suite;

/// A kernel series of Debian, in one suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Series {
    /// The series after the chosen one: Linux 7.3.
    Next,
    /// Linux 6.12, which lacks nearly all that the kernel module needs.
    Declined,
}

impl Series {
    /// Name of the series.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "7.3",
            Self::Declined => "6.12",
        }
    }

    /// Suite that its packages come from.
    #[must_use]
    pub const fn suite(self) -> Suite {
        Suite::TrixieBackports
    }

    /// The newest release with headers for both architectures, in the package lists of its suite.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is none.
    pub(crate) fn pick(self, lists: &str) -> Result<Pick> {
        let names: BTreeSet<_> = lists
            .lines()
            .filter_map(|line| line.strip_prefix("Package: "))
            .collect();
        let has = |name: String| names.contains(name.as_str());
        let releases = names.iter().filter_map(|name| {
            let release = name
                .strip_prefix("linux-headers-")?
                .strip_suffix("-common")?;
            let complete = series_of(release) == self.name()
                && has(format!("linux-headers-{release}-arm64"))
                && has(format!("linux-headers-{release}-amd64"))
                && has(format!("linux-kbuild-{release}"));
            complete.then_some(release)
        });
        let version = releases.max_by_key(|release| natural_key(release));
        let version = version.ok_or_else(|| {
            Error::missing(
                format!(
                    "Debian {} has no headers of Linux {}",
                    self.suite(),
                    self.name()
                ),
                "use a mirror that has them (VARIA_MIRROR)",
            )
        })?;
        Ok(Pick {
            suite: self.suite(),
            version: version.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complete_release_of_the_series_is_taken() {
        let mut lists = String::new();
        for release in ["7.3.4+deb13", "7.3.10+deb13", "6.12.117+deb13"] {
            for part in ["headers", "headers-arm64", "headers-amd64", "kbuild"] {
                let name = match part.split_once('-') {
                    Some((part, flavour)) => format!("linux-{part}-{release}-{flavour}"),
                    None if part == "headers" => format!("linux-headers-{release}-common"),
                    None => format!("linux-{part}-{release}"),
                };
                lists.push_str(&format!("Package: {name}\nVersion: 1\n\n"));
            }
        }
        lists.push_str("Package: linux-headers-7.3.11+deb13-common\n");
        let version = |series: Series| series.pick(&lists).map(|pick| pick.version);
        assert_eq!(version(Series::Next).unwrap(), "7.3.10+deb13");
        assert_eq!(version(Series::Declined).unwrap(), "6.12.117+deb13");
        let error = Series::Next.pick("").unwrap_err().to_string();
        assert!(error.contains("no headers of Linux 7.3"), "{error}");
    }
}
