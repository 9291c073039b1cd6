//! DMA_UNMAP: memory that the device may no longer reach.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;

use super::layout::{argsz, fits, put, split};
use super::{Command, Served};
use crate::backend::Backend;
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn};
use crate::wire::WireError;

/// `VFIO_DMA_UNMAP_FLAG_ALL` in the flags of [`DmaUnmap`]. The specification
/// leaves the flags unused; QEMU sends this one.
pub const DMA_UNMAP_ALL: u32 = 1 << 1;

/// Bytes of DMA_UNMAP, and the least `argsz`.
pub const DMA_UNMAP_LEN: u32 = argsz::<Layout>();

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

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    argsz: u32,
    flags: u32,
    addr: u64,
    size: u64,
}

impl DmaUnmap {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self {
            argsz,
            flags,
            addr,
            size,
        } = *self;
        let layout = Layout {
            argsz,
            flags,
            addr,
            size,
        };
        put(out, &layout);
    }

    /// From these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (layout, _) = split::<Layout>("DMA_UNMAP", bytes)?;
        Ok(Self {
            argsz: layout.argsz,
            flags: layout.flags,
            addr: layout.addr,
            size: layout.size,
        })
    }
}

impl Served<'_> for DmaUnmap {
    // some clients send the descriptor of a mapping again when they remove the mapping
    const TAKES_DESCRIPTORS: bool = true;

    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        Self::decode(payload)
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        fits(self.argsz, size_of::<Layout>())?;
        match self.flags {
            0 => turn.backend.dma_unmap(self.addr, self.size)?,
            DMA_UNMAP_ALL if self.addr == 0 && self.size == 0 => turn.backend.dma_unmap_all(),
            _ => return Err(Errno::EINVAL),
        }
        let reply = Self {
            argsz: DMA_UNMAP_LEN,
            ..*self
        };
        turn.out.encode(|bytes| reply.encode(bytes));
        Ok(DONE)
    }
}

impl Client {
    /// DMA_UNMAP of a range.
    pub fn dma_unmap(&mut self, addr: u64, size: u64) -> Result<(), ClientError> {
        self.unmap(DmaUnmap {
            argsz: DMA_UNMAP_LEN,
            flags: 0,
            addr,
            size,
        })
    }

    /// DMA_UNMAP of everything.
    pub fn dma_unmap_all(&mut self) -> Result<(), ClientError> {
        self.unmap(DmaUnmap {
            argsz: DMA_UNMAP_LEN,
            flags: DMA_UNMAP_ALL,
            addr: 0,
            size: 0,
        })
    }

    fn unmap(&mut self, unmap: DmaUnmap) -> Result<(), ClientError> {
        let mut payload = Vec::new();
        unmap.encode(&mut payload);
        let reply = self.request(Command::DMA_UNMAP, &payload, &[])?;
        if DmaUnmap::decode(&reply.payload)? == unmap {
            return Ok(());
        }
        Err(ClientError::BadReply {
            command: Command::DMA_UNMAP,
            what: "about another range".into(),
        })
    }
}
