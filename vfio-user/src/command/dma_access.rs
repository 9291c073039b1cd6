//! DMA_READ and DMA_WRITE: memory of the client, read and written through the client.
//!
//! The only commands from the server to the client. The specification counts the bytes in 64 bits,
//! and so does libvfio-user; QEMU 11.1 (`hw/vfio-user/protocol.h:VFIOUserDMARW`) counts them in 32
//! bits, with the data right behind. [`Counting`] says which client this is.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use varia_spec::errno::Errno;
use varia_sys::socket::{Limit, Stream};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Command;
use super::layout::{put, split};
use crate::client::{Client, ClientError, TIMEOUT};
use crate::connection::{Connection, ConnectionError};
use crate::wire::{HEADER_LEN, Header, Kind, MAX_DATA_XFER, MAX_MESSAGE, WireError};

/// Form of the count in a client's DMA_READ and DMA_WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// 64 bits, as in the specification.
    Wide,
    /// 32 bits, and the data follows.
    Narrow,
}

/// A count that tells the two forms apart: 4 GiB, more than a message may carry, or none.
pub const TELLING_COUNT: u64 = 1 << 32;

/// The fixed part of DMA_READ and DMA_WRITE, request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaAccess {
    /// First address.
    pub addr: u64,
    /// Bytes to transfer, or transferred.
    pub count: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct WideLayout {
    addr: u64,
    count: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
struct NarrowLayout {
    addr: u64,
    count: u32,
}

impl DmaAccess {
    /// Append the bytes of a DMA_READ, or of a DMA_WRITE with its data.
    pub fn encode(&self, counting: Counting, data: &[u8], out: &mut Vec<u8>) {
        let Self { addr, count } = *self;
        let wide = WideLayout { addr, count };
        match counting {
            Counting::Wide => put(out, &wide),
            // a read has the length of the wide form, which QEMU checks
            Counting::Narrow if data.is_empty() => put(out, &wide),
            Counting::Narrow => {
                let count = count as u32;
                put(out, &NarrowLayout { addr, count });
            }
        }
        out.extend_from_slice(data);
    }

    /// The fixed part and the data behind it.
    pub fn decode(counting: Counting, bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let what = "a reply to DMA_READ";
        match counting {
            Counting::Wide => {
                let (WideLayout { addr, count }, data) = split(what, bytes)?;
                Ok((Self { addr, count }, data))
            }
            Counting::Narrow => {
                let (NarrowLayout { addr, count }, data) = split(what, bytes)?;
                let count = u64::from(count);
                Ok((Self { addr, count }, data))
            }
        }
    }
}

/// Memory of a client that its server reads and writes by messages.
pub trait HeldMemory: Send {
    /// Fill `data` from an address.
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Write `data` at an address.
    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno>;
}

/// The client's end of a twin socket.
#[derive(Debug)]
pub struct Twin(Connection);

impl Twin {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let stream = Arc::new(Stream::from(socket));
        Self(Connection::new(stream, MAX_MESSAGE, 0, TIMEOUT))
    }

    /// Serve the server's commands until the server closes the socket.
    pub fn serve(mut self, memory: &mut dyn HeldMemory) -> Result<(), ClientError> {
        loop {
            let header = match self.0.receive(&Limit::none()) {
                Ok(received) => received.header,
                Err(ConnectionError::Ended) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            answer(&self.0, &header, Some(memory))?;
        }
    }
}

/// Carries out the server's command that `connection` has received, and replies.
pub(crate) fn answer(
    connection: &Connection,
    header: &Header,
    memory: Option<&mut dyn HeldMemory>,
) -> Result<(), ClientError> {
    let mut reply = vec![0; HEADER_LEN];
    let done = carry_out(header, connection.payload(), memory, &mut reply);
    let head = match done {
        Ok(()) => header.reply(reply.len() - HEADER_LEN),
        Err(errno) => {
            reply.truncate(HEADER_LEN);
            header.error_reply(errno.get().cast_unsigned())
        }
    };
    if let Some(start) = reply.first_chunk_mut() {
        *start = head.encode();
    }
    Ok(connection.send(&reply, &[])?)
}

fn carry_out(
    header: &Header,
    payload: &[u8],
    memory: Option<&mut dyn HeldMemory>,
    reply: &mut Vec<u8>,
) -> Result<(), Errno> {
    let decoded = DmaAccess::decode(Counting::Wide, payload);
    let (access, data) = decoded.map_err(|_| Errno::EINVAL)?;
    let memory = memory.ok_or(Errno::EOPNOTSUPP)?;
    let count = usize::try_from(access.count).unwrap_or(usize::MAX);
    if header.kind != Kind::Command || count > MAX_DATA_XFER {
        return Err(Errno::EINVAL);
    }
    match header.command {
        Command::DMA_READ => {
            let mut bytes = vec![0; count];
            memory.read(access.addr, &mut bytes)?;
            access.encode(Counting::Wide, &bytes, reply);
        }
        Command::DMA_WRITE => {
            let data = data.get(..count).ok_or(Errno::EINVAL)?;
            memory.write(access.addr, data)?;
            access.encode(Counting::Wide, &[], reply);
        }
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(())
}

impl Client {
    /// Serve the server's commands on this client's socket, whenever the client waits for a reply,
    /// with `memory`.
    pub fn hold_memory(&mut self, memory: Box<dyn HeldMemory>) {
        self.memory = Some(memory);
    }
}
