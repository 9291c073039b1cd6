// SPDX-License-Identifier: GPL-2.0-only
//! Counts that C raises.

pub use crate::events::{COUNT, Counter, Counters, NAMES};
use crate::{abi::c_functions, state, types::State};

/// Counts that C raises, by VARIA_COUNT_*; Rust raises the others.
const FROM_C: &[Counter] = &[
    Counter::OpensFailed,
    Counter::Closes,
    Counter::FaultsNotReady,
    Counter::FaultsServed,
    Counter::FaultsNotInserted,
    Counter::MemoryMapped,
    Counter::MemoryUnmapped,
    Counter::PagesRegistered,
    Counter::PagesUnregistered,
    Counter::MemoryClaimed,
    Counter::MemoryReleased,
    Counter::FaultsRetried,
    Counter::Checks,
];

c_functions! {
    /// Counts an act of C: VARIA_COUNT_*.
    fn varia_count(state: *const State, counter: u32) {
        // SAFETY: by the contract of all functions.
        let instance = unsafe { state::instance(state) };
        let counter = usize::try_from(counter).ok().and_then(|n| FROM_C.get(n));
        if let (Ok(instance), Some(counter)) = (instance, counter) {
            instance.counters.add(*counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    #[test]
    fn the_numbers_that_c_knows_are_in_the_order_of_the_list() {
        for (number, counter) in [
            (types::COUNT_OPEN_FAILED, Counter::OpensFailed),
            (types::COUNT_CLOSED, Counter::Closes),
            (types::COUNT_FAULT_NOT_READY, Counter::FaultsNotReady),
            (types::COUNT_FAULT_SERVED, Counter::FaultsServed),
            (types::COUNT_FAULT_NOT_INSERTED, Counter::FaultsNotInserted),
            (types::COUNT_MEMORY_MAPPED, Counter::MemoryMapped),
            (types::COUNT_MEMORY_UNMAPPED, Counter::MemoryUnmapped),
            (types::COUNT_PAGES_REGISTERED, Counter::PagesRegistered),
            (types::COUNT_PAGES_UNREGISTERED, Counter::PagesUnregistered),
            (types::COUNT_MEMORY_CLAIMED, Counter::MemoryClaimed),
            (types::COUNT_MEMORY_RELEASED, Counter::MemoryReleased),
            (types::COUNT_FAULT_RETRIED, Counter::FaultsRetried),
            (types::COUNT_CHECKED, Counter::Checks),
        ] {
            assert_eq!(FROM_C.get(number as usize), Some(&counter), "{number}");
        }
    }
}
