//! Speed of accesses to two memories, measured side by side.
//!
//! A sanity check: memory that is not cached, or that is reached through a trap, is slower by orders
//! of magnitude. The best of many alternating rounds counts for each memory, so that a busy machine
//! disturbs both alike and only until a quiet moment comes.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::pages::Pages;

/// The least ratio that is as it should be.
const LEAST: f64 = 0.98;
/// Rounds before the first judgement.
const FEWEST: u32 = 8;
/// Rounds after which the ratio counts as it is.
const MOST: u32 = 1000;
/// Bytes of a round.
const LENGTH: usize = 1 << 20;

/// Speed of the GPU's memory by that of the guest's own.
pub(crate) fn compare(gpu: &Pages, ram: &Pages) -> Result<f64, Failure> {
    let (mut of_gpu, mut of_ram) = (Duration::MAX, Duration::MAX);
    let mut bytes = vec![0; LENGTH];
    for round in 1..=MOST {
        of_ram = of_ram.min(once(ram, &mut bytes)?);
        of_gpu = of_gpu.min(once(gpu, &mut bytes)?);
        let ratio = of_ram.as_secs_f64() / of_gpu.as_secs_f64();
        if round >= FEWEST && ratio >= LEAST {
            return Ok(ratio);
        }
    }
    Err(format!(
        "after {MOST} rounds, {LENGTH} bytes take {of_gpu:?} on the GPU's node and {of_ram:?} in the guest's own memory"
    ))
}

/// Time of reading and writing.
fn once(pages: &Pages, bytes: &mut [u8]) -> Result<Duration, Failure> {
    let begin = Instant::now();
    pages.read(0, bytes)?;
    pages.write(0, bytes)?;
    Ok(begin.elapsed())
}
