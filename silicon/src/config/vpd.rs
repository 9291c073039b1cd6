//! Vital product data: what a card says of itself, behind a window of four bytes.
//!
//! Source: PCI Express Base Specification 6.0, section 7.9.18; PCI Local Bus Specification 3.0,
//! appendix I, for the data.

use varia_spec::pci::cap::vpd;

use super::{get, set};

/// Resource tags, each followed by a u16 length.
const NAME: u8 = 0x82;
const READ_ONLY: u8 = 0x90;
const READ_WRITE: u8 = 0x91;
/// Ends the data; has no length.
const END: u8 = 0x78;
/// Bytes that can be written, behind the keyword and its length.
const SCRATCH: usize = 29;

/// The data, and which of it can be written.
#[derive(Clone, Debug)]
pub(super) struct VitalData {
    bytes: Vec<u8>,
    scratch: std::ops::Range<usize>,
}

/// The byte of the capability at `at` whose write starts a transfer.
pub(super) fn flag_byte(at: u16) -> u16 {
    at + vpd::ADDR + 1
}

impl VitalData {
    /// The data of a card with this name and serial number.
    pub(super) fn new(name: &str, serial: &str) -> Self {
        let mut bytes = Vec::new();
        resource(&mut bytes, NAME, name.as_bytes());
        let mut fixed = Vec::new();
        keyword(&mut fixed, b"PN", b"VARIA-NIC");
        keyword(&mut fixed, b"SN", serial.as_bytes());
        // the checksum makes the sum of all bytes up to itself zero
        let header = [READ_ONLY, (fixed.len() + 4) as u8, 0];
        let before = bytes.iter().chain(&header).chain(&fixed).chain(b"RV\x01");
        let sum = before.fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        keyword(&mut fixed, b"RV", &[sum.wrapping_neg()]);
        resource(&mut bytes, READ_ONLY, &fixed);
        let mut free = Vec::new();
        keyword(&mut free, b"RW", &[0; SCRATCH]);
        resource(&mut bytes, READ_WRITE, &free);
        let end = bytes.len();
        bytes.push(END);
        Self {
            bytes,
            scratch: end - SCRATCH..end,
        }
    }

    /// Carries out what the address register of the capability at `at` asks for.
    pub(super) fn transfer(&mut self, config: &mut [u8], at: u16) {
        let address = get(config, at + vpd::ADDR, 2);
        let flag = u32::from(vpd::ADDR_F);
        let start = (address & !flag & !3) as usize;
        if address & flag == 0 {
            let byte = |i: usize| self.bytes.get(start + i).copied().unwrap_or(0);
            let data = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
            set(config, at + vpd::DATA, 4, data);
        } else {
            let data = get(config, at + vpd::DATA, 4).to_le_bytes();
            for (to, from) in (start..).zip(data) {
                if let Some(slot) = self
                    .bytes
                    .get_mut(to)
                    .filter(|_| self.scratch.contains(&to))
                {
                    *slot = from;
                }
            }
        }
        set(config, at + vpd::ADDR, 2, address ^ flag);
    }
}

fn resource(out: &mut Vec<u8>, tag: u8, data: &[u8]) {
    out.push(tag);
    out.extend((data.len() as u16).to_le_bytes());
    out.extend(data);
}

fn keyword(out: &mut Vec<u8>, name: &[u8; 2], data: &[u8]) {
    out.extend(name);
    out.push(data.len() as u8);
    out.extend(data);
}
