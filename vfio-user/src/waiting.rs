//! Requests that wait for the device while the connection serves others.
//!
//! A request that waits for its reply lets others pass: its client knows that
//! the request is not done. A posted write has no reply, so what comes behind one waits
//! behind it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use varia_sys::socket::Descriptors;

use crate::dispatch::Attempts;
use crate::wire::Header;

/// Maximum number of requests that wait. While that many wait, no message is
/// received, so that a client can't fill the server's memory.
const MOST: usize = 64;

/// A message without a reply yet.
#[derive(Debug)]
pub(crate) struct Message<W> {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: Descriptors,
    pub(crate) attempts: Attempts<W>,
    /// Time of the arrival.
    pub(crate) arrived: Instant,
    /// Time of the next attempt.
    pub(crate) due: Instant,
}

/// The messages that wait, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Waiting<W> {
    messages: VecDeque<Message<W>>,
}

impl<W> Waiting<W> {
    pub(crate) fn new() -> Self {
        Self {
            messages: VecDeque::new(),
        }
    }

    /// No message waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// No more messages may wait.
    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= MOST
    }

    /// A message that comes now has to keep its order.
    pub(crate) fn holds_back(&self) -> bool {
        self.messages.iter().any(|m| m.header.no_reply)
    }

    pub(crate) fn push(&mut self, message: Message<W>) {
        self.messages.push_back(message);
    }

    /// Time until a message is due; `None` if no message waits.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let mut earliest = None;
        for message in &self.messages {
            let left = message.due.saturating_duration_since(now);
            earliest = Some(earliest.map_or(left, |e: Duration| e.min(left)));
            if message.header.no_reply {
                break;
            }
        }
        earliest
    }

    /// Gives the messages that are due to `attempt`, which says when the next
    /// attempt is due, or `None` if the reply has been sent.
    pub(crate) fn retry<E>(
        &mut self,
        now: Instant,
        mut attempt: impl FnMut(&mut Message<W>) -> Result<Option<Duration>, E>,
    ) -> Result<(), E> {
        let mut held_back = false;
        for mut message in std::mem::take(&mut self.messages) {
            if !held_back && message.due <= now {
                match attempt(&mut message)? {
                    None => continue,
                    Some(time) => message.due = now + time,
                }
            }
            held_back |= message.header.no_reply;
            self.messages.push_back(message);
        }
        Ok(())
    }
}
