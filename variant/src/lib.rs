//! The vocabulary of VFIO PCI variant drivers, and the trait that both runtimes drive.
//!
//! A variant *decides*; a runtime *acts*. A decision is a value: which piece of an access reaches
//! memory, who owns a piece of configuration space, which page frame backs a fault, whether a
//! device is ready and when to look again. Nothing here does I/O, allocates, sleeps, takes a
//! lock, panics or holds a reference to device memory, so that a Linux kernel module and a
//! user-space server can carry out the same source.
//!
//! All methods take `&self`; state that changes is atomic. The rules are in ARCHITECTURE.md,
//! "State under concurrency".
#![no_std]

#[cfg(test)]
extern crate std;

pub mod config;
pub mod memory;
pub mod mmap;
pub mod probe;
pub mod ready;
pub mod units;

pub use config::{ConfigOwner, ConfigPiece, Direction};
pub use memory::{Begin, MemoryRegion, MemoryType, RegionInfo, Segment, SegmentKind};
pub use mmap::{Fault, FaultRequest, Mapping, MmapRequest};
pub use probe::{Answer, Decline, Environment, Outcome, Question, Refusal};
pub use ready::{After, Before, Generation, Register, Registers, Sample, Wait};
pub use units::{BarSize, HostPhys, Millis, Monotonic, PageFrame, PageShift};

use varia_spec::{Errno, vfio::RegionIndex};

/// What a variant says of a region index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// The base serves it: the physical BAR, ROM or configuration space.
    Base,
    /// Memory outside every physical BAR, presented as one.
    Memory(MemoryRegion),
}

/// How a variant comes to be: the runtime answers its questions, then builds it.
pub trait Probe: Variant + Sized {
    /// What the runtime finds out before [`Probe::probe`], in this order; at most
    /// [`probe::MAX_QUESTIONS`].
    const QUESTIONS: &'static [Question];

    /// Builds the variant's whole state; `answers` has one entry for each question, in order.
    ///
    /// The layout is computed here and never changes. Whether the device is served is the
    /// [`Variant::outcome`], to be asked after the readiness wait.
    fn probe(answers: &[Answer], environment: Environment) -> Self;
}

/// A layer over a base: it sees what the base answers and changes what it must.
///
/// In user space the base is Varia's own PCI core, in the kernel it is Linux's vfio-pci-core.
/// A runtime calls these methods from any thread, at any time.
pub trait Variant {
    /// Serve, decline (the base serves the device alone) or fail. A declined variant answers
    /// every other question as a transparent layer.
    fn outcome(&self) -> Outcome;

    /// What stands behind a region index.
    fn region(&self, index: RegionIndex) -> Region;

    /// What the variant calls the memory behind a region index, if it has memory there.
    fn memory_name(&self, index: RegionIndex) -> Option<&'static str> {
        let _ = index;
        None
    }

    /// Who owns the first bytes of a configuration access to `offset..offset + len`.
    ///
    /// The runtime carries out that piece, advances and asks again; `len` is at least 1.
    fn config_piece(&self, direction: Direction, offset: u64, len: u64) -> ConfigPiece;

    /// Fills `out` with the bytes at `offset` that the variant owns; bytes that it does not own
    /// are left as they are.
    fn config_load(&self, offset: u64, out: &mut [u8]);

    /// Keeps the bytes at `offset` that the variant owns; others are ignored.
    fn config_store(&self, offset: u64, data: &[u8]);

    /// The first half of a readiness check: nothing to do, registers to read, or an error.
    ///
    /// Call it inside the lock hold that sampled `sample`. `wait` belongs to one operation.
    fn ready_before(&self, wait: &mut Wait, sample: Sample) -> Before;

    /// The second half: judges the registers that [`Before::Look`] named, read in the same lock
    /// hold. `values` are in the order of the registers, unused ones ignored.
    fn ready_after(
        &self,
        wait: &mut Wait,
        generation: Generation,
        values: [u32; ready::MAX_REGISTERS],
        sample: Sample,
    ) -> After;

    /// What is known of the device's readiness; `None` where it is always ready.
    fn readiness(&self) -> Option<ready::Status> {
        None
    }

    /// The device was opened: a new user starts with fresh state.
    fn opened(&self);

    /// `VFIO_DEVICE_RESET` is about to be carried out, and may still fail.
    fn reset_requested(&self);

    /// The device has been reset, by whatever means.
    fn reset_done(&self);

    /// Whether open fails unless BAR0 can be mapped.
    fn needs_bar0(&self) -> bool {
        false
    }

    /// Whether the base may serve `VFIO_DEVICE_IOEVENTFD`, or the error it gets.
    fn ioeventfd(&self) -> Result<(), Errno> {
        Ok(())
    }
}
