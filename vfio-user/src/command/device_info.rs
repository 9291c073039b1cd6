//! DEVICE_GET_INFO: how many regions and interrupt types a device has.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;
use varia_spec::vfio::DeviceInfo;

use super::layout::{argsz, fits, put, split};
use super::{Command, Served};
use crate::backend::Backend;
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn};
use crate::wire::WireError;

/// DEVICE_GET_INFO, request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceQuery {
    /// Bytes that the reply's payload may have.
    pub argsz: u32,
}

/// DEVICE_GET_INFO, reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceReply {
    /// The device's info.
    pub info: DeviceInfo,
}

/// In a request all but `argsz` is zero.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    argsz: u32,
    flags: u32,
    num_regions: u32,
    num_irqs: u32,
}

impl DeviceQuery {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: self.argsz,
            flags: 0,
            num_regions: 0,
            num_irqs: 0,
        };
        put(out, &layout);
    }
}

impl DeviceReply {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let DeviceInfo {
            flags,
            num_regions,
            num_irqs,
        } = self.info;
        let layout = Layout {
            argsz: argsz::<Layout>(),
            flags,
            num_regions,
            num_irqs,
        };
        put(out, &layout);
    }

    /// From these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (layout, _) = split::<Layout>("DEVICE_GET_INFO", bytes)?;
        let info = DeviceInfo {
            flags: layout.flags,
            num_regions: layout.num_regions,
            num_irqs: layout.num_irqs,
        };
        Ok(Self { info })
    }
}

impl Served<'_> for DeviceQuery {
    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (layout, _) = split::<Layout>("DEVICE_GET_INFO", payload)?;
        Ok(Self {
            argsz: layout.argsz,
        })
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        fits(self.argsz, size_of::<Layout>())?;
        let info = turn.backend.info();
        turn.out.encode(|bytes| DeviceReply { info }.encode(bytes));
        Ok(DONE)
    }
}

impl Client {
    /// DEVICE_GET_INFO.
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        let mut payload = Vec::new();
        let argsz = argsz::<Layout>();
        DeviceQuery { argsz }.encode(&mut payload);
        let reply = self.request(Command::DEVICE_GET_INFO, &payload, &[])?;
        Ok(DeviceReply::decode(&reply.payload)?.info)
    }
}
