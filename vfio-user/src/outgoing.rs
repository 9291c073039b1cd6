//! A reply while it is written: one buffer for the header and what follows, used again for each.

use varia_spec::errno::Errno;

use crate::connection::Connection;
use crate::wire::{HEADER_LEN, Header, Kind};

/// Room that is kept between two replies.
const KEPT: usize = 256 << 10;

/// The bytes of a reply, behind room for its header.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Bytes of earlier replies stay behind `len`, so that room costs nothing.
    bytes: Vec<u8>,
    len: usize,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            bytes: vec![0; HEADER_LEN],
            len: HEADER_LEN,
        }
    }
}

impl Outgoing {
    /// Begins a new reply.
    pub(crate) fn clear(&mut self) {
        self.len = HEADER_LEN;
        if self.bytes.len() > KEPT {
            self.bytes = vec![0; HEADER_LEN];
        }
    }

    /// Length of the payload so far, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len - HEADER_LEN
    }

    /// Appends bytes that `encode` appends to a vector.
    pub(crate) fn encode(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.truncate(self.len);
        encode(&mut self.bytes);
        self.len = self.bytes.len();
    }

    /// Appends `len` bytes of any value and returns them, to be written.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        let start = self.len;
        self.len += len;
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len, 0);
        }
        self.bytes.get_mut(start..self.len).unwrap_or_default()
    }

    /// Cuts the payload to `len` bytes, if it is longer.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(HEADER_LEN + len);
    }

    /// Overwrites the payload from `at` on, as far as there is one.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        let payload = self.bytes.get_mut(HEADER_LEN + at..self.len);
        let payload = payload.and_then(|payload| payload.get_mut(..bytes.len()));
        if let Some(payload) = payload {
            payload.copy_from_slice(bytes);
        }
    }

    /// The whole reply to the message with `header`.
    pub(crate) fn reply(&mut self, header: &Header) -> &[u8] {
        let header = header.reply(self.len()).encode();
        if let Some(start) = self.bytes.first_chunk_mut() {
            *start = header;
        }
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The whole failed reply to the message with `header`.
pub(crate) fn error(header: &Header, errno: Errno) -> [u8; HEADER_LEN] {
    header.error_reply(errno.get().cast_unsigned()).encode()
}

/// Tells a client whose connection ends why it does, if the client wants to know. The connection
/// ends anyway, so a failure to tell does not matter.
pub(crate) fn refuse(connection: &Connection, header: &Header, errno: Errno) {
    if header.kind != Kind::Reply && !header.no_reply {
        let _ = connection.send(&error(header, errno), &[]);
    }
}
