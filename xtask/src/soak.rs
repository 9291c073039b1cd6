//! `./x soak`: the tests with larger counts, in parts that can be run one at a time; the last result
//! of each is kept in `docs/soak.md`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::progress::{Progress, Unit};
use varia_lab::{Arch, Flavour, Kernel, Set, dist, host_arch, packages};

use crate::test::{self, MACHINE_TESTS, WITHOUT_MACHINES};
use crate::{Outcome, fuzz, mutants};

/// Factor of the counts of tests whose operations are not counted one by one.
const TIMES: u64 = 40;
/// Part with the tests that need no VM.
const UNITS: &str = "units";
/// Part with the clients of `varia serve` that leave, are killed or send what is malformed.
const SERVER: &str = "server";
/// Part with the tests of the command, run with the static program of `./x dist`.
const STATIC: &str = "static";
/// The fuzzers.
const FUZZ: &str = "fuzz";
/// Parts that run what is ignored elsewhere because it needs a kernel or packages of its own.
const WITH_DEBUG_KERNEL: &[&str] = &["concurrency", "nested", "pages", "selftests"];
/// The one that needs that kernel of the next series too.
const WITH_NEXT_DEBUG_KERNEL: &[&str] = &["pages"];
/// The test program that boots the kernel with Rust.
const WITH_RUST_KERNEL: &str = "differential";
const WITH_DKMS: &str = "package";
/// The test program with a machine of type s390x.
const WITH_S390X: &str = "pci_core";

/// A line of a test's output that belongs to the result begins so.
const RESULT: &str = "result: ";
/// Between these lines of the page stands a row for each part.
const TABLE_BEGINS: &str = "| part | result | when | at | took | what the tests said |";
const RULE: &str = "|---|---|---|---|---|---|";

/// Larger counts, for those who have hours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Operations of each counted test.
    pub(crate) operations: u64,
    /// Duration of each fuzzer, in seconds.
    pub(crate) fuzz_seconds: u64,
}

/// Runs `parts`, or all of them, one after the other; each one's result is kept at once.
///
/// # Errors
/// An unknown part, a missing tool, and which parts failed.
pub(crate) fn run(parts: &[String], counts: Counts) -> Outcome {
    let known = known()?;
    if let Some(unknown) = parts.iter().find(|part| !known.contains(part)) {
        let known = known.join(", ");
        return Err(format!("there is no part {unknown:?} of a soak; there are {known}").into());
    }
    let parts = if parts.is_empty() { &known } else { parts };
    prepare(parts)?;
    let mut failed = Vec::new();
    for part in parts {
        let result = one(part, counts)?;
        println!("{part}: {}", result.verdict);
        keep(part, &result)?;
        if !result.passed {
            failed.push(part.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "failed: {} (logs in {})",
        failed.join(", "),
        logs().display()
    )
    .into())
}

/// The names of all parts: a test program of the machines each, what needs none, the fuzzers.
fn known() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut machines = Vec::new();
    for entry in fs::read_dir(workspace().join("lab/vmtests/tests"))? {
        let path = entry?.path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if let (true, Some(stem)) = (is_source, path.file_stem()) {
            machines.push(stem.to_string_lossy().into_owned());
        }
    }
    machines.sort();
    machines.insert(0, UNITS.to_owned());
    machines.insert(1, SERVER.to_owned());
    machines.insert(2, STATIC.to_owned());
    machines.extend(mutants::CRATES.map(|folder| format!("mutants-{folder}")));
    machines.push(FUZZ.to_owned());
    Ok(machines)
}

/// Fetches packages and compiles kernels, which takes minutes and belongs to no test.
fn prepare(parts: &[String]) -> Outcome {
    let wanted = |names: &[&str]| parts.iter().any(|part| names.contains(&part.as_str()));
    if wanted(&[FUZZ]) {
        fuzz::ready()?;
    }
    let of_mutants = |part: &String| mutants::folder(part).is_some();
    if parts.iter().any(of_mutants) {
        mutants::ready()?;
    }
    let needs_none = |part: &String| [UNITS, SERVER, STATIC].contains(&part.as_str());
    if parts
        .iter()
        .all(|part| needs_none(part) || of_mutants(part))
    {
        return Ok(());
    }
    test::prepare()?;
    if wanted(WITH_DEBUG_KERNEL) {
        Kernel::of(Flavour::Debug64k)?;
        if wanted(WITH_NEXT_DEBUG_KERNEL) {
            Kernel::of(Flavour::NextDebug64k)?;
        }
    }
    if wanted(&[WITH_RUST_KERNEL]) {
        Kernel::of(Flavour::RustAmd64)?;
    }
    if wanted(&[WITH_S390X]) {
        packages::ensure(Set::S390x)?;
    }
    if wanted(&[WITH_DKMS]) {
        for arch in Arch::ALL {
            packages::ensure(Set::Dkms(arch))?;
        }
    }
    Ok(())
}

/// Result of a part.
struct Soaked {
    passed: bool,
    /// In words, with the number of tests.
    verdict: String,
    took: Duration,
    said: Vec<String>,
}

fn one(part: &str, counts: Counts) -> Result<Soaked, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut log = Log::create(part)?;
    if let Some(folder) = mutants::folder(part) {
        let tried = mutants::run(folder)?;
        for name in &tried.unlisted {
            println!("not caught: {name}");
        }
        for name in &tried.timed_out {
            println!("timed out: {name}");
        }
        return Ok(Soaked {
            passed: tried.passed,
            verdict: tried.verdict,
            took: started.elapsed(),
            said: vec![tried.line],
        });
    }
    match part {
        FUZZ => match fuzz::run(&[], counts.fuzz_seconds)? {
            (true, lines) => log.said = lines,
            (false, lines) => {
                log.failed += 1;
                lines.iter().for_each(|line| println!("{line}"));
            }
        },
        UNITS => {
            for folder in test::MODULES {
                let manifest = format!("{folder}/Cargo.toml");
                log.follow(&mut cargo_test(&["--manifest-path", &manifest], counts))?;
            }
            log.follow(&mut cargo_test(&WITHOUT_MACHINES, counts))?;
        }
        SERVER => {
            let leaving = ["-p", "varia", "--test", "command", "leave_nothing_behind"];
            log.follow(&mut cargo_test(&leaving, counts))?;
        }
        STATIC => {
            let program = dist::program(host_arch()?, &dist::build_folder())?;
            let mut tests = test::cargo(&["-p", "varia", "--test", "command"]);
            log.follow(tests.env("VARIA_TEST_PROGRAM", program))?;
        }
        program => {
            let selection = ["-p", MACHINE_TESTS, "--test", program];
            log.follow(&mut cargo_test(&selection, counts))?;
        }
    }
    Ok(log.result(started.elapsed()))
}

fn cargo_test(selection: &[&str], counts: Counts) -> Command {
    let mut cargo = test::cargo(selection);
    cargo
        .args(["--", "--include-ignored", "--show-output"])
        .env("VARIA_COUNT", counts.operations.to_string())
        .env("VARIA_TIMES", TIMES.to_string());
    cargo
}

/// Where each part's whole output is.
fn logs() -> PathBuf {
    target_folder().join("soak")
}

/// A part's output, and what has been counted in it.
struct Log {
    part: String,
    file: fs::File,
    passed: u64,
    failed: u64,
    said: Vec<String>,
}

impl Log {
    fn create(part: &str) -> Result<Self, Box<dyn std::error::Error>> {
        fs::create_dir_all(logs())?;
        Ok(Self {
            part: part.to_owned(),
            file: fs::File::create(logs().join(format!("{part}.log")))?,
            passed: 0,
            failed: 0,
            said: Vec::new(),
        })
    }

    /// Runs `command`, whose standard output goes to the log.
    fn follow(&mut self, command: &mut Command) -> Outcome {
        let mut progress = Progress::start(format!("soak {}, lines", self.part), Unit::Items, 0);
        let (before, mut lines) = (self.passed + self.failed, 0);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("cargo has no output")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            writeln!(self.file, "{line}")?;
            self.take(&line);
            lines += 1;
            progress.set(lines);
        }
        progress.finish();
        let status = child.wait()?;
        if !status.success() && self.failed == 0 {
            // it did not come to its tests
            self.failed += 1;
        }
        if status.success() && self.passed + self.failed == before {
            return Err(format!("{} ran no test", self.part).into());
        }
        Ok(())
    }

    fn result(self, took: Duration) -> Soaked {
        let verdict = match (self.failed, self.passed) {
            (0, 0) => "passed".to_owned(),
            (0, passed) => format!("{passed} passed"),
            (failed, passed) => format!("**{failed} failed**, {passed} passed"),
        };
        Soaked {
            passed: self.failed == 0,
            verdict,
            took,
            said: self.said,
        }
    }

    fn take(&mut self, line: &str) {
        if let Some(said) = line.strip_prefix(RESULT) {
            self.said.push(said.to_owned());
        }
        let Some(summary) = line.strip_prefix("test result: ") else {
            return;
        };
        for piece in summary.split(['.', ';']) {
            let mut words = piece.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

/// Puts the part's row into the page, in the place of the one that it had.
fn keep(part: &str, result: &Soaked) -> Outcome {
    let page = workspace().join("docs/soak.md");
    let text = fs::read_to_string(&page)?;
    let row = format!(
        "| {part} | {} | {} | {} | {} | {} |",
        result.verdict,
        output_of("date", &["-u", "+%Y-%m-%d"])?,
        commit()?,
        duration(result.took),
        result.said.join("<br>").replace('|', "\\|"),
    );
    let text = with_row(&text, &row, &known()?).ok_or("docs/soak.md has no table of parts")?;
    fs::write(page, text)?;
    Ok(())
}

/// The page with `row` among the others, in the order of `parts`; rows of parts that are no more
/// fall away. None if it has no table.
fn with_row(text: &str, row: &str, parts: &[String]) -> Option<String> {
    let head = format!("{TABLE_BEGINS}\n{RULE}\n");
    let (before, rest) = text.split_once(&head)?;
    let end = rest
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('|'))
        .map(str::len)
        .sum();
    let (old, after) = rest.split_at(end);
    let name = |row: &str| row.split('|').nth(1).map(|cell| cell.trim().to_owned());
    let mut rows: Vec<_> = old
        .lines()
        .filter(|line| name(line) != name(row))
        .chain([row])
        .filter_map(|line| {
            Some((
                parts
                    .iter()
                    .position(|part| Some(part) == name(line).as_ref())?,
                line,
            ))
        })
        .collect();
    rows.sort_unstable();
    let rows: String = rows.iter().map(|(_, row)| format!("{row}\n")).collect();
    Some(format!("{before}{head}{rows}{after}"))
}

/// Commit that is checked out, with a note if there are changes.
fn commit() -> Result<String, Box<dyn std::error::Error>> {
    let commit = output_of("git", &["rev-parse", "--short", "HEAD"])?;
    let status = output_of(
        "git",
        &["status", "--porcelain", "--", ".", ":!docs/soak.md"],
    )?;
    let changed = if status.is_empty() { "" } else { ", changed" };
    Ok(format!("{commit}{changed}"))
}

fn output_of(program: &str, arguments: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(workspace()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program} {}: {said}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_its_parts_last_one() {
        let parts = ["units", "bind", "fuzz"].map(str::to_owned);
        let page =
            format!("# Soak\n\n{TABLE_BEGINS}\n{RULE}\n| fuzz | a |\n| gone | b |\n\nMore.\n");
        let page = with_row(&page, "| bind | c |", &parts).unwrap();
        let page = with_row(&page, "| fuzz | d |", &parts).unwrap();
        let rows = "| bind | c |\n| fuzz | d |\n";
        assert_eq!(
            page,
            format!("# Soak\n\n{TABLE_BEGINS}\n{RULE}\n{rows}\nMore.\n")
        );
        assert_eq!(with_row("# Soak\n", "| bind | c |", &parts), None);
    }

    #[test]
    fn results_and_numbers_of_tests_are_taken_from_the_output() {
        let mut log = Log {
            part: "some".to_owned(),
            file: tempfile::tempfile().unwrap(),
            passed: 0,
            failed: 0,
            said: Vec::new(),
        };
        for line in [
            "result: 500 rounds",
            "other",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            log.take(line);
        }
        assert_eq!((log.passed, log.failed), (4, 2));
        assert_eq!(log.said, ["500 rounds"]);
    }

    #[test]
    fn the_page_has_the_table_and_every_part_that_needs_more_exists() {
        let page = fs::read_to_string(workspace().join("docs/soak.md")).unwrap();
        let parts = known().unwrap();
        for part in WITH_DEBUG_KERNEL.iter().chain([&WITH_DKMS]) {
            assert!(parts.iter().any(|known| known == part), "{part}");
        }
        assert!(with_row(&page, "| units |", &parts).is_some());
    }
}
