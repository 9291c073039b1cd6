//! Where this machine gets Debian packages from: a mirror and the keys that sign it.
//!
//! Read from apt's own configuration, in both of its formats (`sources.list(5)`):
//! one-line (`*.list`) and deb822 (`*.sources`). Nothing is assumed about the mirror
//! but that the suites the lab wants are beside the one the machine uses. A machine
//! whose mirror carries no Debian (a derivative) says where one is with
//! `VARIA_MIRROR=URI`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A Debian mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The URI in front of `dists/`.
    pub uri: String,
    /// What signs it.
    pub keys: Keys,
}

/// Which keys apt accepts for a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Those that apt trusts for every source (`trusted.gpg.d`).
    Default,
    /// Key files or fingerprints, as `Signed-By` names them.
    Named(String),
    /// An armoured key block that stands in the configuration itself.
    Inline(String),
}

/// Names of Debian's own suites; a derivative's have others.
const DEBIAN_SUITES: [&str; 12] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
];

/// Where Debian's keyring is when it is installed but not named.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

impl Mirror {
    /// The mirror of this machine: `VARIA_MIRROR` if set, else the first Debian main
    /// source that apt is configured with.
    ///
    /// # Errors
    /// [`Error::Missing`] with what to set or install.
    pub fn of_this_machine() -> Result<Self> {
        if let Ok(uri) = env::var("VARIA_MIRROR") {
            let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
            let keyring = keyring.ok_or_else(|| {
                Error::missing(
                    "VARIA_MIRROR is set, but Debian's signing keys are not on this machine",
                    "install the package debian-archive-keyring",
                )
            })?;
            return Ok(Self {
                uri,
                keys: Keys::Named((*keyring).to_owned()),
            });
        }
        Self::in_configuration(Path::new("/etc/apt"))?.ok_or_else(|| {
            Error::missing(
                "apt on this machine is configured with no Debian mirror, and the lab's packages \
                 come from Debian",
                "set VARIA_MIRROR to the URI of one (the part before `dists/`) and install the \
                 package debian-archive-keyring",
            )
        })
    }

    /// The first Debian main source under an apt configuration folder, if there is one.
    fn in_configuration(folder: &Path) -> Result<Option<Self>> {
        let mut files = vec![folder.join("sources.list")];
        let mut parts: Vec<PathBuf> = fs::read_dir(folder.join("sources.list.d"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        parts.sort();
        files.append(&mut parts);
        for file in files.iter().filter(|file| file.is_file()) {
            let text = fs::read_to_string(file).map_err(Error::file("read", file))?;
            let found = if file.extension().is_some_and(|end| end == "sources") {
                from_deb822(&text)
            } else {
                from_one_line(&text)
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Whether a source is Debian's main archive: its suites and components say so.
/// Security updates live at a URI of their own, which lacks the rest.
fn is_debian_main<'a>(
    uri: &str,
    mut suites: impl Iterator<Item = &'a str>,
    mut components: impl Iterator<Item = &'a str>,
) -> bool {
    !uri.trim_end_matches('/').ends_with("-security")
        && suites.any(|suite| {
            !suite.ends_with("-security")
                && !suite.contains('/')
                && DEBIAN_SUITES.contains(&suite.split('-').next().unwrap_or_default())
        })
        && components.any(|component| component == "main")
}

fn from_one_line(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut rest = line.trim().strip_prefix("deb")?;
        if !rest.starts_with([' ', '\t']) {
            return None;
        }
        rest = rest.trim_start();
        let mut keys = Keys::Default;
        if let Some(after) = rest.strip_prefix('[') {
            let (options, after) = after.split_once(']')?;
            if let Some(named) = options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="))
            {
                keys = Keys::Named(named.to_owned());
            }
            rest = after;
        }
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        is_debian_main(uri, std::iter::once(suite), words).then(|| Mirror {
            uri: uri.to_owned(),
            keys,
        })
    })
}

fn from_deb822(text: &str) -> Option<Mirror> {
    let text = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    text.split("\n\n").find_map(|stanza| {
        let fields = fields(stanza);
        let field = |name: &str| {
            let found = fields
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        if !field("Types").split_whitespace().any(|kind| kind == "deb")
            || field("Enabled").trim().eq_ignore_ascii_case("no")
        {
            return None;
        }
        let uri = field("URIs").split_whitespace().next()?;
        let (suites, components) = (field("Suites"), field("Components"));
        is_debian_main(
            uri,
            suites.split_whitespace(),
            components.split_whitespace(),
        )
        .then(|| {
            let keys = match field("Signed-By").trim() {
                "" => Keys::Default,
                block if block.contains("BEGIN PGP") => Keys::Inline(block.to_owned()),
                named => Keys::Named(named.split_whitespace().collect::<Vec<_>>().join(",")),
            };
            Mirror {
                uri: uri.to_owned(),
                keys,
            }
        })
    })
}

/// The fields of a deb822 stanza. In continuation lines one leading blank is dropped,
/// and a lone dot stands for an empty line.
fn fields(stanza: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in stanza.lines() {
        if let Some(more) = line.strip_prefix([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(if more.trim() == "." { "" } else { more });
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(uri: &str, keys: &str) -> Option<Mirror> {
        Some(Mirror {
            uri: uri.into(),
            keys: Keys::Named(keys.into()),
        })
    }

    #[test]
    fn one_line_sources_give_the_first_debian_main() {
        let text = "# deb http://commented/debian trixie main\n\
                    deb [arch=amd64] https://packages.example/apt tool-bookworm main\n\
                    deb http://security.example/debian-security trixie-security main\n\
                    deb-src http://source.example/debian trixie main\n\
                    deb [ arch=amd64 signed-by=/k.gpg ] http://a.example/debian trixie main contrib\n";
        assert_eq!(
            from_one_line(text),
            named("http://a.example/debian", "/k.gpg")
        );
        let plain = "deb http://a.example/debian/ bookworm-updates main # why not";
        let mirror = Mirror {
            uri: "http://a.example/debian/".into(),
            keys: Keys::Default,
        };
        assert_eq!(from_one_line(plain), Some(mirror));
    }

    #[test]
    fn deb822_sources_give_the_first_debian_main() {
        let text = "Types: deb\nURIs: https://deb.example/node\nSuites: nodistro\nComponents: main\n\
                    \nTypes: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: sid\n\
                    Components: main\n\n# why\nTypes: deb deb-src\n# where\n\
                    URIs: http://a.example/debian\nSuites: bookworm\n bookworm-updates\n\
                    Components: main non-free\nSigned-By: /a.gpg\n";
        assert_eq!(
            from_deb822(text),
            named("http://a.example/debian", "/a.gpg")
        );
    }

    #[test]
    fn a_key_block_in_the_file_is_kept_whole() {
        let text = "Types: deb\nURIs: http://a.example/debian\nSuites: trixie\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n \
                    -----END PGP PUBLIC KEY BLOCK-----\n";
        let Some(Mirror {
            keys: Keys::Inline(block),
            ..
        }) = from_deb822(text)
        else {
            panic!("no mirror with a key block");
        };
        assert!(
            block.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n"),
            "{block}"
        );
    }

    #[test]
    fn a_derivative_has_no_debian_mirror() {
        assert_eq!(
            from_one_line("deb http://archive.example/ubuntu noble main universe"),
            None
        );
        let text = "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble noble-updates\n\
                    Components: main universe\nSigned-By: /u.gpg\n";
        assert_eq!(from_deb822(text), None);
    }
}
