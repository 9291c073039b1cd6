//! Sources of packages in apt's configuration, in both of its formats (`sources.list(5)`): one-line
//! (`*.list`) and deb822 (`*.sources`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::mirror::Keys;

/// An enabled source of binary packages. A one-line source has one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The URI in front of `dists/`.
    pub uri: String,
    /// Suites, such as `trixie`, `trixie-updates`.
    pub suites: Vec<String>,
    /// Components, such as `main`.
    pub components: Vec<String>,
    /// The keys that may sign it.
    pub keys: Keys,
    /// The file that names it.
    pub file: PathBuf,
}

/// Every source of an apt configuration folder, in the order in which apt reads them.
///
/// # Errors
/// [`Error::Io`].
pub fn sources(folder: &Path) -> Result<Vec<Source>> {
    let mut files = vec![folder.join("sources.list")];
    let mut parts: Vec<PathBuf> = fs::read_dir(folder.join("sources.list.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.sort();
    files.append(&mut parts);
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let read: fn(&str, &Path) -> Vec<Source> = match file.extension() {
            Some(end) if end == "list" => one_line,
            Some(end) if end == "sources" => deb822,
            _ => continue,
        };
        let text = fs::read_to_string(file).map_err(Error::file("read", file))?;
        found.extend(read(&text, file));
    }
    Ok(found)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn one_line(text: &str, file: &Path) -> Vec<Source> {
    let sources = text.lines().filter_map(|line| {
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
        let mut parts = rest.split_whitespace();
        Some(Source {
            uri: parts.next()?.to_owned(),
            suites: vec![parts.next()?.to_owned()],
            components: parts.map(str::to_owned).collect(),
            keys,
            file: file.to_owned(),
        })
    });
    sources.collect()
}

pub(crate) fn deb822(text: &str, file: &Path) -> Vec<Source> {
    let stanzas = stanzas(text).into_iter().filter_map(|stanza| {
        let field = |name| stanza.field(name);
        if !field("Types").split_whitespace().any(|kind| kind == "deb")
            || field("Enabled").trim().eq_ignore_ascii_case("no")
        {
            return None;
        }
        let keys = match field("Signed-By").trim() {
            "" => Keys::Default,
            block if block.contains("BEGIN PGP") => Keys::Inline(block.to_owned()),
            named => Keys::Named(words(named).join(",")),
        };
        Some(Source {
            uri: field("URIs").split_whitespace().next()?.to_owned(),
            suites: words(field("Suites")),
            components: words(field("Components")),
            keys,
            file: file.to_owned(),
        })
    });
    stanzas.collect()
}

/// Fields between two empty lines, in their order.
pub(crate) struct Stanza(Vec<(String, String)>);

impl Stanza {
    /// The first field of this name, in any case; empty if there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut fields = self.0.iter();
        let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// The stanzas of a text, without comments. In continuation lines one leading blank is dropped,
/// and a lone dot stands for an empty line.
pub(crate) fn stanzas(text: &str) -> Vec<Stanza> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = lines.join("\n");
    let stanzas = text.split("\n\n").map(|stanza| {
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
        Stanza(fields)
    });
    stanzas.collect()
}
