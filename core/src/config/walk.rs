//! Finds the capabilities of a device and says how long each is.
//!
//! A capability whose length is not known here is taken out of the list that the user sees; its
//! bytes are then like any others between capabilities. PCI-X, AGP, HyperTransport, SATA and VPD
//! are such: no PCI Express function that Varia serves has the first four, and VPD is a register
//! window that has to be emulated.
//!
//! Source: Linux 7.2 `drivers/vfio/pci/vfio_pci_config.c:vfio_cap_init`, `vfio_ecap_init`,
//! `vfio_cap_len`, `vfio_ext_cap_len`.

use varia_spec::Errno;
use varia_spec::pci::cap::{af, exp, id, msi, msix, pm, vndr};
use varia_spec::pci::ext_cap::{self, dsn, dvsec, err, ltr, pwr, rebar};
use varia_spec::pci::header::{self, STD_HEADER_SIZEOF, status};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE};

use super::perms::{self, Perms};
use super::{Capability, Kind, Map};
use crate::device::{ConfigRegister, Device, Width};

/// Bytes in a version 1 Express capability of an endpoint, without and with a link.
const EXP_V1_LEN: (u16, u16) = (0xc, 0x14);
/// Bytes that Linux counts to a version 2 Express capability, without and with a link.
const EXP_V2_LEN: (u16, u16) = (0x2c, 0x34);

/// Fills `map` with the conventional capabilities.
pub(crate) fn conventional<D: Device + ?Sized>(map: &mut Map, device: &D) -> Result<(), Errno> {
    if device.config_read(ConfigRegister::word(header::STATUS))? & u32::from(status::CAP_LIST) == 0
    {
        return Ok(());
    }
    let byte = |at| {
        device
            .config_read(ConfigRegister::byte(at))
            .map(|b| b as u16)
    };
    let mut previous = header::CAPABILITY_LIST;
    let mut pos = byte(header::CAPABILITY_LIST)? & !3;
    let mut found = 0;
    for _ in 0..(CFG_SPACE_SIZE - STD_HEADER_SIZEOF) / 4 {
        if pos < STD_HEADER_SIZEOF {
            break;
        }
        let (cap_id, next) = (byte(pos)? as u8, byte(pos + 1)?);
        match capability(device, cap_id, pos)? {
            None => map.values.set(previous, 1, u32::from(next)),
            Some((capability, len)) => {
                let is_pm = capability.kind == Kind::Power;
                map.add(capability, len, CFG_SPACE_SIZE);
                map.values.fill(device, pos, len)?;
                if is_pm {
                    hide_pme(map, pos);
                }
                previous = pos + 1;
                found += 1;
            }
        }
        pos = next & !3;
    }
    if found == 0 {
        let seen = map.values.get(header::STATUS, 2) & !u32::from(status::CAP_LIST);
        map.values.set(header::STATUS, 2, seen);
    }
    Ok(())
}

/// Fills `map` with the extended capabilities.
pub(crate) fn extended<D: Device + ?Sized>(map: &mut Map, device: &D) -> Result<(), Errno> {
    let mut previous = None;
    let mut found = 0;
    let mut any = false;
    for header in ext_headers(device) {
        let (pos, start) = header?;
        any = true;
        let next = ext_cap::header_next(start);
        match (
            ext_capability(device, ext_cap::header_id(start), pos)?,
            previous,
        ) {
            (Some((capability, len)), _) => {
                map.add(capability, len, CFG_SPACE_EXP_SIZE);
                map.values.fill(device, pos, len)?;
                previous = Some(pos);
                found += 1;
            }
            (None, Some(previous)) => {
                let header = map.values.get(previous, 4) & !(0xffc << 20);
                map.values.set(previous, 4, header | u32::from(next) << 20);
            }
            (None, None) => {
                // the list starts here, so the first keeps its place, without its identity
                map.add(
                    Capability::other(pos, Perms::ext_read_only(4)),
                    4,
                    CFG_SPACE_EXP_SIZE,
                );
                map.values.set(pos, 4, u32::from(next) << 20);
                previous = Some(pos);
            }
        }
    }
    if any && found == 0 {
        map.values.set(CFG_SPACE_SIZE, 4, 0);
    }
    Ok(())
}

/// The offset of the first DVSEC with this vendor and id in a device's own configuration space.
///
/// One whose headers reach beyond the space is none. How long it says that it is, and whether that
/// fits, is not looked at: Linux doesn't either (`drivers/pci/pci.c:pci_find_dvsec_capability`).
///
/// # Errors
/// What the device answers to a configuration read.
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

/// The user can't be told of a power management event, so its bits read as zero.
fn hide_pme(map: &mut Map, pos: u16) {
    let clear = |map: &mut Map, at, bits: u16| {
        let seen = map.values.get(at, 2) & !u32::from(bits);
        map.values.set(at, 2, seen);
    };
    clear(map, pos + pm::PMC, pm::PMC_PME_MASK);
    clear(
        map,
        pos + pm::CTRL,
        pm::CTRL_PME_ENABLE | pm::CTRL_PME_STATUS,
    );
}

type Found = Option<(Capability, u16)>;

fn capability<D: Device + ?Sized>(device: &D, cap_id: u8, pos: u16) -> Result<Found, Errno> {
    let word = |at| {
        device
            .config_read(ConfigRegister::word(at))
            .map(|w| w as u16)
    };
    let found = |kind, perms, len| {
        Capability {
            kind,
            perms,
            start: pos,
            raw_write: false,
        }
        .long(len)
    };
    Ok(match cap_id {
        id::PM => found(Kind::Power, perms::power(), pm::SIZEOF),
        id::MSI => {
            let flags = word(pos + msi::FLAGS)?;
            let wide = if flags & msi::FLAGS_64BIT != 0 { 4 } else { 0 };
            let maskable = if flags & msi::FLAGS_MASKBIT != 0 {
                10
            } else {
                0
            };
            let len = 10 + wide + maskable;
            found(Kind::Message, perms::message(len, flags), len)
        }
        id::VNDR => {
            let len = device.config_read(ConfigRegister::byte(pos + vndr::LEN))? as u16;
            Capability {
                raw_write: true,
                ..Capability::other(pos, Perms::read_only(len))
            }
            .long(len)
        }
        id::EXP => {
            let flags = word(pos + exp::FLAGS)?;
            let (unlinked, linked) = if flags & exp::FLAGS_VERS == 1 {
                EXP_V1_LEN
            } else {
                EXP_V2_LEN
            };
            let integrated = (flags & exp::FLAGS_TYPE) >> 4 == exp::TYPE_RC_END;
            let len = if integrated { unlinked } else { linked };
            found(Kind::Express, perms::express(len), len)
        }
        id::MSIX => found(Kind::Other, Perms::read_only(msix::SIZEOF), msix::SIZEOF),
        id::AF => found(Kind::Advanced, perms::advanced(), af::SIZEOF),
        _ => None,
    })
}

fn ext_capability<D: Device + ?Sized>(device: &D, cap_id: u16, pos: u16) -> Result<Found, Errno> {
    use ext_cap::id;
    let dword = |at| device.config_read(ConfigRegister::dword(at));
    let byte = |at| {
        device
            .config_read(ConfigRegister::byte(at))
            .map(|b| b as u16)
    };
    let read_only = |len| Capability::other(pos, Perms::ext_read_only(len)).long(len);
    let vendor = |len| {
        Capability {
            raw_write: true,
            ..Capability::other(pos, Perms::ext_read_only(len))
        }
        .long(len)
    };
    Ok(match cap_id {
        id::ERR => Capability::other(pos, perms::errors()).long(err::ENDPOINT_LEN),
        id::PWR => Capability::other(pos, perms::power_budget()).long(pwr::SIZEOF),
        id::DSN => read_only(dsn::SIZEOF),
        id::LTR => read_only(ltr::SIZEOF),
        id::ARI | id::ATS => read_only(8),
        id::PRI => read_only(16),
        id::MCAST => read_only(40),
        id::SRIOV => read_only(64),
        id::VNDR => vendor((dword(pos + ext_cap::vndr::HEADER)? >> 20) as u16),
        id::DVSEC => vendor((dword(pos + dvsec::HEADER1)? >> 20) as u16),
        id::REBAR => read_only(4 + 8 * (byte(pos + rebar::CTRL)? >> rebar::CTRL_NBAR_SHIFT & 7)),
        id::ACS => {
            let egress = byte(pos + 4)? & 0x20 != 0;
            let bits = if egress { byte(pos + 5)? } else { 0 };
            let bits = if egress && bits == 0 {
                256
            } else {
                bits.next_multiple_of(32)
            };
            read_only(8 + bits / 8)
        }
        id::DPA => read_only(16 + (byte(pos + 4)? & 0x1f) + 1),
        id::TPH => {
            let cap = dword(pos + 4)?;
            let in_capability = cap >> 9 & 3 == 1;
            let table = if in_capability {
                2 * ((cap >> 16) as u16 & 0x7ff) + 2
            } else {
                0
            };
            read_only(12 + table)
        }
        id::VC | id::VC9 | id::MFVC => {
            let (channels, arbiters) = (byte(pos + 4)? & 7, dword(pos + 8)?);
            let len = 0x10 + (1 + channels) * 0xc;
            let phases = [(1 << 3, 128), (1 << 2, 64), (1 << 1, 32)];
            let table = phases.into_iter().find(|(bit, _)| arbiters & bit != 0);
            read_only(table.map_or(len, |(_, n)| len.next_multiple_of(16) + n / 2))
        }
        _ => None,
    })
}

impl Capability {
    /// One without a special write, all its behaviour in the masks.
    pub(crate) fn other(start: u16, perms: Perms) -> Self {
        Self {
            kind: Kind::Other,
            start,
            perms,
            raw_write: false,
        }
    }

    /// `None` for a length of zero, which a device can claim.
    fn long(self, len: u16) -> Found {
        (len != 0).then_some((self, len))
    }
}
