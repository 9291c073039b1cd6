//! Reasons why a device is not served, as sentences.

use core::fmt;

use varia_spec::Errno;
use varia_units::{BarIndex, Bytes, HostPhys};

use crate::platform::{MissingFact, WrongFact};
use crate::text::{
    Sentence,
    TextSegment::{self, Decimal, Hexadecimal, Size, Text},
};

/// Reason why the base serves a device alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decline {
    /// A firmware property is missing or has the wrong type.
    Property {
        /// Name of the property.
        name: &'static str,
        /// Error of the lookup.
        errno: Errno,
    },
    /// The memory's size is 0: its link to the CPU is down.
    LinkDown,
    /// The function's owner lacks the commands that the variant needs.
    NoCommands,
    /// A physical BAR is where the variant would put its own.
    BarTaken(BarIndex),
    /// The graphics device's register of the OpRegion's address holds no address.
    NoOpRegion {
        /// Value of the register.
        asls: u32,
    },
    /// A bridge beside the graphics device does not exist.
    NoBridge {
        /// Name and place of the bridge.
        name: &'static str,
        /// Error of the read.
        errno: Errno,
    },
    /// A fact of the platform is missing.
    Platform(MissingFact),
}

/// Reason for a probe failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The memory is smaller than what must be reserved (`EOVERFLOW`).
    BelowReserve {
        /// Size of the memory.
        size: Bytes,
        /// Size to reserve.
        reserve: Bytes,
    },
    /// Nothing is left once the reserve is taken and the rest rounded down (`EINVAL`).
    NothingUsable {
        /// Size of the memory.
        size: Bytes,
        /// The smallest size that leaves something.
        least: Bytes,
    },
    /// The base is not a multiple of the page size (`EINVAL`).
    BaseNotPageAligned {
        /// Base of the memory.
        base: HostPhys,
        /// Page size.
        page: Bytes,
    },
    /// The memory ends beyond 64 bits (`EOVERFLOW`).
    BeyondAddresses {
        /// Base of the memory.
        base: HostPhys,
        /// Size of the memory.
        size: Bytes,
    },
    /// The memory ends beyond the addresses that the CPU can reach (`EOVERFLOW`).
    OutOfReach {
        /// Base of the region.
        base: HostPhys,
        /// Length of the region.
        length: Bytes,
        /// The last address that the CPU can reach.
        last: HostPhys,
    },
    /// A BAR that covers the memory would not fit a VFIO file position (`EOVERFLOW`).
    BarTooLarge {
        /// Size to cover.
        length: Bytes,
    },
    /// The memory does not fit into the physical BAR in which it is to be presented
    /// (`EOVERFLOW`).
    PhysicalBarTooSmall {
        /// The BAR.
        bar: BarIndex,
        /// Size of the BAR; 0 if the function does not have the BAR.
        size: Bytes,
        /// Size of the memory.
        memory: Bytes,
    },
    /// A part of the memory must be uncached, and the memory is to be presented in one BAR, which is
    /// cached (`EINVAL`).
    NoUncachedPart {
        /// Size of that part.
        reserve: Bytes,
    },
    /// The option `memory_enable` is to be honoured, and the memory is to be presented in no BAR
    /// (`EINVAL`).
    NoBarToHonour,
    /// The option `memory_enable` is to be honoured, and nothing of the device asks for memory enable
    /// (`EINVAL`).
    NothingToHonour,
    /// The kernel uses the addresses as its own memory (`EBUSY`).
    SystemRam {
        /// Base of the region.
        base: HostPhys,
        /// Length of the region.
        length: Bytes,
    },
    /// The function has no BAR0, and the readiness registers are in BAR0 (`ENOMEM`).
    NoBar0,
    /// The physical BAR0 is too small for the readiness registers (`ENXIO`).
    Bar0TooSmall {
        /// Size of BAR0.
        size: Bytes,
        /// Offset at which the last register ends.
        end: u64,
    },
    /// The register with the OpRegion's address can't be read.
    AslsUnreadable {
        /// Error of the read.
        errno: Errno,
    },
    /// The OpRegion can't be read (`EFAULT`, or the platform's error).
    OpRegionUnreadable {
        /// Address of the OpRegion.
        at: HostPhys,
        /// Error of the read.
        errno: Errno,
    },
    /// The memory at the OpRegion's address does not begin with its signature (`EINVAL`).
    NoSignature {
        /// Address of the OpRegion.
        at: HostPhys,
    },
    /// The OpRegion's header has a size that no OpRegion has (`EINVAL`).
    OpRegionSize {
        /// Size in the header.
        size: Bytes,
        /// The largest size.
        most: Bytes,
    },
    /// The extended VBT ends beyond 64 bits (`EOVERFLOW`).
    VbtBeyondAddresses {
        /// Place in the header: an address, or an offset from the OpRegion.
        place: u64,
        /// Size in the header.
        size: Bytes,
    },
    /// A function beside the graphics device is not the bridge that belongs there (`EINVAL`).
    ForeignBridge {
        /// Name and place of the bridge.
        name: &'static str,
        /// Vendor id of the function there.
        vendor: u16,
        /// Its class, subclass and interface.
        class: u32,
    },
    /// A fact of the platform is wrong.
    Platform(WrongFact),
    /// The device was not ready in time, or its registers could not be read.
    NotReady {
        /// Error of the wait.
        errno: Errno,
    },
    /// The kernel has given a part of the memory to another user (`EBUSY`).
    Claimed {
        /// Name of the region.
        name: &'static str,
        /// First address of the memory.
        base: HostPhys,
        /// Length of the memory.
        length: Bytes,
    },
    /// The base alone could serve the device, and the host's option `strict` rules that out
    /// (`ENODEV`).
    Strict(Decline),
}

impl Refusal {
    /// Errno that the probe returns.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::BelowReserve { .. }
            | Self::BeyondAddresses { .. }
            | Self::OutOfReach { .. }
            | Self::BarTooLarge { .. }
            | Self::PhysicalBarTooSmall { .. }
            | Self::VbtBeyondAddresses { .. } => Errno::EOVERFLOW,
            Self::NothingUsable { .. }
            | Self::BaseNotPageAligned { .. }
            | Self::NoUncachedPart { .. }
            | Self::NoBarToHonour
            | Self::NothingToHonour
            | Self::NoSignature { .. }
            | Self::OpRegionSize { .. }
            | Self::ForeignBridge { .. } => Errno::EINVAL,
            Self::OpRegionUnreadable { errno, .. } | Self::AslsUnreadable { errno } => *errno,
            Self::SystemRam { .. } | Self::Claimed { .. } => Errno::EBUSY,
            // As the failed mapping in the original driver.
            Self::NoBar0 => Errno::ENOMEM,
            Self::Bar0TooSmall { .. } => Errno::ENXIO,
            Self::NotReady { errno } => *errno,
            Self::Platform(fact) => fact.errno(),
            Self::Strict(_) => Errno::ENODEV,
        }
    }
}

const OTHER_SIZE: TextSegment = Text("; the host's firmware has to give another memory size");

const FIRMWARE: TextSegment = Text("; update the host's firmware, or have it repaired");

const OTHER_BASE: TextSegment = Text("; the host's firmware has to give another memory base");

/// What a device without its memory is served as.
const WITHOUT_MEMORY: &str = "served as a plain PCI device without its coherent memory; ";

/// What a device without a legacy interface is served as.
const WITHOUT_LEGACY: &str = "served without a legacy interface; ";

/// What a graphics device without its OpRegion is served as.
const WITHOUT_OPREGION: &str = "served as a plain PCI device without OpRegion and bridges; ";

/// Reason for which the host does not take a device so.
const STRICT: &str = "the option strict allows no less than the whole device; ";

impl Decline {
    /// Sentence with the reason and what to do.
    pub fn sentence(&self) -> Sentence {
        self.sentence_with(match self {
            Self::Property { .. } | Self::LinkDown => WITHOUT_MEMORY,
            Self::NoCommands | Self::BarTaken(_) => WITHOUT_LEGACY,
            Self::NoOpRegion { .. } | Self::NoBridge { .. } => WITHOUT_OPREGION,
            Self::Platform(fact) => fact.without,
        })
    }

    /// The sentence, with what comes of it.
    fn sentence_with(&self, then: &'static str) -> Sentence {
        match *self {
            Self::Property { name, errno } => Sentence::new([
                Text("firmware property "),
                Text(name),
                Text(" can't be read ("),
                Text(errno.name()),
                Text("): "),
                Text(then),
                Text("check the host's ACPI tables"),
            ]),
            Self::LinkDown => Sentence::new([
                Text("firmware reports a memory size of 0, so the chip-to-chip link is down: "),
                Text(then),
                Text("check the link and reset the host"),
            ]),
            Self::NoCommands => Sentence::new([
                Text("the function's owner offers no legacy commands for the function: "),
                Text(then),
                Text("give the function to a guest with a modern driver"),
            ]),
            Self::BarTaken(bar) => Sentence::new([
                Text("the function has a BAR"),
                Decimal(bar.get() as u64),
                Text(" of its own: "),
                Text(then),
                Text("give the function to a guest with a driver for it"),
            ]),
            Self::NoOpRegion { asls } => Sentence::new([
                Text("the OpRegion's address register at 0xfc holds "),
                Hexadecimal(asls as u64),
                Text(", no address: "),
                Text(then),
                Text("enable the graphics device in the host's firmware setup"),
            ]),
            Self::NoBridge { name, errno } => Sentence::new([
                Text("the "),
                Text(name),
                Text(" can't be read ("),
                Text(errno.name()),
                Text("): "),
                Text(then),
                Text("use a host with an Intel chipset"),
            ]),
            Self::Platform(fact) => fact.sentence_with(then),
        }
    }
}

impl Refusal {
    /// Sentence with the reason and what to do.
    pub fn sentence(&self) -> Sentence {
        match *self {
            Self::BelowReserve { size, reserve } => Sentence::new([
                Text("memory size "),
                Size(size),
                Text(" is smaller than the "),
                Size(reserve),
                Text(" to reserve from it"),
                OTHER_SIZE,
            ]),
            Self::NothingUsable { size, least } => Sentence::new([
                Text("memory size "),
                Size(size),
                Text(" leaves nothing usable: at least "),
                Size(least),
                Text(" are needed"),
                OTHER_SIZE,
            ]),
            Self::BaseNotPageAligned { base, page } => Sentence::new([
                Text("memory base "),
                Hexadecimal(base.0),
                Text(" is not a multiple of the page size "),
                Size(page),
                OTHER_BASE,
            ]),
            Self::BeyondAddresses { base, size } => Sentence::new([
                Text("memory of "),
                Size(size),
                Text(" at "),
                Hexadecimal(base.0),
                Text(" ends beyond 64 bits"),
                OTHER_BASE,
            ]),
            Self::OutOfReach { base, length, last } => Sentence::new([
                Text("memory of "),
                Size(length),
                Text(" at "),
                Hexadecimal(base.0),
                Text(" ends beyond "),
                Hexadecimal(last.0),
                Text(", the last address that the CPU can reach"),
                OTHER_BASE,
            ]),
            Self::BarTooLarge { length } => Sentence::new([
                Text("memory of "),
                Size(length),
                Text(" needs a BAR above 1 TiB, which VFIO can't address"),
                OTHER_SIZE,
            ]),
            Self::PhysicalBarTooSmall { bar, size, memory } => Sentence::new([
                Text("BAR"),
                Decimal(bar.get() as u64),
                Text(" of the function has "),
                Size(size),
                Text(", and layout physical-bar would put "),
                Size(memory),
                Text(" of memory into it; use layout bar"),
            ]),
            Self::NoUncachedPart { reserve } => Sentence::new([
                Text("the chip needs "),
                Size(reserve),
                Text(
                    " of uncached memory for MIG, and the one BAR of layout physical-bar is \
                     cached; use layout bar or region",
                ),
            ]),
            Self::NoBarToHonour => Sentence::new([Text(
                "memory-enable is about BARs, and layout region presents the memory in none; use \
                 layout bar, or memory-enable ignore",
            )]),
            Self::NothingToHonour => Sentence::new([Text(
                "memory-enable honour would change nothing: what this variant presents answers \
                 whether memory is enabled or not; use memory-enable ignore",
            )]),
            Self::SystemRam { base, length } => Sentence::new([
                Text("memory of "),
                Size(length),
                Text(" at "),
                Hexadecimal(base.0),
                Text(
                    " overlaps what the kernel uses as its own RAM; take that RAM offline first, \
                     or have the host's firmware give another memory base",
                ),
            ]),
            Self::NoBar0 => Sentence::new([Text(
                "the function has no BAR0 with the registers that tell when it is ready; rescan \
                 the bus, or reset the host",
            )]),
            Self::Bar0TooSmall { size, end } => Sentence::new([
                Text("BAR0 has "),
                Size(size),
                Text(" and its readiness registers end at "),
                Hexadecimal(end),
                Text("; check that the function is a GPU of this driver"),
            ]),
            Self::AslsUnreadable { errno } => Sentence::new([
                Text("the register of the OpRegion's address at 0xfc can't be read ("),
                Text(errno.name()),
                Text("); check the device's link and power"),
            ]),
            Self::OpRegionUnreadable { at, errno } => Sentence::new([
                Text("the OpRegion at "),
                Hexadecimal(at.0),
                Text(" can't be read ("),
                Text(errno.name()),
                Text(")"),
                FIRMWARE,
            ]),
            Self::NoSignature { at } => Sentence::new([
                Text("the memory at "),
                Hexadecimal(at.0),
                Text(" does not begin with IntelGraphicsMem, the signature of an OpRegion"),
                FIRMWARE,
            ]),
            Self::OpRegionSize { size, most } => Sentence::new([
                Text("the OpRegion's header says "),
                Size(size),
                Text(", and an OpRegion has 1 KiB to "),
                Size(most),
                FIRMWARE,
            ]),
            Self::VbtBeyondAddresses { place, size } => Sentence::new([
                Text("the extended VBT of "),
                Size(size),
                Text(" at "),
                Hexadecimal(place),
                Text(" ends beyond 64 bits"),
                FIRMWARE,
            ]),
            Self::ForeignBridge {
                name,
                vendor,
                class,
            } => Sentence::new([
                Text("in the place of the "),
                Text(name),
                Text(" is a function of vendor "),
                Hexadecimal(vendor as u64),
                Text(" and class "),
                Hexadecimal(class as u64),
                Text("; use a host with an Intel chipset"),
            ]),
            Self::Platform(fact) => fact.sentence(),
            Self::NotReady { errno } => Sentence::new([
                Text("the device is not ready ("),
                Text(errno.name()),
                Text(
                    "): its memory can't be used; check its link to the CPU and its memory \
                     training, reset it, and try again",
                ),
            ]),
            Self::Claimed { name, base, length } => Sentence::new([
                Text(name),
                Text(" of "),
                Size(length),
                Text(" at "),
                Hexadecimal(base.0),
                Text(
                    " is claimed by another part of the kernel, which /proc/iomem names; release \
                     that memory, and open the device again",
                ),
            ]),
            Self::Strict(reason) => reason.sentence_with(STRICT),
        }
    }
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence().fmt(f)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence().fmt(f)
    }
}

#[cfg(test)]
mod tests;
