//! PCIe's Advanced Error Reporting: an error on the link of an open GPU reaches its user, with the
//! original driver and with ours alike, and a GPU that has recovered is checked before its memory is
//! used again, with ours alone.
//!
//! docs/upstream/aer-resume.md is the report of the difference.
//!
//! QEMU reports the error at the root port. Linux tells the driver of the function below, and that
//! signals the user's eventfd. After a fatal error Linux resets the link first; the driver is told of
//! no reset.

use std::time::Instant;

use varia_agent::applets::error_event::Signalled;
use varia_lab::{Arch, HANG, Task};
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::counters::Counters;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::qmp::Connection;

const MIB: u64 = 1 << 20;
/// The GPUs: a GH200, whose bus Linux does not reset, and a GB200, whose bus it does.
const GH200: usize = 0;
const GB200: usize = 1;
/// QEMU's names of an uncorrectable error that is not fatal, and of one that is.
const NOT_FATAL: &str = "COMP_TIME";
const FATAL: &str = "DLP";

/// A recovery from an error of a GPU that a process has in use.
struct Recovery {
    /// The process, which reads the GPU's memory once `armed` is removed.
    user: Task,
    armed: String,
    /// Number of times that the process was signalled.
    times: u64,
    /// Lines that the kernel's log got.
    log: String,
}

impl Recovery {
    /// Recovery with the user's read still to come.
    fn from(
        host: &Host,
        monitor: &mut Connection,
        driver: Driver,
        (gpu, error): (usize, &str),
    ) -> Result<Self> {
        let armed = format!("/tmp/armed-{driver:?}-{error}");
        let user = host.start("error-event", &[host.address(gpu), &armed])?;
        let until = |condition: &str| {
            let wait = format!("until {condition}; do sleep 0.1; done");
            host.vm.sh(&wait).map(drop)
        };
        until(&format!("[ -e {armed} ]"))?;
        let since = host.vm.sh("dmesg")?.lines().count();
        // QEMU's name of the GPU's root port
        let said = monitor.human(&format!("pcie_aer_inject_error rp-gpu{gpu} {error}"));
        let said = said.unwrap_or_else(|why| panic!("{driver:?}: {why}"));
        assert!(said.starts_with("OK"), "{driver:?}: {said}");
        until(&format!("[ -s {armed} ]"))?;
        let times = host.vm.read_text(&armed)?;
        // the user is told at the begin of a recovery, whose end the kernel tells
        let end = format!("tail -n +{} | grep -q 'device recovery'", since + 1);
        until(&format!("dmesg | {end}"))?;
        let log = host.vm.sh("dmesg")?;
        let log: Vec<_> = log.lines().skip(since).collect();
        let log = log.join("\n");
        println!("{driver:?}: {times} signals\n{log}");
        Ok(Self {
            user,
            armed,
            times: times.trim().parse().expect("a number of signals"),
            log,
        })
    }

    fn let_read(&self, host: &Host) -> Result<()> {
        host.vm.sh(&format!("rm {}", self.armed))?;
        Ok(())
    }
}

/// A fatal error of the GB200, whose link Linux resets.
fn link_reset(host: &Host, monitor: &mut Connection, driver: Driver) -> Result<Recovery> {
    assert_eq!(host.bind(GB200, driver)?, Ok(()));
    let recovery = Recovery::from(host, monitor, driver, (GB200, FATAL))?;
    let log = &recovery.log;
    assert_eq!(recovery.times, 1, "{driver:?}: {log}");
    assert!(log.contains("Root Port link has been reset (0)"), "{log}");
    Ok(recovery)
}

/// The original uses the memory after a reset of the link without a poll of the readiness.
fn original_after_link_reset(host: &Host, monitor: &mut Connection) -> Result<()> {
    let recovery = link_reset(host, monitor, Driver::Original)?;
    let polls = host.silicon(GB200).readiness_polls();
    recovery.let_read(host)?;
    let seen: Signalled = host.answer(&recovery.user)?;
    assert_eq!(seen.read, Ok(8), "{}", recovery.log);
    let polls = host.silicon(GB200).readiness_polls() - polls;
    assert_eq!(polls, 0, "the original checks: {}", recovery.log);
    host.unbind(GB200)
}

/// Each recovery asks for a check of the GPU's readiness, though no reset is told of. After a reset of
/// the link the check finds a GPU whose BARs no driver has restored, so that the read does not end
/// before the timeout.
fn aer_resume(host: &Host, monitor: &mut Connection) -> Result<()> {
    let count = |gpu: usize, name: &str| Counters::read(host, gpu).map(|all| all.get(name));
    let balances = |gpu: usize| -> Result<()> {
        let counters = Counters::read(host, gpu)?;
        assert_eq!(counters.broken_rules(), Vec::<String>::new());
        Ok(())
    };
    balances(GH200)?;
    let recoveries = count(GH200, "recoveries")?;
    assert_eq!(recoveries, 1, "of an error that is not fatal");
    let recovery = link_reset(host, monitor, Driver::Ours)?;
    let recoveries = count(GB200, "recoveries")?;
    assert_eq!(recoveries, 1, "a fatal error: {}", recovery.log);
    let [before, resets] = [count(GB200, "polls")?, count(GB200, "resets")?];
    recovery.let_read(host)?;
    let begin = Instant::now();
    while count(GB200, "polls")? == before {
        assert!(begin.elapsed() < HANG, "unchecked: {}", recovery.log);
    }
    host.vm.kill_task(&recovery.user)?;
    host.vm.wait(&recovery.user, HANG)?;
    balances(GB200)?;
    let after = count(GB200, "polls")?;
    println!(
        "result: a fatal error: {before} polls before it, {after} afterwards, {resets} resets told of"
    );
    host.unbind(GB200)
}

#[test]
fn an_error_on_the_link_is_signalled_to_the_user_as_the_original_does() -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let gb200 = profile::find("gb200").expect("a profile of the catalogue");
    let options = |mib: u64| Options {
        memory: Some(mib * MIB),
        ..Options::default()
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("qmp");
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let host = HostPlan::new(Arch::Aarch64, "aer")
        .gpu(gh200, options(1536), Memory::Real)
        .gpu(gb200, options(64), Memory::Real)
        // after a reset of the link a faster port of QEMU's never says again that the link is active
        .port_option("x-speed=5")
        .with(|vm| vm.qemu_args(["-qmp".to_owned(), qmp]))
        .boot()?;
    let mut monitor = Connection::open(&socket);
    for driver in [Driver::Original, Driver::Ours] {
        host.load(driver)?;
        assert_eq!(host.bind(GH200, driver)?, Ok(()));
        let recovery = Recovery::from(&host, &mut monitor, driver, (GH200, NOT_FATAL))?;
        recovery.let_read(&host)?;
        let seen: Signalled = host.answer(&recovery.user)?;
        let log = &recovery.log;
        assert_eq!((seen.times, &seen.read), (1, &Ok(8)), "{driver:?}: {log}");
        assert!(log.contains("AER"), "{driver:?}: {log}");
        match driver {
            Driver::Ours => aer_resume(&host, &mut monitor)?,
            _ => original_after_link_reset(&host, &mut monitor)?,
        }
        host.unbind(GH200)?;
    }
    host.power_off()
}
