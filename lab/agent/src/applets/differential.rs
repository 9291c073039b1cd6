//! `differential BDF SEED COUNT SURFACE`: random operations on a VFIO device, for comparison;
//! `differential BDF listed`: the operations that are listed.
//!
//! The device's shape, or the list of operations, is JSON on standard input; the answers go to
//! standard output, one after the other, encoded by postcard. On standard error stands what each
//! kind of operation took.

mod user;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use varia_differential::{Op, Shape, Surface, Target, operations};

use user::User;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match compare(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &[String]) -> Result<(), String> {
    let (bdf, ops) = match arguments {
        [bdf, word] if word == "listed" => {
            let ops = serde_json::from_reader(io::stdin());
            (bdf, ops.map_err(|e| format!("operations: {e}"))?)
        }
        [bdf, seed, count, surface] => (bdf, random(seed, count, surface)?),
        _ => return Err("usage: differential BDF listed|SEED COUNT kernel|portable".into()),
    };
    answer_all(bdf, ops)
}

/// Random operations for the device whose shape is on standard input.
fn random(seed: &str, count: &str, surface: &str) -> Result<Vec<Op>, String> {
    let seed = seed.parse().map_err(|e| format!("seed {seed:?}: {e}"))?;
    let count = count.parse().map_err(|e| format!("count {count:?}: {e}"))?;
    let surface = match surface {
        "kernel" => Surface::Kernel,
        "portable" => Surface::Portable,
        other => return Err(format!("surface {other:?}: give kernel or portable")),
    };
    let shape: Shape = serde_json::from_reader(io::stdin()).map_err(|e| format!("shape: {e}"))?;
    Ok(operations(seed, count, &shape, surface))
}

fn answer_all(bdf: &str, ops: Vec<Op>) -> Result<(), String> {
    let mut user = User::new(bdf)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut spent = BTreeMap::<&str, (u32, Duration)>::new();
    for op in ops {
        let begin = Instant::now();
        let answer = user.run(&op);
        let (times, took) = spent.entry(op.kind()).or_default();
        *times += 1;
        *took += begin.elapsed();
        let bytes = postcard::to_stdvec(&answer).map_err(|e| e.to_string())?;
        out.write_all(&bytes).map_err(|e| e.to_string())?;
    }
    out.flush().map_err(|e| e.to_string())?;
    for (kind, (times, took)) in spent {
        eprintln!(
            "{kind}: {times} in {} ms, {} us each",
            took.as_millis(),
            took.as_micros() / u128::from(times.max(1))
        );
    }
    Ok(())
}
