//! DEVICE_GET_IRQ_INFO: how many interrupts of a type a device has.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;
use varia_spec::vfio::IrqInfo;

use super::layout::{argsz, fits, put, split};
use super::{Command, Served};
use crate::backend::Backend;
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn};
use crate::wire::WireError;

/// DEVICE_GET_IRQ_INFO, request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqQuery {
    /// Bytes that the reply's payload may have.
    pub argsz: u32,
    /// The interrupt index.
    pub index: u32,
}

/// DEVICE_GET_IRQ_INFO, reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IrqReply {
    /// The interrupt index.
    pub index: u32,
    /// The info of this index.
    pub info: IrqInfo,
}

/// `struct vfio_irq_info`. In a request all but `argsz` and `index` is zero.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    argsz: u32,
    flags: u32,
    index: u32,
    count: u32,
}

impl IrqQuery {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: self.argsz,
            flags: 0,
            index: self.index,
            count: 0,
        };
        put(out, &layout);
    }
}

impl IrqReply {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: argsz::<Layout>(),
            flags: self.info.flags,
            index: self.index,
            count: self.info.count,
        };
        put(out, &layout);
    }

    /// From these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (layout, _) = split::<Layout>("DEVICE_GET_IRQ_INFO", bytes)?;
        let info = IrqInfo {
            flags: layout.flags,
            count: layout.count,
        };
        Ok(Self {
            index: layout.index,
            info,
        })
    }
}

impl Served<'_> for IrqQuery {
    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (layout, _) = split::<Layout>("DEVICE_GET_IRQ_INFO", payload)?;
        Ok(Self {
            argsz: layout.argsz,
            index: layout.index,
        })
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let index = self.index;
        if index >= turn.backend.info().num_irqs {
            return Err(Errno::EINVAL);
        }
        fits(self.argsz, size_of::<Layout>())?;
        let info = turn.backend.irq_info(index)?;
        turn.out
            .encode(|bytes| IrqReply { index, info }.encode(bytes));
        Ok(DONE)
    }
}

impl Client {
    /// DEVICE_GET_IRQ_INFO.
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo, ClientError> {
        let command = Command::DEVICE_GET_IRQ_INFO;
        let argsz = argsz::<Layout>();
        let mut payload = Vec::new();
        IrqQuery { argsz, index }.encode(&mut payload);
        let reply = self.request(command, &payload, &[])?;
        let reply = IrqReply::decode(&reply.payload)?;
        if reply.index != index {
            let what = format!("about interrupt index {}", reply.index);
            return Err(ClientError::BadReply { command, what });
        }
        Ok(reply.info)
    }
}
