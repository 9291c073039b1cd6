//! Measures the processor time of one thread. The benches of `plan` and `explain` share it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const TURNS: usize = 15;

/// Runs a closure often, prints the median, shortest and longest processor time of one run, and
/// returns `false` if the median is above the limit.
pub(crate) fn measure(what: &str, runs: u32, limit: Duration, run: impl Fn()) -> bool {
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

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
