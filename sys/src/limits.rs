//! What this process may use of the system.

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// How many bytes this process may lock; none for no limit. `RLIMIT_MEMLOCK`'s soft limit does not
/// concern who has `CAP_IPC_LOCK`, as root has (Linux 7.2 `drivers/vfio/vfio_iommu_type1.c`:
/// `vfio_lock_acct`).
#[must_use]
pub fn memlock() -> Option<u64> {
    let unlimited = capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::IPC_LOCK));
    if unlimited {
        return None;
    }
    getrlimit(Resource::Memlock).current
}
