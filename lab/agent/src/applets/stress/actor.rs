//! A thread of the test: what it counts, and how it reports what must not happen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use varia_spec::Errno;

use super::Tally;

/// Time after which an operation does not end by itself. A driver waits 30 s for a device.
const STUCK: Duration = Duration::from_secs(10 * 60);
/// Number of violations that are kept.
const KEPT: usize = 20;

/// State that all threads share.
#[derive(Debug)]
pub(super) struct Control {
    started: Instant,
    stop: AtomicBool,
    violations: Mutex<Vec<String>>,
    watched: Mutex<Vec<Watched>>,
}

/// State of a thread, as seen by the others.
#[derive(Clone, Debug)]
struct Watched {
    name: &'static str,
    /// Time at which its operation began, as [`Control::now`]; 0 between operations.
    busy: Arc<AtomicU64>,
    /// Operations that succeeded.
    done: Arc<AtomicU64>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            stop: AtomicBool::new(false),
            violations: Mutex::default(),
            watched: Mutex::default(),
        }
    }
}

impl Control {
    /// A thread to be.
    pub(super) fn actor(self: &Arc<Self>, name: &'static str, seed: u64, number: u64) -> Actor {
        let watched = Watched {
            name,
            busy: Arc::default(),
            done: Arc::default(),
        };
        lock(&self.watched).push(watched.clone());
        Actor {
            name,
            number,
            rng: Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(number)),
            control: Arc::clone(self),
            tally: Tally::default(),
            watched,
        }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Returns true if there is a thread of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        lock(&self.watched).iter().any(|known| known.name == name)
    }

    /// Operations that have succeeded so far, by the names of the threads.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for known in lock(&self.watched).iter() {
            *counts.entry(known.name).or_default() += known.done.load(Ordering::SeqCst);
        }
        counts
    }

    /// Returns true if the threads of each name have done at least that many operations.
    pub(super) fn reached(&self, least: &BTreeMap<String, u64>) -> bool {
        let counts = self.counts();
        least
            .iter()
            .all(|(name, least)| counts.get(name.as_str()).is_some_and(|done| done >= least))
    }

    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// Returns true if an operation does not end, which is a violation.
    pub(super) fn look_for_the_stuck(&self) -> bool {
        let now = self.now();
        let stuck: Vec<_> = lock(&self.watched)
            .iter()
            .filter(|known| {
                let since = known.busy.load(Ordering::SeqCst);
                since != 0 && now.saturating_sub(since) > STUCK.as_millis() as u64
            })
            .map(|known| known.name)
            .collect();
        for name in &stuck {
            self.violate(format!("{name}: an operation takes more than {STUCK:?}"));
        }
        !stuck.is_empty()
    }

    fn violate(&self, what: String) {
        let mut violations = lock(&self.violations);
        if violations.len() < KEPT && !violations.contains(&what) {
            violations.push(what);
        }
        self.stop();
    }

    /// Milliseconds since the beginning, from 1.
    fn now(&self) -> u64 {
        super::millis(self.started) + 1
    }
}

/// A thread.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) name: &'static str,
    /// Different for each, from 1.
    pub(super) number: u64,
    pub(super) rng: Rng,
    control: Arc<Control>,
    tally: Tally,
    watched: Watched,
}

impl Actor {
    /// Returns true until the thread has to stop.
    pub(super) fn goes_on(&self) -> bool {
        !self.control.stopped()
    }

    /// Does something with the device. What it gives is there if it succeeded; an error number
    /// that is not `allowed` is a violation.
    pub(super) fn attempt<T>(
        &mut self,
        what: &str,
        allowed: &[Errno],
        operation: impl FnOnce() -> Result<T, Errno>,
    ) -> Option<T> {
        let started = Instant::now();
        let busy = &self.watched.busy;
        busy.store(self.control.now(), Ordering::SeqCst);
        let result = operation();
        busy.store(0, Ordering::SeqCst);
        self.tally.slowest_ms = self.tally.slowest_ms.max(super::millis(started));
        match result {
            Ok(value) => {
                self.tally.done += 1;
                self.watched.done.store(self.tally.done, Ordering::SeqCst);
                Some(value)
            }
            Err(errno) => {
                *self.tally.refused.entry(errno.get()).or_default() += 1;
                if !allowed.contains(&errno) {
                    self.violated(&format!("{what}: {errno}"));
                }
                None
            }
        }
    }

    /// Something must not have happened, and did.
    pub(super) fn violated(&self, what: &str) {
        self.control.violate(format!("{}: {what}", self.name));
    }

    /// Which of `count` mappings that stay: mostly the first, which is touched all the time.
    pub(super) fn lasting(&mut self, count: usize) -> usize {
        if self.rng.u8(0..4) > 0 {
            0
        } else {
            self.rng.usize(0..count)
        }
    }

    /// Sleeps, for a random part of this time, or until the end.
    pub(super) fn rest(&mut self, most: Duration) {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        let end = Instant::now() + Duration::from_micros(self.rng.u64(0..=most));
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if !self.goes_on() {
                return;
            }
            thread::sleep(left.min(super::WATCH));
        }
    }

    /// Name of the thread, and its operations.
    pub(super) fn end(self) -> (&'static str, Tally) {
        (self.name, self.tally)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
