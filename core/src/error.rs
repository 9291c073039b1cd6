//! Devices that a core refuses.

use varia_spec::Errno;
use varia_units::Bytes;

/// Reason why a core can't be made over a device: the device contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Configuration space reads as ones.
    #[error("configuration space reads as ones: the device is gone; check its link and power")]
    Gone,
    /// A register can't be read.
    #[error("configuration space at {at:#x} can't be read ({}): check the device", .errno.name())]
    Dead {
        /// Offset of the register.
        at: u16,
        /// Error that the device returned.
        errno: Errno,
    },
    /// A list of capabilities that leads back to an earlier capability.
    #[error("the capability list loops: the pointer at {from:#x} leads back to {to:#x}")]
    Loop {
        /// Offset of the pointer.
        from: u16,
        /// Offset in the pointer.
        to: u16,
    },
    /// A pointer outside the space for capabilities of its list.
    #[error("the capability pointer at {from:#x} leads to {to:#x}, outside {start:#x}..{end:#x}")]
    Pointer {
        /// Offset of the pointer.
        from: u16,
        /// Offset in the pointer.
        to: u16,
        /// The first offset where a capability can be.
        start: u16,
        /// End of the offsets where a capability can be.
        end: u16,
    },
    /// A capability reaches beyond the space that it is in.
    #[error(
        "the capability at {at:#x} is {len} bytes long and reaches beyond the end of its space at \
         {end:#x}"
    )]
    Outside {
        /// Offset of the capability.
        at: u16,
        /// Its bytes.
        len: u16,
        /// End of the space.
        end: u16,
    },
    /// A capability whose length is less than that of its header.
    #[error("the capability at {at:#x} gives its length as {len} bytes: its header has {least}")]
    Short {
        /// Offset of the capability.
        at: u16,
        /// Length in the capability.
        len: u16,
        /// Bytes of its header.
        least: u16,
    },
    /// Two capabilities claim the same bytes.
    #[error("the capability at {at:#x} overlaps the capability at {other:#x}")]
    Overlap {
        /// Offset of the capability that is later in the list.
        at: u16,
        /// Offset of the other capability.
        other: u16,
    },
    /// A function has two capabilities of a kind of which it can have one.
    #[error(
        "the capability at {at:#x} is of the same kind as the capability at {first:#x}, and a function can have one"
    )]
    Twice {
        /// Offset of the second.
        at: u16,
        /// Offset of the first.
        first: u16,
    },
    /// A BAR has a size that its register can't describe.
    #[error(
        "the BAR at {at:#x} has {}: the size must be a power of two from {} to {}",
        Bytes(*size), Bytes(*least), Bytes(*most)
    )]
    BarSize {
        /// Offset of the register.
        at: u16,
        /// Its bytes.
        size: u64,
        /// The smallest of its kind.
        least: u64,
        /// The largest of its kind.
        most: u64,
    },
    /// The register behind a 64-bit BAR is a BAR of its own, or is not there.
    #[error("the 64-bit BAR at {at:#x} needs the next register for the upper half of its address")]
    BarHalf {
        /// Offset of the register.
        at: u16,
    },
    /// MSI-X names a BAR that is not memory.
    #[error("the MSI-X capability at {at:#x} puts its {what} into BAR {bar}, which is no memory")]
    MsixBar {
        /// Offset of the capability.
        at: u16,
        /// Table or pending bits.
        what: &'static str,
        /// The BAR.
        bar: u8,
    },
    /// The MSI-X table or its pending bits leave their BAR.
    #[error(
        "the MSI-X {what} of the capability at {at:#x} ends at {end:#x} of BAR {bar}, which has \
         {}",
        Bytes(*size)
    )]
    MsixOutside {
        /// Offset of the capability.
        at: u16,
        /// Table or pending bits.
        what: &'static str,
        /// The BAR.
        bar: u8,
        /// End of the table or pending bits.
        end: u64,
        /// Bytes of the BAR.
        size: u64,
    },
}

impl Refused {
    /// Error number that a driver's probe would return.
    pub fn errno(self) -> Errno {
        match self {
            Self::Gone => Errno::ENODEV,
            Self::Dead { errno, .. } => errno,
            _ => Errno::EINVAL,
        }
    }
}
