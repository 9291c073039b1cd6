//! `opregion BDF`: what plain vfio-pci shows of a graphics device beside OpRegions in this machine's
//! memory.
//!
//! The function is bound to vfio-pci, and has a register for the OpRegion's address. Standard input
//! is a list of [`Case`]s, encoded by postcard; a [`Seen`] for each goes to standard output, encoded
//! likewise. The memory is the applet's own: pages that follow each other in physical memory and are
//! pinned while the kernel reads them.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use varia_spec::Errno;
use varia_spec::intel;
use varia_spec::vfio::RegionIndex;
use varia_sys::mapping::{Mapping, page_size};
use varia_sys::numa::{Pinned, physical, pin};
use varia_sys::vfio::{Device, position};

use super::vfio::OpenDevice;

/// Bytes of the memory in which a case has its OpRegion.
pub const BLOCK: usize = 32 << 10;

/// Bytes among which the block is looked for.
const SEARCHED: u64 = 16 << 20;

/// A machine's memory and register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The block's bytes, at most [`BLOCK`].
    pub bytes: Vec<u8>,
    /// An offset in the block at which the address of another offset is written, as u64.
    pub pointer: Option<(u64, u64)>,
    /// Value of the register; the block's address if there is none.
    pub asls: Option<u32>,
}

/// Answer to a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Address of the block.
    pub base: u64,
    /// The opened device, or why it can't be opened.
    pub opened: Result<Opened, String>,
}

/// A device that has been opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The regions from [`RegionIndex::COUNT`] on.
    pub regions: Vec<SpecificRegion>,
    /// Register of the address as its user reads it: first, and after a write of
    /// [`WRITTEN`].
    pub asls: [u32; 2],
    /// The device's own register after the write.
    pub own_asls: u32,
}

/// Value that a user writes to the register.
pub const WRITTEN: u32 = 0x1234_5678;

/// A device-specific region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecificRegion {
    /// Bytes.
    pub size: u64,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// Type and subtype.
    pub region_type: Option<(u32, u32)>,
    /// All bytes, by a read of more than there are.
    pub whole: Result<Vec<u8>, i32>,
    /// Answers to the [`short_reads`].
    pub short: Vec<Result<Vec<u8>, i32>>,
    /// A write of four bytes at the beginning: their number.
    pub written: Result<usize, i32>,
}

/// Offsets and lengths of short reads of a region: around each place where the source of the bytes
/// may change, and beyond the end.
pub fn short_reads(size: u64) -> impl Iterator<Item = (u64, usize)> {
    let edges = [0, 0x16, 0x18, 0x3ba, 0x3c2, 0x400, 0x1000, 0x2000, size];
    let near = |edge: u64| edge.saturating_sub(5)..edge + 4;
    let lengths = |offset| (1..=9).map(move |len| (offset, len));
    edges.into_iter().flat_map(near).flat_map(lengths)
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match answers(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("opregion: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answers(arguments: &[String]) -> Result<(), String> {
    let [bdf] = arguments else {
        return Err("usage: opregion BDF".into());
    };
    let mut input = Vec::new();
    let read = io::stdin().read_to_end(&mut input);
    read.map_err(|error| format!("standard input: {error}"))?;
    let cases: Vec<Case> = postcard::from_bytes(&input).map_err(|error| error.to_string())?;
    let block = Block::find()?;
    let seen: Result<Vec<_>, _> = cases.iter().map(|case| block.try_case(bdf, case)).collect();
    let bytes = postcard::to_stdvec(&seen?).map_err(|error| error.to_string())?;
    io::stdout().write_all(&bytes).map_err(|e| e.to_string())
}

/// Memory at addresses that follow each other.
struct Block {
    mapping: Mapping,
    /// Offset in the mapping.
    start: usize,
    base: u64,
    _pinned: Vec<Pinned>,
}

impl Block {
    fn find() -> Result<Self, String> {
        let failed = |what| move |errno: Errno| format!("{what}: {errno}");
        let mapping = Mapping::anonymous(SEARCHED).map_err(failed("memory"))?;
        let page = page_size();
        for at in (0..mapping.len()).step_by(page) {
            mapping.write(at, &[0]).map_err(failed("memory"))?;
        }
        let address = |at| physical(&mapping, at).map_err(failed("/proc/self/pagemap"));
        let (mut start, mut base) = (0, address(0)?);
        for at in (0..mapping.len()).step_by(page) {
            let here = address(at)?;
            if here != base + (at - start) as u64 {
                (start, base) = (at, here);
            }
            if at + page - start == BLOCK && base + (BLOCK as u64) <= u64::from(u32::MAX) {
                let pages = (start..start + BLOCK).step_by(page);
                let pinned = pages.map(|at| pin(&mapping, at).map_err(failed("pin a page")));
                let pinned = pinned.collect::<Result<_, _>>()?;
                return Ok(Self {
                    mapping,
                    start,
                    base,
                    _pinned: pinned,
                });
            }
        }
        let (wanted, searched) = (BLOCK >> 10, SEARCHED >> 20);
        Err(format!(
            "no {wanted} KiB below 4 GiB follow each other in {searched} MiB of memory"
        ))
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        let place = self.start + at as usize;
        let written = self.mapping.write(place, bytes);
        written.map_err(|errno| format!("{} bytes at {at:#x} of the block: {errno}", bytes.len()))
    }

    fn try_case(&self, bdf: &str, case: &Case) -> Result<Seen, String> {
        if case.bytes.len() > BLOCK {
            return Err(format!("a case of {} bytes", case.bytes.len()));
        }
        self.put(0, &case.bytes)?;
        if let Some((at, to)) = case.pointer {
            self.put(at, &(self.base + to).to_le_bytes())?;
        }
        let path = format!("/sys/bus/pci/devices/{bdf}/config");
        let failed = |error: io::Error| format!("{path}: {error}");
        let config = OpenOptions::new().read(true).write(true).open(&path);
        let config = config.map_err(failed)?;
        let asls = case.asls.unwrap_or(self.base as u32);
        let register = u64::from(intel::ASLS);
        config
            .write_all_at(&asls.to_le_bytes(), register)
            .map_err(failed)?;
        let opened = match OpenDevice::open(bdf) {
            Err(error) => Err(error),
            Ok(opened) => {
                let mut seen = Opened::of(&opened.device)?;
                let mut own = [0; 4];
                config.read_exact_at(&mut own, register).map_err(failed)?;
                seen.own_asls = u32::from_le_bytes(own);
                Ok(seen)
            }
        };
        Ok(Seen {
            base: self.base,
            opened,
        })
    }
}

impl Opened {
    fn of(device: &Device) -> Result<Self, String> {
        let failed = |errno: Errno| errno.to_string();
        let register = position(RegionIndex::CONFIG.0, intel::ASLS.into());
        let asls = || {
            let mut bytes = [0; 4];
            let read = device.read_at(register, &mut bytes).map_err(failed);
            read.map(|_| u32::from_le_bytes(bytes))
        };
        let first = asls()?;
        let written = device.write_at(register, &WRITTEN.to_le_bytes());
        written.map_err(failed)?;
        let count = device.info().map_err(failed)?.num_regions;
        let regions = (RegionIndex::COUNT..count).map(|index| region(device, index));
        Ok(Self {
            asls: [first, asls()?],
            own_asls: 0,
            regions: regions.collect::<Result<_, _>>().map_err(failed)?,
        })
    }
}

fn region(device: &Device, index: u32) -> Result<SpecificRegion, Errno> {
    let info = device.region_info(index)?;
    let read = |offset, len| {
        let mut bytes = vec![0; len];
        let count = device.read_at(position(index, offset), &mut bytes);
        bytes.truncate(count.map_err(Errno::get)?);
        Ok(bytes)
    };
    let more = usize::try_from(info.size).map_err(|_| Errno::EOVERFLOW)? + 100;
    let written = device.write_at(position(index, 0), &[1; 4]);
    Ok(SpecificRegion {
        size: info.size,
        flags: info.flags,
        region_type: info.region_type().map(|it| (it.kind, it.subtype)),
        whole: read(0, more),
        short: short_reads(info.size)
            .map(|(offset, len)| read(offset, len))
            .collect(),
        written: written.map_err(Errno::get),
    })
}
