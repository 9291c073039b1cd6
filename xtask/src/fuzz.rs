//! `./x fuzz`: the fuzz targets, each for so long, as many at a time as there are processors.
//!
//! New inputs of a target go to a corpus of its own in the build folder; the committed corpus
//! is read and stays as it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::progress::{Progress, Unit};

use crate::Outcome;

/// Beyond the time that it was given, a target may take this long to end.
const GRACE: Duration = Duration::from_secs(120);

/// A target at work.
struct Running {
    target: String,
    child: Child,
    log: PathBuf,
    started: Instant,
}

/// The compiler and the tool are there.
///
/// # Errors
/// Tool to install.
pub(crate) fn ready() -> Outcome {
    let works = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo"]).args(arguments);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works(&["--version"]) {
        return Err("fuzzing needs a nightly compiler: rustup toolchain install nightly".into());
    }
    if !works(&["fuzz", "--version"]) {
        return Err("fuzzing needs cargo-fuzz: cargo install cargo-fuzz --locked".into());
    }
    Ok(())
}

/// Runs `targets`, or all of them, for `seconds` each, and prints what became of them.
///
/// # Errors
/// Tool that is missing, and that a target found something.
pub(crate) fn report(targets: &[String], seconds: u64) -> Outcome {
    let (passed, lines) = run(targets, seconds)?;
    lines.iter().for_each(|line| println!("{line}"));
    if passed {
        Ok(())
    } else {
        Err("fuzz targets found something (see above)".into())
    }
}

/// Runs `targets`, or all of them, for `seconds` each: whether all passed, and a line for each.
///
/// # Errors
/// Tool that is missing.
pub(crate) fn run(
    targets: &[String],
    seconds: u64,
) -> Result<(bool, Vec<String>), Box<dyn std::error::Error>> {
    ready()?;
    let known = list()?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        let known = known.join(", ");
        return Err(format!("there is no fuzz target {unknown:?}; there are {known}").into());
    }
    let mut waiting = if targets.is_empty() {
        known
    } else {
        targets.to_vec()
    };
    waiting.reverse();
    let progress = Progress::start("build the fuzz targets", Unit::Items, 0);
    if !cargo_fuzz(&["build"]).status()?.success() {
        return Err("the fuzz targets do not build (see above)".into());
    }
    progress.finish();
    let total = seconds * waiting.len() as u64;
    let mut progress = Progress::start("fuzz, in seconds of all targets", Unit::Items, total);
    let lanes = thread::available_parallelism().map_or(1, usize::from);
    let (mut running, mut results, mut over) = (Vec::new(), Vec::new(), 0);
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < lanes {
            let Some(target) = waiting.pop() else { break };
            running.push(start(target, seconds)?);
        }
        thread::sleep(Duration::from_millis(200));
        let mut still = Vec::new();
        for mut fuzzer in running {
            let late = fuzzer.started.elapsed() > Duration::from_secs(seconds) + GRACE;
            if late {
                fuzzer.child.kill()?;
            }
            match fuzzer.child.try_wait()? {
                None if !late => still.push(fuzzer),
                status => {
                    let passed = status.is_some_and(|status| status.success());
                    results.push(result(&fuzzer, passed)?);
                    over += seconds;
                }
            }
        }
        running = still;
        let now = running
            .iter()
            .map(|f| f.started.elapsed().as_secs().min(seconds));
        progress.set(over + now.sum::<u64>());
    }
    progress.finish();
    let passed = results.iter().all(|(passed, _)| *passed);
    Ok((passed, results.into_iter().map(|(_, line)| line).collect()))
}

fn cargo_fuzz(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "cargo", "fuzz"])
        .args(arguments)
        .current_dir(workspace());
    // those of the compiler that runs this, and not of the other
    for inherited in ["RUSTC", "RUSTDOC", "RUSTFLAGS", "CARGO", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(inherited);
    }
    command
}

fn list() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let listed = cargo_fuzz(&["list"]).stderr(Stdio::inherit()).output()?;
    let names: Vec<_> = String::from_utf8(listed.stdout)?
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    if names.is_empty() {
        return Err("cargo fuzz lists no target (see above)".into());
    }
    Ok(names)
}

fn start(target: String, seconds: u64) -> Result<Running, Box<dyn std::error::Error>> {
    let found = target_folder().join("fuzz-corpus").join(&target);
    fs::create_dir_all(&found)?;
    let log = found.with_extension("log");
    let file = File::create(&log)?;
    let committed = workspace().join("fuzz/corpus").join(&target);
    let child = cargo_fuzz(&["run", &target])
        .args([path(&found), path(&committed)])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .args(["-print_final_stats=1", "-max_len=2048", "-timeout=60"])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    Ok(Running {
        target,
        child,
        log,
        started: Instant::now(),
    })
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Returns true if a target passed, with a line for a report; of a target that failed, the end of its log.
fn result(fuzzer: &Running, passed: bool) -> Result<(bool, String), Box<dyn std::error::Error>> {
    let log = String::from_utf8_lossy(&fs::read(&fuzzer.log)?).into_owned();
    let target = &fuzzer.target;
    if !passed {
        let lines: Vec<_> = log.lines().collect();
        let end = lines
            .get(lines.len().saturating_sub(40)..)
            .unwrap_or(&lines);
        let place = fuzzer.log.display();
        return Ok((
            false,
            format!("{target}: {place} ends:\n{}", end.join("\n")),
        ));
    }
    let executed = log
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .ok_or_else(|| format!("{target} does not say how many inputs it ran"))?;
    let seconds = fuzzer.started.elapsed().as_secs();
    Ok((
        true,
        format!("{target}: {} inputs in {seconds} s", executed.trim()),
    ))
}
