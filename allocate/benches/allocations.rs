//! Processor time of an allocation over 72 GPUs: `cargo bench -p varia-allocate`.

#[path = "../../plan/benches/measure/mod.rs"]
mod measure;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use varia_allocate::{Observed, Pool};
use varia_silicon::Machine;
use varia_silicon::machine::GB200_NVL4;

use measure::measure;

/// Allocations in a turn.
const ALLOCATIONS: u32 = 500;
/// 10,000 a second.
const LIMIT: Duration = Duration::from_micros(100);

fn main() -> ExitCode {
    let machine = Machine {
        sockets: 36,
        ..GB200_NVL4
    };
    let mut facts = machine.facts().expect("a host");
    for function in &mut facts.functions {
        if function.coherent_memory.is_some() {
            function.driver = function.best_driver.clone();
        }
    }
    let pool = Pool::new(&facts, &Observed::default());
    assert_eq!(pool.devices().len(), 72);
    let mut taken = BTreeMap::new();
    let choose = |count, taken: &BTreeMap<_, _>| {
        let chosen = pool.choose("GB200", count, taken).expect("GPUs");
        assert_eq!(chosen.devices.len(), count);
        black_box(chosen)
    };
    let mut good = true;
    for count in [1, 2, 4] {
        good &= measure(&format!("{count} of 72 GPUs"), ALLOCATIONS, LIMIT, || {
            choose(black_box(count), &taken);
        });
    }
    for device in pool.devices().iter().step_by(3) {
        taken.insert(device.bdf, "a pod".to_owned());
    }
    good &= measure("4 of 48 free GPUs", ALLOCATIONS, LIMIT, || {
        choose(black_box(4), &taken);
    });
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
