//! Whole messages on a socket.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use varia_sys::event::EventFd;
use varia_sys::socket::{Descriptors, Limit, SocketError, Stream};

use crate::wire::{HEADER_LEN, Header, WireError};

/// Reason why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer closed the connection between two messages.
    #[error("the peer closed the connection")]
    Ended,
    /// The peer closed the connection in the middle of a message.
    #[error("the peer closed the connection after {got} of {need} bytes of a message")]
    Truncated {
        /// Bytes that came.
        got: usize,
        /// Bytes that the message has, as far as is known.
        need: usize,
    },
    /// The peer stopped in the middle of a message.
    #[error("the peer stopped after {got} of {need} bytes of a message, for {} s", after.as_secs_f32())]
    Stalled {
        /// Bytes that came.
        got: usize,
        /// Bytes that the message has, as far as is known.
        need: usize,
        /// The time limit.
        after: Duration,
    },
    /// The message has not the form that the protocol demands.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Header and descriptors of a received message.
#[derive(Debug)]
pub struct Received {
    /// The header.
    pub header: Header,
    /// The descriptors that came along; they are closed with this value.
    pub descriptors: Descriptors,
}

/// A connection that carries messages.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Longest message to receive, with its header.
    max_message: usize,
    /// Most descriptors to receive with one message.
    max_fds: usize,
    /// Timeout for a message that has begun, in either direction.
    message_time: Duration,
}

impl Connection {
    /// Messages of at most `max_message` bytes with at most `max_fds`
    /// descriptors; one that has begun takes at most `message_time`.
    #[must_use]
    pub fn new(stream: Stream, max_message: usize, max_fds: usize, message_time: Duration) -> Self {
        Self {
            stream,
            max_message,
            max_fds,
            message_time,
        }
    }

    /// Allow messages of another length from now on.
    pub fn set_max_message(&mut self, max_message: usize) {
        self.max_message = max_message;
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Receive a message. Its payload replaces what is in `payload`. `begin`
    /// limits the wait for its first byte.
    pub fn receive(
        &self,
        payload: &mut Vec<u8>,
        begin: &Limit<'_>,
        stop: Option<&EventFd>,
    ) -> Result<Received, ConnectionError> {
        let mut header = [0; HEADER_LEN];
        let mut descriptors = Descriptors::default();
        let first = match self
            .stream
            .recv(&mut header, &mut descriptors, self.max_fds, begin)
        {
            Ok(n) => n,
            Err(SocketError::Closed) => return Err(ConnectionError::Ended),
            Err(e) => return Err(e.into()),
        };
        let limit = Limit::within(self.message_time).or_stop(stop);
        let rest = header.get_mut(first..).unwrap_or_default();
        self.fill(rest, &mut descriptors, first, HEADER_LEN, &limit)?;
        let header = Header::decode(&header, self.max_message)?;
        payload.clear();
        payload.resize(header.payload_len(), 0);
        self.fill(
            payload,
            &mut descriptors,
            HEADER_LEN,
            header.size as usize,
            &limit,
        )?;
        Ok(Received {
            header,
            descriptors,
        })
    }

    /// Fill `buf`, the part from `done` on of a message of `need` bytes.
    fn fill(
        &self,
        buf: &mut [u8],
        descriptors: &mut Descriptors,
        done: usize,
        need: usize,
        limit: &Limit<'_>,
    ) -> Result<(), ConnectionError> {
        let mut got = done;
        let mut rest = buf;
        while !rest.is_empty() {
            match self.stream.recv(rest, descriptors, self.max_fds, limit) {
                Ok(n) => {
                    got += n;
                    rest = rest.get_mut(n..).unwrap_or_default();
                }
                Err(SocketError::Closed) => return Err(ConnectionError::Truncated { got, need }),
                Err(SocketError::TimedOut { after }) => {
                    return Err(ConnectionError::Stalled { got, need, after });
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Send a message. `header.size` must be that of `payload`.
    pub fn send(
        &self,
        header: &Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        stop: Option<&EventFd>,
    ) -> Result<(), ConnectionError> {
        let mut message = Vec::with_capacity(HEADER_LEN + payload.len());
        message.extend_from_slice(&header.encode());
        message.extend_from_slice(payload);
        let limit = Limit::within(self.message_time).or_stop(stop);
        Ok(self.stream.send(&message, fds, &limit)?)
    }
}
