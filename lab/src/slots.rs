//! Number of machines that run at a time, over all processes of this user.
//!
//! A machine under software emulation keeps a processor busy; more of them than there
//! are processors only makes each miss its time limits. A slot is a locked file: it is
//! free again when its process ends, however that happens.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use varia_debian::packages;

use crate::error::{LabError, Result};

/// Wait before a message.
const SILENT: Duration = Duration::from_secs(10);

/// Variable with the number of machines that run at a time.
pub const VMS: &str = "VARIA_VMS";

/// The right to run a machine, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _file: File,
}

impl Slot {
    /// Waits for a slot. `VARIA_VMS` says how many there are; by default one for each
    /// processor.
    ///
    /// # Errors
    /// [`LabError::Io`] if the slots' files can't be used.
    pub fn wait() -> Result<Self> {
        let folder = packages::cache_subfolder("slots".as_ref())?;
        let count = count();
        let begin = Instant::now();
        let mut said = false;
        loop {
            for index in 0..count {
                let path = folder.join(index.to_string());
                let file = File::create(&path).map_err(LabError::file("open", &path))?;
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return Ok(Self { _file: file });
                }
            }
            if begin.elapsed() > SILENT && !said {
                eprintln!(
                    "waiting for another VM to end: at most {count} VMs run at a time ({VMS})"
                );
                said = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn count() -> usize {
    let wanted = std::env::var(VMS).ok().and_then(|text| text.parse().ok());
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    wanted.unwrap_or_else(processors).max(1)
}
