//! Errors of descriptions that firmware tables can't represent, with the values at fault.

use varia_facts::{Bdf, Bytes};

use crate::numa::{Processor, ProximityDomain};

/// Reason why a machine or a device can't be put into tables.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A machine without proximity domains.
    #[error("a machine has at least one proximity domain: describe domain 0 with its processors")]
    NoDomain,
    /// The numbers of distance rows and of domains differ.
    #[error(
        "{distances} rows of distances were given for {domains} proximity domains: give one row \
         for each domain"
    )]
    DistanceCount {
        /// Number of rows.
        distances: usize,
        /// Number of domains.
        domains: usize,
    },
    /// A distance that a SLIT can't represent.
    #[error(
        "distance {distance} from domain {from} to {to}: give 10 for a domain and itself, 11 to \
         254 for two domains, or 255 for an unreachable domain"
    )]
    Distance {
        /// Initiator's domain.
        from: ProximityDomain,
        /// Target's domain.
        to: ProximityDomain,
        /// The given distance.
        distance: u8,
    },
    /// The machine does not have the domain.
    #[error(
        "proximity domain {domain} does not exist: name one of the machine's domains, 0 to {last}"
    )]
    UnknownDomain {
        /// The given domain.
        domain: ProximityDomain,
        /// Highest domain of the machine.
        last: ProximityDomain,
    },
    /// A processor in two places.
    #[error("{processor} is listed twice: list it in one proximity domain")]
    ProcessorTwice {
        /// The processor.
        processor: Processor,
    },
    /// A function listed twice in a domain.
    #[error("{function} is listed twice as an initiator of domain {domain}: list it once")]
    InitiatorTwice {
        /// The domain.
        domain: ProximityDomain,
        /// The PCI function.
        function: Bdf,
    },
    /// A segment that an SRAT can't represent.
    #[error(
        "{function} is in a segment above ffff, which firmware tables can't name: give a function \
         in a segment of the platform itself"
    )]
    Segment {
        /// The PCI function.
        function: Bdf,
    },
    /// Memory without length, or beyond 64 bits.
    #[error(
        "{} of memory at {base:#x} are empty or end beyond 64 bits: give a range below 2^64",
        Bytes(*.length)
    )]
    MemoryRange {
        /// First address.
        base: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Two overlapping ranges of memory.
    #[error(
        "memory at {second:#x} overlaps the range that starts at {first:#x}: separate the ranges"
    )]
    MemoryOverlap {
        /// Start of the lower range.
        first: u64,
        /// Start of the higher range.
        second: u64,
    },
    /// An access from a domain without initiators, or to a domain without memory.
    #[error(
        "an access from domain {initiator} to {target} can't be described: name an initiator with \
         processors or a PCI function, and a target with memory"
    )]
    Access {
        /// Initiator's domain.
        initiator: ProximityDomain,
        /// Target's domain.
        target: ProximityDomain,
    },
    /// The access is described twice.
    #[error("the access from domain {initiator} to {target} is described twice: describe it once")]
    AccessTwice {
        /// Initiator's domain.
        initiator: ProximityDomain,
        /// Target's domain.
        target: ProximityDomain,
    },
    /// Values that do not fit into 16 bits of a common unit.
    #[error(
        "{quantity} of {smallest} to {largest} have no common unit of which each value is a \
         multiple below 65535: round the values"
    )]
    Unit {
        /// Kind of the values: latencies or bandwidths.
        quantity: &'static str,
        /// Smallest value.
        smallest: u64,
        /// Largest value.
        largest: u64,
    },
    /// The path is not an absolute path in ACPI's namespace.
    #[error(
        "{path:?} is not the absolute path of an ACPI device: write it as \\_SB.PCI0.S08.S00, with \
         names of one to four capital letters, digits and underscores"
    )]
    Path {
        /// The given path.
        path: String,
    },
    /// The name is not a string that AML can represent.
    #[error("{name:?} can't name a property: use printable ASCII")]
    PropertyName {
        /// The given name.
        name: String,
    },
}
