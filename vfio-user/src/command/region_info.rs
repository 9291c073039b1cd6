//! DEVICE_GET_REGION_INFO: size, flags, capabilities and descriptor of a region.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;
use varia_spec::vfio::{
    self, REGION_INFO_LEN, RegionCapability, RegionType, SparseArea, region_cap, region_flags,
};

use super::capability::{self, Capability};
use super::layout::{fits, put, split};
use super::{Command, Served};
use crate::backend::{Backend, OfferedRegion};
use crate::client::{Client, ClientError, RemoteRegion};
use crate::dispatch::{Handled, Turn, check_region};
use crate::wire::WireError;

/// The most bytes of region information that a client asks for again.
const MAX_REGION_INFO: usize = 1 << 16;

/// Info of a region, as messages carry it.
pub type RegionInfo = vfio::RegionInfo<Vec<SparseArea>>;

/// DEVICE_GET_REGION_INFO, request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionQuery {
    /// Bytes that the reply's payload may have.
    pub argsz: u32,
    /// The index.
    pub index: u32,
}

/// DEVICE_GET_REGION_INFO, reply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegionReply {
    /// The region's index.
    pub index: u32,
    /// Offset of the region's first byte in the descriptor that comes along.
    pub offset: u64,
    /// The region's info.
    pub info: RegionInfo,
}

/// `struct vfio_region_info`. In a request all but `argsz` and `index` is zero.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

const _: () = assert!(size_of::<Layout>() == REGION_INFO_LEN);

/// The body of a type capability.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TypeLayout {
    kind: u32,
    subtype: u32,
}

/// The beginning of the body of a sparse-mmap capability.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AreasLayout {
    count: u32,
    reserved: u32,
}

/// An area of a sparse-mmap capability.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AreaLayout {
    offset: u64,
    size: u64,
}

impl RegionQuery {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: self.argsz,
            flags: 0,
            index: self.index,
            cap_offset: 0,
            size: 0,
            offset: 0,
        };
        put(out, &layout);
    }
}

impl RegionReply {
    /// Bytes of the whole structure with its capabilities: its `argsz`.
    #[must_use]
    pub fn full_len(&self) -> usize {
        size_of::<Layout>() + capability::len(&self.capabilities())
    }

    fn capabilities(&self) -> Vec<Capability<Vec<u8>>> {
        let mut capabilities = Vec::new();
        let mut add = |id, body| {
            capabilities.push(Capability {
                id,
                version: region_cap::VERSION,
                body,
            });
        };
        if let Some(RegionType { kind, subtype }) = self.info.region_type {
            let mut body = Vec::new();
            put(&mut body, &TypeLayout { kind, subtype });
            add(region_cap::TYPE, body);
        }
        if !self.info.areas.is_empty() {
            let mut body = Vec::new();
            let count = self.info.areas.len() as u32;
            put(&mut body, &AreasLayout { count, reserved: 0 });
            for SparseArea { offset, size } in self.info.areas.iter().copied() {
                put(&mut body, &AreaLayout { offset, size });
            }
            add(region_cap::SPARSE_MMAP, body);
        }
        if self.info.msix_mappable {
            add(region_cap::MSIX_MAPPABLE, Vec::new());
        }
        for own in self.info.capabilities.into_iter().flatten() {
            add(own.id(), own.body().to_vec());
        }
        capabilities
    }

    /// Append the bytes, with the capabilities and the flag that announces them only if all of
    /// them fit into the `argsz` of the request. The reply's own `argsz` tells a client how much to
    /// ask for.
    pub fn encode(&self, argsz: u32, out: &mut Vec<u8>) {
        let need = self.full_len();
        let mut capabilities = self.capabilities();
        if (argsz as usize) < need {
            capabilities.clear();
        }
        let (flag, cap_offset) = match capabilities.len() {
            0 => (0, 0),
            _ => (region_flags::CAPS, size_of::<Layout>() as u32),
        };
        let layout = Layout {
            argsz: need as u32,
            flags: self.info.flags & !region_flags::CAPS | flag,
            index: self.index,
            cap_offset,
            size: self.info.size,
            offset: self.offset,
        };
        put(out, &layout);
        capability::put_all(out, &capabilities, size_of::<Layout>());
    }

    /// `argsz` and the rest. Capabilities are decoded when `bytes` holds them;
    /// a short reply has none, and an `argsz` larger than it. Unknown capabilities are left out.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), WireError> {
        let (layout, behind) = split::<Layout>("DEVICE_GET_REGION_INFO", bytes)?;
        let mut info = RegionInfo {
            flags: layout.flags,
            size: layout.size,
            ..RegionInfo::default()
        };
        if layout.flags & region_flags::CAPS != 0 && behind.len() >= region_cap::HEADER_LEN {
            let what = "the capability chain of a region";
            let mut own = 0;
            capability::take_all(
                what,
                bytes,
                layout.cap_offset,
                |Capability { id, body, .. }| {
                    match id {
                        region_cap::TYPE => {
                            let (TypeLayout { kind, subtype }, _) = split(what, body)?;
                            info.region_type = Some(RegionType { kind, subtype });
                        }
                        region_cap::SPARSE_MMAP => info.areas = sparse_areas(what, body)?,
                        region_cap::MSIX_MAPPABLE => info.msix_mappable = true,
                        region_cap::NVLINK2_SSATGT | region_cap::NVLINK2_LNKSPD => {
                            let (body, _) = split::<[u8; 8]>(what, body)?;
                            if let Some(slot) = info.capabilities.get_mut(own) {
                                *slot = RegionCapability::parse(id, body);
                                own += 1;
                            }
                        }
                        _ => {}
                    }
                    Ok(())
                },
            )?;
        }
        let reply = Self {
            index: layout.index,
            offset: layout.offset,
            info,
        };
        Ok((layout.argsz, reply))
    }
}

/// The areas of a sparse-mmap capability, behind its header.
fn sparse_areas(what: &'static str, body: &[u8]) -> Result<Vec<SparseArea>, WireError> {
    let (AreasLayout { count, .. }, mut rest) = split(what, body)?;
    let there = rest.len() / size_of::<AreaLayout>();
    if there < count as usize {
        return Err(WireError::CountMismatch {
            what,
            count: u64::from(count),
            len: rest.len(),
        });
    }
    let mut areas = Vec::new();
    for _ in 0..count {
        let area: AreaLayout;
        (area, rest) = split(what, rest)?;
        areas.push(SparseArea {
            offset: area.offset,
            size: area.size,
        });
    }
    Ok(areas)
}

impl Served<'_> for RegionQuery {
    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (layout, _) = split::<Layout>("DEVICE_GET_REGION_INFO", payload)?;
        Ok(Self {
            argsz: layout.argsz,
            index: layout.index,
        })
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let Self { argsz, index } = *self;
        fits(argsz, size_of::<Layout>())?;
        check_region(turn.backend, index)?;
        let OfferedRegion { mut info, file } = match turn.backend.region_info(index) {
            // a kind of region that this device does not have, such as VGA: clients go through all
            // indices that DEVICE_GET_INFO counts
            Err(Errno::EINVAL) => OfferedRegion::default(),
            other => other?,
        };
        let file = file.filter(|_| info.flags & region_flags::MMAP != 0 && turn.max_fds > 0);
        if file.is_none() {
            info.flags &= !region_flags::MMAP;
            info.areas.clear();
            info.msix_mappable = false;
        }
        let (fd, offset) = file.unzip();
        let reply = RegionReply {
            index,
            offset: offset.unwrap_or_default(),
            info,
        };
        turn.out.encode(|bytes| reply.encode(argsz, bytes));
        // a client that has to ask again gets the descriptor then
        let whole = argsz as usize >= reply.full_len();
        let fds: Vec<_> = fd.into_iter().filter(|_| whole).collect();
        if !fds.is_empty() {
            turn.backend.handed_out(index);
        }
        Ok(Handled::Answered(fds))
    }
}

impl Client {
    /// DEVICE_GET_REGION_INFO, twice where there are capabilities.
    pub fn region_info(&mut self, index: u32) -> Result<RemoteRegion, ClientError> {
        let command = Command::DEVICE_GET_REGION_INFO;
        let mut argsz = size_of::<Layout>() as u32;
        loop {
            let mut payload = Vec::new();
            RegionQuery { argsz, index }.encode(&mut payload);
            let mut reply = self.request(command, &payload, &[])?;
            let (need, region) = RegionReply::decode(&reply.payload)?;
            if need > argsz && need as usize <= MAX_REGION_INFO {
                argsz = need;
                continue;
            }
            if region.index != index || need > argsz {
                let what = format!("about region {}, and needs {need} bytes", region.index);
                return Err(ClientError::BadReply { command, what });
            }
            let RegionReply {
                index,
                offset,
                info,
            } = region;
            return Ok(RemoteRegion {
                index,
                info,
                file: reply.fds.pop().map(|fd| (fd, offset)),
            });
        }
    }
}
