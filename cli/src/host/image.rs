//! Checks of a disk image before a host boots from it.
//!
//! Raw images are judged to their boot loader: removable media of UEFI name their loader by the
//! architecture (UEFI 2.10, 3.5.1.1), in a FAT file system on the EFI system partition. The
//! partitions of a qcow2 image are not read.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, OFlags, fcntl_lock},
    io::Errno,
};
use varia_facts::{Arch, Bytes};

const SECTOR: u64 = 512;
/// Type of the EFI system partition, as a GPT has it (UEFI 2.10, 5.3.3) and as an MBR has it.
const SYSTEM_PARTITION: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
const SYSTEM_PARTITION_MBR: u8 = 0xef;
/// Most entries of a partition table that are read.
const MOST_ENTRIES: u32 = 1024;
/// Bytes of a system partition that are searched for the loader's name.
const SEARCHED: u64 = 256 << 20;
/// An entry of a FAT directory, which begins with the name.
const ENTRY: usize = 32;

/// First bytes of files that are no disk images, and what they are.
const OTHERS: [(&[u8], &str, &str); 8] = [
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it with unxz"),
    (
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "unpack it with unzstd",
    ),
    (b"PK\x03\x04", "a zip archive", "unpack it with unzip"),
    (b"KDMV", "a VMDK image", CONVERT),
    (b"vhdxfile", "a VHDX image", CONVERT),
    (b"conectix", "a VHD image", CONVERT),
    (b"\x7fELF", "a program", "give a disk image, raw or qcow2"),
];
const CONVERT: &str = "convert it with qemu-img convert -O qcow2";

/// Format of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Raw,
    Qcow2,
}

impl Format {
    /// Name in QEMU.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A judged image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Image {
    pub(crate) format: Format,
    /// Text about what was not judged.
    pub(crate) not_judged: Option<String>,
}

/// Reason for which a host can't boot from an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the image {image} can't be opened: {source}")]
    Open { image: String, source: io::Error },
    #[error(
        "the image {image} is read-only for this user: --snapshot boots it and leaves it as it is"
    )]
    ReadOnly { image: String },
    #[error(
        "the image {image} is used by another process, or mounted: end that use, or boot a copy"
    )]
    InUse { image: String },
    #[error("{image} is {what} and no disk image: {remedy}")]
    Other {
        image: String,
        what: String,
        remedy: &'static str,
    },
    #[error(
        "the image {image} has a boot loader for {found} ({name}) and the topology is {wanted}: give an image for {wanted}"
    )]
    Architecture {
        image: String,
        found: Arch,
        name: &'static str,
        wanted: Arch,
    },
    #[error("the image {image} can't be read: {source}")]
    Read { image: String, source: io::Error },
}

/// Judges an image that a host of architecture `arch` boots from, and writes to unless `snapshot`.
///
/// # Errors
/// [`Error`].
pub(crate) fn judge(path: &Path, arch: Arch, snapshot: bool) -> Result<Image, Error> {
    let image = path.display().to_string();
    let other = |what: String, remedy| Error::Other {
        image: image.clone(),
        what,
        remedy,
    };
    let open = |flags: OFlags| {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(!snapshot)
            .custom_flags(flags.bits().cast_signed());
        options.open(path)
    };
    // a FIFO without a writer would be waited for
    let file = open(OFlags::NONBLOCK).map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem if !snapshot => {
            Error::ReadOnly {
                image: image.clone(),
            }
        }
        ErrorKind::IsADirectory => other("a directory".into(), "give a disk image, raw or qcow2"),
        _ => Error::Open {
            image: image.clone(),
            source,
        },
    })?;
    let read = |source| Error::Read {
        image: image.clone(),
        source,
    };
    let metadata = file.metadata().map_err(read)?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(other("no file".into(), "give a disk image, raw or qcow2"));
    }
    // the kernel refuses a disk that is mounted
    if kind.is_block_device() && !snapshot {
        if let Err(source) = open(OFlags::EXCL) {
            return Err(match source.kind() {
                ErrorKind::ResourceBusy => Error::InUse { image },
                _ => Error::Open { image, source },
            });
        }
    }
    let mut first = Vec::new();
    (&file).take(SECTOR).read_to_end(&mut first).map_err(read)?;
    if !snapshot {
        // QEMU locks bytes of the images that it writes. A file system without locks can't tell.
        let locked = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
        if matches!(locked, Err(Errno::AGAIN | Errno::ACCESS)) {
            return Err(Error::InUse { image });
        }
    }
    if first.starts_with(b"QFI\xfb") {
        let text = format!("{image}: the architecture of a qcow2 image was not judged");
        return Ok(Image {
            format: Format::Qcow2,
            not_judged: Some(text),
        });
    }
    if let Some((_, what, remedy)) = OTHERS.iter().find(|(magic, ..)| first.starts_with(magic)) {
        return Err(other((*what).to_owned(), remedy));
    }
    if !first.ends_with(b"\x55\xaa") || first.len() as u64 != SECTOR {
        let text = format!(
            "a file of {} without a partition table",
            Bytes(metadata.len())
        );
        return Err(other(text, "give a disk image, raw or qcow2"));
    }
    let found = loaders(&file, &first).map_err(read)?;
    let text = || {
        format!(
            "{image}: the architecture was not judged, because no loader of removable media was found"
        )
    };
    match found.first() {
        Some(other) if !found.contains(&arch) => Err(Error::Architecture {
            image,
            found: *other,
            name: loader(*other).0,
            wanted: arch,
        }),
        first => Ok(Image {
            format: Format::Raw,
            not_judged: first.is_none().then(text),
        }),
    }
}

/// File name of the loader of removable media, and the name as a FAT directory has it.
fn loader(arch: Arch) -> (&'static str, &'static [u8; 11]) {
    match arch {
        Arch::Aarch64 => ("BOOTAA64.EFI", b"BOOTAA64EFI"),
        Arch::X86_64 => ("BOOTX64.EFI", b"BOOTX64 EFI"),
    }
}

/// Architectures for which a raw image has loaders.
fn loaders(file: &File, first: &[u8]) -> io::Result<Vec<Arch>> {
    let mut found = Vec::new();
    for (start, length) in system_partitions(file, first)? {
        let end = start.saturating_add(length.min(SEARCHED));
        let mut at = start;
        let mut chunk = vec![0; 1 << 20];
        while at < end {
            let read = read_full(file, &mut chunk, at)?;
            let entries = chunk.get(..read).unwrap_or_default().chunks(ENTRY);
            for name in entries.filter_map(|entry| entry.get(..11)) {
                let of_name = |arch: &Arch| name == loader(*arch).1;
                found.extend(Arch::ALL.iter().copied().find(of_name));
            }
            if read < chunk.len() {
                break;
            }
            at += read as u64;
        }
    }
    found.dedup();
    Ok(found)
}

/// Reads up to the end of `chunk` or of the file, and returns the number of bytes.
fn read_full(file: &File, chunk: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = chunk.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(done as u64)) {
            Err(error) if is_beyond(&error) => break,
            Ok(0) => break,
            read => done += read?,
        }
    }
    Ok(done)
}

/// First byte and length of each EFI system partition; the whole image if it has no partitions but a
/// FAT file system.
fn system_partitions(file: &File, first: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let mut header = [0; 92];
    file.read_exact_at(&mut header, SECTOR)
        .or_else(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Ok(()),
            _ => Err(error),
        })?;
    if header.starts_with(b"EFI PART") {
        return of_gpt(file, &header);
    }
    if first.get(54..57) == Some(b"FAT") || first.get(82..85) == Some(b"FAT") {
        return Ok(vec![(0, u64::MAX)]);
    }
    let entries = first.get(446..510).unwrap_or_default().chunks_exact(16);
    let systems = entries.filter(|entry| entry.get(4) == Some(&SYSTEM_PARTITION_MBR));
    let of_entry = |entry: &[u8]| {
        let (start, sectors) = (number32(entry, 8)?, number32(entry, 12)?);
        Some((u64::from(start) * SECTOR, u64::from(sectors) * SECTOR))
    };
    Ok(systems.filter_map(of_entry).collect())
}

/// System partitions of a GPT with this header (UEFI 2.10, 5.3.2).
fn of_gpt(file: &File, header: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let table = number64(header, 72)
        .unwrap_or_default()
        .saturating_mul(SECTOR);
    let count = number32(header, 80).unwrap_or_default().min(MOST_ENTRIES);
    let size = u64::from(number32(header, 84).unwrap_or_default());
    if size < 128 {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for index in 0..u64::from(count) {
        let mut entry = [0; 48];
        let at = table.saturating_add(index.saturating_mul(size));
        match file.read_exact_at(&mut entry, at) {
            // no file is as long as a damaged table says
            Err(error) if is_beyond(&error) => break,
            read => read?,
        }
        let (start, last) = (number64(&entry, 32), number64(&entry, 40));
        if let (true, Some(start), Some(last)) = (entry.starts_with(&SYSTEM_PARTITION), start, last)
        {
            let sectors = last.saturating_sub(start).saturating_add(1);
            let start = start.saturating_mul(SECTOR);
            found.push((start, sectors.saturating_mul(SECTOR)));
        }
    }
    Ok(found)
}

fn is_beyond(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidInput
    )
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
