//! Places of the capabilities of a device, by its raw configuration space.
//!
//! Only for choosing what to touch, and for counting what was: lengths are those of the
//! specification, cut at the next capability.

use serde::{Deserialize, Serialize};
use varia_spec::pci::cap::{self, id, vndr};
use varia_spec::pci::ext_cap::{self, dvsec};
use varia_spec::pci::header::{CAPABILITY_LIST, STD_HEADER_SIZEOF};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE};

/// The header, or a capability.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Id and offset of the capability, for a reader.
    pub name: String,
    /// Conventional id; 0 for the header and for an extended capability.
    pub id: u8,
    /// First byte.
    pub start: u16,
    /// First byte behind it.
    pub end: u16,
}

impl Place {
    /// It has this byte.
    #[must_use]
    pub fn has(&self, at: u16) -> bool {
        (self.start..self.end).contains(&at)
    }
}

/// Everything in `raw`, 4096 bytes, by rising offset.
#[must_use]
pub fn places(raw: &[u8]) -> Vec<Place> {
    let byte = |at: u16| raw.get(usize::from(at)).copied().unwrap_or(0);
    let dword = |at: u16| u32::from_le_bytes([0, 1, 2, 3].map(|i| byte(at.saturating_add(i))));
    let mut found = vec![Place {
        name: "header".into(),
        id: 0,
        start: 0,
        end: STD_HEADER_SIZEOF,
    }];
    let mut at = u16::from(byte(CAPABILITY_LIST) & !3);
    while at >= STD_HEADER_SIZEOF && found.iter().all(|place| place.start != at) {
        let its = byte(at);
        let len = match its {
            id::PM => cap::pm::SIZEOF,
            id::VPD => cap::vpd::SIZEOF,
            id::MSI => cap::msi::SIZEOF_64_MASK,
            id::EXP => cap::exp::SIZEOF_V2,
            id::MSIX => cap::msix::SIZEOF,
            id::AF => cap::af::SIZEOF,
            id::VNDR => u16::from(byte(at + vndr::LEN)).max(4),
            _ => 4,
        };
        found.push(Place {
            name: format!("capability {its:#x} at {at:#x}"),
            id: its,
            start: at,
            end: (at + len).min(CFG_SPACE_SIZE),
        });
        at = u16::from(byte(at + 1) & !3);
    }
    let mut at = ext_cap::START;
    while at >= ext_cap::START && found.iter().all(|place| place.start != at) {
        let header = dword(at);
        if matches!(header, 0 | u32::MAX) {
            break;
        }
        let its = ext_cap::header_id(header);
        let len = match its {
            ext_cap::id::VNDR => (dword(at + ext_cap::vndr::HEADER) >> 20) as u16,
            ext_cap::id::DVSEC => (dword(at + dvsec::HEADER1) >> 20) as u16,
            ext_cap::id::ERR => 0x48,
            _ => 16,
        };
        found.push(Place {
            name: format!("extended capability {its:#x} at {at:#x}"),
            id: 0,
            start: at,
            end: (at + len.max(4)).min(CFG_SPACE_EXP_SIZE),
        });
        at = ext_cap::header_next(header);
    }
    found.sort_by_key(|place| place.start);
    let starts: Vec<_> = found.iter().skip(1).map(|place| place.start).collect();
    for (place, next) in found.iter_mut().zip(starts) {
        place.end = place.end.min(next);
    }
    found
}
