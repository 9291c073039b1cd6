//! GPUs that are not ready, late, or without their link: what the kernel's own driver does,
//! what ours does, and what the user-space runtime does.
//!
//! All waits of one driver run at the same time in one machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use varia_agent::applets::bind::Bound;
use varia_agent::applets::vfio_read::Seen;
use varia_core::Device;
use varia_lab::Arch;
use varia_serve::{Endpoint, View};
use varia_silicon::profile::{self, Profile};
use varia_silicon::{Faults, ManualClock, Options, Readiness, Silicon};
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

/// What a driver waits for the readiness registers, in seconds, and what a machine under
/// software emulation may add.
const WAIT: u64 = 30;
const SLACK: u64 = 20;

/// How long the test keeps a late GPU waiting.
const DELAY: Duration = Duration::from_secs(3);
/// How long opening a GPU may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a late GPU needs, on its own clock, which the test moves.
const WARM_UP: Duration = Duration::from_secs(1);

/// The GPUs of the machine, by number.
const DEAD_GH200: usize = 0;
const DEAD_GB200: usize = 1;
const DEAD_CXL: usize = 2;
const LINK_DOWN: usize = 3;
const LATE: usize = 4;
const LATE_AFTER_RESET: usize = 5;
const DEAD_AFTER_RESET: usize = 6;
const SIZE_ZERO: usize = 7;
const LINK_DOWN_CXL: usize = 8;
const LATE_CXL: usize = 9;
const GONE_CXL: usize = 10;
const LATE_CXL_AFTER_RESET: usize = 11;
const COUNT: usize = 12;

/// What a GPU with CXL may take from valid to active, in seconds: by its profile, and by
/// [`patient_cxl`].
const CXL_WAIT: u64 = 4;
const PATIENT_CXL_WAIT: u64 = 16;

fn find(name: &str) -> Profile {
    profile::find(name)
        .expect("a profile of the catalogue")
        .clone()
}

/// One that says that it may need 16 s.
fn patient_cxl() -> Profile {
    cxl_that_takes(2)
}

fn options(readiness: Readiness, clock: &Arc<impl varia_silicon::Clock + 'static>) -> Options {
    Options {
        memory: Some(SIZE),
        readiness,
        clock: Arc::clone(clock) as Arc<_>,
        ..Options::default()
    }
}

fn dead() -> Options {
    options(Readiness::Never, &Arc::new(ManualClock::default()))
}

fn faulty(faults: Faults) -> Options {
    Options {
        memory: Some(SIZE),
        faults,
        ..Options::default()
    }
}

const LINK_DOWN_FAULT: Faults = Faults {
    c2c_down: true,
    ..Faults::NONE
};
/// Valid but never active, and then gone from the bus.
const GONE_FAULT: Faults = Faults {
    c2c_down: true,
    gone_after: Some(WARM_UP),
    ..Faults::NONE
};
const SIZE_ZERO_FAULT: Faults = Faults {
    size_zero: true,
    ..Faults::NONE
};
const NO_PROPERTIES_FAULT: Faults = Faults {
    no_properties: true,
    ..Faults::NONE
};

fn assert_timed_out(what: &str, bound: Bound, seconds: u64) {
    assert_eq!(bound.errno, Some(Errno::ETIME.get()), "{what}: {bound:?}");
    let expected = seconds * 1000..(seconds + SLACK) * 1000;
    assert!(expected.contains(&bound.millis), "{what}: {bound:?}");
}

/// A wait that nothing else in a machine takes as long as, in milliseconds.
const LONG: u64 = 20_000;

/// Reads a GPU, and writes its command register meanwhile.
fn seen(host: &Host, gpu: usize) -> Result<varia_lab::Task> {
    host.start("vfio-read", &[host.address(gpu), "4", "0", "beside"])
}

/// What becomes of configuration writes while a read waits. Who polls with the lock held lets the
/// first one wait as long; who does not, lets many end.
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

/// Everything that waits, at the same time; then a GPU whose firmware says it has no memory.
fn waits(driver: Driver) -> Result<()> {
    let clocks: Vec<_> = (0..4).map(|_| Arc::new(ManualClock::default())).collect();
    let [late, late_after_reset, dead_after_reset, gone] = &clocks[..] else {
        unreachable!("there are four");
    };
    let after = |clock| options(Readiness::After(WARM_UP), clock);
    let (gh200, gb200, cxl) = (find("gh200"), find("gb200"), patient_cxl());
    let going = Options {
        faults: GONE_FAULT,
        ..options(Readiness::Immediate, gone)
    };
    let host = HostPlan::new(Arch::Aarch64, &format!("waits with {driver:?}"))
        .gpu(&gh200, dead(), Memory::Absent)
        .gpu(&gb200, dead(), Memory::Absent)
        .gpu(&find("cxl"), dead(), Memory::Absent)
        .gpu(&gh200, faulty(LINK_DOWN_FAULT), Memory::Absent)
        .gpu(&gh200, after(late), Memory::Absent)
        .gpu(&gh200, after(late_after_reset), Memory::Real)
        .gpu(&gh200, after(dead_after_reset), Memory::Real)
        .gpu(&gh200, faulty(SIZE_ZERO_FAULT), Memory::Absent)
        .gpu(&find("cxl"), faulty(LINK_DOWN_FAULT), Memory::Absent)
        .gpu(&cxl, after(late), Memory::Absent)
        .gpu(&cxl, going, Memory::Absent)
        .gpu(&cxl, after(late_after_reset), Memory::Real)
        .boot()?;
    assert_eq!(host.addresses().len(), COUNT);
    host.load(driver)?;
    for gpu in [LATE_AFTER_RESET, LATE_CXL_AFTER_RESET] {
        let memory = host.memory(gpu);
        memory.write(0, &WORD).expect("the memory's first bytes");
    }

    // These are ready, and not any more when they are opened, which resets them.
    late_after_reset.advance(WARM_UP);
    dead_after_reset.advance(WARM_UP);
    for gpu in [LATE_AFTER_RESET, DEAD_AFTER_RESET, LATE_CXL_AFTER_RESET] {
        assert_eq!(host.bind(gpu, driver)?, Ok(()), "GPU {gpu}");
    }
    let waiting = [
        DEAD_GH200,
        DEAD_GB200,
        DEAD_CXL,
        LINK_DOWN,
        LATE,
        LINK_DOWN_CXL,
        LATE_CXL,
        GONE_CXL,
    ];
    let mut arguments = vec![driver.name()];
    arguments.extend(waiting.map(|gpu| host.address(gpu)));
    let binding = host.start("bind", &arguments)?;
    let resets = || [LATE_AFTER_RESET, LATE_CXL_AFTER_RESET].map(|g| host.silicon(g).reset_count());
    let before = resets();
    let reading_late = seen(&host, LATE_AFTER_RESET)?;
    let reading_late_cxl = seen(&host, LATE_CXL_AFTER_RESET)?;
    let reading_dead = seen(&host, DEAD_AFTER_RESET)?;
    let deadline = Instant::now() + PATIENCE;
    while resets()
        .iter()
        .zip(before)
        .any(|(now, before)| *now == before)
    {
        assert!(Instant::now() < deadline, "opening a GPU does not reset it");
        std::thread::sleep(DELAY / 100);
    }
    std::thread::sleep(DELAY);
    late.advance(WARM_UP);
    late_after_reset.advance(WARM_UP);
    gone.advance(WARM_UP);

    // The original polls BAR0 with the lock held, and CXL without it.
    let polls_locked = driver == Driver::Original;
    for (what, reading, blocks) in [
        ("a late GH200", reading_late, polls_locked),
        ("a late GB300 with CXL", reading_late_cxl, false),
    ] {
        let read: Seen = host.answer(&reading)?;
        assert_eq!((read.errno, &*read.bytes), (None, &WORD[..]), "{read:?}");
        assert!(read.millis >= 1000, "it did not wait: {read:?}");
        assert_beside(&format!("{driver:?}, {what}"), &read, blocks);
    }
    let bound: Vec<Bound> = host.answer(&binding)?;
    let [
        gh200_dead,
        gb200_dead,
        cxl_dead,
        link_down,
        late,
        link_down_cxl,
        late_cxl,
        gone_cxl,
    ] = bound[..]
    else {
        panic!("eight were to be bound: {bound:?}");
    };
    assert_timed_out("a GH200 that never gets ready", gh200_dead, WAIT);
    assert_timed_out("a GB200 that never gets ready", gb200_dead, WAIT);
    assert_timed_out("a GB300 that CXL never calls valid", cxl_dead, 1);
    assert_timed_out("a GH200 without its link", link_down, WAIT);
    assert_timed_out(
        "a GB300 that CXL never calls active",
        link_down_cxl,
        CXL_WAIT,
    );
    for (what, bound, wait) in [
        ("a late GH200", late, WAIT),
        (
            "a GB300 that CXL calls active late",
            late_cxl,
            PATIENT_CXL_WAIT,
        ),
    ] {
        assert_eq!(bound.errno, None, "{what}: {bound:?}");
        let possible = 1000..wait * 1000;
        assert!(possible.contains(&bound.millis), "{what}: {bound:?}");
    }
    let is_gone = (gone_cxl.errno, gone_cxl.millis >= 1000);
    assert_eq!(
        is_gone,
        (Some(Errno::ENODEV.get()), true),
        "a GB300 that goes while it is waited for: {gone_cxl:?}"
    );
    let read: Seen = host.answer(&reading_dead)?;
    assert_eq!(
        read.errno,
        Some(Errno::ETIME.get()),
        "after a reset: {read:?}"
    );
    assert_beside(&format!("{driver:?}, a dead GH200"), &read, polls_locked);

    // The late one is served like one that was ready.
    let served = [LATE, LATE_AFTER_RESET, LATE_CXL, LATE_CXL_AFTER_RESET];
    let reports = report::of_kernel(&host, &served)?;
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0].regions[4].size, GIB / 2);
    assert_eq!(reports[2], reports[3]);
    assert_eq!(reports[2].regions[4].size, 2 * GIB);
    falls_back(&host, SIZE_ZERO, driver)?;
    if driver == Driver::Ours {
        let log = host.vm.sh("dmesg")?;
        let not_ready = |errno| format!("not served: {}", Refusal::NotReady { errno });
        for (gpu, line) in [
            (DEAD_GH200, not_ready(Errno::ETIME)),
            (DEAD_CXL, not_ready(Errno::ETIME)),
            (LINK_DOWN, not_ready(Errno::ETIME)),
            (LINK_DOWN_CXL, not_ready(Errno::ETIME)),
            (GONE_CXL, not_ready(Errno::ENODEV)),
            (SIZE_ZERO, Decline::LinkDown.to_string()),
        ] {
            assert_log(&log, host.address(gpu), &line);
        }
    }
    host.power_off()
}

/// The driver takes the GPU, and it looks as it does with vfio-pci.
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

/// A GPU without properties, as inside a VM, and afterwards one with them.
fn without_properties(driver: Driver) -> Result<(Host, String)> {
    let gh200 = find("gh200");
    let host = HostPlan::new(Arch::Aarch64, &format!("no properties with {driver:?}"))
        .gpu(&gh200, faulty(NO_PROPERTIES_FAULT), Memory::Absent)
        .gpu(&gh200, faulty(Faults::default()), Memory::Absent)
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

/// An endpoint on a clock of its own, which patience does not cut short.
fn runtime(
    profile: &Profile,
    readiness: Readiness,
    faults: Faults,
) -> (
    Arc<SleepClock>,
    std::result::Result<Endpoint, varia_serve::Error>,
) {
    let clock = Arc::new(SleepClock::default());
    let silicon = Silicon::new(
        profile,
        Options {
            faults,
            ..options(readiness, &clock)
        },
    );
    let endpoint = Endpoint::new(
        Arc::new(silicon.expect("silicon of this size")),
        varia_serve::Options {
            view: View::Virtual,
            clock: Arc::clone(&clock) as Arc<_>,
            patience: Millis(300_000),
            ..varia_serve::Options::default()
        },
    );
    (clock, endpoint)
}

fn seconds(clock: &SleepClock) -> u64 {
    varia_serve::Clock::now(clock).0 / 1000
}

#[test]
fn the_user_space_runtime_fails_when_a_gpu_is_dead_or_has_no_link() {
    let none = Faults::default();
    for (what, profile, faults, wait) in [
        ("a dead GH200", find("gh200"), none, WAIT),
        ("a dead GB200", find("gb200"), none, WAIT),
        ("a GB300 that CXL never calls valid", find("cxl"), none, 1),
        (
            "a GH200 without its link",
            find("gh200"),
            LINK_DOWN_FAULT,
            WAIT,
        ),
        (
            "a GB300 that CXL never calls active",
            find("cxl"),
            LINK_DOWN_FAULT,
            CXL_WAIT,
        ),
    ] {
        // a link that is down is enough, and a CXL device without it knows its memory
        let readiness = match faults.c2c_down {
            true => Readiness::Immediate,
            false => Readiness::Never,
        };
        let (clock, endpoint) = runtime(&profile, readiness, faults);
        let error = endpoint.expect_err(what);
        assert_eq!(error.errno(), Errno::ETIME, "{what}");
        let waited = seconds(&clock);
        assert!((wait..=wait + 1).contains(&waited), "{what}: {waited} s");
    }
}

#[test]
fn the_user_space_runtime_waits_for_a_late_gpu_and_again_after_a_reset() {
    for profile in [find("gh200"), find("cxl")] {
        let late = Readiness::After(DELAY);
        let (clock, endpoint) = runtime(&profile, late, Faults::default());
        let endpoint = endpoint.expect("a late GPU is served");
        assert_eq!(seconds(&clock), DELAY.as_secs());
        endpoint.open().expect("it opens");
        endpoint.reset().expect("it resets");
        let read = endpoint.read(RegionIndex::BAR4, 0, &mut [0; 8]);
        assert_eq!(read, Ok(8));
        assert!(seconds(&clock) >= 2 * DELAY.as_secs());
    }
}

#[test]
fn the_user_space_runtime_has_no_device_when_a_gpu_goes_while_it_is_waited_for() {
    let (clock, endpoint) = runtime(&patient_cxl(), Readiness::Immediate, GONE_FAULT);
    let error = endpoint.expect_err("it goes after a second");
    assert_eq!(error.errno(), Errno::ENODEV);
    assert_eq!(seconds(&clock), WARM_UP.as_secs());
}

#[test]
fn the_user_space_runtime_gives_up_when_readiness_is_lost_after_a_reset() {
    // two resets are the probe's, the third is that of open
    let lost = Faults {
        lost_after_resets: Some(4),
        ..Faults::NONE
    };
    for (profile, wait) in [(find("gh200"), WAIT), (find("cxl"), 1)] {
        let (clock, endpoint) = runtime(&profile, Readiness::Immediate, lost);
        let endpoint = endpoint.expect("it is ready at first");
        endpoint.open().expect("it opens");
        assert_eq!(endpoint.read(RegionIndex::BAR4, 0, &mut [0; 8]), Ok(8));
        endpoint.reset().expect("it resets");
        let before = seconds(&clock);
        let read = endpoint.read(RegionIndex::BAR4, 0, &mut [0; 8]);
        assert_eq!(read, Err(Errno::ETIME), "{}", profile.name);
        let waited = seconds(&clock) - before;
        assert!(
            (wait..=wait + 1).contains(&waited),
            "{}: {waited} s",
            profile.name
        );
    }
}

#[test]
fn the_user_space_runtime_falls_back_without_a_size_or_properties() {
    for faults in [SIZE_ZERO_FAULT, NO_PROPERTIES_FAULT] {
        let (_, endpoint) = runtime(&find("gh200"), Readiness::Immediate, faults);
        let endpoint = endpoint.expect("it falls back");
        assert!(endpoint.declined().is_some(), "{faults:?}");
        let variant = endpoint.variant().expect("the variant that declined");
        assert!(matches!(
            variant.outcome(),
            varia_variant::Outcome::Decline(_)
        ));
        for region in [RegionIndex::BAR2, RegionIndex::BAR4] {
            let info = endpoint.region_info(region).expect("region info");
            let bar = find("gh200").bar(region.0 as u8).expect("a BAR").spec.size;
            assert_eq!(info.size, bar, "the physical BAR shows, with {faults:?}");
        }
    }
}
