//! Options of a device beyond its profile.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use varia_core::HostPhys;
use varia_facts::PlatformFacts;

use crate::clock::{Clock, SystemClock};
use crate::fault::Faults;

/// Time at which the coherent memory can be used after power-on and after each reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Readiness {
    /// At once.
    #[default]
    Immediate,
    /// After this long.
    After(Duration),
    /// Not at all.
    Never,
    /// At every second poll: a reset that ends between two polls of one user, each time.
    EverySecondPoll,
}

/// Storage of the coherent memory's bytes.
#[derive(Clone, Debug, Default)]
pub enum Backing {
    /// A memfd that ends with the device.
    #[default]
    Anonymous,
    /// A file that stays, created if it is absent.
    File(PathBuf),
    /// An existing file, from this byte on.
    PartOfFile(PathBuf, u64),
    /// An open file, with a name for errors.
    Descriptor(PathBuf, Arc<OwnedFd>),
}

/// Options of a device beyond its profile.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of coherent memory; `None` for what the chip has. Nothing else can be asked of a chip
    /// without any.
    pub memory: Option<u64>,
    /// Bytes at its end that firmware does not count, so that its size need not be whole pages.
    pub uncounted: u64,
    /// Address of the memory; `None` for the address that the profile assumes.
    pub base: Option<HostPhys>,
    /// Storage of the memory's bytes.
    pub backing: Backing,
    /// Time at which the memory can be used.
    pub readiness: Readiness,
    /// Faults of the device.
    pub faults: Faults,
    /// Facts of the platform; `None` for those of the profile.
    pub platform: Option<PlatformFacts>,
    /// The device has a copy engine (`varia_spec::copy_engine`), which no chip has.
    pub copy_engine: bool,
    /// Clock by which readiness is measured.
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
            platform: None,
            copy_engine: false,
            clock: Arc::new(SystemClock::default()),
        }
    }
}
