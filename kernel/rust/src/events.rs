// SPDX-License-Identifier: GPL-2.0-only
//! Counts of the events of a device, so that the rules of ARCHITECTURE.md, "State under
//! concurrency", can be checked afterwards. docs/kernel.md states the balances.
//!
//! Each count is one relaxed atomic: it orders nothing, and two counts that are read while the
//! device is busy need not fit together. Once it is idle they do.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A counter.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])* $name,)*
        }

        /// The names of all counts, in their order.
        pub const NAMES: &[&str] = &[$($text),*];
    };
}

counters! {
    /// Opens that were begun.
    Opens = "opens",
    /// Opens that failed.
    OpensFailed = "opens_failed",
    /// Closes.
    Closes = "closes",
    /// `VFIO_DEVICE_RESET` that were asked for.
    ResetsRequested = "resets_requested",
    /// Resets that have finished, whoever asked for them.
    Resets = "resets",
    /// Recoveries from an error on the link (AER), each of which asks for a new check of readiness.
    Recoveries = "recoveries",
    /// Polls of the readiness registers.
    Polls = "polls",
    /// Polls of a device in use without `memory_lock` held: always 0.
    PollsUnlocked = "polls_unlocked",
    /// Polls that raced a reset, and were repeated.
    PollsRaced = "polls_raced",
    /// Times that `memory_lock` was taken with the device ready, so that an act was authorised.
    LocksReady = "locks_ready",
    /// Locks that were dropped without an act, after a check alone.
    Checks = "checks",
    /// Locks under which bytes were copied between the buffer of the user, or a bounce buffer, and
    /// the device memory.
    Copies = "copies",
    /// Waits that have slept at least once.
    Waits = "waits",
    /// Waits that ended because the device was ready.
    WaitsReady = "waits_ready",
    /// Waits that ended at their deadline.
    WaitsTimedOut = "waits_timed_out",
    /// Waits that ended because the waiting process was killed.
    WaitsKilled = "waits_killed",
    /// Waits that ended with another error.
    WaitsFailed = "waits_failed",
    /// Reads and writes of a region of memory that were begun.
    Accesses = "accesses",
    /// Reads and writes of a region of memory that have ended, with or without an error.
    AccessesEnded = "accesses_ended",
    /// Reads and writes of a region of memory that were refused before they began.
    AccessesRefused = "accesses_refused",
    /// Reads and writes of a region of memory that ended at a failed page.
    AccessesFailed = "accesses_failed",
    /// Writes of configuration space.
    ConfigWrites = "config_writes",
    /// Writes of configuration space that were split, because the variant owns a part.
    ConfigSplits = "config_splits",
    /// Writes of configuration space that ended before their last segment.
    ConfigShort = "config_short",
    /// Mappings that were made.
    Mmaps = "mmaps",
    /// Mappings that were refused.
    MmapsRefused = "mmaps_refused",
    /// Page faults, once for each order that is tried.
    Faults = "faults",
    /// Faults that asked for a smaller order.
    FaultsFallback = "faults_fallback",
    /// Faults outside the memory: `SIGBUS`.
    FaultsOutside = "faults_outside",
    /// Faults of a failed page: `SIGBUS`, as the failure itself gives.
    FaultsFailed = "faults_failed",
    /// Faults of a device that was not ready in time: `SIGBUS`.
    FaultsNotReady = "faults_not_ready",
    /// Faults that released the locks of the memory map and were tried again.
    FaultsRetried = "faults_retried",
    /// Faults that were served.
    FaultsServed = "faults_served",
    /// Faults whose pages the kernel did not insert: `SIGBUS`, or again.
    FaultsNotInserted = "faults_not_inserted",
    /// Regions that were mapped for the kernel's own accesses.
    MemoryMapped = "memory_mapped",
    /// Regions that were unmapped again.
    MemoryUnmapped = "memory_unmapped",
    /// Regions that were claimed in the kernel's table of resources.
    MemoryClaimed = "memory_claimed",
    /// Regions that were released again.
    MemoryReleased = "memory_released",
    /// Ranges of page frames that were registered for memory failure.
    PagesRegistered = "pages_registered",
    /// Ranges that were unregistered again.
    PagesUnregistered = "pages_unregistered",
    /// Lookups by the memory-failure handling of the kernel, one for each process and mapping.
    PoisonLookups = "poison_lookups",
    /// Lookups whose mapping has the failed page.
    PoisonFound = "poison_found",
    /// Failed pages in the list.
    PoisonEntries = "poison_entries",
    /// Failed pages that the list has no room for: the pages between them count as failed too.
    PoisonOverflow = "poison_overflow",
}

/// Number of counts.
pub const COUNT: usize = NAMES.len();

/// All counts of a device. All zero at first.
#[derive(Debug)]
#[repr(transparent)]
pub struct Counters([AtomicU64; COUNT]);

impl Counters {
    /// Counts of a new device.
    #[allow(
        clippy::new_without_default,
        reason = "the list is too large for a stack"
    )]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; COUNT])
    }

    /// Adds 1 to a count.
    pub fn add(&self, counter: Counter) {
        if let Some(count) = self.0.get(counter as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The name and value of the count with this number.
    pub fn line(&self, number: u64) -> Option<(&'static str, u64)> {
        let number = usize::try_from(number).ok()?;
        let count = self.0.get(number)?.load(Ordering::Relaxed);
        Some((NAMES.get(number)?, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_name_of_its_own() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT);
        let counters = Counters::new();
        counters.add(Counter::PoisonOverflow);
        let last = COUNT as u64 - 1;
        assert_eq!(counters.line(last), Some(("poison_overflow", 1)));
        assert_eq!(counters.line(last + 1), None);
    }

    #[test]
    fn the_page_on_the_module_lists_every_count() {
        let page = include_str!("../../../docs/kernel.md");
        let rows = page
            .lines()
            .skip_while(|line| *line != "| count | what it counts |");
        let listed: Vec<_> = rows
            .skip(2)
            .map_while(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(listed, NAMES);
    }
}
