//! A client, for tests and tools: the part of a VMM.
//!
//! Requests are made one at a time. Accesses that are longer than what was
//! negotiated are split.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use varia_spec::errno::Errno;
use varia_spec::vfio::{DeviceInfo, IrqInfo, REGION_INFO_LEN, irq_set};
use varia_sys::socket::{Limit, SocketError, Stream};
use varia_units::Bytes;

mod region;

pub use region::RemoteRegion;

pub use crate::payload::MultiWrite;

use crate::connection::{Connection, ConnectionError, Received};
use crate::payload::{
    self, DMA_UNMAP_ALL, DMA_UNMAP_LEN, DeviceReply, DmaMap, DmaUnmap, InfoQuery, IrqReply,
    RegionAccess, RegionReply, SetIrqs,
};
use crate::version::{Capabilities, MAJOR, MINOR, Version};
use crate::wire::{Command, Header, Kind, MAX_MESSAGE, MAX_MSG_FDS, WireError};

/// Timeout of a reply: a server that takes as long hangs, on a machine of any speed.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The most bytes of region information that we ask for again.
const MAX_REGION_INFO: usize = 1 << 16;

/// Reason why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused it.
    #[error("{command}: the server returned {errno}")]
    Refused {
        /// The command.
        command: Command,
        /// Error number of the reply.
        errno: Errno,
    },
    /// The server's reply is not one to the command.
    #[error("{command}: the reply is {what}")]
    BadReply {
        /// The command.
        command: Command,
        /// Description of the error in the reply.
        what: String,
    },
    /// The range is not one that can be mapped.
    #[error(
        "{} at offset {offset:#x} of region {index} can't be mapped: {errno}",
        Bytes(*size)
    )]
    Map {
        /// The region.
        index: u32,
        /// First byte.
        offset: u64,
        /// Bytes.
        size: u64,
        /// `EINVAL` when the server does not offer the range, or what `mmap`
        /// said.
        errno: Errno,
    },
    /// The connection failed, or a message is malformed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl ClientError {
    /// The error number of a refusal or a mapping.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Map { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        Self::Connection(error.into())
    }
}

impl From<SocketError> for ClientError {
    fn from(error: SocketError) -> Self {
        Self::Connection(error.into())
    }
}

/// Data that [`Client::set_irqs`] sends: one value for each interrupt of the range.
#[derive(Debug, Clone, Copy)]
pub enum SentIrqData<'a> {
    /// No data, for this many interrupts.
    None(u32),
    /// Booleans.
    Bool(&'a [bool]),
    /// An eventfd for each.
    Events(&'a [BorrowedFd<'a>]),
    /// Take away the eventfds of this many interrupts.
    NoEvents(u32),
}

/// A reply, or another message in its place.
#[derive(Debug)]
pub struct Reply {
    /// The header.
    pub header: Header,
    /// Payload behind the header.
    pub payload: Vec<u8>,
    /// The descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    next_id: u16,
    server: Capabilities,
}

impl Client {
    /// Connect to the server on `path` and negotiate.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let mut client = Self::connect_silently(path)?;
        client.negotiate()?;
        Ok(client)
    }

    /// Connect and say nothing yet.
    pub fn connect_silently(path: &Path) -> Result<Self, ClientError> {
        Ok(Self::over(Stream::connect(path)?))
    }

    /// Use a connected stream and say nothing yet.
    #[must_use]
    pub fn over(stream: Stream) -> Self {
        let connection = Connection::new(Arc::new(stream), MAX_MESSAGE, MAX_MSG_FDS, TIMEOUT);
        Self {
            connection,
            next_id: 0,
            server: Capabilities::default(),
        }
    }

    /// Propose our version and capabilities.
    pub fn negotiate(&mut self) -> Result<(), ClientError> {
        let proposal = Version {
            major: MAJOR,
            minor: MINOR,
            capabilities: Capabilities::ours(),
        };
        let mut payload = Vec::new();
        proposal.encode(&mut payload);
        let reply = self.request(Command::VERSION, &payload, &[])?;
        let theirs = Version::decode(&reply.payload)?;
        if (theirs.major, theirs.minor) != (MAJOR, MINOR) {
            let what = format!("version {}.{}", theirs.major, theirs.minor);
            return Err(ClientError::BadReply {
                command: Command::VERSION,
                what,
            });
        }
        self.server = theirs.capabilities;
        Ok(())
    }

    /// Capabilities of the server; the defaults before the negotiation.
    #[must_use]
    pub fn server(&self) -> &Capabilities {
        &self.server
    }

    /// DEVICE_GET_INFO.
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        let mut payload = Vec::new();
        DeviceReply::default().encode(&mut payload);
        let reply = self.request(Command::DEVICE_GET_INFO, &payload, &[])?;
        Ok(DeviceReply::decode(&reply.payload)?.1.info)
    }

    /// DEVICE_GET_REGION_INFO, twice where there are capabilities.
    pub fn region_info(&mut self, index: u32) -> Result<RemoteRegion, ClientError> {
        let command = Command::DEVICE_GET_REGION_INFO;
        let mut argsz = REGION_INFO_LEN as u32;
        loop {
            let mut payload = Vec::new();
            InfoQuery { argsz, index }.encode_region(&mut payload);
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

    /// DEVICE_GET_IRQ_INFO.
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo, ClientError> {
        let command = Command::DEVICE_GET_IRQ_INFO;
        let mut payload = Vec::new();
        InfoQuery { argsz: 16, index }.encode_irq(&mut payload);
        let reply = self.request(command, &payload, &[])?;
        let reply = IrqReply::decode(&reply.payload)?;
        if reply.index != index {
            let what = format!("about interrupt index {}", reply.index);
            return Err(ClientError::BadReply { command, what });
        }
        Ok(reply.info)
    }

    /// DEVICE_SET_IRQS; `action` is one of `VFIO_IRQ_SET_ACTION_*`. Eventfds go
    /// in as many messages as the server's `max_msg_fds` makes necessary.
    pub fn set_irqs(
        &mut self,
        index: u32,
        start: u32,
        action: u32,
        data: SentIrqData<'_>,
    ) -> Result<(), ClientError> {
        let (kind, count, bytes) = match data {
            SentIrqData::None(count) => (irq_set::DATA_NONE, count, Vec::new()),
            SentIrqData::Bool(values) => {
                let bytes = values.iter().map(|v| u8::from(*v)).collect();
                (irq_set::DATA_BOOL, values.len() as u32, bytes)
            }
            SentIrqData::NoEvents(count) => (irq_set::DATA_EVENTFD, count, Vec::new()),
            SentIrqData::Events(fds) => {
                let flags = irq_set::DATA_EVENTFD | action;
                let mut start = start;
                for fds in fds.chunks(self.server.max_fds().max(1)) {
                    let count = fds.len() as u32;
                    let set = SetIrqs {
                        flags,
                        index,
                        start,
                        count,
                        data: &[],
                    };
                    self.set_irqs_raw(&set, fds)?;
                    start = start.saturating_add(count);
                }
                return Ok(());
            }
        };
        let set = SetIrqs {
            flags: kind | action,
            index,
            start,
            count,
            data: &bytes,
        };
        self.set_irqs_raw(&set, &[])
    }

    /// DEVICE_SET_IRQS with fields that need not fit together.
    pub fn set_irqs_raw(
        &mut self,
        set: &SetIrqs<'_>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let mut payload = Vec::new();
        set.encode(&mut payload);
        self.request(Command::DEVICE_SET_IRQS, &payload, fds)
            .map(drop)
    }

    /// REGION_READ: how many bytes were read. A long read is several messages,
    /// up to one that brings less than was asked for.
    pub fn region_read(
        &mut self,
        region: u32,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, ClientError> {
        let command = Command::REGION_READ;
        let step = self.server.max_xfer();
        let mut done = 0;
        loop {
            let rest = buf.get_mut(done..).unwrap_or_default();
            let asked = rest.len().min(step);
            let offset = offset.wrapping_add(done as u64);
            let access = RegionAccess {
                offset,
                region,
                count: asked as u32,
            };
            let mut payload = Vec::new();
            access.encode(&mut payload);
            let reply = match self.request(command, &payload, &[]) {
                Err(ClientError::Refused { .. }) if done > 0 => return Ok(done),
                other => other?,
            };
            let (answer, data) = RegionAccess::decode("REGION_READ", &reply.payload)?;
            match rest.get_mut(..data.len()) {
                Some(part) if data.len() <= asked && answer.count as usize == data.len() => {
                    part.copy_from_slice(data);
                }
                _ => {
                    let what = format!("{} bytes in place of {asked}", data.len());
                    return Err(ClientError::BadReply { command, what });
                }
            }
            done += data.len();
            if data.len() < asked || done == buf.len() {
                return Ok(done);
            }
        }
    }

    /// REGION_WRITE: how many bytes were written. A long write is several
    /// messages, up to one that writes less than was asked for.
    pub fn region_write(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, ClientError> {
        let command = Command::REGION_WRITE;
        let step = self.server.max_xfer();
        let mut done = 0;
        loop {
            let rest = data.get(done..).unwrap_or_default();
            let piece = rest.get(..step).unwrap_or(rest);
            let offset = offset.wrapping_add(done as u64);
            let payload = write_payload(region, offset, piece);
            let reply = match self.request(command, &payload, &[]) {
                Err(ClientError::Refused { .. }) if done > 0 => return Ok(done),
                other => other?,
            };
            let (answer, _) = RegionAccess::decode("REGION_WRITE", &reply.payload)?;
            let written = answer.count as usize;
            if written > piece.len() {
                let what = format!("{written} bytes in place of {}", piece.len());
                return Err(ClientError::BadReply { command, what });
            }
            done += written;
            if written < piece.len() || done == data.len() {
                return Ok(done);
            }
        }
    }

    /// REGION_WRITE that wants no reply, as QEMU posts writes to trapped BARs.
    pub fn region_write_posted(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), ClientError> {
        self.post(Command::REGION_WRITE, &write_payload(region, offset, data))
    }

    /// REGION_WRITE_MULTI: how many of the writes were done.
    pub fn region_write_multi(&mut self, writes: &[MultiWrite]) -> Result<u64, ClientError> {
        let command = Command::REGION_WRITE_MULTI;
        let mut payload = Vec::new();
        MultiWrite::encode_all(writes, &mut payload);
        let reply = self.request(command, &payload, &[])?;
        match <[u8; 8]>::try_from(reply.payload.as_slice()) {
            Ok(count) => Ok(u64::from_ne_bytes(count)),
            Err(_) => {
                let what = format!("{} bytes long instead of 8", reply.payload.len());
                Err(ClientError::BadReply { command, what })
            }
        }
    }

    /// DMA_MAP: `size` bytes at the bus address `addr`, with the descriptor and
    /// the offset in it where the memory is. `flags` are
    /// [`DMA_READ`](payload::DMA_READ) and [`DMA_WRITE`](payload::DMA_WRITE).
    pub fn dma_map(
        &mut self,
        addr: u64,
        size: u64,
        flags: u32,
        memory: Option<(BorrowedFd<'_>, u64)>,
    ) -> Result<(), ClientError> {
        let offset = memory.map_or(0, |(_, offset)| offset);
        let mut payload = Vec::new();
        DmaMap {
            flags,
            offset,
            addr,
            size,
        }
        .encode(&mut payload);
        let fds: Vec<_> = memory.map(|(fd, _)| fd).into_iter().collect();
        self.request(Command::DMA_MAP, &payload, &fds).map(drop)
    }

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
        let same = DmaUnmap::decode(&reply.payload)? == unmap;
        let what = || "about another range".to_string();
        same.then_some(()).ok_or_else(|| ClientError::BadReply {
            command: Command::DMA_UNMAP,
            what: what(),
        })
    }

    /// DEVICE_RESET.
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.request(Command::DEVICE_RESET, &[], &[]).map(drop)
    }

    /// Send any command with any payload, and wait for its reply.
    pub fn request(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, ClientError> {
        let id = self.id();
        let header = Header::command(id, command, payload.len());
        self.connection.send(&message(&header, payload), fds)?;
        let reply = self.receive()?;
        let header = reply.header;
        if header.kind != Kind::Reply || header.id != id || header.command != command {
            let what = format!("{:?} {} with id {}", header.kind, header.command, header.id);
            return Err(ClientError::BadReply { command, what });
        }
        if let Some(error) = header.error {
            let errno = i32::try_from(error)
                .ok()
                .and_then(Errno::new)
                .unwrap_or(Errno::EIO);
            return Err(ClientError::Refused { command, errno });
        }
        Ok(reply)
    }

    /// Send any command with any payload, and want no reply.
    pub fn post(&mut self, command: Command, payload: &[u8]) -> Result<(), ClientError> {
        let mut header = Header::command(self.id(), command, payload.len());
        header.no_reply = true;
        Ok(self.connection.send(&message(&header, payload), &[])?)
    }

    /// Receive whatever message comes next.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let Received {
            header,
            descriptors,
        } = self.connection.receive(&Limit::within(TIMEOUT))?;
        if descriptors.excess {
            return Err(SocketError::TooManyFds { max: MAX_MSG_FDS }.into());
        }
        if descriptors.lost {
            return Err(SocketError::Exhausted {
                what: format!("{}: the descriptors of the reply", header.command),
                source: io::Error::from_raw_os_error(Errno::EMFILE.get()),
            }
            .into());
        }
        Ok(Reply {
            header,
            payload: self.connection.payload().to_vec(),
            fds: descriptors.fds,
        })
    }

    /// Send bytes as they are, for tests of what a server does with bad input.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        Ok(self
            .connection
            .stream()
            .send(bytes, fds, &Limit::within(TIMEOUT))?)
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        self.connection.stream()
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.stream().as_fd()
    }
}

/// A message in one.
fn message(header: &Header, payload: &[u8]) -> Vec<u8> {
    [&header.encode()[..], payload].concat()
}

fn write_payload(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut payload = Vec::with_capacity(payload::REGION_ACCESS_LEN + data.len());
    RegionAccess {
        offset,
        region,
        count,
    }
    .encode(&mut payload);
    payload.extend_from_slice(data);
    payload
}
