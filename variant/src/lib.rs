//! The vocabulary of VFIO PCI variant drivers, and the trait that both runtimes drive.
//!
//! A variant *decides*; a runtime *acts*. A decision is a value: which segment of an access reaches
//! memory, which layer owns a segment of configuration space, which page frame backs a fault,
//! whether a device is ready and when to poll again. Nothing here does I/O, allocates, sleeps,
//! takes a lock, panics or holds a reference to device memory, so that a Linux kernel module and a
//! user-space server can carry out the same source.
//!
//! All methods take `&self`; state that changes is atomic. The rules are in ARCHITECTURE.md,
//! "State under concurrency".
#![no_std]

#[cfg(test)]
extern crate std;

pub mod composed;
pub mod config;
pub mod describe;
pub mod extension;
pub mod memory;
pub mod mmap;
pub mod platform;
pub mod presented;
pub mod probe;
pub mod ready;
pub mod reason;
pub mod registers;
pub mod text;

pub use composed::{Composed, ComposedSegment, RootFunction, Source};
pub use config::{ConfigOwner, ConfigSegment, Direction};
pub use describe::{Describe, Feature, FeatureSource};
pub use extension::{Extended, Extension};
pub use memory::{Begin, MemoryRegion, MemoryType, Segment, SegmentKind};
pub use mmap::{Fault, FaultRequest, Mapping, MmapRequest};
pub use platform::{MissingFact, WrongFact};
pub use presented::{MemoryLayout, Presented};
pub use probe::{Answer, Answers, Environment, Outcome, Plan, Question, TreePlace, TreeStep};
pub use ready::{After, Before, Generation, Ready, Register, Sample, Wait};
pub use reason::{Decline, Refusal};
pub use registers::{Command, RegisterAccess, Registers, Target};
pub use text::{Sentence, TextSegment};
pub use varia_units::{
    BarIndex, BarSize, Bytes, HostPhys, Millis, Monotonic, PageFrame, PageShift,
};

use core::fmt;

use varia_spec::vfio::RegionIndex;

/// Kind of a region.
#[derive(Clone, Copy)]
pub enum Region<'a> {
    /// Region of the base: the physical BAR, ROM or configuration space.
    Base,
    /// No region, whatever the base has at this index: its size is 0, and an access to it is
    /// `EINVAL`.
    Absent,
    /// Memory outside every physical BAR, presented as a BAR or as a device-specific region.
    Memory(MemoryRegion),
    /// Registers that the variant makes, presented as a BAR.
    Registers(&'a dyn Registers),
    /// Read-only bytes that the variant composes of other sources.
    Composed(&'a dyn Composed),
}

impl fmt::Debug for Region<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("Base"),
            Self::Absent => f.write_str("Absent"),
            Self::Memory(region) => f.debug_tuple("Memory").field(region).finish(),
            Self::Registers(registers) => {
                f.debug_tuple("Registers").field(&registers.name()).finish()
            }
            Self::Composed(region) => f.debug_tuple("Composed").field(&region.name()).finish(),
        }
    }
}

/// Event of the device as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The device was opened: a new user starts with fresh state.
    Opened,
    /// `VFIO_DEVICE_RESET` is about to be carried out, and may still fail.
    ResetRequested,
    /// The device has been reset, by any means.
    ResetDone,
}

/// Construction of a variant: the runtime answers its questions, then builds it.
pub trait Probe: Variant + Sized {
    /// Questions that the runtime answers before [`Probe::probe`]; at most
    /// [`probe::MAX_QUESTIONS`].
    const QUESTIONS: &'static [Question];

    /// Builds the variant's whole state from the answers to [`Probe::QUESTIONS`].
    ///
    /// The layout is computed here and never changes. Whether the device is served is the
    /// [`Variant::outcome`], to be asked after the readiness wait.
    fn probe(answers: &Answers, environment: Environment) -> Self;
}

/// A layer over a base, whose results it sees and changes.
///
/// In user space the base is Varia's own PCI core, in the kernel it is Linux's vfio-pci-core.
/// A runtime calls these methods from any thread, at any time. No method has a default: every
/// variant decides each of them. A capability that only some variants have is a trait of its own,
/// as [`Ready`] is.
pub trait Variant {
    /// Outcome of the probe: serve, decline (the base serves the device alone) or fail. A variant
    /// that declines is a transparent layer in every other method.
    fn outcome(&self) -> Outcome;

    /// Kind of the region with this index. Device-specific regions have the indices from 9 on,
    /// without a gap.
    fn region(&self, index: RegionIndex) -> Region<'_>;

    /// Owner of the first bytes of a configuration access to `offset..offset + len`.
    ///
    /// The runtime carries out the segment, advances and calls again; `len` is at least 1.
    fn config_segment(&self, direction: Direction, offset: u64, len: u64) -> ConfigSegment;

    /// Replaces the bytes at `offset` that the variant owns. `out` holds the bytes of the
    /// layer below; bytes that the variant does not own stay as they are.
    fn config_load(&self, offset: u64, out: &mut [u8]);

    /// Keeps the bytes at `offset` that the variant owns, and ignores the others.
    fn config_store(&self, offset: u64, data: &[u8]);

    /// Handles an event of the device.
    fn event(&self, event: Event);

    /// True if the variant's decisions refer to registers of a physical BAR: open fails unless that
    /// BAR can be mapped.
    fn needs_bar(&self, bar: BarIndex) -> bool;
}
