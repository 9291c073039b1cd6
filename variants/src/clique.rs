//! The extension of GPUDirect cliques: a vendor-specific capability that tells a guest's driver which
//! of the VM's GPUs reach each other directly, without a switch or root complex that the VM can't see.
//!
//! The capability is behind all others in the list, at 0xc8, or at 0xd4 where another one needs these
//! bytes (from Turing on, GPUs have MSI-X there). Source: the behaviour of QEMU 11.1
//! `hw/vfio/pci-quirks.c:vfio_add_nv_gpudirect_cap`, which follows NVIDIA's specification on
//! qemu-devel of August 2017 and June 2023. QEMU looks at starts of capabilities alone, and fails
//! later where one reaches over the place; here their ends count too.

use core::{fmt, ops::Range};

use varia_spec::{nvidia, pci::cap};
use varia_variant::{ConfigOwner, ConfigSegment, Direction, Extension};

/// Bytes of the capability.
const LEN: u16 = 8;

/// Offsets of the capability, in the order in which they are tried, and as a pointer holds them.
const PLACES: [(u16, u8); 2] = [(0xc8, 0xc8), (0xd4, 0xd4)];

/// The largest number of a clique.
const MAX_CLIQUE: u8 = 15;

/// PCI's base class of display controllers.
const DISPLAY: u32 = 0x03;

/// Reason why a device can't have the capability.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CliqueError {
    /// The number is none of a clique.
    Number(u32),
    /// The device is no GPU of NVIDIA's.
    NoGpu {
        /// PCI vendor id.
        vendor: u16,
        /// PCI class: class, subclass, interface.
        class: u32,
    },
    /// The device has no list of capabilities, to which the capability would be added.
    NoList,
    /// Other capabilities are at both places: their ranges.
    NoRoom([Range<u16>; 2]),
}

impl fmt::Display for CliqueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(
                f,
                "{number} is no GPUDirect clique: give a number from 0 to {MAX_CLIQUE}"
            ),
            Self::NoGpu { vendor, class } => write!(
                f,
                "a device of vendor {vendor:#06x} and class {class:#08x} is no GPU of NVIDIA's and \
                 belongs to no GPUDirect clique: leave out the clique"
            ),
            Self::NoList => f.write_str(
                "the device has no list of capabilities, to which its GPUDirect clique would be \
                 added: leave out the clique",
            ),
            Self::NoRoom([first, second]) => write!(
                f,
                "the capability of a GPUDirect clique has its place at {:#x} or {:#x}, and the \
                 device's own capabilities at {:#x}..{:#x} and {:#x}..{:#x} are there: leave out \
                 the clique",
                PLACES[0].0, PLACES[1].0, first.start, first.end, second.start, second.end
            ),
        }
    }
}

impl core::error::Error for CliqueError {}

/// The extension: bytes of configuration space that can only be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clique {
    at: u16,
    capability: [u8; LEN as usize],
    /// Offset of the last capability's pointer to the next, and the byte there.
    pointer: (u16, [u8; 1]),
}

impl Clique {
    /// The extension for a device with this identity and these conventional capabilities, as ranges of
    /// configuration space in the order of their list.
    ///
    /// # Errors
    /// If the number is no clique, or the device is no GPU or has no room.
    pub fn new(
        number: u32,
        vendor: u16,
        class: u32,
        capabilities: &[Range<u16>],
    ) -> Result<Self, CliqueError> {
        let small = u8::try_from(number).ok();
        let small = small.filter(|small| *small <= MAX_CLIQUE);
        let number = small.ok_or(CliqueError::Number(number))?;
        if vendor != nvidia::VENDOR_ID || class >> 16 != DISPLAY {
            return Err(CliqueError::NoGpu { vendor, class });
        }
        let last = capabilities.last().ok_or(CliqueError::NoList)?;
        let blocks = |at: u16| {
            let mut all = capabilities.iter();
            all.find(|one| one.start < at + LEN && at < one.end)
        };
        let [(first, low), (second, high)] = PLACES;
        let (at, low) = match (blocks(first), blocks(second)) {
            (None, _) => (first, low),
            (_, None) => (second, high),
            (Some(one), Some(other)) => {
                return Err(CliqueError::NoRoom([one.clone(), other.clone()]));
            }
        };
        let [id, len] = [cap::id::VNDR, LEN as u8];
        Ok(Self {
            at,
            capability: [id, 0, len, b'P', b'2', b'P', number << 3, 0],
            pointer: (last.start.saturating_add(1), [low]),
        })
    }

    /// Offset of the capability.
    pub const fn offset(&self) -> u16 {
        self.at
    }

    /// The bytes, and where they begin.
    const fn shown(&self) -> [(u64, &[u8]); 2] {
        [
            (self.pointer.0 as u64, &self.pointer.1),
            (self.at as u64, &self.capability),
        ]
    }
}

impl Extension for Clique {
    /// A write reaches no layer below, and is dropped.
    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        let windows = self.shown();
        let windows = windows.map(|(at, bytes)| (at, at + bytes.len() as u64));
        ConfigSegment::split_all(offset, len, windows.into_iter(), ConfigOwner::Keep)
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        for (start, bytes) in self.shown() {
            for (at, byte) in (start..).zip(bytes) {
                let index = at.checked_sub(offset).map(usize::try_from);
                if let Some(slot) = index.and_then(|index| out.get_mut(index.ok()?)) {
                    *slot = *byte;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{string::ToString, vec, vec::Vec};

    use varia_variant::{Extended, Variant};

    use super::*;
    use crate::Plain;

    const GPU: u32 = 0x03_0200;
    /// GH100: PM, MSI, Express, vendor-specific, MSI-X.
    const GH100: [Range<u16>; 5] = [0x40..0x48, 0x48..0x60, 0x60..0x9c, 0x9c..0xb0, 0xb0..0xbc];

    fn clique(capabilities: &[Range<u16>]) -> Result<Clique, CliqueError> {
        Clique::new(5, 0x10de, GPU, capabilities)
    }

    #[test]
    fn the_place_is_the_first_that_no_capability_reaches() {
        let turing = [0x60..0x68, 0x68..0x78, 0x78..0xc8, 0xc8..0xd4];
        for (capabilities, at) in [
            (&GH100[..], Some(0xc8)),
            (&turing[..], Some(0xd4)),
            // right before, and over the first byte
            (&[0x40..0x48, 0xc0..0xc8][..], Some(0xc8)),
            (&[0x40..0x48, 0xc0..0xc9][..], Some(0xd4)),
            // on the last byte, and right behind
            (&[0x40..0x48, 0xcf..0xd4][..], Some(0xd4)),
            (&[0x40..0x48, 0xd0..0xf0][..], Some(0xc8)),
            (&[0xc0..0xd0, 0xd0..0xd4][..], Some(0xd4)),
            (&[0x40..0x48, 0xc0..0xd5][..], None),
            (&[0xc8..0xd4, 0xd4..0xdc][..], None),
            (&[0xcf..0xd0, 0xdb..0xdc][..], None),
            (&[0xcf..0xd0, 0xdc..0xe0][..], Some(0xd4)),
            (&[0x40..0x48, 0x48..0xff][..], None),
        ] {
            let found = clique(capabilities);
            assert_eq!(
                found.as_ref().ok().map(Clique::offset),
                at,
                "{capabilities:x?}"
            );
            if at.is_none() {
                assert!(matches!(found, Err(CliqueError::NoRoom(_))), "{found:?}");
            }
        }
    }

    #[test]
    fn other_devices_and_numbers_are_refused_with_value_and_remedy() {
        let new = |number, vendor, class, capabilities: &[Range<u16>]| {
            Clique::new(number, vendor, class, capabilities)
                .map_err(|error| error.to_string())
                .err()
        };
        assert_eq!(new(15, 0x10de, 0x03_0000, &GH100), None);
        assert_eq!(new(0, 0x10de, GPU, &GH100), None);
        for (refused, parts) in [
            (new(16, 0x10de, GPU, &GH100), ["16 is no", "from 0 to 15"]),
            (new(255, 0x10de, GPU, &GH100), ["255 is no", "from 0 to 15"]),
            (
                new(u32::MAX, 0x10de, GPU, &GH100),
                ["4294967295 is no", "0 to 15"],
            ),
            (new(1, 0x8086, GPU, &GH100), ["0x8086", "leave out"]),
            (new(1, 0x10de, 0x04_0300, &GH100), ["0x040300", "leave out"]),
            (new(1, 0x10de, 0x06_0400, &GH100), ["0x060400", "leave out"]),
            (new(1, 0x10de, GPU, &[]), ["no list", "leave out"]),
            (
                new(1, 0x10de, GPU, &[0x78..0xc9, 0xd4..0xe0]),
                ["0x78..0xc9 and 0xd4..0xe0", "leave out"],
            ),
        ] {
            let text = refused.unwrap();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    /// Every access to the first 256 bytes, of up to 12 bytes, against the bytes one by one.
    #[test]
    fn the_capability_is_the_last_of_the_list_and_can_only_be_read() {
        for (chain, at, number) in [
            (&GH100[..], 0xc8_u64, 0),
            (&GH100[..], 0xc8, 15),
            (&[0x60..0xb0, 0xc8..0xd4][..], 0xd4, 9),
        ] {
            let clique = Clique::new(number, 0x10de, GPU, chain).unwrap();
            let device = Extended::new(Plain, clique);
            let tail = u64::from(chain.last().unwrap().start) + 1;
            let capability = [9, 0, 8, b'P', b'2', b'P', (number << 3) as u8, 0];
            let byte = |place: u64| match place.checked_sub(at) {
                Some(index @ 0..8) => Some(capability[index as usize]),
                _ if place == tail => Some(at as u8),
                _ => None,
            };
            for offset in 0..256 {
                for len in 1..=12 {
                    device.config_store(offset, &vec![0xa5; len as usize]);
                    let mut out = vec![0x5e; len as usize];
                    device.config_load(offset, &mut out);
                    let expected: Vec<u8> = (offset..offset + len)
                        .map(|place| byte(place).unwrap_or(0x5e))
                        .collect();
                    assert_eq!(out, expected, "{len} bytes at {offset:#x}");
                    let mut done = 0;
                    while done < len {
                        let from = offset + done;
                        let segment = device.config_segment(Direction::Write, from, len - done);
                        assert!((1..=len - done).contains(&segment.len));
                        for place in from..from + segment.len {
                            let kept = segment.owner == ConfigOwner::Keep;
                            assert_eq!(kept, byte(place).is_some(), "{place:#x}");
                        }
                        done += segment.len;
                    }
                }
            }
        }
    }
}
