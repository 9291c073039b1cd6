//! The first message: protocol version and capabilities.
//!
//! Source: vfio-user specification, "VFIO_USER_VERSION". We speak 0.0, which is
//! what QEMU 11.1 proposes and the only minor version that it accepts back.

use serde_json::{Map, Value, json};
use varia_spec::errno::Errno;

use super::layout::{put, split};
use super::{Command, Served};
use crate::backend::Backend;
use crate::client::{Client, ClientError, Reply, Twin};
use crate::dispatch::{Handled, Turn};
use crate::wire::{MAX_DATA_XFER, MAX_MSG_FDS, WireError};

/// The major version that we speak.
pub const MAJOR: u16 = 0;
/// The highest minor version that we speak.
pub const MINOR: u16 = 0;

/// Maximum number of mappings at one time: what `max_dma_maps` is by default.
pub const MAX_DMA_MAPS: usize = 65535;

/// Capabilities of a client or a server. `None` if the field was not sent and
/// the specification's default applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Descriptors that its sender can receive in one message; 1 by default.
    pub max_msg_fds: Option<u64>,
    /// Bytes of data in one message; 1 MiB by default.
    pub max_data_xfer_size: Option<u64>,
    /// Mappings at one time; 65535 by default.
    pub max_dma_maps: Option<u64>,
    /// Page sizes of mappings, or'ed together; 4096 by default.
    pub pgsizes: Option<u64>,
    /// REGION_WRITE_MULTI is understood.
    pub write_multiple: bool,
    /// A socket for the commands from the server to the client; absent by default.
    pub twin_socket: Option<TwinSocket>,
}

/// Offer or answer of a twin socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TwinSocket {
    /// The sender supports it; in an answer, it is made.
    pub supported: bool,
    /// In an answer: position of the client's end among the descriptors of the message.
    pub fd_index: Option<u64>,
}

impl Capabilities {
    /// Capabilities that this crate's server and client offer.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            max_msg_fds: Some(MAX_MSG_FDS as u64),
            max_data_xfer_size: Some(MAX_DATA_XFER as u64),
            max_dma_maps: Some(MAX_DMA_MAPS as u64),
            pgsizes: Some(4096),
            write_multiple: true,
            twin_socket: None,
        }
    }

    /// The server's answer to a client that proposes `self`: a subset, with the
    /// two limits that a client must know in any case.
    #[must_use]
    pub fn answer(&self) -> Self {
        let ours = Self::ours();
        Self {
            max_msg_fds: ours.max_msg_fds,
            max_data_xfer_size: Some(self.max_xfer() as u64),
            max_dma_maps: self.max_dma_maps.and(ours.max_dma_maps),
            pgsizes: self.pgsizes.and(ours.pgsizes),
            write_multiple: self.write_multiple,
            twin_socket: None,
        }
    }

    /// Bytes of data that a message may carry between us and the sender of
    /// these capabilities.
    #[must_use]
    pub fn max_xfer(&self) -> usize {
        let theirs = self.max_data_xfer_size.unwrap_or(MAX_DATA_XFER as u64);
        usize::try_from(theirs).map_or(MAX_DATA_XFER, |n| n.min(MAX_DATA_XFER))
    }

    /// Descriptors that we may send to the sender of these capabilities in one
    /// message.
    #[must_use]
    pub fn max_fds(&self) -> usize {
        let theirs = self.max_msg_fds.unwrap_or(1);
        usize::try_from(theirs).map_or(MAX_MSG_FDS, |n| n.min(MAX_MSG_FDS))
    }

    fn to_json(self) -> Value {
        let mut map = Map::new();
        let numbers = [
            ("max_msg_fds", self.max_msg_fds),
            ("max_data_xfer_size", self.max_data_xfer_size),
            ("max_dma_maps", self.max_dma_maps),
            ("pgsizes", self.pgsizes),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                map.insert(name.into(), value.into());
            }
        }
        if self.write_multiple {
            map.insert("write_multiple".into(), true.into());
        }
        if let Some(TwinSocket {
            supported,
            fd_index,
        }) = self.twin_socket
        {
            let mut twin = Map::new();
            twin.insert("supported".into(), supported.into());
            if let Some(index) = fd_index {
                twin.insert("fd_index".into(), index.into());
            }
            map.insert("twin_socket".into(), Value::Object(twin));
        }
        Value::Object(map)
    }

    /// Capabilities that we do not know are left alone.
    fn from_json(map: &Map<String, Value>) -> Result<Self, WireError> {
        let twin_socket = match map.get("twin_socket") {
            None => None,
            Some(Value::Object(twin)) => Some(TwinSocket {
                supported: boolean(twin, "supported")?,
                fd_index: number(twin, "fd_index", 0)?,
            }),
            Some(other) => return Err(bad("twin_socket", other, "an object")),
        };
        Ok(Self {
            max_msg_fds: number(map, "max_msg_fds", 0)?,
            max_data_xfer_size: number(map, "max_data_xfer_size", 1)?,
            max_dma_maps: number(map, "max_dma_maps", 0)?,
            pgsizes: number(map, "pgsizes", 0)?,
            write_multiple: boolean(map, "write_multiple")?,
            twin_socket,
        })
    }
}

/// A VERSION message, request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Incompatible revisions.
    pub major: u16,
    /// Compatible revisions.
    pub minor: u16,
    /// Capabilities of the sender.
    pub capabilities: Capabilities,
}

impl Version {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(out, &[self.major, self.minor]);
        let data = json!({ "capabilities": self.capabilities.to_json() });
        out.extend_from_slice(data.to_string().as_bytes());
        out.push(0);
    }

    /// From these bytes. The data behind the numbers is optional, and so is
    /// everything in it. The data of another major version is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let ([major, minor], data) = split("VERSION", bytes)?;
        let mut capabilities = Capabilities::default();
        if data.is_empty() || major != MAJOR {
            return Ok(Self {
                major,
                minor,
                capabilities,
            });
        }
        // what is behind the first zero byte is padding: some clients send the whole of a buffer
        let end = data.iter().position(|byte| *byte == 0);
        let json = end.and_then(|end| data.get(..end));
        let json = json.ok_or_else(|| WireError::VersionData("the zero byte is missing".into()))?;
        let json: Value =
            serde_json::from_slice(json).map_err(|e| WireError::VersionData(e.to_string()))?;
        let Value::Object(json) = json else {
            return Err(WireError::VersionData("it is not an object".into()));
        };
        match json.get("capabilities") {
            None => {}
            Some(Value::Object(map)) => capabilities = Capabilities::from_json(map)?,
            Some(_) => {
                return Err(WireError::VersionData(
                    "`capabilities` is not an object".into(),
                ));
            }
        }
        Ok(Self {
            major,
            minor,
            capabilities,
        })
    }
}

impl Served<'_> for Version {
    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        Self::decode(payload)
    }

    /// The first message is not served here: the server negotiates before there is a session.
    fn serve<B: Backend>(&self, _turn: Turn<'_, B>) -> Result<Handled, Errno> {
        Err(Errno::EINVAL)
    }
}

impl Client {
    /// Propose our version and capabilities.
    pub fn negotiate(&mut self) -> Result<(), ClientError> {
        self.propose(Capabilities::ours()).map(drop)
    }

    /// Propose our version and capabilities and a twin socket. Returns the socket, on which the
    /// server's commands come, if the server makes one.
    pub fn negotiate_twin(&mut self) -> Result<Option<Twin>, ClientError> {
        let mut reply = self.propose(Capabilities {
            twin_socket: Some(TwinSocket {
                supported: true,
                fd_index: None,
            }),
            ..Capabilities::ours()
        })?;
        let twin = self.server.twin_socket.filter(|twin| twin.supported);
        let Some(twin) = twin else {
            return Ok(None);
        };
        let index = twin.fd_index.and_then(|index| usize::try_from(index).ok());
        match index.filter(|index| *index < reply.fds.len()) {
            Some(index) => Ok(Some(Twin::new(reply.fds.swap_remove(index)))),
            None => Err(ClientError::BadReply {
                command: Command::VERSION,
                what: "without the twin socket that it announces".into(),
            }),
        }
    }

    fn propose(&mut self, capabilities: Capabilities) -> Result<Reply, ClientError> {
        let proposal = Version {
            major: MAJOR,
            minor: MINOR,
            capabilities,
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
        Ok(reply)
    }
}

fn boolean(map: &Map<String, Value>, name: &'static str) -> Result<bool, WireError> {
    match map.get(name) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(bad(name, other, "true or false")),
    }
}

fn number(
    map: &Map<String, Value>,
    name: &'static str,
    least: u64,
) -> Result<Option<u64>, WireError> {
    match map.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(n) if n >= least => Ok(Some(n)),
            _ if least == 0 => Err(bad(name, value, "a whole number")),
            _ => Err(bad(name, value, "a whole number above zero")),
        },
    }
}

fn bad(name: &'static str, value: &Value, need: &'static str) -> WireError {
    // the value is the peer's: keep a log line short
    let value = value.to_string().chars().take(40).collect();
    WireError::Capability { name, value, need }
}
