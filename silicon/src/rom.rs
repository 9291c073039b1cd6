//! An expansion ROM without code: a header, the PCI data structure, and nothing behind them.
//!
//! Source: PCI Firmware Specification 3.3, chapter 5.

use crate::profile::Profile;

/// Bytes in the image; images are counted in units of 512.
const IMAGE: usize = 512;
/// Offset of the PCI data structure.
const DATA: u16 = 0x1c;
/// Code type of Open Firmware, which no PC's firmware runs.
const OPEN_FIRMWARE: u8 = 1;
/// Indicator of the last image.
const LAST: u8 = 0x80;

/// The image of a profile's ROM.
pub(crate) fn image(profile: &Profile) -> Vec<u8> {
    let mut image = vec![0xff; IMAGE];
    let mut put = |at: u16, bytes: &[u8]| {
        let slots = image.iter_mut().skip(usize::from(at));
        slots.zip(bytes).for_each(|(slot, byte)| *slot = *byte);
    };
    put(0, &[0x55, 0xaa]);
    put(0x18, &DATA.to_le_bytes());
    put(DATA, b"PCIR");
    put(DATA + 4, &profile.vendor_id.value.to_le_bytes());
    put(DATA + 6, &profile.device_id.value.to_le_bytes());
    // no device list; 0x18 bytes of structure, revision 0
    put(DATA + 8, &[0, 0, 0x18, 0, 0]);
    put(DATA + 13, &profile.class.value.to_le_bytes()[..3]);
    // one unit of 512 bytes, code revision 0, type, last
    put(DATA + 16, &[1, 0, 0, 0, OPEN_FIRMWARE, LAST, 0, 0]);
    image
}
