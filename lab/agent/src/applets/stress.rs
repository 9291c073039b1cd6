//! `stress BDF PLAN`: everything that a VFIO user and the system can do to a device, at once.
//!
//! Threads read, write, map and touch its memory, switch its memory off and on, write its BARs,
//! let it sleep and wake it, and reset it in three ways. Each knows what it must never see:
//! - a byte of memory that no thread wrote there, or that the only writer of its offset did not write;
//! - a mapping that still shows memory which is switched off or asleep;
//! - memory before the time that the device needs after a reset has passed;
//! - an error number other than those that the operation may end with (`EAGAIN` of a read, say);
//! - an operation that does not end.
//!
//! The plan is a [`Plan`] as JSON; prints a [`Report`], as JSON on one line. All threads go on until
//! the threads of each name have done their count of operations, or until the first violation. With
//! [`End::Removal`] the function is removed from the bus at the end, while all of this goes on, and
//! comes back only by a rescan; with [`End::Gone`] the function does not even answer any more by
//! then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use actor::{Actor, Control};
use target::Target;

use super::answer;

mod actor;
mod control;
mod memory;
mod pattern;
mod target;

/// Order to the applet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Successful operations of the threads of each name after which all threads stop. A violation
    /// stops them earlier. Not used with [`End::Gone`], where the device decides when they stop.
    pub counts: BTreeMap<String, u64>,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Time that the device needs after a reset, in milliseconds: a VFIO user who sees the memory
    /// earlier sees memory that is not ready.
    pub ready_ms: u64,
    /// Longest time between two `VFIO_DEVICE_RESET`, in milliseconds.
    pub pause_ms: u64,
    /// Regions with the device's memory.
    pub memory: Vec<Memory>,
    /// End of the use.
    pub end: End,
}

/// End of the use of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It is closed.
    Close,
    /// The function is removed while it is used.
    Removal,
    /// The function goes from the bus by the silicon's fault, and is removed then, both while it is
    /// used. What takes its power or resets it is left out: for the answer of a device that is gone
    /// the kernel waits a minute. Accesses may end with `ENODEV`.
    Gone,
}

/// A region with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Index of the region.
    pub region: u32,
    /// Bytes of memory in it.
    pub length: u64,
    /// Bytes of its BAR, a power of two.
    pub size: u64,
}

/// Result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Violations of the rules.
    pub violations: Vec<String>,
    /// Operations of the threads, by the threads' names.
    pub actors: BTreeMap<String, Tally>,
    /// Duration of the removal after the device had been closed, in milliseconds.
    pub removal_ms: Option<u64>,
    /// Text of the driver's debugfs files `counters` and `readiness` before the device was closed
    /// for its removal, when no thread used the device any more.
    pub counters: Option<String>,
}

impl Report {
    /// Number of violations, and operations of each name, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut line = format!("{} violations", self.violations.len());
        for (name, tally) in &self.actors {
            line += &format!(", {name} {}", tally.done);
        }
        line
    }
}

/// Operations of one thread, or of several of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Operations that succeeded.
    pub done: u64,
    /// Operations that ended with an error number that they may end with.
    pub refused: BTreeMap<i32, u64>,
    /// Duration of the slowest operation, in milliseconds.
    pub slowest_ms: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.done += other.done;
        for (errno, count) in &other.refused {
            *self.refused.entry(*errno).or_default() += count;
        }
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
    }
}

/// Time for which a device that is gone is used before its removal begins.
const ABSENCE: Duration = Duration::from_secs(1);
/// Time for which the device is used after its removal has begun.
const REMOVAL: Duration = Duration::from_secs(3);
/// Time between two checks of the counts and of operations that do not end.
const WATCH: Duration = Duration::from_millis(100);

/// A thread: its name, how many of it, and what it does until it is told to stop.
type Part = (&'static str, usize, fn(&mut Actor, &Target));

/// Threads that use the open device.
const PARTS: [Part; 8] = [
    ("read", 2, memory::read),
    ("write", 2, memory::write),
    ("own", 1, memory::own),
    ("fault", 2, memory::fault),
    ("touch", 1, memory::touch),
    ("switch", 1, control::switch_memory),
    ("bar", 1, control::write_bars),
    ("config", 1, control::read_config),
];

/// Threads whose operations the device itself has to answer.
const ASKING: [Part; 3] = [
    ("power", 1, control::sleep_and_wake),
    ("state", 1, control::change_state),
    ("reset", 1, control::reset),
];

pub(super) fn run(arguments: &[String]) -> ExitCode {
    answer("stress", stress(arguments))
}

fn stress(arguments: &[String]) -> Result<Report, String> {
    let [bdf, plan] = arguments else {
        return Err("usage: stress BDF PLAN".into());
    };
    let plan: Plan = serde_json::from_str(plan).map_err(|e| format!("the plan: {e}"))?;
    let goes = plan.end == End::Gone;
    let folder = format!("/sys/bus/pci/devices/{bdf}");
    let debugfs = debugfs(&folder, bdf)?;
    let control = Arc::new(Control::default());
    let target = Arc::new(Target::open(bdf, &plan)?);

    let mut threads = Vec::new();
    let mut number = 0;
    let asking = ASKING.iter().filter(|_| !goes);
    for (name, count, part) in PARTS.iter().chain(asking).copied() {
        for _ in 0..count {
            number += 1;
            let (mut actor, target) = (control.actor(name, plan.seed, number), Arc::clone(&target));
            threads.push(thread::spawn(move || {
                part(&mut actor, &target);
                vec![actor.end()]
            }));
        }
    }
    // This one has no part in keeping the device open: it may wait for its end.
    let mut ways = ["flr", "bus"].map(|way| {
        number += 1;
        control.actor(way, plan.seed, number)
    });
    let removes = (plan.end != End::Close).then(|| format!("{folder}/remove"));
    let config = format!("{folder}/config");
    let sysfs = (!goes).then(|| {
        thread::spawn(move || {
            control::reset_by_sysfs(&mut ways, &folder);
            ways.map(Actor::end).into()
        })
    });

    if let Some(unknown) = plan.counts.keys().find(|name| !control.has(name)) {
        return Err(format!("there is no thread {unknown:?} to count"));
    }
    let over = || match goes {
        true => is_gone(&config),
        false => control.reached(&plan.counts),
    };
    watch(&control, over);
    let remover = removes.map(|path| {
        // Used on in its absence, and then in its removal.
        if goes {
            watch(&control, after(ABSENCE));
        }
        let remover = thread::spawn(move || {
            fs::write(&path, "1").map_err(|error| format!("{path}: {error}"))
        });
        watch(&control, after(REMOVAL));
        remover
    });
    control.stop();

    let mut report = Report::default();
    gather(&control, threads, &mut report)?;
    if remover.is_some() {
        report.counters = Some(counters(&debugfs)?);
    }
    // Closes the device, which the removal waits for, and with it who resets by sysfs.
    drop(target);
    let closed = Instant::now();
    if let Some(remover) = remover {
        remover.join().map_err(|_| "the remover panicked")??;
        report.removal_ms = Some(millis(closed));
    }
    gather(&control, sysfs.into_iter().collect(), &mut report)?;
    report.violations = control.violations();
    Ok(report)
}

/// Event that comes after a time.
fn after(time: Duration) -> impl Fn() -> bool {
    let started = Instant::now();
    move || started.elapsed() >= time
}

/// Waits until an event or the first violation; an operation that does not end is a violation.
fn watch(control: &Control, event: impl Fn() -> bool) {
    while !control.stopped() && !event() {
        thread::sleep(WATCH);
        control.look_for_the_stuck();
    }
}

/// Waits for threads to end and adds what they did. One that never ends is left behind.
fn gather(
    control: &Control,
    threads: Vec<JoinHandle<Vec<(&'static str, Tally)>>>,
    report: &mut Report,
) -> Result<(), String> {
    while threads.iter().any(|thread| !thread.is_finished()) {
        thread::sleep(WATCH);
        if control.look_for_the_stuck() {
            report.violations = control.violations();
            return Err(format!("{report:?}"));
        }
    }
    for thread in threads {
        for (name, tally) in thread.join().map_err(|_| "a thread panicked")? {
            let known = report.actors.entry(name.to_owned()).or_default();
            known.add(&tally);
        }
    }
    Ok(())
}

/// Returns true if a function's configuration, a file in sysfs, begins with all ones.
fn is_gone(config: &str) -> bool {
    let mut vendor = [0; 2];
    let read = File::open(config).and_then(|mut file| file.read_exact(&mut vendor));
    read.is_ok() && vendor == [0xff; 2]
}

/// Where debugfs shows the device. Its driver's name is in sysfs until the removal begins.
fn debugfs(folder: &str, bdf: &str) -> Result<String, String> {
    let link = format!("{folder}/driver");
    let driver = fs::read_link(&link).map_err(|error| format!("{link}: {error}"))?;
    let name = driver.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("/sys/kernel/debug/{name}/{bdf}"))
}

fn counters(folder: &str) -> Result<String, String> {
    let read = |name| {
        let path = format!("{folder}/{name}");
        fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    };
    Ok(read("counters")? + &read("readiness")?)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
