//! How long plans take: `cargo bench -p varia-plan`.
//!
//! Each figure is the processor time of this one thread for each plan: the median of several
//! turns, with the fastest and the slowest. One that is above its limit fails the run.

#[path = "../tests/requests/host.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use varia_plan::definition::{Knowledge, examine};
use varia_plan::{arguments, domain, make};

use host::{GPUS, facts, request};

const TURNS: usize = 15;
/// Plans in a turn.
const PLANS: u32 = 2_000;
/// 10,000 a second.
const LIMIT: Duration = Duration::from_micros(100);
/// Nobody waits for one.
const EXAMINATION: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let facts = facts();
    let wanted = request(&GPUS[..1]);
    let plan = || make(black_box(&facts), black_box(&wanted)).expect("a plan");
    let mut good = true;
    good &= measure("one GPU, decided", PLANS, LIMIT, || {
        black_box(plan());
    });
    good &= measure("one GPU, with QEMU's arguments", PLANS, LIMIT, || {
        black_box(arguments(&plan()));
    });
    good &= measure("one GPU, with libvirt's XML", PLANS, LIMIT, || {
        black_box(domain(&plan()).expect("XML"));
    });
    good &= measure("one GPU, with ACPI's view", PLANS, LIMIT, || {
        black_box(plan().numa().expect("tables"));
    });
    let four = request(&GPUS);
    good &= measure(
        "four GPUs, with QEMU's arguments",
        PLANS,
        16 * LIMIT,
        || {
            let plan = make(black_box(&facts), black_box(&four)).expect("a plan");
            black_box(arguments(&plan));
        },
    );
    let xml = domain(&plan()).expect("XML");
    let knowledge = Knowledge {
        facts: Some(&facts),
        ..Knowledge::default()
    };
    good &= measure("one GPU's XML, examined", PLANS / 10, EXAMINATION, || {
        let found = examine(black_box(xml.as_bytes()), &knowledge).expect("a definition");
        assert!(found.findings.is_empty());
    });
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs something often and prints how long each run takes; whether its limit holds.
fn measure(what: &str, runs: u32, limit: Duration, run: impl Fn()) -> bool {
    let mut times: Vec<Duration> = (0..TURNS)
        .map(|_| {
            let begin = processor_time();
            (0..runs).for_each(|_| run());
            (processor_time() - begin) / runs
        })
        .collect();
    times.sort_unstable();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let (fastest, median, slowest) = (times[0], times[TURNS / 2], times[TURNS - 1]);
    let good = median < limit;
    println!(
        "{what}: {:.1} µs ({:.1} to {:.1}), {:.0} a second; limit {:.0} µs{}",
        us(median),
        us(fastest),
        us(slowest),
        1.0 / median.as_secs_f64(),
        us(limit),
        if good { "" } else { ": TOO SLOW" }
    );
    good
}
