//! An x86 kernel without its own decompressor: what QEMU starts by the kernel's PVH entry point.
//!
//! A packed kernel (bzImage) unpacks itself in the VM, which takes a third of the processor time of a
//! boot. The lab unpacks the kernel once and keeps it in its cache.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use varia_debian::cache::Cache;
use varia_debian::packages::{cache_subfolder, fold_hash};

use crate::error::{LabError, Result};

/// Name of the unpacked kernel in its folder.
const NAME: &str = "vmlinux";

/// Offsets in a bzImage and its first protocol version with a payload (Linux
/// `Documentation/arch/x86/boot.rst`).
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const VERSION_WITH_PAYLOAD: u32 = 0x208;
const SECTOR: usize = 512;
/// First bytes of a zstd frame, and of an ELF file.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ELF: [u8; 4] = *b"\x7fELF";
/// Type of the ELF note that names the PVH entry point, and its owner (Xen `elfnote.h`,
/// XEN_ELFNOTE_PHYS32_ENTRY).
const PVH_NOTE: [u8; 8] = *b"\x12\0\0\0Xen\0";

/// Unpacked kernel of a bzImage, from the cache; the image itself if it is packed otherwise than with
/// zstd, or has no PVH entry point.
///
/// # Errors
/// [`LabError::Io`].
pub(crate) fn kernel(image: &Path) -> Result<PathBuf> {
    let file = fs::metadata(image).map_err(LabError::file("read", image))?;
    let key = format!("{} {} {:?}", image.display(), file.len(), file.modified());
    let name = format!("{:08x}", fold_hash(key.as_bytes()));
    let cache = Cache::at(cache_subfolder("unpacked".as_ref())?)?;
    let mut folder = cache.root().join(&name);
    if !folder.is_dir() {
        let bytes = fs::read(image).map_err(LabError::file("read", image))?;
        let lock = cache.lock()?;
        folder = cache.fill(&lock, &name, |folder| match unpack(&bytes) {
            None => Ok(()),
            Some(kernel) => {
                let path = folder.join(NAME);
                fs::write(&path, kernel).map_err(LabError::file("write", &path))
            }
        })?;
    }
    let unpacked = folder.join(NAME);
    Ok(if unpacked.is_file() {
        unpacked
    } else {
        image.to_owned()
    })
}

/// ELF file in a bzImage.
fn unpack(image: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let version = word(VERSION)? & 0xffff;
    if image.get(MAGIC..MAGIC + 4)? != b"HdrS" || version < VERSION_WITH_PAYLOAD {
        return None;
    }
    let sectors = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let begin = (sectors + 1) * SECTOR + usize::try_from(word(PAYLOAD_OFFSET)?).ok()?;
    let length = usize::try_from(word(PAYLOAD_LENGTH)?).ok()?;
    let payload = image.get(begin..begin.checked_add(length)?)?;
    if !payload.starts_with(&ZSTD) {
        return None;
    }
    let mut kernel = Vec::new();
    let mut frame = ruzstd::decoding::StreamingDecoder::new(payload).ok()?;
    frame.read_to_end(&mut kernel).ok()?;
    let has_entry = kernel.windows(PVH_NOTE.len()).any(|it| it == PVH_NOTE);
    (kernel.starts_with(&ELF) && has_entry).then_some(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage of one setup sector with this payload.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&[0x0f, 0x02]);
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&3_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend(b"abc");
        image.extend(payload);
        image
    }

    /// A zstd frame with one raw block.
    fn frame(content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        // a single segment whose size is one byte, and a last block of type raw
        let block = (u32::from(length) << 3 | 1).to_le_bytes();
        [&ZSTD[..], &[0x20, length], &block[..3], content].concat()
    }

    #[test]
    fn a_kernel_with_an_entry_point_is_unpacked_and_any_other_is_left() {
        let kernel = [&ELF[..], b"....", &PVH_NOTE].concat();
        assert_eq!(unpack(&image(&frame(&kernel))), Some(kernel.clone()));
        let without_entry = [&ELF[..], b"........"].concat();
        assert_eq!(unpack(&image(&frame(&without_entry))), None);
        assert_eq!(unpack(&image(&frame(&PVH_NOTE))), None, "no ELF file");
        assert_eq!(unpack(&image(b"\x1f\x8bgzip")), None);
        let whole = image(&frame(&kernel));
        for length in 0..whole.len() {
            assert_eq!(unpack(&whole[..length]), None, "cut to {length} bytes");
        }
        let mut old = whole;
        old[VERSION] = 7;
        assert_eq!(unpack(&old), None);
    }
}
