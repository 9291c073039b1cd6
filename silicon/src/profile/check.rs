//! Check of a profile: values that no device can have.
//!
//! The check is about the data. A core checks the registers made of a profile once more, as it does
//! for any other device.

use varia_core::BarSpace;
use varia_facts::Bytes;
use varia_spec::pci::cap::msix;
use varia_spec::pci::header::{BASE_ADDRESS_0, STD_HEADER_SIZEOF};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE, ext_cap};

use super::{BarModel, Body, Capability, Profile};

/// Something in a profile that no device can have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadProfile {
    /// A capability where none of its kind can be.
    #[error("the capability at {offset:#x} is not at a multiple of 4 from {start:#x} on: move it")]
    Place {
        /// Offset of the capability.
        offset: u16,
        /// Offset at which the space for capabilities of this kind begins.
        start: u16,
    },
    /// A capability that leaves the configuration space.
    #[error(
        "the capability at {offset:#x} is {len} bytes long and reaches beyond the end of its space at {end:#x}: move it"
    )]
    Beyond {
        /// Offset of the capability.
        offset: u16,
        /// Bytes that it takes.
        len: u16,
        /// Offset at which the space for capabilities of this kind ends.
        end: u16,
    },
    /// Two capabilities at one place: the list would come back to it.
    #[error("the capability at {offset:#x} is listed twice, which makes the list a loop")]
    Loop {
        /// Offset of both capabilities.
        offset: u16,
    },
    /// A capability that begins before another one ends.
    #[error(
        "the capability at {offset:#x} begins inside the capability at {other:#x}, which ends at {end:#x}: move it"
    )]
    Overlap {
        /// Offset of the later capability.
        offset: u16,
        /// Offset of the earlier capability.
        other: u16,
        /// Offset at which the earlier capability ends.
        end: u16,
    },
    /// Extended capabilities that do not begin where their list does.
    #[error(
        "the first extended capability is at {offset:#x}, and the list begins at 0x100: move the capability to 0x100"
    )]
    NoFirst {
        /// Offset of the first extended capability.
        offset: u16,
    },
    /// A value that its field can't hold.
    #[error("{what} of the capability at {offset:#x} is {value}: it can be {possible}")]
    Value {
        /// Offset of the capability.
        offset: u16,
        /// Name of the value.
        what: &'static str,
        /// The value.
        value: u64,
        /// Values that are possible.
        possible: &'static str,
    },
    /// A BAR that is no BAR, or twice, or behind the lower half of another.
    #[error(
        "BAR {bar} can't exist: its register is beyond the six, or a part of another BAR's register"
    )]
    BarIndex {
        /// Index of the BAR.
        bar: u8,
    },
    /// A BAR that can't be decoded.
    #[error(
        "BAR {bar}, at {offset:#x}, can't have {}: give it a power of two from {} to {}",
        Bytes(*size), Bytes(*least), Bytes(*most)
    )]
    BarSize {
        /// Index of the BAR.
        bar: u8,
        /// Offset of its register.
        offset: u16,
        /// Size of the BAR in bytes.
        size: u64,
        /// The fewest that it can have.
        least: u64,
        /// The most that it can have.
        most: u64,
    },
    /// An MSI-X table, or its pending bits, outside their BAR.
    #[error(
        "the {what} of the capability at {offset:#x} are {start:#x}..{end:#x} of BAR {bar}, which has {} of memory",
        Bytes(*size)
    )]
    Msix {
        /// Offset of the capability.
        offset: u16,
        /// Vectors or pending bits.
        what: &'static str,
        /// The BAR.
        bar: u8,
        /// Their first byte.
        start: u64,
        /// The first byte behind them.
        end: u64,
        /// Bytes of the BAR; 0 for an absent BAR, and for I/O ports.
        size: u64,
    },
    /// An expansion ROM that can't be decoded.
    #[error(
        "the expansion ROM has {}: the size must be a power of two from 2 KiB to 16 MiB",
        Bytes(u64::from(*size))
    )]
    Rom {
        /// Size of the ROM in bytes.
        size: u32,
    },
    /// A class or interrupt pin beyond its field.
    #[error("the {what} is {value:#x}: it can be {possible}")]
    Header {
        /// Name of the value.
        what: &'static str,
        /// The value.
        value: u32,
        /// Values that are possible.
        possible: &'static str,
    },
}

/// Looks for the first thing that is wrong.
pub(super) fn check(profile: &Profile) -> Result<(), BadProfile> {
    header(profile)?;
    bars(profile)?;
    let mut capabilities: Vec<_> = profile.capabilities.iter().map(|c| c.value).collect();
    for capability in &capabilities {
        place(*capability)?;
        values(profile, *capability)?;
        message_x(profile, *capability)?;
    }
    let first = capabilities.iter().find(|c| c.is_extended());
    if let Some(first) = first.filter(|first| first.offset != ext_cap::START) {
        return Err(BadProfile::NoFirst {
            offset: first.offset,
        });
    }
    capabilities.sort_by_key(|c| c.offset);
    for pair in capabilities.windows(2) {
        let [earlier, later] = pair else { continue };
        let end = earlier.offset + earlier.body.bytes();
        if earlier.offset == later.offset {
            return Err(BadProfile::Loop {
                offset: later.offset,
            });
        }
        if later.offset < end {
            return Err(BadProfile::Overlap {
                offset: later.offset,
                other: earlier.offset,
                end,
            });
        }
    }
    Ok(())
}

fn header(profile: &Profile) -> Result<(), BadProfile> {
    let error = |what, value, possible| {
        Err(BadProfile::Header {
            what,
            value,
            possible,
        })
    };
    let (class, pin) = (profile.class.value, profile.interrupt_pin.value);
    if class >> 24 != 0 {
        return error("class", class, "24 bits");
    }
    if pin > 4 {
        return error("interrupt pin", u32::from(pin), "0 for none to 4 for INTD");
    }
    let rom = profile.rom.map(|rom| rom.value);
    let decodes = |size: &u32| size.is_power_of_two() && (2 << 10..=16 << 20).contains(size);
    match rom.filter(|size| !decodes(size)) {
        Some(size) => Err(BadProfile::Rom { size }),
        None => Ok(()),
    }
}

fn bars(profile: &Profile) -> Result<(), BadProfile> {
    let mut taken = [false; 6];
    for BarModel { index, spec, .. } in profile.bars.iter().map(|b| b.value) {
        let upper = (spec.space == BarSpace::Memory64).then_some(index.saturating_add(1));
        for register in [Some(index), upper].into_iter().flatten() {
            match taken.get_mut(usize::from(register)) {
                Some(taken) if !*taken => *taken = true,
                _ => return Err(BadProfile::BarIndex { bar: index }),
            }
        }
        // the smallest that software can tell from flags, the largest that the register can size
        let (least, most) = match spec.space {
            BarSpace::Io => (4, 256),
            BarSpace::Memory32 => (16, 1 << 31),
            BarSpace::Memory64 => (16, 1 << 62),
        };
        if !spec.size.is_power_of_two() || !(least..=most).contains(&spec.size) {
            return Err(BadProfile::BarSize {
                bar: index,
                offset: BASE_ADDRESS_0 + 4 * u16::from(index),
                size: spec.size,
                least,
                most,
            });
        }
    }
    Ok(())
}

fn message_x(profile: &Profile, capability: Capability) -> Result<(), BadProfile> {
    let Body::MessageX {
        vectors,
        bar,
        table,
        pending,
    } = capability.body
    else {
        return Ok(());
    };
    let memory = profile.bar(bar).map(|b| b.spec);
    let memory = memory.filter(|spec| spec.space != BarSpace::Io);
    let size = memory.map_or(0, |spec| spec.size);
    let bits = 8 * u64::from(vectors.div_ceil(64));
    let entries = msix::ENTRY_SIZE * u64::from(vectors);
    for (what, start, len) in [("vectors", table, entries), ("pending bits", pending, bits)] {
        let start = u64::from(start);
        if start + len > size {
            return Err(BadProfile::Msix {
                offset: capability.offset,
                what,
                bar,
                start,
                end: start + len,
                size,
            });
        }
    }
    Ok(())
}

fn place(capability: Capability) -> Result<(), BadProfile> {
    let Capability { offset, body } = capability;
    let (start, end) = if body.is_extended() {
        (ext_cap::START, CFG_SPACE_EXP_SIZE)
    } else {
        (STD_HEADER_SIZEOF, CFG_SPACE_SIZE)
    };
    let len = body.bytes();
    if offset < start || !offset.is_multiple_of(4) {
        return Err(BadProfile::Place { offset, start });
    }
    if offset.checked_add(len).is_none_or(|last| last > end) {
        return Err(BadProfile::Beyond { offset, len, end });
    }
    Ok(())
}

fn values(profile: &Profile, capability: Capability) -> Result<(), BadProfile> {
    let (what, value, possible, good) = match capability.body {
        Body::Message { vectors, .. } => (
            "the number of vectors",
            u64::from(vectors),
            "a power of two up to 32",
            vectors.is_power_of_two() && vectors <= 32,
        ),
        Body::MessageX { vectors, .. } if !(1..=2048).contains(&vectors) => (
            "the number of vectors",
            u64::from(vectors),
            "1 to 2048",
            false,
        ),
        Body::MessageX { table, pending, .. } if !(table | pending).is_multiple_of(8) => (
            "the table's or the pending bits' offset",
            u64::from(table | pending),
            "a multiple of 8",
            false,
        ),
        Body::Express { speed, .. } if !(1..=6).contains(&speed) => (
            "the link speed",
            u64::from(speed),
            "1 for 2.5 GT/s to 6 for 64 GT/s",
            false,
        ),
        Body::Express { lanes, .. } | Body::SecondaryExpress { lanes } => (
            "the number of lanes",
            u64::from(lanes),
            "1, 2, 4, 8, 12, 16 or 32",
            matches!(lanes, 1 | 2 | 4 | 8 | 12 | 16 | 32),
        ),
        Body::Vendor { len } => ("the length", u64::from(len), "3 bytes or more", len >= 3),
        Body::ExtVendor { len, .. } => (
            "the length",
            u64::from(len),
            "8 to 4095 bytes",
            (8..=0xfff).contains(&len),
        ),
        Body::ResizableBar { bar } => (
            "the BAR",
            u64::from(bar),
            "the index of a BAR of 1 MiB or more",
            profile.bar(bar).is_some_and(|bar| bar.spec.size >= 1 << 20),
        ),
        Body::CxlDevice { timeout } => (
            "the timeout's code",
            u64::from(timeout),
            "0 to 4",
            timeout <= 4,
        ),
        _ => return Ok(()),
    };
    if good {
        return Ok(());
    }
    Err(BadProfile::Value {
        offset: capability.offset,
        what,
        value,
        possible,
    })
}
