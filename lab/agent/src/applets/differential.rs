//! `differential BDF SEED COUNT`: random operations on a VFIO device, for comparison.
//!
//! The device's shape is JSON on standard input; the answers go to standard output, encoded by
//! postcard. Reads and writes go through the lab's position module, so that the file position
//! which a driver leaves behind is part of the answer.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use varia_differential::{Answer, Op, Shape, Target, operations};
use varia_spec::Errno;
use varia_sys::mapping::{Access, Share};
use varia_sys::vfio::{Device, position};

use super::vfio::OpenDevice;

/// Where the position module takes its orders; see `lab/position/varia_position.c`.
const CONTROL: u64 = 0x7fff_ffff_ffff_f000;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match compare(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &[String]) -> Result<(), String> {
    let [bdf, seed, count] = arguments else {
        return Err("usage: differential BDF SEED COUNT".into());
    };
    let seed = seed.parse().map_err(|e| format!("seed {seed:?}: {e}"))?;
    let count = count.parse().map_err(|e| format!("count {count:?}: {e}"))?;
    let shape: Shape = serde_json::from_reader(io::stdin()).map_err(|e| format!("shape: {e}"))?;
    let opened = OpenDevice::open(bdf)?;
    let mut target = KernelDevice::new(&opened.device)
        .map_err(|e| format!("/dev/varia_position: {e}: load varia_position.ko first"))?;
    let answers: Vec<Answer> = operations(seed, count, &shape)
        .iter()
        .map(|op| target.run(op))
        .collect();
    let bytes = postcard::to_stdvec(&answers).map_err(|e| e.to_string())?;
    io::stdout().write_all(&bytes).map_err(|e| e.to_string())
}

/// A device that a kernel driver serves.
struct KernelDevice<'a> {
    device: &'a Device,
    positions: File,
}

impl<'a> KernelDevice<'a> {
    fn new(device: &'a Device) -> io::Result<Self> {
        let positions = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/varia_position")?;
        let fd = device.as_fd().as_raw_fd();
        positions.write_at(&fd.to_ne_bytes(), CONTROL)?;
        Ok(Self { device, positions })
    }

    /// By how much the last read or write moved the position.
    fn advance(&self) -> u64 {
        let mut moved = [0; 8];
        match self.positions.read_at(&mut moved, CONTROL) {
            Ok(8) => u64::from_ne_bytes(moved),
            // Not a value that any driver leaves behind, so that a comparison shows it.
            _ => u64::MAX,
        }
    }

    fn region_info(&self, region: u32, argsz: u32) -> Answer {
        match self.device.region_info_with(region, argsz) {
            Err(errno) => Answer::failed(errno.get()),
            Ok(info) => {
                let mut data = Vec::new();
                for field in [info.argsz, info.flags, info.index, info.cap_offset] {
                    data.extend(field.to_le_bytes());
                }
                data.extend(info.size.to_le_bytes());
                data.extend(info.offset.to_le_bytes());
                data.extend(info.caps);
                Answer {
                    data,
                    ..Answer::done(0)
                }
            }
        }
    }

    fn map(&self, region: u32, offset: u64, len: u64, touch: u64, data: &[u8]) -> Answer {
        let at = position(region, offset);
        let mapping = match self.device.map(at, len, Access::ReadWrite) {
            Ok(mapping) => mapping,
            Err(errno) => return Answer::failed(errno.get()),
        };
        let Ok(touch) = usize::try_from(touch) else {
            return Answer::failed(Errno::EINVAL.get());
        };
        let mut seen = vec![0; 8];
        if let Err(errno) = mapping.peek(touch, &mut seen) {
            return Answer::failed(errno.get());
        }
        if !data.is_empty()
            && let Err(errno) = mapping.poke(touch, data)
        {
            return Answer::failed(errno.get());
        }
        Answer {
            data: seen,
            ..Answer::done(0)
        }
    }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

impl Target for KernelDevice<'_> {
    fn run(&mut self, op: &Op) -> Answer {
        match op {
            Op::RegionInfo { region, argsz } => self.region_info(*region, *argsz),
            Op::Read {
                region,
                offset,
                len,
            } => {
                let mut data = vec![0; *len as usize];
                match self
                    .positions
                    .read_at(&mut data, position(*region, *offset))
                {
                    Err(error) => Answer::failed(errno_of(&error)),
                    Ok(count) => {
                        data.truncate(count);
                        Answer {
                            result: Ok(count as u64),
                            data,
                            advance: self.advance(),
                        }
                    }
                }
            }
            Op::Write {
                region,
                offset,
                data,
            } => match self.positions.write_at(data, position(*region, *offset)) {
                Err(error) => Answer::failed(errno_of(&error)),
                Ok(count) => Answer {
                    advance: self.advance(),
                    ..Answer::done(count as u64)
                },
            },
            Op::Map {
                region,
                offset,
                len,
                touch,
                data,
                ..
            } => self.map(*region, *offset, *len, *touch, data),
            Op::MapPrivate { region, offset } => {
                let at = position(*region, *offset);
                let page = rustix::param::page_size() as u64;
                match self
                    .device
                    .map_as(at, page, Access::ReadWrite, Share::Private)
                {
                    Ok(_) => Answer::done(0),
                    Err(errno) => Answer::failed(errno.get()),
                }
            }
            Op::Reset => match self.device.reset() {
                Ok(()) => Answer::done(0),
                Err(errno) => Answer::failed(errno.get()),
            },
        }
    }
}
