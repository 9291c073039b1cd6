//! Mutants in a soak: a hundred of each crate, by cargo-mutants, chosen by a seed.
//!
//! They are tried in a clone of the committed sources with a build folder of its own, both kept in
//! the build folder from one run to the next: a mutant takes a build of what has changed, and no
//! copy of the tree.
//!
//! A run of a crate takes at most [`LIMIT`] and keeps what it found in the build folder; the next run
//! of the same sources goes on from there. A mutant that the crate's tests do not catch has to be
//! listed in `docs/mutants.md`, with the reason why no test can.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::progress::{Progress, Unit};

use crate::Outcome;

/// Folders of the crates. Their parts of a soak are `mutants-` and this name.
pub(crate) const CRATES: [&str; 7] = [
    "serve",
    "vfio-user",
    "linux",
    "plan",
    "firmware",
    "doctor",
    "silicon",
];
/// Mutants of each crate.
const COUNT: usize = 100;
/// Seed of the choice.
const SEED: u64 = 0x5661_7269_6131_3030;
/// Time that a run of a crate may take.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// File of the state, and folder that cargo-mutants writes, in the folder of a crate's run.
const STATE: &str = "state.json";
const OUTPUT: &str = "mutants.out";
/// Clone of the sources, and what is built of it, in the folder of all runs.
const CLONE: &str = "clone";
const BUILT: &str = "built";
/// Page with the mutants that the tests do not catch.
const PAGE: &str = "docs/mutants.md";

/// Ends of mutants, by the files in which cargo-mutants lists them.
const ENDS: [(&str, End); 4] = [
    ("caught.txt", End::Caught),
    ("missed.txt", End::Missed),
    ("timeout.txt", End::TimedOut),
    ("unviable.txt", End::Unviable),
];

/// End of a mutant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum End {
    /// A test fails.
    Caught,
    /// All tests pass.
    Missed,
    /// The tests do not end.
    TimedOut,
    /// It does not build.
    Unviable,
}

/// State of a crate's mutants from one run to the next.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct State {
    /// Sources that were mutated: git's name of the crate's folder.
    sources: String,
    /// End of each mutant that has been tried, by its name.
    ends: BTreeMap<String, End>,
}

/// Result of a run.
pub(crate) struct Tried {
    /// True if mutants were tried and each one is caught, timed out or is listed.
    pub(crate) passed: bool,
    /// Verdict for the page of soaks.
    pub(crate) verdict: String,
    /// Counts for the page of soaks.
    pub(crate) line: String,
    /// Mutants that no test catches and that the page of mutants does not list.
    pub(crate) unlisted: Vec<String>,
    /// Mutants with which the tests do not end.
    pub(crate) timed_out: Vec<String>,
}

/// Checks that cargo-mutants is there.
///
/// # Errors
/// Tool to install.
pub(crate) fn ready() -> Outcome {
    let mut version = cargo(&["--version"]);
    let version = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err("the mutants need cargo-mutants: cargo install cargo-mutants --locked".into())
}

/// Tries mutants of the crate in `folder` until all of the chosen ones have been tried or the time is
/// up.
///
/// # Errors
/// A missing tool, sources that are not committed, tests that fail without a mutant.
pub(crate) fn run(folder: &str) -> Result<Tried, Box<dyn std::error::Error>> {
    ready()?;
    let started = Instant::now();
    let home = runs().join(folder);
    fs::create_dir_all(&home)?;
    let sources = sources(folder)?;
    update_clone(&runs().join(CLONE), workspace())?;
    let mut state = State::read(&home, &sources).unwrap_or_else(|| {
        let _ = fs::remove_dir_all(home.join(OUTPUT));
        State {
            sources,
            ends: BTreeMap::new(),
        }
    });
    let all = list(folder)?;
    let chosen = choose(&all);
    state.ends.retain(|name, _| chosen.contains(name));
    let waiting: Vec<_> = chosen
        .iter()
        .filter(|name| !state.ends.contains_key(*name))
        .collect();
    if !waiting.is_empty() {
        let others: Vec<_> = all.iter().filter(|name| !waiting.contains(name)).collect();
        let tried = (waiting.len(), &*others);
        attempt(folder, &home, tried, &mut state, started + LIMIT)?;
    }
    Ok(state.judge(chosen.len(), &listed()?))
}

impl State {
    /// Reads the state that an earlier run of the same sources has kept in the folder `home`, with
    /// the mutants that an interrupted run has tried since.
    fn read(home: &Path, sources: &str) -> Option<Self> {
        let bytes = fs::read(home.join(STATE)).ok()?;
        let kept = serde_json::from_slice::<Self>(&bytes).ok();
        let mut kept = kept.filter(|kept| kept.sources == sources)?;
        kept.ends.extend(ends(&home.join(OUTPUT)));
        Some(kept)
    }

    /// Writes the state to the folder `home`; an interruption leaves the earlier one.
    fn write(&self, home: &Path) -> Outcome {
        let unfinished = home.join("state.new");
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&unfinished, home.join(STATE))?;
        Ok(())
    }

    fn judge(&self, chosen: usize, listed: &[String]) -> Tried {
        let count = |end: End| self.ends.values().filter(|it| **it == end).count();
        let missed = self.ends.iter().filter(|(_, end)| **end == End::Missed);
        let unlisted: Vec<_> = missed
            .map(|(name, _)| without_place(name))
            .filter(|name| !listed.contains(name))
            .collect();
        let timed_out = self.ends.iter().filter(|(_, end)| **end == End::TimedOut);
        let timed_out: Vec<_> = timed_out.map(|(name, _)| without_place(name)).collect();
        let tried = self.ends.len();
        let mut verdict = format!("{} caught", count(End::Caught));
        if !timed_out.is_empty() {
            verdict += &format!(", {} timed out", timed_out.len());
        }
        if tried < chosen {
            verdict = format!("**{tried} of {chosen} tried**, {verdict}");
        }
        if !unlisted.is_empty() {
            verdict += &format!(", **{} not caught and not listed**", unlisted.len());
        }
        let mut line = format!(
            "{} of {chosen} mutants tried: {} fail a test, {} make the tests hang, {} do not \
             build, {} are not caught",
            tried,
            count(End::Caught),
            count(End::TimedOut),
            count(End::Unviable),
            count(End::Missed)
        );
        if !timed_out.is_empty() {
            line += &format!("; they hang with {}", timed_out.join(", "));
        }
        if tried < chosen {
            line += "; run it again for the rest";
        }
        Tried {
            passed: tried > 0 && unlisted.is_empty(),
            verdict,
            line,
            unlisted,
            timed_out,
        }
    }
}

/// All mutants of a crate, by name.
fn list(folder: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let output = cargo(&["--list", "--file", &format!("{folder}/**/*.rs")])
        .current_dir(runs().join(CLONE))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo-mutants lists no mutants of {folder} (see above)").into());
    }
    let text = String::from_utf8(output.stdout)?;
    let names: Vec<_> = text.lines().map(str::to_owned).collect();
    if names.is_empty() {
        return Err(format!("there are no mutants of {folder}").into());
    }
    Ok(names)
}

/// [`COUNT`] of the mutants, the same ones for the same names.
fn choose(names: &[String]) -> Vec<String> {
    let mut hashed: Vec<_> = names.iter().map(|name| (hash(name), name)).collect();
    hashed.sort_unstable();
    let chosen = hashed.into_iter().take(COUNT);
    chosen.map(|(_, name)| name.clone()).collect()
}

/// Seeded hash of a mutant's name (FNV-1a, then mixed). The place is left out, so that a line which
/// is added above changes no choice but among mutants of one name.
fn hash(name: &str) -> u64 {
    let mut hash = SEED;
    for byte in without_place(name).bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 29
}

/// A name without line and column: `serve/src/a.rs:1:2: replace f` is `serve/src/a.rs: replace f`.
fn without_place(name: &str) -> String {
    let parts = name.split_once(": ");
    let Some((place, what)) = parts else {
        return name.to_owned();
    };
    let file = place.split(':').next().unwrap_or(place);
    format!("{file}: {what}")
}

/// Tries `count` mutants, all but `others`, until the time is up. Their ends are written with the
/// state as they come.
///
/// The others are those that cargo-mutants is told to have caught earlier: a pattern for names does
/// not keep it from deleting fields of structures.
fn attempt(
    folder: &str,
    home: &Path,
    (count, others): (usize, &[&String]),
    state: &mut State,
    until: Instant,
) -> Outcome {
    let output = home.join(OUTPUT);
    // The state has the output of an interrupted run: written before the output is removed.
    state.write(home)?;
    let _ = fs::remove_dir_all(&output);
    let _ = fs::remove_dir_all(home.join("mutants.out.old"));
    fs::create_dir(&output)?;
    let others: String = others.iter().map(|name| format!("{name}\n")).collect();
    fs::write(output.join("previously_caught.txt"), others)?;
    let limits = [
        "--in-place",
        "--iterate",
        "--no-shuffle",
        "--colors=never",
        "--minimum-test-timeout=120",
    ];
    let mut command = cargo(&limits);
    command.current_dir(runs().join(CLONE));
    command.env("CARGO_TARGET_DIR", runs().join(BUILT));
    // nobody debugs a mutant, and what is not written need not be linked
    command.env("CARGO_PROFILE_DEV_DEBUG", "false");
    command.env("CARGO_INCREMENTAL", "1");
    command.arg("--file");
    command.arg(format!("{folder}/**/*.rs"));
    let log = home.join("run.log");
    command.arg("--output").arg(home);
    // no documentation: it has no tests
    command.args(["--", "--lib", "--bins", "--tests"]);
    let file = fs::File::create(&log)?;
    command.stderr(file.try_clone()?).stdout(file);
    let total = count as u64;
    let mut progress = Progress::start(format!("mutants of {folder}"), Unit::Items, total);
    let mut child = command.spawn()?;
    let status = loop {
        let status = child.try_wait()?;
        let tried = ends(&output);
        progress.set(tried.len() as u64);
        let before = state.ends.len();
        state.ends.extend(tried);
        if state.ends.len() > before {
            state.write(home)?;
        }
        if status.is_some() {
            break status;
        }
        if Instant::now() >= until {
            interrupt(&mut child)?;
            state.ends.extend(ends(&output));
            state.write(home)?;
            break None;
        }
        thread::sleep(Duration::from_secs(1));
    };
    progress.finish();
    // 0: all caught, 2: some missed, 3: some timed out; see cargo-mutants' exit codes
    match status {
        Some(status) if !matches!(status.code(), Some(0 | 2 | 3)) => {
            let reason = match status.code() {
                Some(4) => format!(": the tests of {folder} fail without a mutant"),
                _ => String::new(),
            };
            let log = log.display();
            Err(format!("cargo-mutants ended with {status}{reason}; see {log}").into())
        }
        _ => Ok(()),
    }
}

/// Interrupts cargo-mutants, which ends what it has started and takes the mutant away.
fn interrupt(child: &mut Child) -> Outcome {
    let id = child.id().to_string();
    Command::new("kill").args(["-INT", &id]).status()?;
    child.wait()?;
    Ok(())
}

/// Ends of the mutants that a run of cargo-mutants has tried so far.
fn ends(folder: &Path) -> BTreeMap<String, End> {
    let mut ends = BTreeMap::new();
    for (file, end) in ENDS {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        // a line may be under way
        for line in text.split_inclusive('\n') {
            if let Some(name) = line.strip_suffix('\n') {
                ends.insert(name.to_owned(), end);
            }
        }
    }
    ends
}

/// The mutants that the page lists: the first cell of each row, between back quotes.
fn listed() -> std::io::Result<Vec<String>> {
    let text = fs::read_to_string(workspace().join(PAGE))?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split_once("` |"));
    // a bar inside a cell is escaped
    Ok(names.map(|(name, _)| name.replace("\\|", "|")).collect())
}

/// Folder of the runs of all crates.
fn runs() -> PathBuf {
    target_folder().join("mutants")
}

/// Git's name of what is in a folder.
fn sources(folder: &str) -> Result<String, Box<dyn std::error::Error>> {
    if !git(workspace(), &["status", "--porcelain", "--", folder])?.is_empty() {
        return Err(format!("{folder} has changes: commit them, then try its mutants").into());
    }
    git(workspace(), &["rev-parse", &format!("HEAD:{folder}")])
}

/// Makes the clone equal to the commit that is checked out. Files that are the same stay, and a
/// mutant that an interrupted run has left goes.
fn update_clone(clone: &Path, sources: &Path) -> Outcome {
    if !clone.join(".git").exists() {
        fs::create_dir_all(clone)?;
        git(clone, &["init", "--quiet"])?;
    }
    let sources = sources.to_string_lossy();
    git(clone, &["fetch", "--quiet", "--depth=1", &sources, "HEAD"])?;
    let checkout = ["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"];
    git(clone, &checkout)?;
    Ok(())
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let mut command = Command::new("git");
    let output = command.args(arguments).current_dir(folder).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("git {}: {said}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .arg("mutants")
        .args(arguments)
        .current_dir(workspace());
    cargo
}

/// The crate's folder of a part of a soak.
pub(crate) fn folder(part: &str) -> Option<&'static str> {
    let name = part.strip_prefix("mutants-")?;
    CRATES.into_iter().find(|folder| *folder == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        let name = |n| format!("serve/src/a.rs:{n}:5: replace f{n} -> bool with true");
        (0..count).map(name).collect()
    }

    #[test]
    fn the_choice_is_the_same_each_time_and_does_not_depend_on_lines() {
        let all = names(500);
        let chosen = choose(&all);
        assert_eq!(chosen.len(), COUNT);
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(choose(&reversed), chosen);
        let moved = |names: &[String]| -> Vec<_> {
            let move_by_one = |name: &String| name.replace(":5: ", ":6: ");
            names.iter().map(move_by_one).collect()
        };
        assert_eq!(choose(&moved(&all)), moved(&chosen));
        assert_eq!(choose(&names(3)).len(), 3);
    }

    #[test]
    fn a_run_goes_on_where_one_of_the_same_sources_ended() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        assert_eq!(State::read(home, "one"), None);
        let mut state = State {
            sources: "one".to_owned(),
            ends: [("a mutant".to_owned(), End::Caught)].into(),
        };
        state.write(home).unwrap();
        assert_eq!(State::read(home, "one").as_ref(), Some(&state));
        assert_eq!(State::read(home, "other"), None);
        // The run was interrupted, in the middle of a line.
        fs::create_dir(home.join(OUTPUT)).unwrap();
        fs::write(home.join(OUTPUT).join("missed.txt"), "another\na th").unwrap();
        state.ends.insert("another".to_owned(), End::Missed);
        assert_eq!(State::read(home, "one"), Some(state));
        assert_eq!(State::read(home, "other"), None);
    }

    #[test]
    fn a_mutant_that_is_missed_and_not_listed_fails_the_run() {
        let name = "plan/src/a.rs:7:9: replace == with != in f";
        let missed = State {
            sources: String::new(),
            ends: [(name.to_owned(), End::Missed)].into(),
        };
        let tried = missed.judge(2, &[]);
        assert!(
            tried.line.starts_with("1 of 2 mutants tried"),
            "{}",
            tried.line
        );
        assert!(
            tried.line.ends_with("run it again for the rest"),
            "{}",
            tried.line
        );
        let known = "plan/src/a.rs: replace == with != in f".to_owned();
        assert_eq!(tried.unlisted, [known.as_str()]);
        let tried = missed.judge(1, &[known]);
        assert_eq!(tried.unlisted, [""; 0]);
        assert_eq!(tried.verdict, "0 caught");
        assert!(tried.passed);
    }

    #[test]
    fn an_unfinished_run_says_so_and_fails_only_without_any_mutant() {
        let name = "plan/src/a.rs:7:9: replace f with ()";
        let mut state = State::default();
        let tried = state.judge(100, &[]);
        assert!(!tried.passed);
        assert_eq!(tried.verdict, "**0 of 100 tried**, 0 caught");
        state.ends.insert(name.to_owned(), End::TimedOut);
        let tried = state.judge(100, &[]);
        assert!(tried.passed);
        assert_eq!(tried.verdict, "**1 of 100 tried**, 0 caught, 1 timed out");
        assert_eq!(tried.timed_out, ["plan/src/a.rs: replace f with ()"]);
        assert!(tried.line.contains(&tried.timed_out[0]), "{}", tried.line);
    }

    #[test]
    fn the_clone_follows_the_commit_and_keeps_no_mutant() {
        let folder = tempfile::tempdir().unwrap();
        let (sources, clone) = (folder.path().join("sources"), folder.path().join("clone"));
        fs::create_dir(&sources).unwrap();
        git(&sources, &["init", "--quiet"]).unwrap();
        for text in ["one", "two"] {
            fs::write(sources.join("file"), text).unwrap();
            git(&sources, &["add", "file"]).unwrap();
            let name = ["-c", "user.name=a", "-c", "user.email=a@b"];
            git(&sources, &[&name[..], &["commit", "-qm", text]].concat()).unwrap();
            update_clone(&clone, &sources).unwrap();
            assert_eq!(fs::read_to_string(clone.join("file")).unwrap(), text);
            fs::write(clone.join("file"), "mutant").unwrap();
        }
        update_clone(&clone, &sources).unwrap();
        assert_eq!(fs::read_to_string(clone.join("file")).unwrap(), "two");
    }

    #[test]
    fn every_crate_exists_and_the_page_can_be_read() {
        for folder in CRATES {
            assert!(workspace().join(folder).join("Cargo.toml").exists());
        }
        listed().unwrap();
    }
}
