//! DMA_MAP: memory that the device may reach.

use std::os::fd::BorrowedFd;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;

use super::layout::{argsz, put, split};
use super::{Command, Served};
use crate::backend::{Backend, DmaRegion};
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn};
use crate::wire::WireError;

/// `readable` in the flags of [`DmaMap`]: the device may read the memory.
pub const DMA_READ: u32 = 1 << 0;
/// `writeable` in the flags of [`DmaMap`]: the device may write the memory.
pub const DMA_WRITE: u32 = 1 << 1;

/// DMA_MAP, request. The reply has no payload.
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

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    argsz: u32,
    flags: u32,
    offset: u64,
    addr: u64,
    size: u64,
}

impl DmaMap {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: argsz::<Layout>(),
            flags: self.flags,
            offset: self.offset,
            addr: self.addr,
            size: self.size,
        };
        put(out, &layout);
    }
}

impl Served<'_> for DmaMap {
    const TAKES_DESCRIPTORS: bool = true;

    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (layout, _) = split::<Layout>("DMA_MAP", payload)?;
        Ok(Self {
            flags: layout.flags,
            offset: layout.offset,
            addr: layout.addr,
            size: layout.size,
        })
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let mut fds = turn.fds;
        let fd = fds.pop();
        let known = DMA_READ | DMA_WRITE;
        if !fds.is_empty() || self.flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        turn.backend.dma_map(DmaRegion {
            addr: self.addr,
            size: self.size,
            flags: self.flags,
            offset: self.offset,
            fd,
        })?;
        Ok(DONE)
    }
}

impl Client {
    /// DMA_MAP: `size` bytes at the bus address `addr`, with the descriptor and
    /// the offset in it where the memory is. `flags` are [`DMA_READ`] and [`DMA_WRITE`].
    pub fn dma_map(
        &mut self,
        addr: u64,
        size: u64,
        flags: u32,
        memory: Option<(BorrowedFd<'_>, u64)>,
    ) -> Result<(), ClientError> {
        let map = DmaMap {
            flags,
            offset: memory.map_or(0, |(_, offset)| offset),
            addr,
            size,
        };
        let mut payload = Vec::new();
        map.encode(&mut payload);
        let fds: Vec<_> = memory.map(|(fd, _)| fd).into_iter().collect();
        self.request(Command::DMA_MAP, &payload, &fds).map(drop)
    }
}
