//! The user-space runtime as a target of random operations, through a vfio-user client.

use std::path::Path;

use varia_differential::{Answer, Op, Target};
use varia_spec::Errno;
use varia_spec::vfio::{OFFSET_SHIFT, REGION_INFO_LEN, RegionIndex, region_cap, region_flags};
use varia_sys::mapping::Access;
use varia_vfio_user::client::{Client, ClientError, RemoteRegion};

/// Runs operations on the server at `socket`.
///
/// # Errors
/// When the connection fails; a refused operation is an answer.
pub fn run<'a>(
    socket: &Path,
    ops: impl IntoIterator<Item = &'a Op>,
) -> Result<Vec<Answer>, ClientError> {
    let mut target = UserDevice {
        client: Client::connect(socket)?,
        broken: None,
    };
    let mut answers = Vec::new();
    for op in ops {
        answers.push(target.run(op));
        if let Some(error) = target.broken.take() {
            return Err(error);
        }
    }
    Ok(answers)
}

struct UserDevice {
    client: Client,
    /// An error that is not the device's answer.
    broken: Option<ClientError>,
}

impl UserDevice {
    fn failed(&mut self, error: ClientError) -> Answer {
        match error.errno() {
            Some(errno) => Answer::failed(errno.get()),
            None => {
                self.broken = Some(error);
                Answer::failed(Errno::EPROTO.get())
            }
        }
    }

    fn map(&mut self, region: u32, offset: u64, len: u64, touch: u64, data: &[u8]) -> Answer {
        let mapped = self
            .client
            .region_info(region)
            .and_then(|info| info.map(offset, len, Access::ReadWrite));
        let mapping = match mapped {
            Ok(mapping) => mapping,
            Err(error) => return self.failed(error),
        };
        let touch = usize::try_from(touch).unwrap_or(usize::MAX);
        let mut seen = vec![0; 8];
        let touched = mapping.peek(touch, &mut seen).and_then(|count| match data {
            [] => Ok(count),
            data => mapping.poke(touch, data),
        });
        match touched {
            Ok(_) => Answer {
                data: seen,
                ..Answer::done(0)
            },
            Err(errno) => Answer::failed(errno.get()),
        }
    }
}

/// Packs region info as the kernel does for a user with room for `argsz` bytes.
fn pack(region: &RemoteRegion, argsz: u32) -> Answer {
    let info = &region.info;
    let mut caps = Vec::new();
    if !info.areas.is_empty() {
        caps.extend(region_cap::SPARSE_MMAP.to_le_bytes());
        caps.extend(region_cap::VERSION.to_le_bytes());
        caps.extend(0u32.to_le_bytes());
        caps.extend((info.areas.len() as u32).to_le_bytes());
        caps.extend(0u32.to_le_bytes());
        for area in &info.areas {
            caps.extend(area.offset.to_le_bytes());
            caps.extend(area.size.to_le_bytes());
        }
    }
    let (least, room) = (REGION_INFO_LEN as u32, argsz as usize);
    if argsz < least {
        return Answer::failed(Errno::EINVAL.get());
    }
    let flags = info.flags & !region_flags::CAPS;
    let (needed, has_caps) = (least + caps.len() as u32, !caps.is_empty());
    let (flags, argsz, cap_offset) = match has_caps {
        false => (flags, argsz, 0),
        true if argsz < needed => (flags | region_flags::CAPS, needed, 0),
        true => (flags | region_flags::CAPS, argsz, least),
    };
    let mut data = Vec::new();
    for field in [argsz, flags, region.index, cap_offset] {
        data.extend(field.to_le_bytes());
    }
    data.extend(info.size.to_le_bytes());
    data.extend((u64::from(region.index) << OFFSET_SHIFT).to_le_bytes());
    if cap_offset != 0 {
        data.extend(caps);
    }
    // The user has room for what it said, and no more is written.
    data.resize(room.max(REGION_INFO_LEN), 0);
    Answer {
        data,
        ..Answer::done(0)
    }
}

/// The kernel answers an access of no bytes before it looks whether there is such a region; a
/// client has nothing to ask then.
fn is_nothing(op: &Op) -> bool {
    match op {
        Op::Read { region, len: 0, .. } => *region >= RegionIndex::COUNT,
        Op::Write { region, data, .. } => data.is_empty() && *region >= RegionIndex::COUNT,
        _ => false,
    }
}

impl Target for UserDevice {
    fn run(&mut self, op: &Op) -> Answer {
        match op {
            op if is_nothing(op) => Answer::done(0),
            Op::RegionInfo { region, argsz } => match self.client.region_info(*region) {
                // the server counts this region and has none of it, the kernel refuses the index
                Ok(info) if *region == RegionIndex::VGA.0 && info.info.size == 0 => {
                    Answer::failed(Errno::EINVAL.get())
                }
                Ok(info) => pack(&info, *argsz),
                Err(error) => self.failed(error),
            },
            Op::Read {
                region,
                offset,
                len,
            } => {
                let mut data = vec![0; *len as usize];
                match self.client.region_read(*region, *offset, &mut data) {
                    Ok(count) => {
                        data.truncate(count);
                        let count = count as u64;
                        Answer {
                            result: Ok(count),
                            data,
                            advance: count,
                        }
                    }
                    Err(error) => self.failed(error),
                }
            }
            Op::Write {
                region,
                offset,
                data,
            } => match self.client.region_write(*region, *offset, data) {
                Ok(count) => {
                    let count = count as u64;
                    Answer {
                        advance: count,
                        ..Answer::done(count)
                    }
                }
                Err(error) => self.failed(error),
            },
            Op::Map {
                region,
                offset,
                len,
                touch,
                data,
                ..
            } => self.map(*region, *offset, *len, *touch, data),
            Op::Reset => match self.client.reset() {
                Ok(()) => Answer::done(0),
                Err(error) => self.failed(error),
            },
            // vfio-user has no such thing: whoever compares leaves it out.
            _ => Answer::failed(Errno::ENOSYS.get()),
        }
    }
}
