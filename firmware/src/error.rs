//! What can't be described, with the values at fault.

use varia_facts::Bdf;

use crate::numa::{Processor, ProximityDomain};

/// Why a machine or a device can't be put into tables.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A machine without domains.
    #[error("a machine has at least one proximity domain: describe domain 0 with its processors")]
    NoDomain,
    /// As many rows of distances as domains are needed.
    #[error(
        "{distances} rows of distances were given for {domains} proximity domains: give one each"
    )]
    DistanceCount {
        /// Rows.
        distances: usize,
        /// Domains.
        domains: usize,
    },
    /// A distance that a SLIT can't say.
    #[error(
        "distance {distance} from domain {from} to {to}: a domain is 10 from itself, others are \
         11 to 254 away, or 255 when they can't be reached"
    )]
    Distance {
        /// Where from.
        from: ProximityDomain,
        /// Where to.
        to: ProximityDomain,
        /// What was asked for.
        distance: u8,
    },
    /// A domain that the machine does not have.
    #[error("there is no proximity domain {domain}: the machine has 0 to {last}")]
    UnknownDomain {
        /// Which.
        domain: ProximityDomain,
        /// The highest that there is.
        last: ProximityDomain,
    },
    /// One processor in two places.
    #[error("{processor} is listed twice: a processor is in one proximity domain")]
    ProcessorTwice {
        /// Which.
        processor: Processor,
    },
    /// One function twice in a domain.
    #[error("{function} is listed twice as an initiator of domain {domain}: list it once")]
    InitiatorTwice {
        /// The domain.
        domain: ProximityDomain,
        /// The PCI function.
        function: Bdf,
    },
    /// A segment that an SRAT can't say.
    #[error(
        "{function} is in a segment above ffff, which firmware tables can't name: only a function \
         in a segment of the platform's own can be an initiator"
    )]
    Segment {
        /// The PCI function.
        function: Bdf,
    },
    /// Memory without length, or beyond 64 bits.
    #[error("memory of {length:#x} bytes at {base:#x} is empty or ends beyond 64 bits")]
    MemoryRange {
        /// First byte.
        base: u64,
        /// Bytes.
        length: u64,
    },
    /// Memory in two places.
    #[error("memory at {second:#x} overlaps the range that starts at {first:#x}: they must differ")]
    MemoryOverlap {
        /// Start of the lower range.
        first: u64,
        /// Start of the higher range.
        second: u64,
    },
    /// An access of what can't access, or to what has no memory.
    #[error(
        "no access from domain {initiator} to {target} can be described: an initiator has \
         processors or a PCI function, a target has memory"
    )]
    Access {
        /// Where from.
        initiator: ProximityDomain,
        /// Where to.
        target: ProximityDomain,
    },
    /// The same access twice.
    #[error("the access from domain {initiator} to {target} is described twice")]
    AccessTwice {
        /// Where from.
        initiator: ProximityDomain,
        /// Where to.
        target: ProximityDomain,
    },
    /// Values that do not fit 16 bits of a common unit.
    #[error(
        "{quantity} of {smallest} to {largest} have no unit of which all are whole multiples below \
         65535: round them"
    )]
    Unit {
        /// Latencies or bandwidths.
        quantity: &'static str,
        /// The smallest value.
        smallest: u64,
        /// The largest value.
        largest: u64,
    },
    /// A path that is none in ACPI's namespace.
    #[error(
        "{path:?} is not the absolute path of an ACPI device: it is written as \\_SB.PCI0.S08.S00, \
         names of one to four capital letters, digits and underscores"
    )]
    Path {
        /// What was given.
        path: String,
    },
    /// A property whose name can't be a string of AML.
    #[error("{name:?} can't name a property: use printable ASCII")]
    PropertyName {
        /// What was given.
        name: String,
    },
}
