//! PCIe's Advanced Error Reporting: an error on the link of an open GPU reaches its user, with the
//! original driver and with ours alike.
//!
//! QEMU reports it at the root port. Linux tells the driver of the function below, and that signals
//! the user's eventfd.

use varia_agent::applets::error_event::Signalled;
use varia_lab::Arch;
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::qmp::Connection;

const MIB: u64 = 1 << 20;
/// QEMU's name of the GPU's root port.
const PORT: &str = "rp-gpu0";

/// Effects of an error that a GPU's user sees, and the lines that the kernel's log gets by the error.
fn signalled(host: &Host, monitor: &mut Connection, driver: Driver) -> Result<(Signalled, String)> {
    host.load(driver)?;
    assert_eq!(host.bind(0, driver)?, Ok(()));
    let armed = format!("/tmp/armed-{driver:?}");
    let task = host.start("error-event", &[host.address(0), &armed])?;
    let wait = format!("until [ -e {armed} ]; do sleep 0.1; done");
    host.vm.sh(&wait)?;
    let since = host.vm.sh("dmesg")?.lines().count();
    // an uncorrectable error that is not fatal
    let said = monitor.human(&format!("pcie_aer_inject_error {PORT} COMP_TIME"));
    let said = said.unwrap_or_else(|why| panic!("{driver:?}: {why}"));
    assert!(said.starts_with("OK"), "{driver:?}: {said}");
    let seen = host.answer(&task)?;
    let log = host.vm.sh("dmesg")?;
    let log: Vec<_> = log.lines().skip(since).collect();
    println!("{driver:?}: {seen:?}\n{}", log.join("\n"));
    Ok((seen, log.join("\n")))
}

#[test]
fn an_error_on_the_link_is_signalled_to_the_user_as_the_original_does() -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("qmp");
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let host = HostPlan::new(Arch::Aarch64, "aer")
        .gpu(gh200, options, Memory::Real)
        .with(|vm| vm.qemu_args(["-qmp".to_owned(), qmp]))
        .boot()?;
    let mut monitor = Connection::open(&socket);
    for driver in [Driver::Original, Driver::Ours] {
        let (seen, log) = signalled(&host, &mut monitor, driver)?;
        assert_eq!((seen.times, &seen.read), (1, &Ok(8)), "{driver:?}: {log}");
        assert!(log.contains("AER"), "{driver:?}: {log}");
        host.unbind(0)?;
    }
    host.power_off()
}
