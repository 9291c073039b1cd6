//! `differential BDF SEED COUNT SURFACE`: random operations on a VFIO device, for comparison.
//!
//! The device's shape is JSON on standard input; the answers go to standard output, one after the
//! other, encoded by postcard. On standard error stands what each kind of operation took.

mod user;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use varia_differential::{Shape, Surface, Target, operations};

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
    let [bdf, seed, count, surface] = arguments else {
        return Err("usage: differential BDF SEED COUNT kernel|portable".into());
    };
    let seed = seed.parse().map_err(|e| format!("seed {seed:?}: {e}"))?;
    let count = count.parse().map_err(|e| format!("count {count:?}: {e}"))?;
    let surface = match surface.as_str() {
        "kernel" => Surface::Kernel,
        "portable" => Surface::Portable,
        other => return Err(format!("surface {other:?}: give kernel or portable")),
    };
    let shape: Shape = serde_json::from_reader(io::stdin()).map_err(|e| format!("shape: {e}"))?;
    let mut user = User::new(bdf)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut spent = BTreeMap::<&str, (u32, Duration)>::new();
    for op in operations(seed, count, &shape, surface) {
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
