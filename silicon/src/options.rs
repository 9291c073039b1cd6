//! What is asked of a device beyond its profile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use varia_core::HostPhys;

use crate::clock::{Clock, SystemClock};
use crate::fault::Faults;

/// When the coherent memory can be used after power-on and after each reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Readiness {
    /// At once.
    #[default]
    Immediate,
    /// After this long.
    After(Duration),
    /// Not at all.
    Never,
}

/// Where the coherent memory's bytes are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Backing {
    /// In a memfd that ends with the device.
    #[default]
    Anonymous,
    /// In a file, made if it is absent, that stays.
    File(PathBuf),
    /// In a file that is there, from this byte on.
    PartOfFile(PathBuf, u64),
}

/// What is asked of a device beyond its profile.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of coherent memory; `None` for what the chip has. Nothing else can be asked of a chip
    /// without any.
    pub memory: Option<u64>,
    /// Bytes at its end that firmware does not count, so that its size need not be whole pages.
    pub uncounted: u64,
    /// Where the memory begins; `None` for what the profile assumes.
    pub base: Option<HostPhys>,
    /// Where its bytes are.
    pub backing: Backing,
    /// When it can be used.
    pub readiness: Readiness,
    /// What is broken.
    pub faults: Faults,
    /// What readiness is measured by.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: None,
            uncounted: 0,
            base: None,
            backing: Backing::Anonymous,
            readiness: Readiness::Immediate,
            faults: Faults::default(),
            clock: Arc::new(SystemClock::default()),
        }
    }
}
