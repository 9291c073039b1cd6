//! Limits of this process on what it uses of the system.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Limit of bytes that this process may lock; `None` without a limit. The soft limit of
/// `RLIMIT_MEMLOCK` does not apply to processes with `CAP_IPC_LOCK`, such as root's (Linux 7.2
/// `drivers/vfio/vfio_iommu_type1.c`: `vfio_lock_acct`).
#[must_use]
pub fn memlock() -> Option<u64> {
    let unlimited = capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::IPC_LOCK));
    if unlimited {
        return None;
    }
    getrlimit(Resource::Memlock).current
}

/// Raises the number of files that this process may have open (`RLIMIT_NOFILE`) from the soft to
/// the hard limit. Processes that this process starts inherit the new limit.
///
/// # Errors
/// Error of `setrlimit`; the limit is then unchanged.
pub fn raise_open_files() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Gives the free memory of the heap back to the system, where the C library can (`malloc_trim` of
/// glibc): what the threads of a process have freed else stays with the process for their next use.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes a number, and locks the heap itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
