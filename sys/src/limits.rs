//! What this process may use of the system.

use rustix::process::{Resource, getrlimit};

/// How many bytes this process may lock, `RLIMIT_MEMLOCK`'s soft limit; none for no limit.
#[must_use]
pub fn memlock() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}
