//! Test programs of the workspace: building them, running several at a time, and the time of each.
//!
//! Output of a program is collected, and printed whole when the program ends. One program more runs
//! than there are processors: many wait for a device, a guest or a timeout for a part of their time.

use std::collections::VecDeque;
use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use varia_lab::VMS;
use varia_lab::agent_build::target_folder;

use crate::test::MACHINE_TESTS;

/// Programs that take longest, which are started first, in this order.
const LONG: [&str; 14] = [
    "host_plans",
    "decisions",
    "differential",
    "operator",
    "concurrency",
    "readiness",
    "bind",
    "kernel",
    "selftests",
    "package",
    "pci_core",
    "nested",
    "original",
    "second",
];
/// Time between two lines that say what runs.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Rows of the table of times.
const ROWS: usize = 15;

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    package: String,
    target: String,
    /// Folder of the package, where the program runs.
    folder: PathBuf,
    executable: PathBuf,
}

impl Program {
    /// The program that a line of `cargo test --no-run --message-format=json` names, if it names
    /// one.
    fn of(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let executable = message["executable"].as_str()?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
        let target = message["target"]["name"].as_str()?;
        Some(Self {
            package: package(message["package_id"].as_str()?)?,
            target: target.to_owned(),
            folder: folder.to_owned(),
            executable: executable.into(),
        })
    }

    /// Package and target.
    fn name(&self) -> String {
        format!("{} {}", self.package, self.target)
    }

    /// Order of starting: long programs, then the others that boot VMs, then the rest.
    fn rank(&self) -> usize {
        let long = LONG.iter().position(|target| *target == self.target);
        let boots = self.package == MACHINE_TESTS;
        long.unwrap_or(LONG.len() + usize::from(!boots))
    }
}

/// Name in a package id: `path+file:///folder/name#0.1.0`, or `...#name@0.1.0`.
fn package(id: &str) -> Option<String> {
    let (path, version) = id.split_once('#')?;
    let name = match version.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next()?,
    };
    Some(name.to_owned())
}

/// Number of programs that run at a time.
pub(crate) fn lanes() -> usize {
    1 + thread::available_parallelism().map_or(1, usize::from)
}

/// Builds the test programs that `cargo`, a `cargo test`, selects, and lists them in the order of
/// starting: those that take longest first.
///
/// # Errors
/// That they do not build; the compiler says why.
pub(crate) fn build(mut cargo: Command) -> Result<Vec<Program>, Box<dyn std::error::Error>> {
    let arguments = ["--no-run", "--message-format=json-render-diagnostics"];
    let mut child = cargo.args(arguments).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("cargo has no output")?;
    let mut programs = Vec::new();
    for line in BufReader::new(output).lines() {
        programs.extend(Program::of(&line?));
    }
    if !child.wait()?.success() {
        return Err("the tests do not build (see above)".into());
    }
    programs.sort_by_key(|it| (it.rank(), it.name()));
    Ok(programs)
}

/// A program that runs.
struct Running {
    program: Program,
    child: Child,
    started: Instant,
    output: File,
    /// File for the times of the processor.
    times: tempfile::NamedTempFile,
}

impl Running {
    fn start(program: Program) -> std::io::Result<Self> {
        let output = tempfile::tempfile()?;
        let times = tempfile::NamedTempFile::new()?;
        // the shell's `times` knows what the program and its VMs took of the processors
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "\"$0\"; code=$?; times >\"$1\"; exit $code"])
            .arg(&program.executable)
            .arg(times.path())
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .env("CARGO_PKG_NAME", &program.package)
            .env("CARGO_TARGET_DIR", target_folder())
            .envs(
                env::var_os(VMS)
                    .is_none()
                    .then(|| (VMS, lanes().to_string())),
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        Ok(Self {
            program,
            child: shell.spawn()?,
            started: Instant::now(),
            output,
            times,
        })
    }

    /// Prints the output.
    fn end(mut self, status: ExitStatus) -> std::io::Result<Ended> {
        let took = self.started.elapsed();
        let mut text = Vec::new();
        self.output.rewind()?;
        self.output.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let name = self.program.name();
        println!("     Running {name} ({} s)\n{text}", took.as_secs());
        let times = std::fs::read_to_string(self.times.path())?;
        Ok(Ended {
            name,
            passed: status.success(),
            took,
            processor: processor(&times),
        })
    }

    fn describe(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        format!(
            "{} ({seconds} s): {}",
            self.program.name(),
            self.last_line()
        )
    }

    /// Last line of the output so far. The program shares the file's position, which stays.
    fn last_line(&self) -> String {
        let length = self.output.metadata().map_or(0, |it| it.len());
        let mut end = [0; 1024];
        let begin = length.saturating_sub(end.len() as u64);
        let count = self.output.read_at(&mut end, begin).unwrap_or(0);
        let text = String::from_utf8_lossy(end.get(..count).unwrap_or_default());
        text.trim_end().lines().next_back().unwrap_or("").to_owned()
    }
}

impl Drop for Running {
    /// Ends the program if it still runs, and with it the shell.
    fn drop(&mut self) {
        let id = self.child.id();
        let file = format!("/proc/{id}/task/{id}/children");
        // The shell may not have started the program yet.
        while let Ok(None) = self.child.try_wait() {
            let children = std::fs::read_to_string(&file).unwrap_or_default();
            if !children.is_empty() {
                let ids = children.split_whitespace();
                let _ = Command::new("kill").args(ids).status();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// Package and target.
    pub(crate) name: String,
    /// True if all tests of the program passed.
    pub(crate) passed: bool,
    took: Duration,
    /// Time of the processors, the VMs' included; none if it was killed.
    processor: Option<Duration>,
}

/// Runs all, `lanes` at a time, and prints the output of each.
///
/// # Errors
/// A program that can't be started.
pub(crate) fn run(programs: Vec<Program>, lanes: usize) -> std::io::Result<Vec<Ended>> {
    let total = programs.len();
    let mut waiting = VecDeque::from(programs);
    let mut running: Vec<Running> = Vec::new();
    let mut ended = Vec::new();
    let mut spoken = Instant::now();
    while !(waiting.is_empty() && running.is_empty()) {
        let free = lanes.saturating_sub(running.len()).min(waiting.len());
        for program in waiting.drain(..free) {
            println!("start {}", program.name());
            running.push(Running::start(program)?);
        }
        thread::sleep(Duration::from_millis(50));
        let mut still = Vec::new();
        for mut program in running {
            match program.child.try_wait()? {
                None => still.push(program),
                Some(status) => ended.push(program.end(status)?),
            }
        }
        running = still;
        if spoken.elapsed() >= HEARTBEAT && !running.is_empty() {
            println!("{} of {total} programs ended; running:", ended.len());
            for program in &running {
                println!("  {}", program.describe());
            }
            spoken = Instant::now();
        }
    }
    Ok(ended)
}

/// Table of the programs that took longest.
pub(crate) fn table(ended: &[Ended]) -> String {
    let mut longest: Vec<_> = ended.iter().collect();
    longest.sort_by_key(|it| std::cmp::Reverse(it.took));
    let mut text = String::from("What took longest, in seconds, and the time of the processors:\n");
    for it in longest.iter().take(ROWS) {
        let processor = it.processor.map_or("?".to_owned(), seconds);
        // writing to a String can't fail
        let _ = writeln!(text, "{:>7} {processor:>7}  {}", seconds(it.took), it.name);
    }
    let processor: Duration = ended.iter().filter_map(|it| it.processor).sum();
    let _ = write!(
        text,
        "{} programs; the processors worked for {} s",
        ended.len(),
        seconds(processor)
    );
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64())
}

/// Time of the processors by the shell's `times`, whose second line is that of the ended children.
fn processor(times: &str) -> Option<Duration> {
    let words = times.lines().nth(1)?.split_whitespace();
    let part = |word: &str| {
        let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
        let minutes: f64 = minutes.parse().ok()?;
        let seconds: f64 = seconds.replace(',', ".").parse().ok()?;
        Duration::try_from_secs_f64(60.0 * minutes + seconds).ok()
    };
    words.map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(package: &str, target: &str) -> Program {
        Program {
            package: package.to_owned(),
            target: target.to_owned(),
            folder: "/".into(),
            executable: "/bin/true".into(),
        }
    }

    /// Writes a script by another process: a child of this one may keep a file open, and an open
    /// file can't be run.
    fn write_program(path: &Path, text: &str) {
        let write = "printf %s \"$1\" >\"$0\"; chmod +x \"$0\"";
        let mut shell = Command::new("sh");
        let written = shell.args(["-c", write]).arg(path).arg(text).status();
        assert!(written.unwrap().success());
    }

    #[test]
    fn a_program_is_read_from_what_cargo_says_and_others_are_none() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///v/lab/vmtests#varia-vmtests@0.1.0","manifest_path":"/v/lab/vmtests/Cargo.toml","target":{"name":"aer"},"profile":{"test":true},"executable":"/v/target/aer-1"}"#;
        let expected = Program {
            folder: "/v/lab/vmtests".into(),
            executable: "/v/target/aer-1".into(),
            ..program("varia-vmtests", "aer")
        };
        assert_eq!(Program::of(line), Some(expected));
        assert_eq!(
            Program::of(&line.replace("\"test\":true", "\"test\":false")),
            None
        );
        assert_eq!(Program::of("not JSON"), None);
        let id = "path+file:///v/xtask#0.1.0";
        assert_eq!(package(id).as_deref(), Some("xtask"));
    }

    /// Each of two programs waits for the other to be there, so that neither ends alone; and two
    /// that fail beside another one pass where one runs at a time.
    #[test]
    fn as_many_programs_run_at_once_as_there_are_lanes() {
        let folder = tempfile::tempdir().unwrap();
        let waits = |mine: &str, others: &str| {
            let script = folder.path().join(mine);
            let at = |name: &str| folder.path().join(format!("{name}.runs"));
            let (mine, others) = (at(mine), at(others));
            let text = format!(
                "#!/bin/sh\n: >'{}'\ni=0\nuntil [ -e '{}' ]; do\ni=$((i+1))\n\
                 [ $i -lt 60000 ] || exit 1\nsleep 0.01\ndone\n",
                mine.display(),
                others.display()
            );
            write_program(&script, &text);
            let mut waits = program("some", "waits");
            waits.executable = script;
            waits
        };
        let ended = run(vec![waits("one", "two"), waits("two", "one")], 2).unwrap();
        assert!(ended.iter().all(|it| it.passed), "{ended:?}");
        let script = folder.path().join("alone");
        let lock = folder.path().join("lock").display().to_string();
        let text = format!("#!/bin/sh\nmkdir '{lock}' || exit 1\nsleep 0.2\nrmdir '{lock}'\n");
        write_program(&script, &text);
        let alone = || Program {
            executable: script.clone(),
            ..program("some", "alone")
        };
        let ended = run(vec![alone(), alone()], 1).unwrap();
        assert!(ended.iter().all(|it| it.passed), "{ended:?}");
    }

    #[test]
    fn every_program_with_a_place_in_the_order_exists() {
        let folder = varia_lab::agent_build::workspace();
        for target in LONG {
            let tests = ["lab/vmtests/tests", "lab/mutants/tests"];
            let file = |tests: &&str| folder.join(tests).join(format!("{target}.rs")).exists();
            assert!(tests.iter().any(file), "{target}");
        }
    }

    #[test]
    fn programs_run_and_their_ends_are_told() {
        let mut fails = program("some", "fails");
        fails.executable = "/bin/false".into();
        let ended = run(vec![program("some", "passes"), fails], 1).unwrap();
        let mut ends: Vec<_> = ended.iter().map(|it| (&*it.name, it.passed)).collect();
        ends.sort_unstable();
        assert_eq!(ends, [("some fails", false), ("some passes", true)]);
        assert!(ended.iter().all(|it| it.processor.is_some()), "{ended:?}");
        assert!(table(&ended).contains("some passes"));
    }

    #[test]
    fn a_program_that_is_not_waited_for_is_ended() {
        let mut sleeps = program("some", "sleeps");
        let folder = tempfile::tempdir().unwrap();
        sleeps.executable = folder.path().join("sleeps");
        write_program(
            &sleeps.executable,
            "#!/bin/sh\necho one\necho $$\nexec sleep 1000\n",
        );
        let running = Running::start(sleeps).unwrap();
        let id = loop {
            if let Ok(id) = running.last_line().parse::<u32>() {
                break id;
            }
            thread::sleep(Duration::from_millis(1));
        };
        let folder = PathBuf::from(format!("/proc/{id}"));
        assert!(folder.exists());
        drop(running);
        assert!(!folder.exists());
    }

    #[test]
    fn the_time_of_processors_is_that_of_the_children() {
        let times = "0m0.00s 0m0.00s\n1m2.50s 0m1.25s\n";
        assert_eq!(processor(times), Some(Duration::from_millis(63_750)));
        assert_eq!(processor(""), None);
    }
}
