//! Everything at once on our module: reads, writes, faults, configuration writes, three kinds of
//! reset, low power, and the removal of the function; afterwards the rules of "State under
//! concurrency" (ARCHITECTURE.md) are checked in what the threads saw and in the counters.
//!
//! The faulty modules at the end show that the test finds such faults.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use varia_agent::applets::stress::{End, Memory as Place, Plan, Report};
use varia_core::Device;
use varia_lab::{Arch, Flavour, GuestCommand, HANG};
use varia_silicon::{Options, Readiness, profile};
use varia_spec::nvidia::chip;
use varia_vmtests::Result;
use varia_vmtests::counters::Counters;
use varia_vmtests::faulty::{self, Fault};
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// usemem 512 MiB behind 1 GiB, resmem a little more than 1 GiB behind 2 GiB: both BARs have
/// padding, and their ends are those of a page of any size.
const TAIL: u64 = 192 * KIB;
/// Time that the memory needs after each reset: longer than the reset itself.
const READY: Duration = Duration::from_millis(700);

/// Operations of the threads of each name after which a run is over: about as many as each does in
/// the time that the slowest needs, so that no thread keeps all others going.
const COUNTS: [(&str, u64); 13] = [
    ("read", 3000),
    ("write", 1000),
    ("own", 2500),
    ("fault", 1000),
    ("touch", 200),
    ("switch", 125),
    ("bar", 2500),
    ("config", 1000),
    ("power", 30),
    ("state", 30),
    ("reset", 5),
    ("flr", 2),
    ("bus", 2),
];

/// Factor of the counts; `./x soak` sets it.
fn times() -> u32 {
    let asked = std::env::var("VARIA_TIMES").ok();
    asked.map_or(1, |text| text.parse().expect("VARIA_TIMES is a number"))
}

/// Counts of a run.
fn counts() -> BTreeMap<String, u64> {
    let counts = COUNTS.map(|(name, count)| (name.to_owned(), count * u64::from(times())));
    counts.into()
}

/// One operation of each kind, for a short run.
fn once() -> BTreeMap<String, u64> {
    COUNTS.map(|(name, _)| (name.to_owned(), 1)).into()
}

fn plan_of(counts: BTreeMap<String, u64>, end: End) -> Plan {
    Plan {
        counts,
        seed: 20_261_121,
        ready_ms: READY.as_millis() as u64,
        pause_ms: 6000,
        memory: vec![
            Place {
                region: 4,
                length: 512 * MIB,
                size: GIB,
            },
            Place {
                region: 2,
                length: GIB + TAIL,
                size: 2 * GIB,
            },
        ],
        end,
    }
}

fn machine(flavour: impl Into<Flavour>, name: &str) -> HostPlan {
    // The kernel resets no GH200 by its bus (Linux 7.2 drivers/pci/quirks.c:quirk_nvidia_no_bus_reset):
    // so this has the MIG bug, hence two regions, and another chip's id.
    let mut chip = profile::find("gh200")
        .expect("a profile of the catalogue")
        .clone();
    chip.device_id.value = chip::GB200.skus[0].device.value;
    let options = Options {
        memory: Some(GIB + 512 * MIB + TAIL),
        readiness: Readiness::After(READY),
        ..Options::default()
    };
    HostPlan::new(flavour, name).gpu(&chip, options, Memory::Real)
}

fn stress(host: &Host, plan: &Plan) -> Result<Report> {
    let text = serde_json::to_string(plan).expect("a plan is JSON");
    let command = GuestCommand::applet("stress", &[host.address(0), &text]);
    let said = host.vm.run(&command.limit(times() * HANG))?;
    let said = said.checked()?.text();
    let report = serde_json::from_str(&said);
    Ok(report.unwrap_or_else(|error| panic!("{error}: {said}")))
}

/// Every kind of thread did its work often enough to have met the others.
fn assert_busy(report: &Report, counts: &BTreeMap<String, u64>) {
    for (name, least) in counts {
        let done = report.actors.get(name).map_or(0, |tally| tally.done);
        assert!(
            done >= *least,
            "{name}: {done} of {least} done: {report:#?}"
        );
    }
}

#[test]
fn everything_at_once_breaks_no_rule_of_concurrency() -> Result<()> {
    everything_at_once(Flavour::Debian(Arch::Aarch64))
}

/// With lockdep, KASAN and pages of 64 KiB.
#[test]
#[ignore = "for ./x soak: it builds a kernel"]
fn everything_at_once_breaks_no_rule_on_a_kernel_that_looks_for_faults() -> Result<()> {
    everything_at_once(Flavour::Debug64k)
}

fn everything_at_once(flavour: Flavour) -> Result<()> {
    let host = machine(flavour, &format!("everything at once on {flavour}")).boot()?;
    host.load(Driver::Ours)?;
    assert_eq!(host.bind(0, Driver::Ours)?, Ok(()));
    let counts = counts();
    let resets = host.silicon(0).reset_count();
    let started = Instant::now();
    let report = stress(&host, &plan_of(counts.clone(), End::Close))?;
    println!("{report:#?}");
    println!(
        "result: {flavour}, {} s: {}",
        started.elapsed().as_secs(),
        report.summary()
    );
    assert!(report.violations.is_empty(), "{report:#?}");
    assert_busy(&report, &counts);
    let counters = Counters::read(&host, 0)?;
    println!("{counters:#?}");
    assert_eq!(counters.broken_rules(), Vec::<String>::new());
    for name in [
        "waits_ready",
        "copies",
        "faults_served",
        "faults_not_ready",
        "faults_retried",
    ] {
        assert!(counters.get(name) > 0, "{name}: {counters:#?}");
    }
    // The driver counts each reset that the device has seen, but for the reset at close: the next
    // open resets again.
    let seen = host.silicon(0).reset_count() - resets;
    let heard = counters.get("resets") + counters.get("closes");
    assert!(heard >= seen, "{seen} resets, {heard} heard of");

    let report = stress(&host, &plan_of(once(), End::Removal))?;
    println!("{report:#?}");
    assert!(report.violations.is_empty(), "{report:#?}");
    assert!(report.removal_ms.is_some(), "{report:#?}");
    let counters = Counters::parse(report.counters.as_deref().unwrap_or_default())?;
    assert_eq!(counters.broken_rules_while_open(), Vec::<String>::new());
    host.power_off()
}

/// Fault in a decision: a reset asks for no new poll.
const FORGOTTEN_RESET: Fault = Fault {
    name: "forgotten-reset",
    file: "variant/src/ready.rs",
    right: "self.reset.fetch_add(1, Ordering::Release);",
    wrong: "self.reset.fetch_add(0, Ordering::Release);",
};

/// Fault in locking: the frame is inserted after the release of the lock under which the device was
/// found ready. The time in between, which is short, is made longer.
const INSERTED_UNLOCKED: Fault = Fault {
    name: "inserted-unlocked",
    file: "kernel/adaptor/mapping.c",
    right: "	ret = vfio_pci_vmf_insert_pfn(&dev->core, vmf, frame, order);
",
    wrong: "	up_read(&dev->core.memory_lock);
	schedule_timeout_uninterruptible(HZ / 50);
	ret = vfio_pci_vmf_insert_pfn(&dev->core, vmf, frame, order);
	down_read(&dev->core.memory_lock);
",
};

/// Fault in locking: a poll without the lock held.
const POLLED_UNLOCKED: Fault = Fault {
    name: "polled-unlocked",
    file: "kernel/adaptor/ready.c",
    right: "	sample.locked = rwsem_is_locked(&core->memory_lock) &&
			lockdep_is_held_type(&core->memory_lock, 1);
	sample.memory_enabled = locked && __vfio_pci_memory_enabled(core);
	ret = adaptor_poll(dev->state, core->pdev, dev->bar0, &sample, wait);
",
    wrong: "	sample.memory_enabled = locked && __vfio_pci_memory_enabled(core);
	if (locked)
		up_read(&core->memory_lock);
	sample.locked = rwsem_is_locked(&core->memory_lock);
	ret = adaptor_poll(dev->state, core->pdev, dev->bar0, &sample, wait);
	if (locked)
		down_read(&core->memory_lock);
",
};

/// Fault and the places where it shows.
struct Planted {
    fault: Fault,
    /// Violations that the threads see, one of which ends the run. If there are none, a run with
    /// one operation of each kind is enough.
    signs: &'static [&'static str],
    /// Rule of the counters that the fault breaks.
    breaks: Option<&'static str>,
}

#[test]
fn planted_faults_and_a_planted_warning_are_found() -> Result<()> {
    let faults = [
        Planted {
            fault: FORGOTTEN_RESET,
            signs: &["ms after a reset began"],
            breaks: Some("reset_generation 1 is not 1 more than resets"),
        },
        Planted {
            fault: INSERTED_UNLOCKED,
            signs: &["ms after a reset began", "is mapped with memory off"],
            breaks: None,
        },
        Planted {
            fault: POLLED_UNLOCKED,
            signs: &[],
            breaks: Some("polls_unlocked"),
        },
    ];
    let path = |fault: &Fault| format!("/lab/drivers/{}.ko", fault.name);
    let mut plan = machine(Arch::Aarch64, "faulty modules");
    for Planted { fault, .. } in &faults {
        let module = faulty::build(Arch::Aarch64, fault)?;
        plan = plan.with(|vm| vm.host_file(path(fault), module));
    }
    let host = plan.boot()?;
    for planted in &faults {
        let fault = &planted.fault;
        host.vm.sh(&format!("insmod {}", path(fault)))?;
        assert_eq!(host.bind(0, Driver::Ours)?, Ok(()), "{fault:?}");
        let counts = match planted.signs {
            [] => once(),
            // the first violation ends it
            _ => BTreeMap::from([("reset".to_owned(), u64::MAX)]),
        };
        let plan = Plan {
            pause_ms: 1500,
            ..plan_of(counts, End::Close)
        };
        let report = stress(&host, &plan)?;
        let seen = |sign: &&str| report.violations.iter().any(|what| what.contains(*sign));
        assert_eq!(
            planted.signs.iter().any(seen),
            !planted.signs.is_empty(),
            "{fault:?}: {report:#?}"
        );
        let broken = Counters::read(&host, 0)?.broken_rules();
        let shows = match planted.breaks {
            None => broken.is_empty(),
            Some(rule) => broken.iter().any(|what| what.contains(rule)),
        };
        assert!(shows, "{fault:?}: {broken:?}");
        println!("{}: {broken:?}", fault.name);
        println!("{}: {:?}", fault.name, report.violations);
        host.unload()?;
    }
    host.check_log()?;
    host.vm
        .sh("echo 'WARNING: CPU: 0 PID: 1 at a test:1 planted+0x0/0x1' > /dev/kmsg")?;
    let found = host.check_log().expect_err("a planted warning is found");
    assert!(format!("{found}").contains("planted"), "{found}");
    Ok(())
}
