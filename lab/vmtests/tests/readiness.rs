//! GPUs that are not ready, late, or without their link: what the kernel's own driver does, what ours
//! does, and what the user-space runtime does.
//!
//! Each row of [`ROWS`] is a GPU of one machine: all waits of one driver run at the same time. The
//! clock of a GPU moves only when the test moves it.

#[path = "readiness/user_space.rs"]
mod user_space;

use std::sync::Arc;
use std::time::{Duration, Instant};

use varia_agent::applets::bind::Bound;
use varia_agent::applets::vfio_read::Seen;
use varia_agent::applets::{BEGUN, WRITTEN};
use varia_lab::{Arch, HANG, Task};
use varia_serve::{Endpoint, View};
use varia_silicon::profile::{self, Profile};
use varia_silicon::{Clock, Faults, ManualClock, Options, Readiness, Silicon};
use varia_spec::Errno;
use varia_spec::vfio::RegionIndex;
use varia_variant::{Decline, Millis, Refusal, Variant};
use varia_vmtests::clock::SleepClock;
use varia_vmtests::gpu::cxl_that_takes;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::{Result, report};

const GIB: u64 = 1 << 30;
const SIZE: u64 = GIB + GIB / 2;
const WORD: [u8; 8] = *b"readable";

/// Timeout of the readiness registers, in seconds.
const WAIT: u64 = 30;
/// Timeouts of CXL, in seconds: from the start to valid, and from valid to active by the profile.
const CXL_VALID: u64 = 1;
const CXL_ACTIVE: u64 = 4;
/// Code of the longest timeout from valid to active that CXL knows, 256 s: no wait of a late GPU
/// runs into it.
const PATIENT: u8 = 4;

/// Polls for which the test keeps a late GPU waiting: a driver sleeps for a second between two.
const POLLS: u64 = 3;
/// Time that a late GPU needs, on the clock of the user-space runtime.
const DELAY: Duration = Duration::from_secs(3);
/// Time that a late GPU needs, on its own clock.
const WARM_UP: Duration = Duration::from_secs(1);

/// A GPU's chip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chip {
    /// A profile of the catalogue.
    Named(&'static str),
    /// CXL with the longest timeout.
    PatientCxl,
}

const GH200: Chip = Chip::Named("gh200");
const GB200: Chip = Chip::Named("gb200");
const CXL: Chip = Chip::Named("cxl");

impl Chip {
    fn profile(self) -> Profile {
        match self {
            Self::Named(name) => find(name),
            Self::PatientCxl => cxl_that_takes(PATIENT),
        }
    }
}

/// State of a GPU, and the moment when it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Never ready.
    Dead,
    /// Ready, with its link down.
    LinkDown,
    /// Not ready when it is bound, and ready when its clock moves.
    Late,
    /// Ready when it is bound; its open resets it, and it is ready again when its clock moves.
    LateAfterReset,
    /// Ready when it is bound, and never again after its open resets it.
    DeadAfterReset,
    /// Valid but never active, and gone from the bus when its clock moves.
    Gone,
    /// Firmware says that the GPU has no memory.
    SizeZero,
}

impl State {
    fn options(self, clock: &Arc<impl Clock + 'static>) -> Options {
        let (readiness, faults) = match self {
            Self::Dead => (Readiness::Never, Faults::NONE),
            Self::LinkDown => (Readiness::Immediate, LINK_DOWN),
            Self::Late | Self::LateAfterReset | Self::DeadAfterReset => {
                (Readiness::After(WARM_UP), Faults::NONE)
            }
            Self::Gone => (Readiness::Immediate, GONE),
            Self::SizeZero => (Readiness::Immediate, SIZE_ZERO),
        };
        Options {
            memory: Some(SIZE),
            readiness,
            faults,
            clock: Arc::clone(clock) as Arc<_>,
            ..Options::default()
        }
    }

    /// Returns true if the GPU is ready when it is bound, and is opened and read then.
    const fn is_read(self) -> bool {
        matches!(self, Self::LateAfterReset | Self::DeadAfterReset)
    }
}

/// End of a probe or, if the GPU is read, of the read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// `ETIME` after so many seconds.
    TimesOut(u64),
    /// It succeeds, once the clock has moved.
    Waits,
    /// `ENODEV`, once the clock has moved.
    NoDevice,
    /// The GPU is served as a plain PCI device.
    FallsBack,
}

impl End {
    /// Text that our module logs of a probe that ends so.
    fn log(self) -> Option<String> {
        let errno = match self {
            Self::TimesOut(_) => Errno::ETIME,
            Self::NoDevice => Errno::ENODEV,
            Self::Waits => return None,
            Self::FallsBack => return Some(Decline::LinkDown.to_string()),
        };
        Some(format!("not served: {}", Refusal::NotReady { errno }))
    }
}

/// A GPU of the machine.
struct Row {
    what: &'static str,
    chip: Chip,
    state: State,
    end: End,
}

const fn row(what: &'static str, chip: Chip, state: State, end: End) -> Row {
    Row {
        what,
        chip,
        state,
        end,
    }
}

#[rustfmt::skip]
const ROWS: [Row; 12] = [
    row("a dead GH200", GH200, State::Dead, End::TimesOut(WAIT)),
    row("a dead GB200", GB200, State::Dead, End::TimesOut(WAIT)),
    row("a GB300 that CXL never calls valid", CXL, State::Dead, End::TimesOut(CXL_VALID)),
    row("a GH200 without its link", GH200, State::LinkDown, End::TimesOut(WAIT)),
    row("a late GH200", GH200, State::Late, End::Waits),
    row("a GH200 late after a reset", GH200, State::LateAfterReset, End::Waits),
    row("a GH200 dead after a reset", GH200, State::DeadAfterReset, End::TimesOut(WAIT)),
    row("a GH200 without memory", GH200, State::SizeZero, End::FallsBack),
    row("a GB300 that CXL never calls active", CXL, State::LinkDown, End::TimesOut(CXL_ACTIVE)),
    row("a GB300 that CXL calls active late", Chip::PatientCxl, State::Late, End::Waits),
    row("a GB300 that goes while it is waited for", Chip::PatientCxl, State::Gone, End::NoDevice),
    row("a GB300 that CXL calls active late after a reset", Chip::PatientCxl, State::LateAfterReset, End::Waits),
];

const LINK_DOWN: Faults = Faults {
    c2c_down: true,
    ..Faults::NONE
};
const GONE: Faults = Faults {
    c2c_down: true,
    gone_after: Some(WARM_UP),
    ..Faults::NONE
};
const SIZE_ZERO: Faults = Faults {
    size_zero: true,
    ..Faults::NONE
};
const NO_PROPERTIES: Faults = Faults {
    no_properties: true,
    ..Faults::NONE
};

fn find(name: &str) -> Profile {
    profile::find(name)
        .expect("a profile of the catalogue")
        .clone()
}

/// Numbers of the rows that are so.
fn which(is_so: impl Fn(&Row) -> bool) -> Vec<usize> {
    let rows = ROWS.iter().enumerate().filter(|(_, row)| is_so(row));
    rows.map(|(number, _)| number).collect()
}

/// Machine with a GPU for each row, and their clocks.
fn machine(driver: Driver) -> Result<(Host, Vec<Arc<ManualClock>>)> {
    let clocks: Vec<Arc<ManualClock>> = ROWS.iter().map(|_| Arc::default()).collect();
    let mut plan = HostPlan::new(Arch::Aarch64, &format!("waits with {driver:?}"));
    for (row, clock) in ROWS.iter().zip(&clocks) {
        let memory = if row.state.is_read() {
            Memory::Real
        } else {
            Memory::Absent
        };
        plan = plan.gpu(&row.chip.profile(), row.state.options(clock), memory);
    }
    let host = plan.boot()?;
    host.load(driver)?;
    for gpu in which(|row| row.state.is_read()) {
        let memory = host.memory(gpu);
        memory.write(0, &WORD).expect("the memory's first bytes");
        clocks[gpu].advance(WARM_UP);
        assert_eq!(host.bind(gpu, driver)?, Ok(()), "{}", ROWS[gpu].what);
    }
    Ok((host, clocks))
}

/// Everything that waits in the machine.
struct Started {
    /// Number of polls that each GPU had had before.
    polls: Vec<u64>,
    /// GPUs that are read, and their readers.
    readings: Vec<(usize, Task)>,
    /// GPUs that are probed, all by one task.
    probed: Vec<usize>,
    probes: Task,
}

/// Number of polls that each GPU has had so far.
fn polls(host: &Host) -> Vec<u64> {
    let gpus = 0..ROWS.len();
    gpus.map(|gpu| host.silicon(gpu).readiness_polls())
        .collect()
}

/// Starts everything that waits, and moves the clocks once all of it has waited for a while.
fn start(host: &Host, driver: Driver, clocks: &[Arc<ManualClock>]) -> Result<Started> {
    let before = polls(host);
    let mut readings = Vec::new();
    for gpu in which(|row| row.state.is_read()) {
        // the open resets it; configuration writes go on beside the read
        let arguments = [host.address(gpu), "4", "0", "beside"];
        readings.push((gpu, host.start("vfio-read", &arguments)?));
    }
    let probed = which(|row| !row.state.is_read() && row.end != End::FallsBack);
    let mut arguments = vec![driver.name()];
    arguments.extend(probed.iter().map(|gpu| host.address(*gpu)));
    let probes = host.start("bind", &arguments)?;
    let count = readings.len() + probed.len();
    host.vm.sh(&format!(
        "until [ $(ls {BEGUN} | wc -l) -eq {count} ]; do sleep 0.1; done"
    ))?;
    for (gpu, _) in &readings {
        if !blocks(driver, &ROWS[*gpu]) {
            let file = format!("{WRITTEN}/{}", host.address(*gpu));
            let wait = format!("until [ -e {file} ]; do sleep 0.1; done");
            host.vm.sh(&wait)?;
        }
    }
    let late = which(|row| matches!(row.end, End::Waits | End::NoDevice));
    let began = Instant::now();
    while late
        .iter()
        .any(|gpu| polls(host)[*gpu] - before[*gpu] < POLLS)
    {
        assert!(began.elapsed() < HANG, "{before:?}, then {:?}", polls(host));
        std::thread::sleep(Duration::from_millis(50));
    }
    for gpu in late {
        clocks[gpu].advance(WARM_UP);
    }
    Ok(Started {
        polls: before,
        readings,
        probed,
        probes,
    })
}

/// Returns true if the driver polls with the lock held: the original does for BAR0, and does not for
/// CXL.
fn blocks(driver: Driver, row: &Row) -> bool {
    driver == Driver::Original && row.chip == GH200
}

fn assert_read(row: &Row, read: &Seen) {
    match row.end {
        End::Waits => {
            assert_eq!((read.errno, &*read.bytes), (None, &WORD[..]), "{read:?}");
            assert!(read.millis >= 1000, "it did not wait: {read:?}");
        }
        _ => assert_eq!(read.errno, Some(Errno::ETIME.get()), "{read:?}"),
    }
}

/// Duration that nothing else in a machine has, in milliseconds.
const LONG: u64 = 20_000;

/// Checks the configuration writes that went on while a read waited. With the lock held during the
/// poll the first write waits as long; without it, many writes end.
fn assert_beside(what: &str, read: &Seen, blocks: bool) {
    let Seen { millis, beside, .. } = read;
    println!("result: {what}: {millis} ms, meanwhile {beside:?}");
    if blocks {
        assert!(beside.slowest_millis > millis / 2, "{what}: {read:?}");
    } else {
        assert!(beside.writes > 5, "{what}: {read:?}");
        // A short wait is no longer than what a busy machine may take for a write.
        if *millis > LONG {
            assert!(beside.slowest_millis < millis / 2, "{what}: {read:?}");
        }
    }
}

/// Most polls beyond one for each second of a timeout, on a machine of any speed: the first, and one
/// or two around the deadline.
const MORE_POLLS: u64 = 3;

/// Checks the end of a probe. `longest` is one that waited for [`WAIT`] at the same time: a shorter
/// timeout ends before it on a machine of any speed.
fn assert_bound(row: &Row, bound: &Bound, longest: u64) {
    let Row { what, end, .. } = row;
    let (errno, least) = match end {
        End::TimesOut(seconds) => (Some(Errno::ETIME.get()), seconds * 1000),
        End::NoDevice => (Some(Errno::ENODEV.get()), 1000),
        End::Waits | End::FallsBack => (None, 1000),
    };
    assert_eq!(bound.errno, errno, "{what}: {bound:?}");
    assert!(bound.millis >= least, "{what}: {bound:?}");
    if *end != End::TimesOut(WAIT) {
        assert!(bound.millis < longest, "{what}: {bound:?}, {longest} ms");
    }
}

/// Everything that waits, at the same time; then a GPU whose firmware says that it has no memory.
fn waits(driver: Driver) -> Result<()> {
    let (host, clocks) = machine(driver)?;
    let Started {
        polls: before,
        readings,
        probed,
        probes,
    } = start(&host, driver, &clocks)?;
    for (gpu, reading) in readings {
        let row = &ROWS[gpu];
        let read: Seen = host.answer(&reading)?;
        assert_read(row, &read);
        let blocks = blocks(driver, row);
        assert_beside(&format!("{driver:?}, {}", row.what), &read, blocks);
    }
    let bound: Vec<Bound> = host.answer(&probes)?;
    assert_eq!(bound.len(), probed.len());
    let longest = probed.iter().zip(&bound);
    let longest = longest
        .filter(|(gpu, _)| ROWS[**gpu].end == End::TimesOut(WAIT))
        .map(|(_, bound)| bound.millis)
        .min()
        .expect("a row with the longest timeout");
    for (gpu, bound) in probed.iter().zip(&bound) {
        assert_bound(&ROWS[*gpu], bound, longest);
    }
    for (gpu, now) in polls(&host).into_iter().enumerate() {
        if let Row {
            what,
            end: End::TimesOut(seconds),
            ..
        } = ROWS[gpu]
        {
            let polls = now - before[gpu];
            println!("result: {driver:?}, {what}: {polls} polls for {seconds} s");
            assert!(
                (1..=seconds + MORE_POLLS).contains(&polls),
                "{what}: {polls} polls for {seconds} s"
            );
        }
    }

    // The late ones are served like the ones that were ready.
    let served = |chip: Chip| which(|row| row.chip == chip && row.end == End::Waits);
    for (chip, size) in [(GH200, GIB / 2), (Chip::PatientCxl, 2 * GIB)] {
        let reports = report::of_kernel(&host, &served(chip))?;
        let [late, late_after_reset] = &reports[..] else {
            panic!("two {chip:?} are served: {reports:?}");
        };
        assert_eq!(late, late_after_reset);
        assert_eq!(late.regions[4].size, size);
    }
    for gpu in which(|row| row.end == End::FallsBack) {
        falls_back(&host, gpu, driver)?;
    }
    if driver == Driver::Ours {
        let log = host.vm.sh("dmesg")?;
        for gpu in which(|row| !row.state.is_read()) {
            if let Some(line) = ROWS[gpu].end.log() {
                assert_log(&log, host.address(gpu), &line);
            }
        }
    }
    host.power_off()
}

/// Checks that the driver serves the GPU as vfio-pci does.
fn falls_back(host: &Host, gpu: usize, driver: Driver) -> Result<()> {
    host.load(Driver::VfioPci)?;
    assert_eq!(host.bind(gpu, Driver::VfioPci)?, Ok(()), "vfio-pci");
    let plain = report::of_kernel(host, &[gpu])?;
    host.unbind(gpu)?;
    assert_eq!(host.bind(gpu, driver)?, Ok(()), "{driver:?} falls back");
    assert_eq!(
        report::of_kernel(host, &[gpu])?,
        plain,
        "{driver:?}, vfio-pci"
    );
    Ok(())
}

fn assert_log(log: &str, address: &str, text: &str) {
    let mut lines = log.lines().filter(|line| line.contains(address));
    assert!(
        lines.any(|line| line.contains(text)),
        "no line with {address} and {text:?} in:\n{log}"
    );
}

fn faulty(faults: Faults) -> Options {
    Options {
        memory: Some(SIZE),
        faults,
        ..Options::default()
    }
}

/// A GPU without properties, as inside a VM, and afterwards one with them.
fn without_properties(driver: Driver) -> Result<(Host, String)> {
    let gh200 = find("gh200");
    let host = HostPlan::new(Arch::Aarch64, &format!("no properties with {driver:?}"))
        .gpu(&gh200, faulty(NO_PROPERTIES), Memory::Absent)
        .gpu(&gh200, faulty(Faults::NONE), Memory::Absent)
        .boot()?;
    host.load(driver)?;
    falls_back(&host, 0, driver)?;
    assert_eq!(host.bind(1, driver)?, Ok(()));
    let opened = host.vm.run(&varia_lab::GuestCommand::applet(
        "vfio-info",
        &[host.address(1)],
    ))?;
    let said = String::from_utf8_lossy(&[opened.stdout, opened.stderr].concat()).into_owned();
    Ok((host, said))
}

#[test]
fn the_original_fails_or_falls_back_when_a_gpu_is_not_ready() -> Result<()> {
    waits(Driver::Original)
}

#[test]
fn unlocked_poll_our_module_waits_as_the_original_does_and_holds_up_no_config_write() -> Result<()>
{
    waits(Driver::Ours)
}

#[test]
fn after_a_fallback_the_original_opens_nothing_more() -> Result<()> {
    let (host, said) = without_properties(Driver::Original)?;
    assert!(said.contains("EBUSY"), "the next GPU's open: {said}");
    host.power_off()
}

#[test]
fn no_empty_range_after_a_fallback_our_module_opens_the_next_gpu() -> Result<()> {
    let (host, said) = without_properties(Driver::Ours)?;
    assert!(said.contains("\"regions\""), "the next GPU's open: {said}");
    let log = host.vm.sh("dmesg")?;
    assert_log(
        &log,
        host.address(0),
        "firmware property nvidia,gpu-mem-base-pa",
    );
    assert_log(&log, host.address(0), "served as a plain PCI device");
    host.power_off()
}
