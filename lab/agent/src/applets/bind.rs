//! `bind DRIVER BDF...`: binds functions to a driver, all at the same time.
//!
//! Prints a [`Bound`] for each function, as a JSON array on one line. What a driver refuses is
//! an answer; what keeps it from being asked is a failure.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{BEGUN, answer, mark};

/// Outcome of a driver's probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Error number of the probe; none if the driver has the function.
    pub errno: Option<i32>,
    /// Duration of the probe, in milliseconds.
    pub millis: u64,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let Some((driver, functions)) = arguments.split_first() else {
        eprintln!("usage: bind DRIVER BDF...");
        return ExitCode::FAILURE;
    };
    let answers: Result<Vec<_>, _> = std::thread::scope(|scope| {
        let probes: Vec<_> = functions
            .iter()
            .map(|bdf| scope.spawn(|| bind(driver, bdf)))
            .collect();
        let ended = |_| "its thread panicked".to_owned();
        let joined = probes
            .into_iter()
            .map(|probe| probe.join().map_err(ended).and_then(|bound| bound));
        joined.collect()
    });
    answer("bind", answers)
}

fn bind(driver: &str, bdf: &str) -> Result<Bound, String> {
    let choice = format!("/sys/bus/pci/devices/{bdf}/driver_override");
    fs::write(&choice, driver).map_err(|e| format!("{choice}: {e}"))?;
    let path = format!("/sys/bus/pci/drivers/{driver}/bind");
    if !fs::exists(&path).is_ok_and(|exists| exists) {
        return Err(format!("{path} does not exist: load the driver first"));
    }
    mark(BEGUN, bdf)?;
    let started = Instant::now();
    let errno = match fs::write(&path, bdf) {
        Ok(()) => None,
        Err(error) => Some(
            error
                .raw_os_error()
                .ok_or_else(|| format!("{path}: {error}"))?,
        ),
    };
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Bound { errno, millis })
}
