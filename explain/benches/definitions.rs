//! Processor time of an examination: `cargo bench -p varia-explain`.

#[path = "../../plan/tests/requests/host.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;
#[path = "../../plan/benches/measure/mod.rs"]
mod measure;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use varia_explain::{Knowledge, examine};
use varia_plan::{domain, make};

use host::{GPUS, facts, request};
use measure::measure;

/// Examinations in a turn.
const EXAMINATIONS: u32 = 200;
const LIMIT: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let facts = facts();
    let plan = make(&facts, &request(&GPUS[..1])).expect("a plan");
    let xml = domain(&plan).expect("XML");
    let knowledge = Knowledge {
        facts: Some(&facts),
        ..Knowledge::default()
    };
    let good = measure("one GPU's XML, examined", EXAMINATIONS, LIMIT, || {
        let found = examine(black_box(xml.as_bytes()), &knowledge).expect("a definition");
        assert!(found.findings.is_empty());
    });
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
