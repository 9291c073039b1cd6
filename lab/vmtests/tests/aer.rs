//! PCIe's Advanced Error Reporting: an error on the link of an open GPU reaches its user, with the
//! original driver and with ours alike, and a GPU that has recovered is checked before its memory is
//! used again, with ours alone.
//!
//! QEMU reports the error at the root port. Linux tells the driver of the function below, and that
//! signals the user's eventfd. After a fatal error Linux resets the link first; the driver is told of
//! no reset.

use varia_agent::applets::error_event::Signalled;
use varia_lab::Arch;
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

/// Effects of an error that a GPU's user sees, and the lines that the kernel's log gets by the error.
fn signalled(
    host: &Host,
    monitor: &mut Connection,
    driver: Driver,
    (gpu, error): (usize, &str),
) -> Result<(Signalled, String)> {
    let armed = format!("/tmp/armed-{driver:?}-{error}");
    let task = host.start("error-event", &[host.address(gpu), &armed])?;
    let wait = format!("until [ -e {armed} ]; do sleep 0.1; done");
    host.vm.sh(&wait)?;
    let since = host.vm.sh("dmesg")?.lines().count();
    // QEMU's name of the GPU's root port
    let said = monitor.human(&format!("pcie_aer_inject_error rp-gpu{gpu} {error}"));
    let said = said.unwrap_or_else(|why| panic!("{driver:?}: {why}"));
    assert!(said.starts_with("OK"), "{driver:?}: {said}");
    let seen = host.answer(&task)?;
    // the user is told at the begin of a recovery, whose end the kernel tells
    let end = format!("tail -n +{} | grep -q 'device recovery'", since + 1);
    let wait = format!("until dmesg | {end}; do sleep 0.1; done");
    host.vm.sh(&wait)?;
    let log = host.vm.sh("dmesg")?;
    let log: Vec<_> = log.lines().skip(since).collect();
    println!("{driver:?}: {seen:?}\n{}", log.join("\n"));
    Ok((seen, log.join("\n")))
}

/// Each recovery asks for a check of the GPU's readiness, though no reset is told of.
fn aer_resume(host: &Host, monitor: &mut Connection) -> Result<()> {
    let counts = |gpu: usize| -> Result<[u64; 3]> {
        let counters = Counters::read(host, gpu)?;
        assert_eq!(counters.broken_rules(), Vec::<String>::new());
        Ok(["recoveries", "polls", "resets"].map(|name| counters.get(name)))
    };
    let [recoveries, ..] = counts(GH200)?;
    assert_eq!(recoveries, 1, "of an error that is not fatal");
    assert_eq!(host.bind(GB200, Driver::Ours)?, Ok(()));
    let (seen, log) = signalled(host, monitor, Driver::Ours, (GB200, FATAL))?;
    assert_eq!(seen.times, 1, "{log}");
    assert!(log.contains("Root Port link has been reset (0)"), "{log}");
    let [recoveries, polls, resets] = counts(GB200)?;
    println!("result: a fatal error: {seen:?}, {polls} polls, {resets} resets told of");
    assert_eq!(recoveries, 1, "a fatal error: {log}");
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
        let (seen, log) = signalled(&host, &mut monitor, driver, (GH200, NOT_FATAL))?;
        assert_eq!((seen.times, &seen.read), (1, &Ok(8)), "{driver:?}: {log}");
        assert!(log.contains("AER"), "{driver:?}: {log}");
        if driver == Driver::Ours {
            aer_resume(&host, &mut monitor)?;
        }
        host.unbind(GH200)?;
    }
    host.power_off()
}
