//! Processor time of a plan: `cargo bench -p varia-plan`.

#[path = "../tests/requests/host.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;
mod measure;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use varia_plan::{arguments, domain, make};

use host::{GPUS, facts, request};
use measure::measure;

/// Plans in a turn.
const PLANS: u32 = 2_000;
/// 10,000 a second.
const LIMIT: Duration = Duration::from_micros(100);

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
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
