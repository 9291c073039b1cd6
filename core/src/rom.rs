//! Length of the images in an expansion ROM.
//!
//! Source: PCI Firmware Specification 3.3, section 5.1; Linux 7.2
//! `drivers/pci/rom.c:pci_get_rom_size`.

use crate::device::Device;

/// First two bytes of an image.
const SIGNATURE: u16 = 0xaa55;
/// Bytes of an image's header.
const HEADER_LEN: u64 = 0x1a;
/// Offset in the header of the pointer to the data structure, u16.
const POINTER: u64 = 0x18;
/// First four bytes of the data structure.
const DATA_SIGNATURE: u32 = u32::from_le_bytes(*b"PCIR");
/// Offset in the data structure of its length, u16.
const DATA_LEN: u64 = 0x0a;
/// The shortest data structure.
const DATA_LEN_MIN: u64 = 0x18;
/// Offset of the image's length, u16, in sectors.
const IMAGE_LEN: u64 = 0x10;
/// Offset of the byte whose bit 7 says that no image follows.
const INDICATOR: u64 = 0x15;
/// Bytes of a sector.
const SECTOR: u64 = 512;

/// The ROM of a device, `size` bytes.
struct Rom<'a, D: ?Sized> {
    device: &'a D,
    size: u64,
}

/// Length in bytes of the images in a ROM of `size` bytes; 0 if there is no valid image.
pub(crate) fn image_len<D: Device + ?Sized>(device: &D, size: u64) -> u64 {
    let rom = Rom { device, size };
    let mut end = 0;
    // each image has a sector at least, so that this comes to an end
    while rom.is_image(end) {
        let Some((len, last)) = rom.data_structure(end) else {
            break;
        };
        end += len * SECTOR;
        if last || len == 0 {
            break;
        }
    }
    end.min(size)
}

impl<D: Device + ?Sized> Rom<'_, D> {
    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let inside = at.checked_add(N as u64)? <= self.size;
        let mut bytes = [0; N];
        let read = inside && self.device.rom_read(at, &mut bytes).is_ok();
        read.then_some(bytes)
    }

    fn is_image(&self, at: u64) -> bool {
        self.size
            .checked_sub(at)
            .is_some_and(|left| left >= HEADER_LEN)
            && self.bytes(at).map(u16::from_le_bytes) == Some(SIGNATURE)
    }

    /// Sectors of the image at `at`, and whether it is the last.
    fn data_structure(&self, at: u64) -> Option<(u64, bool)> {
        let data = at + u64::from(u16::from_le_bytes(self.bytes(at + POINTER)?));
        if !data.is_multiple_of(4)
            || self.bytes(data).map(u32::from_le_bytes) != Some(DATA_SIGNATURE)
        {
            return None;
        }
        let len = u64::from(u16::from_le_bytes(self.bytes(data + DATA_LEN)?));
        if len < DATA_LEN_MIN || len == u64::from(u16::MAX) || data + len > self.size {
            return None;
        }
        let sectors = u16::from_le_bytes(self.bytes(data + IMAGE_LEN)?);
        let [indicator] = self.bytes(data + INDICATOR)?;
        Some((u64::from(sectors), indicator & 0x80 != 0))
    }
}
