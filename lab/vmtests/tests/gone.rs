//! GPUs that go from the bus while our module serves them, and are removed then: what is under way
//! ends, what is tried after that gets an answer, and nothing of them stays.
//!
//! The silicon answers with all ones from the moment that the test chooses; its memory is a part of
//! the machine's RAM and goes on answering, which a real one's would not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use varia_agent::applets::stress::{End, Memory as Place, Plan, Report};
use varia_lab::{Arch, Ending, GuestCommand, HANG, Task};
use varia_silicon::profile;
use varia_silicon::{Faults, ManualClock, Options, Readiness};
use varia_spec::Errno;
use varia_vmtests::Result;
use varia_vmtests::counters::Counters;
use varia_vmtests::gpu::cxl_that_takes;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// usemem 512 MiB, resmem 1 GiB; without the MIG bug all of it is usemem.
const SIZE: u64 = GIB + 512 * MIB;
/// Line of the kernel's log for a device that does not answer within a second after a reset: it then
/// waits for a minute. Source: Linux 7.2 `drivers/pci/pci.c:pci_dev_wait`.
const WAITS_FOR_DEVICE: &str = "not ready ";

/// The GPUs: one that need not be waited for, one whose wait nothing but time or a kill ends, and
/// one that CXL shows to be gone.
const READY: usize = 0;
const WAITED_FOR: usize = 1;
const WAITED_FOR_WITH_CXL: usize = 2;
const COUNT: usize = 3;

/// Time that a GPU needs after a reset, on the clock that the test moves.
const WARM_UP: Duration = Duration::from_secs(1);
/// When, on that clock, all are gone.
const GONE: Duration = Duration::from_secs(3600);
/// The code for the most that CXL can ask a driver to wait for, 256 s: no wait ends by it here.
const CXL_TIMEOUT: u8 = 4;

fn machine(clocks: &[Arc<ManualClock>; COUNT]) -> Result<Host> {
    let find = |name| profile::find(name).expect("a profile of the catalogue");
    let cxl = cxl_that_takes(CXL_TIMEOUT);
    let options = |gpu: usize, readiness| Options {
        memory: Some(SIZE),
        readiness,
        faults: Faults {
            gone_after: Some(GONE),
            ..Faults::NONE
        },
        clock: Arc::clone(&clocks[gpu]) as Arc<_>,
        ..Options::default()
    };
    let late = |gpu| options(gpu, Readiness::After(WARM_UP));
    let ready = options(READY, Readiness::Immediate);
    HostPlan::new(Arch::Aarch64, "GPUs that go")
        .gpu(find("gh200"), ready, Memory::Real)
        .gpu(find("gh200"), late(WAITED_FOR), Memory::Real)
        .gpu(&cxl, late(WAITED_FOR_WITH_CXL), Memory::Real)
        .boot()
}

/// Uses a GPU until it is gone, and in its removal.
fn user(host: &Host, gpu: usize) -> Result<Task> {
    let place = |region, length, size| Place {
        region,
        length,
        size,
    };
    let plan = Plan {
        counts: BTreeMap::new(),
        seed: 1,
        ready_ms: 0,
        pause_ms: 1000,
        memory: if gpu == WAITED_FOR_WITH_CXL {
            vec![place(4, SIZE, 2 * GIB)]
        } else {
            vec![place(4, 512 * MIB, 512 * MIB), place(2, GIB, GIB)]
        },
        end: End::Gone,
    };
    let plan = serde_json::to_string(&plan).expect("a plan is JSON");
    let command = GuestCommand::applet("stress", &[host.address(gpu), &plan]);
    Ok(host.vm.spawn(&command)?)
}

/// Waits until something is so, and does something each time that it is not.
fn wait_until(
    what: &str,
    mut is_so: impl FnMut() -> Result<bool>,
    meanwhile: impl Fn(),
) -> Result<()> {
    let deadline = Instant::now() + HANG;
    while !is_so()? {
        assert!(Instant::now() < deadline, "{what} does not come");
        meanwhile();
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn count(host: &Host, gpu: usize, name: &str) -> Result<u64> {
    Ok(Counters::read(host, gpu)?.get(name))
}

#[test]
fn devices_that_go_and_are_removed_while_they_are_used_leave_nothing_behind() -> Result<()> {
    let clocks: [Arc<ManualClock>; COUNT] = Default::default();
    let host = machine(&clocks)?;
    host.load(Driver::Ours)?;
    for (gpu, clock) in clocks.iter().enumerate() {
        // Ready now, and not after a reset any more: the clock stands still.
        clock.advance(WARM_UP);
        assert_eq!(host.bind(gpu, Driver::Ours)?, Ok(()), "GPU {gpu}");
    }
    let busy = user(&host, READY)?;
    let waiting = user(&host, WAITED_FOR_WITH_CXL)?;
    for gpu in [READY, WAITED_FOR_WITH_CXL] {
        // Its open resets it, at a moment that is not known here.
        let used = || Ok(count(&host, gpu, "faults_served")? >= 20);
        wait_until("the use of a GPU", used, || clocks[gpu].advance(WARM_UP))?;
    }
    // Its wait ends by itself after 30 s.
    let reader = host.start("vfio-read", &[host.address(WAITED_FOR), "4", "0"])?;
    let waits = || count(&host, WAITED_FOR, "waits");
    wait_until("the wait of a GH200", || Ok(waits()? > 0), || ())?;

    // One after the other: the kernel removes one function at a time.
    let started = Instant::now();
    clocks[WAITED_FOR].advance(GONE);
    killed_in_its_removal(&host, &reader)?;
    clocks[READY].advance(GONE);
    let busy = report(&host, &busy)?;

    let before = count(&host, WAITED_FOR_WITH_CXL, "waits")?;
    let address = host.address(WAITED_FOR_WITH_CXL);
    host.vm
        .write(&format!("/sys/bus/pci/devices/{address}/reset"), "1")?;
    let waits = || count(&host, WAITED_FOR_WITH_CXL, "waits");
    wait_until("the wait of a GB300", || Ok(waits()? > before), || ())?;
    clocks[WAITED_FOR_WITH_CXL].advance(GONE);
    let waiting = report(&host, &waiting)?;

    for name in ["read", "write", "own"] {
        let refused = |report: &Report| report.actors[name].refused.clone();
        let no_device = Errno::ENODEV.get();
        // A device that has been ready since its last reset is not polled again.
        assert!(!refused(&busy).contains_key(&no_device), "{busy:#?}");
        assert!(refused(&waiting).contains_key(&no_device), "{waiting:#?}");
    }
    host.vm.sh(&format!("rmmod {}", Driver::Ours.name()))?;
    println!(
        "result: gone, removed, unloaded in {:.1?}",
        started.elapsed()
    );
    let devices = host.vm.list("/sys/bus/pci/devices")?;
    for address in host.addresses() {
        assert!(!devices.iter().any(|name| name == address), "{devices:?}");
    }
    let left = host
        .vm
        .sh("ls /dev/vfio; grep -i vfio-pci /proc/iomem || true")?;
    assert_eq!(left, "vfio", "a group or a claimed resource stays");
    host.power_off()
}

/// The removal waits for who reads, whose wait has no reason to end but the kill.
fn killed_in_its_removal(host: &Host, reader: &Task) -> Result<()> {
    let address = host.address(WAITED_FOR);
    let remove = format!("echo 1 > /sys/bus/pci/devices/{address}/remove");
    let removing = host.vm.spawn(&GuestCommand::sh(&remove))?;
    // Without a removal that has begun, the close would reset a device that never answers.
    let begun = format!("{address}: No device request channel registered");
    let has_begun = || Ok(host.vm.sh("dmesg")?.contains(&begun));
    wait_until("the removal", has_begun, || ())?;
    host.vm.kill_task(reader)?;
    let output = host.vm.wait(reader, HANG)?;
    assert_eq!(output.ending, Ending::Signal(9), "{output:?}");
    host.vm.wait(&removing, HANG)?.checked()?;
    Ok(())
}

/// The report of who uses a GPU that is gone, once it has ended.
fn report(host: &Host, user: &Task) -> Result<Report> {
    let report: Report = host.answer(user)?;
    println!("{report:#?}");
    assert!(report.violations.is_empty(), "{report:#?}");
    let counters = Counters::parse(report.counters.as_deref().unwrap_or_default())?;
    assert_eq!(counters.broken_rules_while_open(), Vec::<String>::new());
    // The machine's speed sets the duration; a removal that waits for the device says so in the log.
    assert!(report.removal_ms.is_some(), "{report:#?}");
    let log = host.vm.sh("dmesg")?;
    assert!(!log.contains(WAITS_FOR_DEVICE), "{report:#?}\n{log}");
    Ok(report)
}
