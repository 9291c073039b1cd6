//! DEVICE_GET_INFO: how many regions and interrupt types a device has, and its capabilities.
//!
//! The specification has 16 bytes. The kernel's structure has the offset of a capability chain
//! behind them. A deviation from the specification: a client that asks with the kernel's structure and
//! an `argsz` of 24 or more gets that structure, if the device has capabilities; every other client
//! gets the 16 bytes. QEMU asks with 16, and ends on a longer reply; Cloud Hypervisor sends 16 bytes
//! whose `argsz` counts the header as well, and reads as many.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;
use varia_spec::vfio::{DEVICE_INFO_LEN, DeviceCapability, DeviceInfo, device_flags};

use super::capability::{self, Capability};
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceReply {
    /// The device's info.
    pub info: DeviceInfo,
    /// Capabilities, in their order.
    pub capabilities: Vec<DeviceCapability>,
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

/// The bytes of the kernel's structure behind those of the specification.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ChainLayout {
    cap_offset: u32,
    pad: u32,
}

/// The most bytes of device information that a client asks for again.
const MAX_DEVICE_INFO: usize = 1 << 16;

const _: () = assert!(size_of::<Layout>() + size_of::<ChainLayout>() == DEVICE_INFO_LEN);

impl DeviceQuery {
    /// Append the bytes: the kernel's structure if `argsz` has room for it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: self.argsz,
            flags: 0,
            num_regions: 0,
            num_irqs: 0,
        };
        put(out, &layout);
        if self.argsz as usize >= DEVICE_INFO_LEN {
            let (cap_offset, pad) = (0, 0);
            put(out, &ChainLayout { cap_offset, pad });
        }
    }
}

impl DeviceReply {
    /// Append the bytes, as many as a request with this `argsz` may get. If capabilities are left
    /// out for lack of room, the reply's own `argsz` tells how much to ask for.
    pub fn encode(&self, argsz: u32, out: &mut Vec<u8>) {
        let capabilities: Vec<_> = self.capabilities.iter().map(chained).collect();
        let has_room = |len: usize| argsz as usize >= len;
        let extended = !capabilities.is_empty() && has_room(DEVICE_INFO_LEN);
        let need = match extended {
            true => DEVICE_INFO_LEN + capability::len(&capabilities),
            false => size_of::<Layout>(),
        };
        let caps = if extended { device_flags::CAPS } else { 0 };
        let layout = Layout {
            argsz: need as u32,
            flags: self.info.flags & !device_flags::CAPS | caps,
            num_regions: self.info.num_regions,
            num_irqs: self.info.num_irqs,
        };
        put(out, &layout);
        if !extended {
            return;
        }
        let whole = has_room(need);
        let cap_offset = if whole { DEVICE_INFO_LEN as u32 } else { 0 };
        put(out, &ChainLayout { cap_offset, pad: 0 });
        if whole {
            capability::put_all(out, &capabilities, DEVICE_INFO_LEN);
        }
    }

    /// `argsz` and the rest. Capabilities are decoded when `bytes` holds them.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), WireError> {
        let (layout, behind) = split::<Layout>("DEVICE_GET_INFO", bytes)?;
        let info = DeviceInfo {
            flags: layout.flags,
            num_regions: layout.num_regions,
            num_irqs: layout.num_irqs,
        };
        let mut capabilities = Vec::new();
        if info.flags & device_flags::CAPS != 0 && behind.len() >= size_of::<ChainLayout>() {
            let what = "the capability chain of a device";
            let (ChainLayout { cap_offset, .. }, _) = split(what, behind)?;
            if cap_offset != 0 {
                capability::take_all(
                    what,
                    bytes,
                    cap_offset,
                    |Capability { id, version, body }| {
                        capabilities.push(DeviceCapability::new(id, version).with(body));
                        Ok(())
                    },
                )?;
            }
        }
        Ok((layout.argsz, Self { info, capabilities }))
    }
}

fn chained(capability: &DeviceCapability) -> Capability<&[u8]> {
    Capability {
        id: capability.id,
        version: capability.version,
        body: capability.body(),
    }
}

impl Served<'_> for DeviceQuery {
    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (Layout { argsz, .. }, _) = split("DEVICE_GET_INFO", payload)?;
        // a client that sends no more than the specification's structure reads no more
        let most = match payload.len() >= DEVICE_INFO_LEN {
            true => u32::MAX,
            false => size_of::<Layout>() as u32,
        };
        Ok(Self {
            argsz: argsz.min(most),
        })
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        fits(self.argsz, size_of::<Layout>())?;
        let reply = DeviceReply {
            info: turn.backend.info(),
            capabilities: turn.backend.capabilities(),
        };
        turn.out.encode(|bytes| reply.encode(self.argsz, bytes));
        Ok(DONE)
    }
}

impl Client {
    /// DEVICE_GET_INFO.
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        Ok(self.device_reply(argsz::<Layout>())?.1.info)
    }

    /// Capabilities of the device, by DEVICE_GET_INFO with room for them. None from a server that
    /// keeps to the specification.
    pub fn device_capabilities(&mut self) -> Result<Vec<DeviceCapability>, ClientError> {
        let (need, reply) = self.device_reply(DEVICE_INFO_LEN as u32)?;
        if need as usize <= DEVICE_INFO_LEN || need as usize > MAX_DEVICE_INFO {
            return Ok(reply.capabilities);
        }
        Ok(self.device_reply(need)?.1.capabilities)
    }

    fn device_reply(&mut self, argsz: u32) -> Result<(u32, DeviceReply), ClientError> {
        let mut payload = Vec::new();
        DeviceQuery { argsz }.encode(&mut payload);
        let reply = self.request(Command::DEVICE_GET_INFO, &payload, &[])?;
        Ok(DeviceReply::decode(&reply.payload)?)
    }
}
