//! Whole messages on a socket.
//!
//! What comes is received into one buffer, as much at a time as is there: a message takes one
//! system call, several short messages take one together, and the payload is used where it lies.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use varia_sys::socket::{Descriptors, Limit, SocketError, Stream};

use crate::spin::Spin;
use crate::wire::{HEADER_LEN, Header, WireError};

/// Room for what comes. Longer messages make it grow.
const ROOM: usize = 16 << 10;

/// Room that a connection keeps when no message is in it.
const KEPT: usize = 256 << 10;

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
    /// The size of a message can't be true, so that the start of the next message is unknown.
    #[error("{error}")]
    Misframed {
        /// The message's header.
        header: Header,
        /// The size, and the sizes that it may have.
        error: WireError,
    },
    /// The message has not the form that the protocol demands.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Header and descriptors of a received message; its payload is [`Connection::payload`].
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
    stream: Arc<Stream>,
    /// Longest message to receive, with its header.
    max_message: usize,
    /// Most descriptors to receive with one message.
    max_fds: usize,
    /// Timeout for a message that has begun, in either direction.
    message_time: Duration,
    /// Polls of the socket before a receiver sleeps.
    spin: Spin,
    incoming: Incoming,
}

/// Bytes that have come.
#[derive(Debug, Default)]
struct Incoming {
    buffer: Vec<u8>,
    /// First byte in `buffer` that belongs to no message which has been returned.
    start: usize,
    /// End of the bytes that have come.
    end: usize,
    /// Position of the last message's payload in `buffer`.
    payload: std::ops::Range<usize>,
    /// Number of bytes before `buffer` in the whole stream.
    before: u64,
    /// Descriptors that have come, each with the end in the stream of the bytes that they came
    /// with. The kernel ends a `recvmsg` behind the bytes that descriptors were sent with, so they
    /// belong to the message which has this end inside of it or as its own end.
    descriptors: VecDeque<(u64, Descriptors)>,
}

impl Connection {
    /// Messages of at most `max_message` bytes with at most `max_fds`
    /// descriptors; one that has begun takes at most `message_time`.
    #[must_use]
    pub fn new(
        stream: Arc<Stream>,
        max_message: usize,
        max_fds: usize,
        message_time: Duration,
    ) -> Self {
        Self {
            stream,
            max_message,
            max_fds,
            message_time,
            spin: Spin::default(),
            incoming: Incoming::default(),
        }
    }

    /// Allow messages of another length from now on.
    pub fn set_max_message(&mut self, max_message: usize) {
        self.max_message = max_message;
    }

    /// After a message, poll the socket for this time without sleeping, as long as messages come so
    /// soon.
    pub fn set_spin(&mut self, time: Duration) {
        self.spin = Spin::new(time);
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Payload of the last message that was received.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let range = self.incoming.payload.clone();
        self.incoming.buffer.get(range).unwrap_or_default()
    }

    /// Receive a message. `begin` limits the wait for its first byte.
    pub fn receive(&mut self, begin: &Limit<'_>) -> Result<Received, ConnectionError> {
        // while the first message of several is used, the others wait
        let mut limit = None;
        loop {
            if let Some(message) = self.incoming.take(self.max_message)? {
                return Ok(message);
            }
            let (got, need) = (self.incoming.len(), self.incoming.need());
            if got > 0 && limit.is_none() {
                limit = Some(Limit::within(self.message_time));
            }
            let limit = limit.as_ref().unwrap_or(begin);
            match self.recv(need, limit) {
                Ok(()) => {}
                Err(SocketError::Closed) if got == 0 => return Err(ConnectionError::Ended),
                Err(SocketError::Closed) => {
                    return Err(ConnectionError::Truncated { got, need });
                }
                Err(SocketError::TimedOut { after }) if got > 0 => {
                    return Err(ConnectionError::Stalled { got, need, after });
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receive some bytes of a message of `need` bytes.
    fn recv(&mut self, need: usize, limit: &Limit<'_>) -> Result<(), SocketError> {
        self.incoming.make_room(need);
        let Incoming {
            buffer,
            end,
            before,
            descriptors: queue,
            ..
        } = &mut self.incoming;
        let room = buffer.get_mut(*end..).unwrap_or_default();
        let mut descriptors = Descriptors::default();
        let max = self.max_fds;
        let stream = &self.stream;
        let count = self
            .spin
            .poll(|| stream.try_recv(room, &mut descriptors, max))?;
        *end += match count {
            Some(count) => count,
            None => self.stream.recv(room, &mut descriptors, max, limit)?,
        };
        let Descriptors { fds, lost, excess } = &descriptors;
        if !fds.is_empty() || *lost || *excess {
            let at = *before + *end as u64;
            queue.push_back((at, descriptors));
            self.bound_descriptors();
        }
        Ok(())
    }

    /// Closes the descriptors of the message that is still to come in full if there are too many:
    /// a peer that sends its message byte by byte can't fill this process's table.
    fn bound_descriptors(&mut self) {
        let incoming = &mut self.incoming;
        let start = incoming.before + incoming.start as u64;
        // descriptors of a message behind it count once that one is the next
        let end = start.saturating_add(incoming.need() as u64);
        let queue = incoming.descriptors.iter_mut();
        let of_message = queue.filter(|(at, _)| *at > start && *at <= end);
        let mut kept: usize = 0;
        for (_, descriptors) in of_message {
            kept += descriptors.fds.len();
            if kept > self.max_fds {
                descriptors.fds.clear();
                descriptors.excess = true;
            }
        }
    }

    /// Send a message: a header and its payload in one.
    pub fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ConnectionError> {
        Ok(self.stream.send_within(message, fds, self.message_time)?)
    }
}

impl Incoming {
    /// Bytes that have come and belong to no returned message.
    fn len(&self) -> usize {
        self.end - self.start
    }

    /// The next message's header, if all of it is there.
    fn header(&self) -> Option<Header> {
        let bytes = self.buffer.get(self.start..self.end)?;
        bytes.first_chunk().map(Header::decode)
    }

    /// Bytes that the next message has, as far as is known.
    fn need(&self) -> usize {
        self.header()
            .map_or(HEADER_LEN, |header| header.size as usize)
    }

    /// The next message, if all of it is there.
    fn take(&mut self, max: usize) -> Result<Option<Received>, ConnectionError> {
        let Some(header) = self.header() else {
            return Ok(None);
        };
        if let Err(error) = header.check_size(max) {
            return Err(ConnectionError::Misframed { header, error });
        }
        let size = header.size as usize;
        if self.len() < size {
            return Ok(None);
        }
        self.payload = self.start + HEADER_LEN..self.start + size;
        self.start += size;
        let mut descriptors = Descriptors::default();
        let end = self.before + self.start as u64;
        while self.descriptors.front().is_some_and(|(at, _)| *at <= end) {
            let Some((_, more)) = self.descriptors.pop_front() else {
                break;
            };
            descriptors.fds.extend(more.fds);
            descriptors.lost |= more.lost;
            descriptors.excess |= more.excess;
        }
        if descriptors.excess {
            descriptors.fds.clear();
        }
        Ok(Some(Received {
            header,
            descriptors,
        }))
    }

    /// Makes room for the rest of a message of `need` bytes.
    fn make_room(&mut self, need: usize) {
        self.payload = 0..0;
        self.buffer.copy_within(self.start..self.end, 0);
        self.before += self.start as u64;
        self.end -= self.start;
        self.start = 0;
        let wanted = need.max(ROOM);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        } else if self.end == 0 && self.buffer.len() > KEPT {
            self.buffer = vec![0; ROOM];
        }
    }
}
