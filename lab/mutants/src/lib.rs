//! Mutation testing of the decisions: a copy of the crates that decide, with one deliberate fault
//! at a time, in which a test has to fail.
//!
//! This is the machinery; `tests/decisions.rs` has the table of faults. Only `units`,
//! `spec`, `variant`, `variants`, `placement`, `core` and `sys`, which `core` uses, are copied: they depend on
//! little, so that a copy builds in a second or two.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// The crates that are copied, and what their tests read besides.
const COPIED: [&str; 9] = [
    "units",
    "spec",
    "sys",
    "variant",
    "variants",
    "placement",
    "core",
    "fuzz/corpus/variant_decisions",
    "kernel/modules",
];

/// The copy's workspace: what its members inherit.
const WORKSPACE: &str = r#"[workspace]
resolver = "3"
members = ["units", "spec", "sys", "variant", "variants", "placement", "core"]

[workspace.package]
version = "0.0.0"
edition = "2024"
authors = []
license = "MIT OR Apache-2.0"
rust-version = "1.87"

[workspace.dependencies]
varia-units = { path = "units" }
varia-spec = { path = "spec" }
varia-sys = { path = "sys" }
varia-variant = { path = "variant" }
varia-variants = { path = "variants" }
varia-core = { path = "core" }
# others

[workspace.lints.rust]
unsafe_code = "forbid"

[profile.dev]
debug = false
"#;

/// What the copied crates depend on besides.
const FOREIGN: [&str; 5] = ["thiserror", "libc", "rustix", "vm-memory", "tempfile"];

/// The suites: the folders whose faults they are to catch, and what cargo is told.
const SUITES: [(&[&str], &[&str]); 6] = [
    (&["units/"], &["-p", "varia-units", "--lib"]),
    (&["units/", "variant/"], &["-p", "varia-variant", "--lib"]),
    (
        &["variant/", "variants/"],
        &["-p", "varia-variants", "--lib"],
    ),
    (
        &["variant/", "variants/"],
        &["-p", "varia-variants", "--test", "tests"],
    ),
    (&["placement/"], &["-p", "varia-placement", "--tests"]),
    (&["core/"], &["-p", "varia-core", "--test", "tests"]),
];

/// How long the tests of a copy may take, with building them on a busy machine. A fault that makes one run for ever is not caught by it.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// A deliberate fault.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Name of the fault.
    pub name: &'static str,
    /// The file, from the workspace's root.
    pub file: &'static str,
    /// The text that is right; it has to be there exactly once.
    pub right: &'static str,
    /// Wrong text in its place.
    pub wrong: &'static str,
}

/// Verdict of the tests on a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A test failed; the names of those that did.
    Caught(Vec<String>),
    /// All passed.
    Survived,
}

/// A copy can't be made or judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text to replace is not there, or more than once.
    #[error(
        "mutant \"{name}\": its text is {found} times in {file}, and has to be once; write it anew"
    )]
    NotOnce {
        /// The mutant.
        name: &'static str,
        /// The file.
        file: &'static str,
        /// How often the text is there.
        found: usize,
    },
    /// The copy does not build, so that a failure says nothing about the tests.
    #[error("{what} does not build:\n{output}")]
    DoesNotBuild {
        /// The mutant, or the copy without a fault.
        what: String,
        /// What cargo printed.
        output: String,
    },
    /// The tests did not end.
    #[error("{what}: cargo did not end within {} s", TIME_LIMIT.as_secs())]
    Endless {
        /// The mutant, or the copy without a fault.
        what: String,
    },
}

/// A copy of the crates that decide, with a target folder of its own.
#[derive(Debug)]
pub struct Copy {
    folder: PathBuf,
    original: PathBuf,
}

impl Copy {
    /// Copies the crates of the workspace `original` into `folder`. Files of an earlier copy that
    /// are the same are left alone, so that what was built of them is still good.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn new(original: &Path, folder: &Path) -> Result<Self, Error> {
        for name in COPIED {
            copy_folder(&original.join(name), &folder.join(name))?;
        }
        let manifest = read(&original.join("Cargo.toml"))?;
        let others = manifest.lines().filter(|line| is_foreign(line));
        let others: String = others.flat_map(|line| [line, "\n"]).collect();
        let workspace = WORKSPACE.replace("# others\n", &others);
        write_if_different(&folder.join("Cargo.toml"), workspace.as_bytes())?;
        let lock = fs::read(original.join("Cargo.lock"));
        let lock = lock.map_err(file(original))?;
        let present = folder.join("Cargo.lock");
        if !present.exists() {
            fs::write(&present, lock).map_err(file(&present))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            original: original.to_owned(),
        })
    }

    /// Runs the tests that are to catch `mutants`, without a fault: all have to pass, which is
    /// [`Verdict::Survived`].
    ///
    /// # Errors
    /// When it does not build, or the tests do not end.
    pub fn judge_original(&self, mutants: &[Mutant]) -> Result<Verdict, Error> {
        let files: Vec<_> = mutants.iter().map(|mutant| mutant.file).collect();
        self.judge("the copy", &files)
    }

    /// Runs the tests with a fault, and takes the fault away again.
    ///
    /// # Errors
    /// When the fault can't be put in, does not build, or makes the tests run for ever.
    pub fn judge_mutant(&self, mutant: &Mutant) -> Result<Verdict, Error> {
        let path = self.folder.join(mutant.file);
        let right = read(&self.original.join(mutant.file))?;
        let found = right.matches(mutant.right).count();
        if found != 1 {
            let Mutant { name, file, .. } = *mutant;
            return Err(Error::NotOnce { name, file, found });
        }
        write(
            &path,
            right.replacen(mutant.right, mutant.wrong, 1).as_bytes(),
        )?;
        let verdict = self.judge(mutant.name, &[mutant.file]);
        write(&path, right.as_bytes())?;
        verdict
    }

    /// Runs the tests that are to catch a change of any of `files`, the closest first, until some
    /// fail.
    fn judge(&self, what: &str, files: &[&str]) -> Result<Verdict, Error> {
        for (folders, selection) in SUITES {
            let reached = |file: &&str| folders.iter().any(|folder| file.starts_with(folder));
            if !files.iter().any(reached) {
                continue;
            }
            let ran = self.cargo(what, selection)?;
            if ran.status.success() {
                continue;
            }
            let text = String::from_utf8_lossy(&ran.stdout);
            let failed = |line: &str| {
                let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
                Some(name.to_owned())
            };
            let failed: Vec<_> = text.lines().filter_map(failed).collect();
            if failed.is_empty() {
                return Err(Error::DoesNotBuild {
                    what: what.to_owned(),
                    output: String::from_utf8_lossy(&ran.stderr).into_owned(),
                });
            }
            return Ok(Verdict::Caught(failed));
        }
        Ok(Verdict::Survived)
    }

    fn cargo(&self, what: &str, selection: &[&str]) -> Result<Output, Error> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let folder = |source| Error::File {
            path: self.folder.clone(),
            source,
        };
        let child = Command::new(cargo)
            .current_dir(&self.folder)
            .args(["test", "--offline"])
            .args(selection)
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .env("CARGO_INCREMENTAL", "1")
            // the outer build's flags would build everything anew
            .env_remove("RUSTFLAGS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // so that the tests can be ended with it
            .process_group(0)
            .spawn()
            .map_err(folder)?;
        output_within(child, TIME_LIMIT)
            .map_err(folder)?
            .ok_or_else(|| Error::Endless {
                what: what.to_owned(),
            })
    }
}

/// Number that changes with the sources of the crates that decide.
///
/// # Errors
/// [`Error::File`].
pub fn seed(workspace: &Path) -> Result<u64, Error> {
    let mut hash = DefaultHasher::new();
    for name in COPIED {
        hash_folder(&workspace.join(name), &mut hash)?;
    }
    Ok(hash.finish())
}

fn hash_folder(folder: &Path, hash: &mut DefaultHasher) -> Result<(), Error> {
    let mut names = names(folder)?;
    names.sort_unstable();
    for name in names {
        let path = folder.join(&name);
        name.hash(hash);
        if path.is_dir() {
            hash_folder(&path, hash)?;
        } else {
            fs::read(&path).map_err(file(&path))?.hash(hash);
        }
    }
    Ok(())
}

/// A line of the workspace's manifest that declares a dependency from outside.
fn is_foreign(line: &str) -> bool {
    FOREIGN.iter().any(|name| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(" = "))
    })
}

/// What a child prints until it ends; `None` if it was ended at the limit.
fn output_within(mut child: Child, limit: Duration) -> io::Result<Option<Output>> {
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    thread::scope(|scope| {
        let printed = scope.spawn(move || {
            let mut bytes = Vec::new();
            io::copy(&mut stdout, &mut bytes).map(|_| bytes)
        });
        let complained = scope.spawn(move || {
            let mut bytes = Vec::new();
            io::copy(&mut stderr, &mut bytes).map(|_| bytes)
        });
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                let group = Pid::from_child(&child);
                kill_process_group(group, Signal::KILL)?;
                child.wait()?;
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        };
        let joined = |thread: thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            thread.join().unwrap_or_else(|_| Ok(Vec::new()))
        };
        Ok(Some(Output {
            status,
            stdout: joined(printed)?,
            stderr: joined(complained)?,
        }))
    })
}

/// Makes `to` the same as `from`.
fn copy_folder(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(file(to))?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            write_if_different(&to, &fs::read(&from).map_err(file(&from))?)?;
        }
    }
    for name in names(to)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if !from.exists() {
            let removed = if to.is_dir() {
                fs::remove_dir_all(&to)
            } else {
                fs::remove_file(&to)
            };
            removed.map_err(file(&to))?;
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<OsString>, Error> {
    let names = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    names.map_err(file(folder))
}

fn write_if_different(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    write(path, bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(file(path))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(file(path))
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::File {
        path: path.to_owned(),
        source,
    }
}
