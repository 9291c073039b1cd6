//! Payloads of messages, in both directions.
//!
//! Source: vfio-user specification, the section of each command. A structure
//! here has an `encode` that appends its bytes and a `decode` that wants at least
//! its bytes: what a later revision appends is not looked at. Fields that both
//! sides ignore are not kept.

use varia_spec::vfio::{
    self, DeviceInfo, IrqInfo, REGION_INFO_LEN, RegionType, SparseArea, region_cap, region_flags,
};

use crate::wire::{Fields, WireError};

/// `readable` in the flags of [`DmaMap`]: the device may read the memory.
pub const DMA_READ: u32 = 1 << 0;
/// `writeable` in the flags of [`DmaMap`]: the device may write the memory.
pub const DMA_WRITE: u32 = 1 << 1;
/// `VFIO_DMA_UNMAP_FLAG_ALL` in the flags of [`DmaUnmap`]. The specification
/// leaves the flags unused; QEMU sends this one.
pub const DMA_UNMAP_ALL: u32 = 1 << 1;

/// Bytes of a [`RegionAccess`] without data.
pub const REGION_ACCESS_LEN: usize = 16;
/// Bytes of one write in a REGION_WRITE_MULTI message.
pub const MULTI_WRITE_LEN: usize = 24;

/// Fixed bytes of DMA_MAP, and its `argsz`.
const DMA_MAP_LEN: u32 = 32;
/// Bytes of DMA_UNMAP, and the least `argsz`.
pub const DMA_UNMAP_LEN: u32 = 24;
/// Bytes of DEVICE_GET_INFO and GET_IRQ_INFO, and their `argsz`.
const INFO_LEN: u32 = 16;
/// Fixed bytes of SET_IRQS.
const SET_IRQS_LEN: u32 = 20;

/// DMA_MAP, request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaMap {
    /// [`DMA_READ`], [`DMA_WRITE`].
    pub flags: u32,
    /// Offset of the memory in the descriptor that comes along.
    pub offset: u64,
    /// First bus address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
}

impl DmaMap {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put32(out, &[DMA_MAP_LEN, self.flags]);
        put64(out, &[self.offset, self.addr, self.size]);
    }

    /// From these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut f = Fields::new("DMA_MAP", bytes);
        let _argsz = f.u32()?;
        let value = Self {
            flags: f.u32()?,
            offset: f.u64()?,
            addr: f.u64()?,
            size: f.u64()?,
        };
        Ok(value)
    }
}

/// DMA_UNMAP, request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaUnmap {
    /// Bytes that the reply's payload may have.
    pub argsz: u32,
    /// [`DMA_UNMAP_ALL`].
    pub flags: u32,
    /// First bus address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
}

impl DmaUnmap {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put32(out, &[self.argsz, self.flags]);
        put64(out, &[self.addr, self.size]);
    }

    /// From these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut f = Fields::new("DMA_UNMAP", bytes);
        let value = Self {
            argsz: f.u32()?,
            flags: f.u32()?,
            addr: f.u64()?,
            size: f.u64()?,
        };
        Ok(value)
    }
}

/// DEVICE_GET_INFO, reply; in a request all but `argsz` is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceReply {
    /// The device's info.
    pub info: DeviceInfo,
}

impl DeviceReply {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let DeviceInfo {
            flags,
            num_regions,
            num_irqs,
        } = self.info;
        put32(out, &[INFO_LEN, flags, num_regions, num_irqs]);
    }

    /// `argsz` and the rest, from these bytes.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), WireError> {
        let mut f = Fields::new("DEVICE_GET_INFO", bytes);
        let argsz = f.u32()?;
        let info = DeviceInfo {
            flags: f.u32()?,
            num_regions: f.u32()?,
            num_irqs: f.u32()?,
        };
        Ok((argsz, Self { info }))
    }
}

/// Info of a region, as messages carry it.
pub type RegionInfo = vfio::RegionInfo<Vec<SparseArea>>;

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

impl RegionReply {
    /// Bytes of the whole structure with its capabilities: its `argsz`.
    #[must_use]
    pub fn full_len(&self) -> usize {
        let caps = self.caps();
        let lens = caps
            .iter()
            .map(|(_, body)| region_cap::HEADER_LEN + body.len());
        REGION_INFO_LEN + lens.sum::<usize>()
    }

    /// Id and body of each capability.
    fn caps(&self) -> Vec<(u16, Vec<u8>)> {
        let mut caps = Vec::new();
        if let Some(RegionType { kind, subtype }) = self.info.region_type {
            let mut body = Vec::new();
            put32(&mut body, &[kind, subtype]);
            caps.push((region_cap::TYPE, body));
        }
        if !self.info.areas.is_empty() {
            let mut body = Vec::new();
            // the number of areas; a reserved word
            put32(&mut body, &[self.info.areas.len() as u32, 0]);
            for area in &self.info.areas {
                put64(&mut body, &[area.offset, area.size]);
            }
            caps.push((region_cap::SPARSE_MMAP, body));
        }
        if self.info.msix_mappable {
            caps.push((region_cap::MSIX_MAPPABLE, Vec::new()));
        }
        caps
    }

    /// Append the bytes, with the capabilities and the flag that announces them only if all of
    /// them fit into the `argsz` of the request. The reply's own `argsz` tells a client how much to
    /// ask for.
    pub fn encode(&self, argsz: u32, out: &mut Vec<u8>) {
        let need = self.full_len();
        let mut caps = self.caps();
        if (argsz as usize) < need {
            caps.clear();
        }
        let (flag, cap_offset) = match caps.len() {
            0 => (0, 0),
            _ => (region_flags::CAPS, REGION_INFO_LEN as u32),
        };
        let flags = self.info.flags & !region_flags::CAPS | flag;
        put32(out, &[need as u32, flags, self.index, cap_offset]);
        put64(out, &[self.info.size, self.offset]);
        let mut at = REGION_INFO_LEN;
        for (id, body) in caps {
            at += region_cap::HEADER_LEN + body.len();
            for half in [id, region_cap::VERSION] {
                out.extend_from_slice(&half.to_ne_bytes());
            }
            let next = if at < need { at as u32 } else { 0 };
            put32(out, &[next]);
            out.extend(body);
        }
    }

    /// `argsz` and the rest. Capabilities are decoded when `bytes` holds them;
    /// a short reply has none, and an `argsz` larger than it.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), WireError> {
        let mut f = Fields::new("DEVICE_GET_REGION_INFO", bytes);
        let argsz = f.u32()?;
        let flags = f.u32()?;
        let index = f.u32()?;
        let cap_offset = f.u32()?;
        let info = RegionInfo {
            flags,
            size: f.u64()?,
            ..RegionInfo::default()
        };
        let mut value = Self {
            index,
            offset: f.u64()?,
            info,
        };
        if flags & region_flags::CAPS != 0 && f.rest().len() >= region_cap::HEADER_LEN {
            value.decode_caps(bytes, cap_offset)?;
        }
        Ok((argsz, value))
    }

    /// The chain of capabilities that begins at `first`; those that are not known are left out.
    fn decode_caps(&mut self, bytes: &[u8], first: u32) -> Result<(), WireError> {
        let what = "the capability chain of a region";
        let mut at = first as usize;
        // a capability has 8 bytes, so a chain with more of them than fit is a loop
        for _ in 0..bytes.len() / region_cap::HEADER_LEN {
            let Some(here) = bytes.get(at..) else {
                break;
            };
            let mut f = Fields::new(what, here);
            let id = f.u16()?;
            let _version = f.u16()?;
            let next = f.u32()?;
            match id {
                region_cap::TYPE => {
                    self.info.region_type = Some(RegionType {
                        kind: f.u32()?,
                        subtype: f.u32()?,
                    });
                }
                region_cap::SPARSE_MMAP => self.info.areas = sparse_areas(what, f)?,
                region_cap::MSIX_MAPPABLE => self.info.msix_mappable = true,
                _ => {}
            }
            if next == 0 {
                return Ok(());
            }
            at = next as usize;
        }
        Err(WireError::TooShort {
            what,
            len: bytes.len(),
            need: at,
        })
    }
}

/// The areas of a sparse-mmap capability, behind its header.
fn sparse_areas(what: &'static str, mut f: Fields<'_>) -> Result<Vec<SparseArea>, WireError> {
    let count = f.u32()?;
    let _reserved = f.u32()?;
    let areas = f.rest().chunks_exact(16);
    if areas.len() < count as usize {
        return Err(WireError::CountMismatch {
            what,
            count: u64::from(count),
            len: areas.len() * 16,
        });
    }
    areas.take(count as usize).map(sparse_area).collect()
}

fn sparse_area(bytes: &[u8]) -> Result<SparseArea, WireError> {
    let mut f = Fields::new("a sparse area", bytes);
    Ok(SparseArea {
        offset: f.u64()?,
        size: f.u64()?,
    })
}

/// A request for the information on a region or interrupt index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InfoQuery {
    /// Bytes that the reply's payload may have.
    pub argsz: u32,
    /// The index.
    pub index: u32,
}

impl InfoQuery {
    /// Append the bytes of a DEVICE_GET_REGION_INFO request.
    pub fn encode_region(&self, out: &mut Vec<u8>) {
        put32(out, &[self.argsz, 0, self.index, 0]);
        put64(out, &[0, 0]);
    }

    /// Append the bytes of a DEVICE_GET_IRQ_INFO or GET_REGION_IO_FDS request.
    pub fn encode_irq(&self, out: &mut Vec<u8>) {
        put32(out, &[self.argsz, 0, self.index, 0]);
    }

    /// From the bytes of a DEVICE_GET_REGION_INFO request.
    pub fn decode_region(bytes: &[u8]) -> Result<Self, WireError> {
        let mut f = Fields::new("DEVICE_GET_REGION_INFO", bytes);
        let argsz = f.u32()?;
        let _flags = f.u32()?;
        let index = f.u32()?;
        let _cap_offset = f.u32()?;
        let _size_and_offset: [u8; 16] = f.array()?;
        Ok(Self { argsz, index })
    }

    /// From the bytes of a DEVICE_GET_IRQ_INFO request.
    pub fn decode_irq(bytes: &[u8]) -> Result<Self, WireError> {
        let mut f = Fields::new("DEVICE_GET_IRQ_INFO", bytes);
        let argsz = f.u32()?;
        let _flags = f.u32()?;
        let index = f.u32()?;
        let _count = f.u32()?;
        Ok(Self { argsz, index })
    }
}

/// DEVICE_GET_IRQ_INFO, reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IrqReply {
    /// The interrupt index.
    pub index: u32,
    /// The info of this index.
    pub info: IrqInfo,
}

impl IrqReply {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let IrqInfo { flags, count } = self.info;
        put32(out, &[INFO_LEN, flags, self.index, count]);
    }

    /// From these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut f = Fields::new("DEVICE_GET_IRQ_INFO", bytes);
        let _argsz = f.u32()?;
        let flags = f.u32()?;
        let index = f.u32()?;
        let info = IrqInfo {
            flags,
            count: f.u32()?,
        };
        Ok(Self { index, info })
    }
}

/// DEVICE_SET_IRQS, request; eventfds come as descriptors beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetIrqs<'a> {
    /// A flag of `VFIO_IRQ_SET_DATA_*` and a flag of `VFIO_IRQ_SET_ACTION_*`.
    pub flags: u32,
    /// The interrupt index.
    pub index: u32,
    /// The first interrupt.
    pub start: u32,
    /// Number of interrupts.
    pub count: u32,
    /// The booleans, a byte for each, where the flags say so.
    pub data: &'a [u8],
}

impl<'a> SetIrqs<'a> {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let argsz = SET_IRQS_LEN.saturating_add(self.data.len() as u32);
        put32(
            out,
            &[argsz, self.flags, self.index, self.start, self.count],
        );
        out.extend_from_slice(self.data);
    }

    /// From these bytes; whether `data` fits the flags is not checked.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut f = Fields::new("DEVICE_SET_IRQS", bytes);
        let _argsz = f.u32()?;
        let flags = f.u32()?;
        let index = f.u32()?;
        let start = f.u32()?;
        let count = f.u32()?;
        Ok(Self {
            flags,
            index,
            start,
            count,
            data: f.rest(),
        })
    }
}

/// The fixed part of REGION_READ and REGION_WRITE, request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionAccess {
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// The region's index.
    pub region: u32,
    /// Bytes to transfer, or transferred.
    pub count: u32,
}

impl RegionAccess {
    /// The bytes of the fixed part.
    #[must_use]
    pub fn bytes(&self) -> [u8; REGION_ACCESS_LEN] {
        let [a, b, c, d, e, f, g, h] = self.offset.to_ne_bytes();
        let [i, j, k, l] = self.region.to_ne_bytes();
        let [m, n, o, p] = self.count.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.bytes());
    }

    /// The fixed part and the data behind it.
    pub fn decode<'a>(what: &'static str, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let mut f = Fields::new(what, bytes);
        let value = Self {
            offset: f.u64()?,
            region: f.u32()?,
            count: f.u32()?,
        };
        Ok((value, f.rest()))
    }
}

/// A write of a REGION_WRITE_MULTI message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiWrite {
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// The region's index.
    pub region: u32,
    /// Bytes to write, at most 8.
    pub count: u32,
    /// The bytes, and what is behind them.
    pub bytes: [u8; 8],
}

impl MultiWrite {
    /// The bytes to write; `None` when there are said to be more than 8.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.bytes.get(..self.count as usize)
    }

    /// Append the bytes of a whole message's payload.
    pub fn encode_all(writes: &[Self], out: &mut Vec<u8>) {
        put64(out, &[writes.len() as u64]);
        for write in writes {
            put64(out, &[write.offset]);
            put32(out, &[write.region, write.count]);
            out.extend_from_slice(&write.bytes);
        }
    }

    /// The writes of a whole message's payload.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, WireError> {
        let what = "REGION_WRITE_MULTI";
        let mut f = Fields::new(what, bytes);
        let count = f.u64()?;
        let writes = f.rest().chunks_exact(MULTI_WRITE_LEN);
        if count > writes.len() as u64 {
            let len = bytes.len().saturating_sub(8);
            return Err(WireError::CountMismatch { what, count, len });
        }
        let one = |bytes: &[u8]| {
            let mut f = Fields::new(what, bytes);
            Ok(Self {
                offset: f.u64()?,
                region: f.u32()?,
                count: f.u32()?,
                bytes: f.array()?,
            })
        };
        writes.take(count as usize).map(one).collect()
    }
}

fn put32(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|v| v.to_ne_bytes()));
}

fn put64(out: &mut Vec<u8>, values: &[u64]) {
    out.extend(values.iter().flat_map(|v| v.to_ne_bytes()));
}
