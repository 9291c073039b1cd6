//! A client, for tests and tools: the part of a VMM.
//!
//! Requests are made one at a time. The call of each command stands in its file in
//! [`command`](crate::command); accesses that are longer than what was negotiated are split.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use varia_spec::errno::Errno;
use varia_sys::socket::{Limit, SocketError, Stream};
use varia_units::Bytes;

mod region;

pub use region::RemoteRegion;

pub use crate::command::{HeldMemory, MultiWrite, SentIrqData, Twin};

use crate::command::version::Capabilities;
use crate::command::{self, Command};
use crate::connection::{Connection, ConnectionError, Received};
use crate::wire::{Header, Kind, MAX_MESSAGE, MAX_MSG_FDS, WireError};

/// Timeout of a reply: a server that takes as long hangs, on a machine of any speed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10 * 60);

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
pub struct Client {
    connection: Connection,
    next_id: u16,
    pub(crate) server: Capabilities,
    /// Memory that the server may read and write by messages.
    pub(crate) memory: Option<Box<dyn HeldMemory>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connection", &self.connection)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
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
            memory: None,
        }
    }

    /// Capabilities of the server; the defaults before the negotiation.
    #[must_use]
    pub fn server(&self) -> &Capabilities {
        &self.server
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
        let mut reply = self.receive()?;
        while self.memory.is_some() && reply.header.kind == Kind::Command {
            self.answer(&reply.header)?;
            reply = self.receive()?;
        }
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

    /// Receive a command of the server, and carry it out with the memory of
    /// [`hold_memory`](Self::hold_memory).
    pub fn serve_command(&mut self) -> Result<Command, ClientError> {
        let header = self.receive()?.header;
        self.answer(&header)?;
        Ok(header.command)
    }

    fn answer(&mut self, header: &Header) -> Result<(), ClientError> {
        let memory = self.memory.as_deref_mut();
        command::answer(
            &self.connection,
            header,
            memory.map(|m| m as &mut dyn HeldMemory),
        )
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
