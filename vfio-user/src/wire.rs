//! The message header, and what a message may lack.
//!
//! Source: vfio-user specification, "Header". All fields are in the byte order of the machine.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::command::Command;

/// Bytes of a header: id u16, command u16, size u32, flags u32, error u32.
pub const HEADER_LEN: usize = size_of::<Layout>();

/// `max_data_xfer_size` where nothing else is said, and the most that we allow,
/// in bytes.
pub const MAX_DATA_XFER: usize = 1 << 20;

/// The most descriptors in one message: what QEMU's client can send.
pub const MAX_MSG_FDS: usize = 16;

/// The longest payload of a VERSION message that we read, in bytes: room for capabilities that a
/// later revision may add, and for padding.
pub const MAX_VERSION_LEN: usize = 1 << 16;

/// The longest message that we read after the negotiation: a header, the
/// 16 fixed bytes of a region access, and its data.
pub const MAX_MESSAGE: usize = HEADER_LEN + 16 + MAX_DATA_XFER;

/// Kind of a message (bits 0 to 3 of the flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command.
    Command,
    /// The reply to the command with the same id.
    Reply,
    /// A type that the protocol does not have.
    Unknown(u8),
}

/// Bit 4 of the flags: no reply to this command is wanted.
const NO_REPLY: u32 = 1 << 4;
/// Bit 5 of the flags: this reply carries an error and nothing else.
const ERROR: u32 = 1 << 5;
/// Bits 0 to 3 of the flags.
const TYPE_MASK: u32 = 0xf;

/// A message that does not have the form that the protocol demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The size in the header is smaller than the header.
    #[error("a message claims {size} bytes, and its header alone has {HEADER_LEN}")]
    SizeTooSmall {
        /// The size in the header.
        size: u32,
    },
    /// The size in the header is more than was agreed on.
    #[error("a message claims {size} bytes, and at most {max} are allowed here")]
    SizeTooLarge {
        /// The size in the header.
        size: u32,
        /// The longest that is allowed, with the header.
        max: usize,
    },
    /// The type bits are neither command nor reply.
    #[error("a message of type {0}, which is neither a command (0) nor a reply (1)")]
    BadType(u8),
    /// The bytes end before the structure that the command has.
    #[error("{what} has {len} bytes and needs {need}")]
    TooShort {
        /// The structure.
        what: &'static str,
        /// Bytes there are.
        len: usize,
        /// Bytes it takes.
        need: usize,
    },
    /// Fewer bytes follow than the count in the structure announces.
    #[error("{what} announces {count} and brings {len} bytes of data")]
    CountMismatch {
        /// The structure.
        what: &'static str,
        /// The count in the structure.
        count: u64,
        /// Bytes of data there are.
        len: usize,
    },
    /// The count is more than `max_data_xfer_size`.
    #[error("{what} of {count} bytes, and max_data_xfer_size is {max}")]
    TooMuchData {
        /// The structure.
        what: &'static str,
        /// The count in the structure.
        count: u64,
        /// Maximum that was negotiated.
        max: usize,
    },
    /// The data of a VERSION message is no JSON object ending with a zero byte.
    #[error("the data of VERSION is not a JSON object with a final zero byte: {0}")]
    VersionData(String),
    /// A capability's value is of the wrong type or out of range.
    #[error("capability {name} is {value}, and has to be {need}")]
    Capability {
        /// The capability.
        name: &'static str,
        /// Its value.
        value: String,
        /// Value that the field must have.
        need: &'static str,
    },
}

/// A message header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Chosen by the sender of a command and repeated in the reply.
    pub id: u16,
    /// The command, in a reply as well.
    pub command: Command,
    /// Bytes of the whole message with this header.
    pub size: u32,
    /// Command or reply.
    pub kind: Kind,
    /// In a command: no reply is wanted.
    pub no_reply: bool,
    /// In a reply: the command failed. The number is an errno and may be 0.
    pub error: Option<u32>,
}

/// The bytes of a header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    id: u16,
    command: u16,
    size: u32,
    flags: u32,
    error: u32,
}

impl Header {
    /// The header of a command with `payload` bytes behind it.
    #[must_use]
    pub fn command(id: u16, command: Command, payload: usize) -> Self {
        let size = message_size(payload);
        Self {
            id,
            command,
            size,
            kind: Kind::Command,
            no_reply: false,
            error: None,
        }
    }

    /// The header of the reply to `self` with `payload` bytes behind it.
    #[must_use]
    pub fn reply(&self, payload: usize) -> Self {
        let size = message_size(payload);
        Self {
            size,
            kind: Kind::Reply,
            no_reply: false,
            error: None,
            ..*self
        }
    }

    /// The header of the failed reply to `self`, which is the whole message.
    #[must_use]
    pub fn error_reply(&self, errno: u32) -> Self {
        Self {
            error: Some(errno),
            ..self.reply(0)
        }
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut flags = match self.kind {
            Kind::Command => 0,
            Kind::Reply => 1,
            Kind::Unknown(other) => u32::from(other) & TYPE_MASK,
        };
        if self.no_reply {
            flags |= NO_REPLY;
        }
        if self.error.is_some() {
            flags |= ERROR;
        }
        let layout = Layout {
            id: self.id,
            command: self.command.0,
            size: self.size,
            flags,
            error: self.error.unwrap_or(0),
        };
        zerocopy::transmute!(layout)
    }

    /// A header from bytes, of any size. Reserved flag bits are ignored.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let Layout {
            id,
            command,
            size,
            flags,
            error,
        } = zerocopy::transmute!(*bytes);
        let kind = match flags & TYPE_MASK {
            0 => Kind::Command,
            1 => Kind::Reply,
            other => Kind::Unknown(other as u8),
        };
        Self {
            id,
            command: Command(command),
            size,
            kind,
            no_reply: kind != Kind::Reply && flags & NO_REPLY != 0,
            error: (kind == Kind::Reply && flags & ERROR != 0).then_some(error),
        }
    }

    /// Checks that the message has at least its header and at most `max` bytes. Behind a message
    /// that fails this check the start of the next message is unknown.
    pub fn check_size(&self, max: usize) -> Result<(), WireError> {
        let size = self.size;
        if (size as usize) < HEADER_LEN {
            return Err(WireError::SizeTooSmall { size });
        }
        if size as usize > max {
            return Err(WireError::SizeTooLarge { size, max });
        }
        Ok(())
    }
}

/// Size field of a message; payloads are far shorter than 4 GiB.
fn message_size(payload: usize) -> u32 {
    u32::try_from(payload.saturating_add(HEADER_LEN)).unwrap_or(u32::MAX)
}
