//! The driver in the kernel's own Rust: sources that are laid over a kernel's tree, and the series of
//! patches that they are.
//!
//! `kernel/tree/series` has a file for each patch: its message, and below it a line for each file
//! that the patch adds or changes. The files themselves are in `kernel/tree/src`, under their paths in
//! the kernel's tree; those that are a part of Varia elsewhere are taken from there, without unit tests
//! and in the kernel's format.
//! Nothing of the kernel is stored: a line of a kernel's file is named only to say where own lines go.
//!
//! | line | meaning |
//! |---|---|
//! | `new PATH` | a file of `kernel/tree/src` |
//! | `copy FROM TO` | a file of Varia |
//! | `crate FROM TO ROOT` | a crate of Varia, whose `lib.rs` becomes `ROOT.rs` |
//! | `insert PATH before: LINE` | the lines that follow, each behind `\| `, in front of the one line `LINE` |
//! | `insert PATH after: LINE` | the same, behind it |

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use varia_debian::chroot::Chroot;
use varia_debian::command;
use varia_debian::packages::{self, Set};

use crate::agent_build::workspace;
use crate::error::{LabError, Result};
use crate::kernel_source;

/// First line of a crate's file, which says the license that `Cargo.toml` says elsewhere.
const LICENSE: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only\n\n";

/// Place in a message where the sender's name and address go.
const SENDER: &str = "@SENDER@";

/// A patch of the series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// First line of the message.
    pub subject: String,
    /// The message below it.
    pub body: String,
    changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    New(String),
    Copy {
        from: String,
        to: String,
    },
    Crate {
        from: String,
        to: String,
        root: String,
    },
    Insert {
        path: String,
        after: bool,
        anchor: String,
        lines: String,
    },
}

/// Contents of files by their paths in the kernel's tree.
pub type Files = BTreeMap<String, String>;

fn folder() -> PathBuf {
    workspace().join("kernel/tree")
}

/// Text of the cover letter: its first line is the subject.
///
/// # Errors
/// [`LabError::Io`].
pub fn cover() -> Result<String> {
    read(&folder().join("series/cover.txt"))
}

/// The patches in their order.
///
/// # Errors
/// [`LabError::Description`] for a line that is none of the above, [`LabError::Io`].
pub fn patches() -> Result<Vec<Patch>> {
    let folder = folder().join("series");
    let entries = fs::read_dir(&folder).map_err(LabError::file("read", &folder))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".patch.txt"));
    paths.sort();
    paths.iter().map(|path| parse(&read(path)?)).collect()
}

fn parse(text: &str) -> Result<Patch> {
    let (subject, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut body = String::new();
    let mut changes = Vec::new();
    for line in rest.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let change = match (&words[..], changes.last_mut()) {
            (["new", path], _) => Change::New((*path).to_owned()),
            (["copy", from, to], _) => Change::Copy {
                from: (*from).to_owned(),
                to: (*to).to_owned(),
            },
            (["crate", from, to, root], _) => Change::Crate {
                from: (*from).to_owned(),
                to: (*to).to_owned(),
                root: (*root).to_owned(),
            },
            (["insert", path, place @ ("before:" | "after:"), ..], _) => {
                let head = format!("insert {path} {place} ");
                Change::Insert {
                    path: (*path).to_owned(),
                    after: *place == "after:",
                    anchor: line.strip_prefix(&head).unwrap_or_default().to_owned(),
                    lines: String::new(),
                }
            }
            (["|", ..], Some(Change::Insert { lines, .. })) => {
                lines.push_str(line.strip_prefix("| ").unwrap_or_default());
                lines.push('\n');
                continue;
            }
            (_, None) => {
                body.push_str(line);
                body.push('\n');
                continue;
            }
            (_, Some(_)) => {
                let what = format!("{line:?} is no change of the patch {subject:?}");
                return Err(LabError::Description(what));
            }
        };
        changes.push(change);
    }
    Ok(Patch {
        subject: subject.to_owned(),
        body: body.trim_end().to_owned(),
        changes,
    })
}

impl Patch {
    /// Adds and changes `files`. `original` is the folder of the kernel's own files.
    ///
    /// # Errors
    /// [`LabError::Description`] if a kernel's file has the line that is named not once, [`LabError::Io`].
    pub fn apply(&self, original: &Path, files: &mut Files) -> Result<()> {
        for change in &self.changes {
            match change {
                Change::New(path) => {
                    let text = read(&folder().join("src").join(path))?;
                    files.insert(path.clone(), text);
                }
                Change::Copy { from, to } => {
                    let text = without_tests(&read(&workspace().join(from))?);
                    let text = formatted(&text)?;
                    files.insert(to.clone(), text);
                }
                Change::Crate { from, to, root } => {
                    crate_files(&workspace().join(from), to, root, files)?;
                }
                Change::Insert {
                    path,
                    after,
                    anchor,
                    lines,
                } => {
                    let text = match files.get(path) {
                        Some(text) => text.clone(),
                        None => read(&original.join(path))?,
                    };
                    files.insert(path.clone(), insert(path, &text, *after, anchor, lines)?);
                }
            }
        }
        Ok(())
    }

    /// The kernel's own files that the patch changes.
    fn changed(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().filter_map(|change| match change {
            Change::Insert { path, .. } => Some(path.as_str()),
            _ => None,
        })
    }
}

fn insert(path: &str, text: &str, after: bool, anchor: &str, lines: &str) -> Result<String> {
    let line = format!("\n{anchor}\n");
    let mut places = text.match_indices(&line).map(|(at, _)| at + 1);
    let (Some(at), None) = (places.next(), places.next()) else {
        let what = format!("{path} of the kernel does not have the line {anchor:?} once");
        return Err(LabError::Description(what));
    };
    let at = if after { at + anchor.len() + 1 } else { at };
    let (before, behind) = text.split_at(at);
    Ok(format!("{before}{lines}{behind}"))
}

/// The files of a crate without its unit tests, formatted as the kernel formats its own.
fn crate_files(from: &Path, to: &str, root: &str, files: &mut Files) -> Result<()> {
    let entries = fs::read_dir(from).map_err(LabError::file("read", from))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            crate_files(&path, &format!("{to}/{name}"), "lib", files)?;
        } else {
            let name = match &*name {
                "lib.rs" => format!("{root}.rs"),
                other => other.to_owned(),
            };
            let text = format!("{LICENSE}{}", without_tests(&read(&path)?));
            files.insert(format!("{to}/{name}"), formatted(&text)?);
        }
    }
    Ok(())
}

/// Most columns of a line in the kernel.
const COLUMNS: usize = 100;

/// Source without its unit tests, which run in user space: they are the last thing in a file.
fn without_tests(text: &str) -> String {
    let text = text.replace("#[cfg(test)]\nextern crate std;\n\n", "");
    let end = text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text.get(..end).unwrap_or_default().to_owned()
}

/// Breaks comments that are too wide.
fn narrow(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let marker = ["//! ", "/// ", "// "]
            .into_iter()
            .find(|marker| line.trim_start().starts_with(marker));
        let breaks = |line: &str| line.get(..=COLUMNS).and_then(|head| head.rfind(' '));
        let (Some(marker), Some(at)) = (
            marker,
            breaks(line).filter(|_| line.chars().count() > COLUMNS),
        ) else {
            lines.push(line.to_owned());
            continue;
        };
        let (head, tail) = line.split_at(at);
        lines.push(head.to_owned());
        lines.push(format!(
            "{}{marker}{}",
            " ".repeat(indent),
            tail.trim_start()
        ));
    }
    lines.join("\n") + "\n"
}

/// Rust source in the kernel's style, which is that of the edition 2021.
fn formatted(text: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt
        .args(["--edition", "2021", "--config", "newline_style=Unix"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = rustfmt
        .spawn()
        .map_err(|source| command::unstartable(&rustfmt, source))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(text.as_bytes())
            .map_err(LabError::io("write to rustfmt"))?;
    }
    let output = child
        .wait_with_output()
        .map_err(LabError::io("wait for rustfmt"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(command::failed(&rustfmt, &output.status.to_string(), &said).into());
    }
    Ok(narrow(&String::from_utf8_lossy(&output.stdout)))
}

/// All files that the series adds or changes, over the kernel's own in the folder `original`.
///
/// # Errors
/// As for [`patches`] and [`Patch::apply`].
pub fn files(original: &Path) -> Result<Files> {
    let mut files = Files::new();
    for patch in patches()? {
        patch.apply(original, &mut files)?;
    }
    Ok(files)
}

/// Lays the series over a kernel's tree.
///
/// # Errors
/// As for [`files`].
pub fn lay(tree: &Path) -> Result<()> {
    for (path, text) in files(tree)? {
        write(&tree.join(path), &text)?;
    }
    Ok(())
}

/// The kernel's own files that the series changes, from Debian's source package.
///
/// # Errors
/// Those of fetching and unpacking the package.
pub fn original() -> Result<PathBuf> {
    let tools = packages::ensure(Set::Tools)?;
    kernel_source::parts(&tools, &tools)
}

/// Writes the series as mails into `out`, which is an empty folder: a cover letter and a mail for
/// each patch, signed off by `sender`, `NAME <ADDRESS>`. `date` is that of each patch, as git takes it.
///
/// # Errors
/// [`LabError::Command`] with what git said, and those of [`patches`] and [`Patch::apply`].
pub fn mails(original: &Path, sender: &str, date: &str, out: &Path) -> Result<Vec<PathBuf>> {
    let scratch = tempfile::tempdir().map_err(LabError::io("make a folder"))?;
    let tree = scratch.path();
    let git = |arguments: &[&str]| -> Result<()> {
        let (name, address) = sender.split_once(" <").unwrap_or((sender, ""));
        let mut git = Command::new("git");
        git.current_dir(tree)
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), name)
                .env(format!("GIT_{role}_EMAIL"), address.trim_end_matches('>'))
                .env(format!("GIT_{role}_DATE"), date);
        }
        Ok(command::run(&mut git).map(|_| ())?)
    };
    let patches = patches()?;
    git(&["init", "--quiet"])?;
    for path in patches.iter().flat_map(Patch::changed) {
        write(&tree.join(path), &read(&original.join(path))?)?;
    }
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message=base"])?;
    let mut files = Files::new();
    for patch in &patches {
        patch.apply(original, &mut files)?;
        for (path, text) in &files {
            write(&tree.join(path), &text.replace(SENDER, sender))?;
        }
        let message = format!(
            "{}\n\n{}\n\nSigned-off-by: {sender}\n",
            patch.subject, patch.body
        );
        git(&["add", "--all"])?;
        git(&["commit", "--quiet", "--message", &message])?;
    }
    let count = format!("-{}", patches.len());
    let folder = out.to_string_lossy();
    git(&[
        "format-patch",
        "--quiet",
        "--cover-letter",
        "--subject-prefix=RFC PATCH",
        "--signature=",
        &count,
        "--output-directory",
        &folder,
    ])?;
    let entries = fs::read_dir(out).map_err(LabError::file("read", out))?;
    let mut mails: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    mails.sort();
    if let Some(letter) = mails.first() {
        let cover = cover()?;
        let (subject, body) = cover.split_once("\n\n").unwrap_or((&cover, ""));
        let text = read(letter)?
            .replace("*** SUBJECT HERE ***", subject)
            .replace("*** BLURB HERE ***", body.trim_end());
        write(letter, &text)?;
    }
    Ok(mails)
}

/// Runs the kernel's checkpatch, strictly, over patches; returns what it prints.
///
/// # Errors
/// [`LabError::Command`] with what checkpatch found, and those of fetching Perl for it.
pub fn checkpatch(mails: &[PathBuf]) -> Result<String> {
    let tools = packages::ensure(Set::KernelRust)?;
    let original = original()?;
    let mut argv = vec![
        "perl".into(),
        original.join("scripts/checkpatch.pl").into_os_string(),
    ];
    // Without a whole tree of the kernel.
    argv.extend(["--no-tree", "--strict", "--terse", "--max-line-length=100"].map(Into::into));
    // It asks whether the list of maintainers was thought of; rust/kernel/pci has its entry.
    argv.extend(["--ignore", "FILE_PATH_CHANGES"].map(Into::into));
    // The first mail is the letter.
    argv.extend(
        mails
            .iter()
            .skip(1)
            .map(|mail| mail.clone().into_os_string()),
    );
    let folder = mails.first().and_then(|mail| mail.parent());
    let mut chroot = Chroot::new(&tools).bind(&original);
    if let Some(folder) = folder {
        chroot = chroot.bind(folder);
    }
    let output = chroot.run(argv)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Table of the series: for each patch its subject and its files; for a file of the kernel, the number
/// of lines that are added to it.
///
/// # Errors
/// As for [`patches`] and [`Patch::apply`].
pub fn list(original: &Path) -> Result<String> {
    let mut text = String::new();
    let mut files = Files::new();
    for patch in patches()? {
        let before = files.clone();
        patch.apply(original, &mut files)?;
        text.push_str(&format!("{}\n", patch.subject));
        // The files of a crate come and go with what else the crate is for.
        let crates = patch.changes.iter().filter_map(|change| match change {
            Change::Crate { from, to, .. } => Some((from.as_str(), format!("{to}/"))),
            _ => None,
        });
        let crates: Vec<_> = crates.collect();
        for (from, to) in &crates {
            text.push_str(&format!("  {to} of {from}\n"));
        }
        for (path, content) in &files {
            let of_crate = crates.iter().any(|(_, to)| path.starts_with(to));
            if of_crate || before.get(path) == Some(content) {
                continue;
            }
            if !patch.changed().any(|changed| changed == path) {
                text.push_str(&format!("  {path}\n"));
                continue;
            }
            let old = before.get(path).cloned();
            let old = old.map_or_else(|| read(&original.join(path)), Ok)?;
            let added = content.lines().count() - old.lines().count();
            text.push_str(&format!("  {path} +{added}\n"));
        }
    }
    Ok(text)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(LabError::file("read", path))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    }
    fs::write(path, text).map_err(LabError::file("write", path))
}
