//! Layout of a device's configuration space, which does not change: capabilities, registers, BARs,
//! MSI-X table.
//!
//! Read from the device once, when the core is made, and immutable afterwards. What contradicts
//! itself is refused here, with the place.

use varia_spec::Errno;
use varia_spec::pci::cap::{exp, msi, msix};
use varia_spec::pci::header::{self, bar, rom};

use super::capability::{self, Capability, Kind};
use super::registers::{Access, RegisterMap};
use super::walk::{self, Patch};
use crate::device::{BarSpace, BarSpec, ConfigRegister, Device};
use crate::error::Refused;

/// The largest BAR of each kind, in bytes: I/O and 32-bit memory by their address width. 64-bit
/// memory is limited by what a file position of VFIO can address.
const IO_SIZE_MAX: u64 = 1 << 16;
const MEM32_SIZE_MAX: u64 = 1 << 31;
/// The largest expansion ROM, in bytes: bits 31:11 of the register are address.
const ROM_SIZE_MAX: u64 = 1 << 31;

/// Value of a register that decodes addresses, whatever was written: `value & mask |
/// flags`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sizing {
    pub(crate) mask: u32,
    pub(crate) flags: u32,
}

/// The bytes of a BAR that hold an MSI-X table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MsixTable {
    pub(crate) bar: u8,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Properties of a configuration space that do not change.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    map: RegisterMap,
    /// Kind, first byte and length.
    capabilities: Vec<(Kind, u16, u16)>,
    patches: Vec<Patch>,
    bars: [Sizing; 6],
    rom: Sizing,
    table: Option<MsixTable>,
}

impl Layout {
    /// Reads a device.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn new<D: Device + ?Sized>(device: &D, largest: u64) -> Result<Self, Refused> {
        let read = |at: ConfigRegister| {
            let dead = |errno| Refused::Dead {
                at: at.offset(),
                errno,
            };
            device.config_read(at).map_err(dead)
        };
        if read(ConfigRegister::dword(header::VENDOR_ID))? == u32::MAX {
            return Err(Refused::Gone);
        }
        let mut found = walk::conventional(device)?;
        if found.capabilities.iter().any(|c| c.kind == Kind::Express) {
            let more = walk::extended(device)?;
            found.capabilities.extend(more.capabilities);
            found.patches.extend(more.patches);
        }
        check_places(&found.capabilities)?;
        let (bars, rom) = address_registers(device, largest)?;

        let mut capabilities = vec![capability::basic()];
        capabilities.extend(found.capabilities);
        let places = capabilities
            .iter()
            .map(|c| (c.kind, c.start, c.len))
            .collect();
        capabilities.sort_by_key(|c| c.start);
        let registers = capabilities.into_iter().flat_map(Capability::registers);
        let mut layout = Self {
            map: RegisterMap::new(registers),
            capabilities: places,
            patches: found.patches,
            bars,
            rom,
            table: None,
        };
        layout.table = msix_table(device, &layout, read)?;
        Ok(layout)
    }

    /// The register map's first access of `count` bytes at `pos`.
    pub(crate) fn access(&self, pos: u16, count: usize) -> Option<Access> {
        self.map.access(pos, count)
    }

    /// Offset of the capability `kind`.
    pub(crate) fn find(&self, kind: Kind) -> Option<u16> {
        let mut all = self.capabilities.iter();
        all.find(|(its, _, _)| *its == kind).map(|c| c.1)
    }

    /// First byte and length of the header and of each capability.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u16, u16)> {
        self.capabilities.iter().map(|c| (c.1, c.2))
    }

    /// Values that the user sees in place of the device's.
    pub(crate) fn patches(&self) -> &[Patch] {
        &self.patches
    }

    /// Sizing of BAR register `index`.
    pub(crate) fn bar(&self, index: u8) -> Sizing {
        let sizing = self.bars.get(usize::from(index)).copied();
        sizing.unwrap_or_default()
    }

    /// Sizing of the ROM's register.
    pub(crate) fn rom(&self) -> Sizing {
        self.rom
    }

    /// The MSI-X table.
    pub(crate) fn table(&self) -> Option<MsixTable> {
        self.table
    }

    /// The device says that it can be reset by itself.
    pub(crate) fn can_reset<D: Device + ?Sized>(&self, device: &D) -> bool {
        let capable = |at| device.config_read(ConfigRegister::dword(at + exp::DEVCAP));
        self.find(Kind::Express)
            .is_some_and(|at| capable(at).is_ok_and(|bits| bits & exp::DEVCAP_FLR != 0))
    }

    /// Number of MSI and of MSI-X vectors of the device.
    ///
    /// # Errors
    /// The errors of a read of the device.
    pub(crate) fn vectors<D: Device + ?Sized>(&self, device: &D) -> Result<(u32, u32), Errno> {
        let flags = |kind| {
            let at = self.find(kind).map(|at| at + msi::FLAGS);
            at.map(|at| device.config_read(ConfigRegister::word(at)))
                .transpose()
        };
        let message = flags(Kind::Message)?;
        let message_x = flags(Kind::MessageX)?;
        Ok((
            message.map_or(0, |f| 1 << ((f & u32::from(msi::FLAGS_QMASK)) >> 1)),
            message_x.map_or(0, |f| (f & u32::from(msix::FLAGS_QSIZE)) + 1),
        ))
    }
}

/// Each capability inside its space, none over another, and one of each kind.
fn check_places(capabilities: &[Capability]) -> Result<(), Refused> {
    for (i, one) in capabilities.iter().enumerate() {
        let (at, len, end) = (one.start, one.len, walk::space_end(one.start));
        if at + len > end {
            return Err(Refused::Outside { at, len, end });
        }
        let before = capabilities.get(..i).unwrap_or_default();
        let overlaps = |other: &&Capability| at < other.start + other.len && other.start < at + len;
        if let Some(other) = before.iter().find(overlaps) {
            let other = other.start;
            return Err(Refused::Overlap { at, other });
        }
        let same = |other: &&Capability| one.kind != Kind::Other && other.kind == one.kind;
        if let Some(first) = before.iter().find(same) {
            let first = first.start;
            return Err(Refused::Twice { at, first });
        }
    }
    Ok(())
}

/// Sizing of the BARs and of the ROM.
fn address_registers<D: Device + ?Sized>(
    device: &D,
    largest: u64,
) -> Result<([Sizing; 6], Sizing), Refused> {
    let mut bars = [Sizing::default(); 6];
    let mut upper = None;
    for (index, sizing) in (0..6).zip(&mut bars) {
        let at = header::BASE_ADDRESS_0 + 4 * u16::from(index);
        match (upper.take(), device.bar(index)) {
            (Some(mask), None) => *sizing = Sizing { mask, flags: 0 },
            (Some(_), Some(_)) => return Err(Refused::BarHalf { at: at - 4 }),
            (None, None) => {}
            (None, Some(spec)) => {
                let (least, most) = match spec.space {
                    BarSpace::Io => (bar::IO_SIZE_MIN, IO_SIZE_MAX),
                    BarSpace::Memory32 => (bar::MEM_SIZE_MIN, MEM32_SIZE_MAX),
                    BarSpace::Memory64 => (bar::MEM_SIZE_MIN, largest),
                };
                check_size(at, spec.size, least, most)?;
                *sizing = lower_half(spec);
                if spec.space == BarSpace::Memory64 {
                    upper = Some((!(spec.size - 1) >> 32) as u32);
                }
            }
        }
    }
    if upper.is_some() {
        let at = header::BASE_ADDRESS_0 + 4 * 5;
        return Err(Refused::BarHalf { at });
    }
    let Some(size) = device.rom() else {
        return Ok((bars, Sizing::default()));
    };
    check_size(header::ROM_ADDRESS, size, rom::SIZE_MIN, ROM_SIZE_MAX)?;
    let mask = !(size - 1) as u32 | rom::ENABLE;
    Ok((bars, Sizing { mask, flags: 0 }))
}

fn check_size(at: u16, size: u64, least: u64, most: u64) -> Result<(), Refused> {
    if size.is_power_of_two() && (least..=most).contains(&size) {
        return Ok(());
    }
    Err(Refused::BarSize {
        at,
        size,
        least,
        most,
    })
}

/// The register of a BAR; of a 64-bit one, the lower half.
fn lower_half(spec: BarSpec) -> Sizing {
    let address = !(spec.size - 1) as u32;
    let prefetch = if spec.prefetchable {
        bar::MEM_PREFETCH
    } else {
        0
    };
    let (keep, flags) = match spec.space {
        BarSpace::Io => (!bar::IO_FLAGS, bar::SPACE_IO),
        BarSpace::Memory32 => (!bar::MEM_FLAGS, prefetch),
        BarSpace::Memory64 => (!bar::MEM_FLAGS, prefetch | bar::MEM_TYPE_64),
    };
    Sizing {
        mask: address & keep,
        flags,
    }
}

/// The MSI-X table, which lies in a memory BAR as the pending bits do.
fn msix_table<D: Device + ?Sized>(
    device: &D,
    layout: &Layout,
    read: impl Fn(ConfigRegister) -> Result<u32, Refused>,
) -> Result<Option<MsixTable>, Refused> {
    let Some(at) = layout.find(Kind::MessageX) else {
        return Ok(None);
    };
    let flags = read(ConfigRegister::word(at + msix::FLAGS))?;
    let vectors = u64::from(flags & u32::from(msix::FLAGS_QSIZE)) + 1;
    let place = |offset, what, bytes| {
        let value = read(ConfigRegister::dword(at + offset))?;
        let bar = (value & msix::BIR_MASK) as u8;
        let start = u64::from(value & !msix::BIR_MASK);
        let end = start + bytes;
        let memory = |spec: &BarSpec| spec.space != BarSpace::Io;
        let Some(spec) = device.bar(bar).filter(memory) else {
            return Err(Refused::MsixBar { at, what, bar });
        };
        let size = spec.size;
        if end > size {
            return Err(Refused::MsixOutside {
                at,
                what,
                bar,
                end,
                size,
            });
        }
        Ok(MsixTable { bar, start, end })
    };
    place(msix::PBA, "pending bits", vectors.div_ceil(64) * 8)?;
    place(msix::TABLE, "table", vectors * msix::ENTRY_SIZE).map(Some)
}
