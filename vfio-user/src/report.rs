//! Log lines of which there are never too many.
//!
//! A peer decides how often something goes wrong, so each kind of line has a budget: some at once,
//! then one for each interval. The next line of a kind says how many were left out.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

/// Lines of a kind that are logged before any is left out.
const BURST: u32 = 20;

/// Time in which a kind earns one more line.
const INTERVAL: Duration = Duration::from_secs(10);

/// The budgets of a server's lines.
#[derive(Debug, Default)]
pub struct Reports(Mutex<BTreeMap<&'static str, Budget>>);

#[derive(Debug)]
struct Budget {
    left: u32,
    /// Time from which the next line is earned.
    since: Instant,
    left_out: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            left_out: 0,
        }
    }

    /// Number of lines left out before this one, or `None` if this one is left out too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.since).as_secs() / INTERVAL.as_secs();
        if earned > 0 {
            self.since = now;
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.left = self.left.saturating_add(earned).min(BURST);
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Reports {
    /// Logs a line of `kind`, if the kind's budget allows.
    pub fn log(&self, level: Level, kind: &'static str, line: fmt::Arguments<'_>) {
        if !log::log_enabled!(level) {
            return;
        }
        let now = Instant::now();
        let taken = self
            .budgets()
            .entry(kind)
            .or_insert_with(|| Budget::new(now))
            .take(now);
        match taken {
            None => {}
            Some(0) => log::log!(level, "{line}"),
            Some(left_out) => log::log!(level, "{line} ({})", LeftOut(left_out, kind)),
        }
    }

    /// Logs how many lines were left out and are not told of yet.
    pub fn finish(&self) {
        for (kind, budget) in &mut *self.budgets() {
            let left_out = std::mem::take(&mut budget.left_out);
            if left_out > 0 {
                log::info!("{}", LeftOut(left_out, kind));
            }
        }
    }

    fn budgets(&self) -> MutexGuard<'_, BTreeMap<&'static str, Budget>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Text about lines that were left out.
struct LeftOut(u64, &'static str);

impl Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = if self.0 == 1 { "line" } else { "lines" };
        write!(f, "{} {lines} on {} left out before", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_and_then_one_line_for_each_interval_with_the_number_left_out() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        for _ in 0..BURST {
            assert_eq!(budget.take(begin), Some(0));
        }
        for _ in 0..30_000 {
            assert_eq!(budget.take(begin), None);
        }
        assert_eq!(budget.take(begin + INTERVAL), Some(30_000));
        assert_eq!(budget.take(begin + INTERVAL), None);
        assert_eq!(budget.take(begin + 2 * INTERVAL), Some(1));
        // a long silence earns no more than a burst
        let later = begin + 1000 * INTERVAL;
        for _ in 0..BURST {
            assert_eq!(budget.take(later), Some(0));
        }
        assert_eq!(budget.take(later), None);
    }

    #[test]
    fn a_kind_does_not_spend_the_budget_of_another() {
        let reports = Reports::default();
        let now = Instant::now();
        let mut budgets = reports.budgets();
        let mut take = |kind| {
            let budget = budgets.entry(kind).or_insert_with(|| Budget::new(now));
            budget.take(now)
        };
        while take("clients").is_some() {}
        assert_eq!(take("requests"), Some(0));
    }
}
