//! DEVICE_FEATURE: one feature of a device.
//!
//! Source: vfio-user specification, "VFIO_USER_DEVICE_FEATURE"; order and errors of the checks:
//! Linux 7.2 `drivers/vfio/vfio_main.c:vfio_ioctl_device_feature` and
//! `include/linux/vfio.h:vfio_check_feature`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;
use varia_spec::vfio::device_feature::{GET, INDEX, PROBE, SET};

use super::layout::{argsz, put, split};
use super::{Command, Served};
use crate::backend::Backend;
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn};
use crate::wire::WireError;

/// The fixed bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    argsz: u32,
    flags: u32,
}

/// DEVICE_FEATURE, request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceFeature<'a> {
    /// Bytes of the message, or bytes that the reply may have.
    pub argsz: u32,
    /// Index of the feature, and bits of [`device_feature`](varia_spec::vfio::device_feature).
    pub flags: u32,
    /// Data of the feature.
    pub data: &'a [u8],
}

impl DeviceFeature<'_> {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: self.argsz,
            flags: self.flags,
        };
        put(out, &layout);
        out.extend_from_slice(self.data);
    }
}

/// Feature that a device has: its data can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadableFeature {
    /// Index of the feature.
    pub index: u32,
    /// Bytes of the data.
    pub len: usize,
}

/// Operation of a checked request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// The feature exists and allows what was asked; nothing is done.
    Probe,
    /// Read the data of this feature.
    Get(ReadableFeature),
}

/// Checks a request to a device with these features.
///
/// # Errors
/// `EOPNOTSUPP` without any feature, as for every command that is not spoken; `EINVAL` for flags that
/// contradict each other or that the feature does not allow, and for an `argsz` without room for the
/// data; `ENOTTY` without the feature.
fn check(request: &DeviceFeature<'_>, features: &[ReadableFeature]) -> Result<Operation, Errno> {
    let flags = request.flags;
    let asked = flags & (GET | SET);
    if features.is_empty() {
        return Err(Errno::EOPNOTSUPP);
    }
    let room = (request.argsz as usize).checked_sub(size_of::<Layout>());
    let room = room.ok_or(Errno::EINVAL)?;
    let known = INDEX | GET | SET | PROBE;
    if flags & !known != 0 || (asked == GET | SET && flags & PROBE == 0) {
        return Err(Errno::EINVAL);
    }
    let mut features = features.iter();
    let feature = features.find(|feature| feature.index == flags & INDEX);
    let feature = feature.ok_or(Errno::ENOTTY)?;
    if asked & SET != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & PROBE != 0 {
        return Ok(Operation::Probe);
    }
    if asked == 0 || room < feature.len {
        return Err(Errno::EINVAL);
    }
    Ok(Operation::Get(*feature))
}

impl<'a> Served<'a> for DeviceFeature<'a> {
    fn decode(payload: &'a [u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (layout, data) = split::<Layout>("DEVICE_FEATURE", payload)?;
        Ok(Self {
            argsz: layout.argsz,
            flags: layout.flags,
            data,
        })
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let data = match check(self, &turn.backend.features())? {
            Operation::Probe => Vec::new(),
            Operation::Get(feature) => turn.backend.feature_get(feature)?,
        };
        let reply = DeviceFeature {
            argsz: argsz::<Layout>().saturating_add(data.len() as u32),
            flags: self.flags,
            data: &data,
        };
        turn.out.encode(|bytes| reply.encode(bytes));
        Ok(DONE)
    }
}

impl Client {
    /// DEVICE_FEATURE with these flags, which name the feature and the operation, and room for `room`
    /// bytes of data. Returns the data of the reply.
    pub fn device_feature(&mut self, flags: u32, room: u32) -> Result<Vec<u8>, ClientError> {
        let request = DeviceFeature {
            argsz: argsz::<Layout>().saturating_add(room),
            flags,
            data: &[],
        };
        let mut payload = Vec::new();
        request.encode(&mut payload);
        let reply = self.request(Command::DEVICE_FEATURE, &payload, &[])?;
        let (_, data) = split::<Layout>("DEVICE_FEATURE", &reply.payload)?;
        Ok(data.to_vec())
    }
}
