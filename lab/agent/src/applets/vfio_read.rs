//! `vfio-read BDF REGION OFFSET`: opens a function and reads eight bytes of a region.
//!
//! Prints a [`Seen`], as JSON on one line. What the driver refuses is an answer.

use std::process::ExitCode;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use varia_sys::vfio::position;

use super::vfio::OpenDevice;

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Its error number.
    pub errno: Option<i32>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let text = read(arguments)
        .and_then(|seen| serde_json::to_string(&seen).map_err(|error| error.to_string()));
    match text {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vfio-read: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(arguments: &[String]) -> Result<Seen, String> {
    let [bdf, region, offset] = arguments else {
        return Err("usage: vfio-read BDF REGION OFFSET".into());
    };
    let region = region.parse().map_err(|e| format!("{region:?}: {e}"))?;
    let offset = offset.parse().map_err(|e| format!("{offset:?}: {e}"))?;
    let opened = OpenDevice::open(bdf)?;
    let mut bytes = vec![0; 8];
    let started = Instant::now();
    let result = opened.device.read_at(position(region, offset), &mut bytes);
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let errno = match result {
        Ok(count) => {
            bytes.truncate(count);
            None
        }
        Err(errno) => {
            bytes.clear();
            Some(errno.get())
        }
    };
    Ok(Seen {
        bytes,
        errno,
        millis,
    })
}
