//! Counters of a server: messages by command, errors, latencies and bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::command::Command;

/// Commands of the specification are numbered from 1; the first row counts all others.
const ROWS: usize = 19;

/// Upper bounds of the latencies that are counted apart, in microseconds. The last count has no
/// bound.
pub const BOUNDS: [u64; 6] = [10, 100, 1000, 10_000, 100_000, 1_000_000];

/// Counters since the start of a server. Each is consistent in itself.
#[derive(Debug, Default)]
pub struct Counters {
    rows: [Row; ROWS],
    /// Bytes that came from clients and went to them, headers included.
    received: AtomicU64,
    sent: AtomicU64,
    clients: AtomicU64,
    connected: AtomicU64,
    dropped: AtomicU64,
}

/// A client that is connected, for as long as this lives.
pub(crate) struct Connected<'a>(&'a Counters);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Row {
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    latencies: [AtomicU64; BOUNDS.len() + 1],
}

/// Counts of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Name of the command; "other" for those that the specification does not have.
    pub command: &'static str,
    /// Messages that were answered, or done if no reply was wanted.
    pub messages: u64,
    /// Messages among them that were refused.
    pub errors: u64,
    /// Sum of the latencies.
    pub time: Duration,
    /// Messages up to each of [`BOUNDS`], and the rest.
    pub latencies: [u64; BOUNDS.len() + 1],
}

/// Counts of all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that came from clients.
    pub received: u64,
    /// Bytes that went to clients.
    pub sent: u64,
    /// Clients that negotiated.
    pub clients: u64,
    /// Clients that are connected now.
    pub connected: u64,
    /// Connections that the server ended.
    pub dropped: u64,
}

impl Counters {
    /// A message has been handled.
    pub(crate) fn message(&self, command: Command, took: Duration, is_error: bool) {
        let row = self.rows.get(usize::from(command.0));
        let Some(row) = row.or(self.rows.first()) else {
            return;
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.iter().position(|bound| micros <= *bound);
        if let Some(count) = row.latencies.get(place.unwrap_or(BOUNDS.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        row.nanoseconds.fetch_add(nanos, Ordering::Relaxed);
        if is_error {
            row.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A client has negotiated.
    pub(crate) fn client(&self) -> Connected<'_> {
        self.clients.fetch_add(1, Ordering::Relaxed);
        self.connected.fetch_add(1, Ordering::Relaxed);
        Connected(self)
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts of the commands that have come.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let count = |(number, row): (usize, &Row)| {
            let latencies = row.latencies.each_ref().map(load);
            let messages = latencies.iter().sum();
            let name = u16::try_from(number).ok().and_then(|n| Command(n).name());
            (messages > 0).then_some(Count {
                command: name.unwrap_or("other"),
                messages,
                errors: load(&row.errors),
                time: Duration::from_nanos(load(&row.nanoseconds)),
                latencies,
            })
        };
        self.rows.iter().enumerate().filter_map(count).collect()
    }

    /// Counts of all connections.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Totals {
            received: load(&self.received),
            sent: load(&self.sent),
            clients: load(&self.clients),
            connected: load(&self.connected),
            dropped: load(&self.dropped),
        }
    }
}
