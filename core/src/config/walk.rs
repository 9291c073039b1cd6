//! Finds the capabilities of a device and says how long each is.
//!
//! A capability whose length is not known here is taken out of the list that the user sees; its
//! bytes are then like any others between capabilities.
//!
//! Source: Linux 7.2 `drivers/vfio/pci/vfio_pci_config.c:vfio_cap_init`, `vfio_ecap_init`,
//! `vfio_cap_len`, `vfio_ext_cap_len`. Linux follows a list that contradicts itself as far as it
//! gets; here such a device is refused.

use varia_spec::Errno;
use varia_spec::pci::cap::{agp, exp, ht, id, msi, msix, pcix, sata, vndr};
use varia_spec::pci::ext_cap::{self, dsn, dvsec, ltr, rebar};
use varia_spec::pci::header::{self, STD_HEADER_SIZEOF, status};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE};

use super::capability::{self, Capability, Kind};
use crate::device::{ConfigRegister, Device, Width};
use crate::error::Refused;

/// Bytes in a version 1 Express capability of an endpoint, without and with a link.
const EXP_V1_LEN: (u16, u16) = (0xc, 0x14);
/// Bytes that Linux counts to a version 2 Express capability, without and with a link.
const EXP_V2_LEN: (u16, u16) = (0x2c, 0x34);
/// Bytes of a vendor-specific capability that the specification defines.
const VNDR_LEAST: u16 = 3;
/// Bytes of an extended vendor-specific capability that the specification defines.
const EXT_VNDR_LEAST: u16 = 8;

/// A value that the user sees in the place of the device's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    pub(crate) at: ConfigRegister,
    /// The bits that change.
    pub(crate) mask: u32,
    pub(crate) value: u32,
}

/// Result of a walk: the capabilities that the user sees, and the changes of their lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) patches: Vec<Patch>,
}

/// A device's registers with errors that name the place.
struct Reader<'a, D: ?Sized>(&'a D);

impl<D: Device + ?Sized> Reader<'_, D> {
    fn register(&self, at: ConfigRegister) -> Result<u32, Refused> {
        let at_offset = at.offset();
        let dead = |errno| Refused::Dead {
            at: at_offset,
            errno,
        };
        self.0.config_read(at).map_err(dead)
    }

    /// A register `offset` bytes into the capability at `pos`, which has to reach that far.
    fn field(&self, pos: u16, offset: u16, width: Width) -> Result<u32, Refused> {
        let len = offset + width.bytes();
        let end = space_end(pos);
        ConfigRegister::new(pos + offset, width)
            .filter(|at| at.offset() + width.bytes() <= end)
            .ok_or(Refused::Outside { at: pos, len, end })
            .and_then(|at| self.register(at))
    }

    fn byte(&self, pos: u16, offset: u16) -> Result<u16, Refused> {
        self.field(pos, offset, Width::Byte).map(|b| b as u16)
    }

    fn word(&self, pos: u16, offset: u16) -> Result<u16, Refused> {
        self.field(pos, offset, Width::Word).map(|w| w as u16)
    }

    fn dword(&self, pos: u16, offset: u16) -> Result<u32, Refused> {
        self.field(pos, offset, Width::Dword)
    }
}

/// Offsets that a walk of a list has visited.
struct Trail {
    visited: Vec<u16>,
    start: u16,
    end: u16,
}

impl Trail {
    /// Goes to where the pointer at `from` leads; `false` at the end of the list.
    fn go(&mut self, from: u16, to: u16) -> Result<bool, Refused> {
        let (start, end) = (self.start, self.end);
        if to == 0 {
            return Ok(false);
        }
        if to < start || to >= end {
            return Err(Refused::Pointer {
                from,
                to,
                start,
                end,
            });
        }
        if self.visited.contains(&to) {
            return Err(Refused::Loop { from, to });
        }
        self.visited.push(to);
        Ok(true)
    }
}

/// The conventional capabilities.
pub(crate) fn conventional<D: Device + ?Sized>(device: &D) -> Result<Found, Refused> {
    let device = Reader(device);
    let mut found = Found::default();
    let in_header = device.register(ConfigRegister::word(header::STATUS))?;
    if in_header & u32::from(status::CAP_LIST) == 0 {
        return Ok(found);
    }
    let mut trail = Trail {
        visited: Vec::new(),
        start: STD_HEADER_SIZEOF,
        end: CFG_SPACE_SIZE,
    };
    let mut pointer = header::CAPABILITY_LIST;
    // where the user finds the pointer to what comes now
    let mut shown = pointer;
    let mut pos = device.byte(0, pointer)? & !3;
    while trail.go(pointer, pos)? {
        let next = device.byte(pos, 1)?;
        match standard(&device, pos)? {
            None => found.patches.push(Patch {
                at: ConfigRegister::byte(shown),
                mask: 0xff,
                value: u32::from(next),
            }),
            Some(capability) => {
                found.capabilities.push(capability);
                shown = pos + 1;
            }
        }
        pointer = pos + 1;
        pos = next & !3;
    }
    if found.capabilities.is_empty() {
        found.patches.push(Patch {
            at: ConfigRegister::word(header::STATUS),
            mask: u32::from(status::CAP_LIST),
            value: 0,
        });
    }
    Ok(found)
}

/// The extended capabilities.
pub(crate) fn extended<D: Device + ?Sized>(device: &D) -> Result<Found, Refused> {
    let device = Reader(device);
    let mut found = Found::default();
    let mut trail = Trail {
        visited: Vec::new(),
        start: ext_cap::START,
        end: CFG_SPACE_EXP_SIZE,
    };
    let next_bits = 0xffc << 20;
    let patch = |at, mask, next: u16| Patch {
        at: ConfigRegister::dword(at),
        mask,
        value: u32::from(next) << 20,
    };
    let mut pos = ext_cap::START;
    let mut from = pos;
    let mut shown = None;
    let mut seen = 0;
    while trail.go(from, pos)? {
        let start = device.dword(pos, 0)?;
        if pos == ext_cap::START && matches!(start, 0 | u32::MAX) {
            // no list at all, or no device
            return Ok(found);
        }
        let next = ext_cap::header_next(start);
        match (beyond(&device, ext_cap::header_id(start), pos)?, shown) {
            (Some(capability), _) => {
                found.capabilities.push(capability);
                shown = Some(pos);
                seen += 1;
            }
            (None, Some(shown)) => found.patches.push(patch(shown, next_bits, next)),
            (None, None) => {
                // the list starts here, so the first keeps its place, without its identity
                let place = Capability::extended(Kind::Other, pos, 4);
                found.capabilities.push(place);
                found.patches.push(patch(pos, u32::MAX, next));
                shown = Some(pos);
            }
        }
        from = pos;
        pos = next;
    }
    if seen == 0 {
        found.patches.push(patch(ext_cap::START, u32::MAX, 0));
    }
    Ok(found)
}

/// The offset of the first DVSEC with this vendor and id in a device's own configuration space.
///
/// A DVSEC whose headers reach beyond the space does not count. The length in the header is not
/// checked, as in Linux (`drivers/pci/pci.c:pci_find_dvsec_capability`).
///
/// # Errors
/// The errors of a configuration read.
pub fn find_dvsec<D: Device + ?Sized>(
    device: &D,
    vendor: u16,
    id: u16,
) -> Result<Option<u16>, Errno> {
    let register = |pos: u16, offset| ConfigRegister::new(pos.checked_add(offset)?, Width::Word);
    for header in ext_headers(device) {
        let (pos, start) = header?;
        if ext_cap::header_id(start) != ext_cap::id::DVSEC {
            continue;
        }
        let (Some(its_vendor), Some(its_id)) =
            (register(pos, dvsec::HEADER1), register(pos, dvsec::HEADER2))
        else {
            continue;
        };
        if device.config_read(its_vendor)? == u32::from(vendor)
            && device.config_read(its_id)? == u32::from(id)
        {
            return Ok(Some(pos));
        }
    }
    Ok(None)
}

/// The extended capabilities of a device, in the order of its list: {offset, header}.
///
/// A list can't have more entries than the space has dwords; a longer one is a loop, and is cut.
fn ext_headers<D: Device + ?Sized>(device: &D) -> impl Iterator<Item = Result<(u16, u32), Errno>> {
    let mut pos = ext_cap::START;
    let next = move || {
        let at = ConfigRegister::new(pos, Width::Dword).filter(|_| pos >= ext_cap::START)?;
        let first = pos == ext_cap::START;
        Some(device.config_read(at).map(|header| {
            pos = ext_cap::header_next(header);
            (at.offset(), header, first)
        }))
    };
    std::iter::from_fn(next)
        .take(usize::from((CFG_SPACE_EXP_SIZE - CFG_SPACE_SIZE) / 4))
        // no list at all, or no device
        .take_while(|entry| !matches!(entry, Ok((_, 0 | u32::MAX, true))))
        .map(|entry| entry.map(|(pos, header, _)| (pos, header)))
}

/// End of the space of the capability at `pos`.
pub(crate) fn space_end(pos: u16) -> u16 {
    if pos < CFG_SPACE_SIZE {
        CFG_SPACE_SIZE
    } else {
        CFG_SPACE_EXP_SIZE
    }
}

/// The conventional capability at `pos`; `None` if the user is not to see it.
fn standard<D: Device + ?Sized>(
    device: &Reader<'_, D>,
    pos: u16,
) -> Result<Option<Capability>, Refused> {
    let read_only = |len| Capability::new(Kind::Other, pos, len);
    Ok(Some(match device.byte(pos, 0)? as u8 {
        id::PM => capability::power(pos),
        id::AGP => read_only(agp::SIZEOF),
        id::VPD => capability::product_data(pos),
        id::MSI => {
            let flags = device.word(pos, msi::FLAGS)?;
            let wide = if flags & msi::FLAGS_64BIT != 0 { 4 } else { 0 };
            let maskable = if flags & msi::FLAGS_MASKBIT != 0 {
                10
            } else {
                0
            };
            capability::message(pos, 10 + wide + maskable, flags)
        }
        id::PCIX => {
            let version = device.word(pos, pcix::CMD)? & pcix::CMD_VERSION_MASK;
            let len = if version == 0 {
                pcix::SIZEOF_V0
            } else {
                pcix::SIZEOF_V2
            };
            capability::pci_x(pos, len)
        }
        id::HT => {
            let kind = device.byte(pos, ht::TYPE)? & u16::from(ht::TYPE_MASK);
            read_only(if kind == 0 {
                ht::SIZEOF_LONG
            } else {
                ht::SIZEOF_SHORT
            })
        }
        id::VNDR => {
            let len = device.byte(pos, vndr::LEN)?;
            return vendor(Capability::new(Kind::Other, pos, len), VNDR_LEAST);
        }
        id::EXP => {
            let flags = device.word(pos, exp::FLAGS)?;
            let (unlinked, linked) = if flags & exp::FLAGS_VERS == 1 {
                EXP_V1_LEN
            } else {
                EXP_V2_LEN
            };
            let integrated = (flags & exp::FLAGS_TYPE) >> 4 == exp::TYPE_RC_END;
            capability::express(pos, if integrated { unlinked } else { linked })
        }
        id::MSIX => Capability::new(Kind::MessageX, pos, msix::SIZEOF),
        id::SATA => {
            let inside = device.byte(pos, sata::REGS)? as u8 & sata::REGS_MASK == sata::REGS_MASK;
            read_only(if inside {
                sata::SIZEOF_LONG
            } else {
                sata::SIZEOF_SHORT
            })
        }
        id::AF => capability::advanced(pos),
        _ => return Ok(None),
    }))
}

/// A vendor's capability, whose length it says itself; none that says zero.
fn vendor(capability: Capability, least: u16) -> Result<Option<Capability>, Refused> {
    match capability.len {
        0 => Ok(None),
        len if len < least => Err(Refused::Short {
            at: capability.start,
            len,
            least,
        }),
        _ => Ok(Some(capability.raw())),
    }
}

/// The extended capability at `pos`; `None` if the user is not to see it.
fn beyond<D: Device + ?Sized>(
    device: &Reader<'_, D>,
    cap_id: u16,
    pos: u16,
) -> Result<Option<Capability>, Refused> {
    use ext_cap::id;
    let read_only = |len| Capability::extended(Kind::Other, pos, len);
    Ok(Some(match cap_id {
        id::ERR => capability::errors(pos),
        id::PWR => capability::power_budget(pos),
        id::DSN => read_only(dsn::SIZEOF),
        id::LTR => Capability::extended(Kind::Latency, pos, ltr::SIZEOF),
        id::ARI | id::ATS => read_only(8),
        id::PRI => read_only(16),
        id::MCAST => read_only(40),
        id::SRIOV => read_only(64),
        id::VNDR => {
            let len = (device.dword(pos, ext_cap::vndr::HEADER)? >> 20) as u16;
            return vendor(read_only(len), EXT_VNDR_LEAST);
        }
        id::DVSEC => {
            let len = (device.dword(pos, dvsec::HEADER1)? >> 20) as u16;
            return vendor(read_only(len), dvsec::BODY);
        }
        id::REBAR => {
            read_only(4 + 8 * (device.byte(pos, rebar::CTRL)? >> rebar::CTRL_NBAR_SHIFT & 7))
        }
        id::ACS => {
            let egress = device.byte(pos, 4)? & 0x20 != 0;
            let bits = if egress { device.byte(pos, 5)? } else { 0 };
            let bits = if egress && bits == 0 {
                256
            } else {
                bits.next_multiple_of(32)
            };
            read_only(8 + bits / 8)
        }
        id::DPA => read_only(16 + (device.byte(pos, 4)? & 0x1f) + 1),
        id::TPH => {
            let cap = device.dword(pos, 4)?;
            let in_capability = cap >> 9 & 3 == 1;
            let table = if in_capability {
                2 * ((cap >> 16) as u16 & 0x7ff) + 2
            } else {
                0
            };
            read_only(12 + table)
        }
        id::VC | id::VC9 | id::MFVC => {
            let (channels, arbiters) = (device.byte(pos, 4)? & 7, device.dword(pos, 8)?);
            let len = 0x10 + (1 + channels) * 0xc;
            let phases = [(1 << 3, 128), (1 << 2, 64), (1 << 1, 32)];
            let table = phases.into_iter().find(|(bit, _)| arbiters & bit != 0);
            read_only(table.map_or(len, |(_, n)| len.next_multiple_of(16) + n / 2))
        }
        _ => return Ok(None),
    }))
}
