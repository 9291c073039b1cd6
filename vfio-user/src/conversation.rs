//! A negotiated client's messages, one after another to the end.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use log::Level;
use varia_spec::errno::Errno;
use varia_sys::socket::{Descriptors, Limit, SocketError};

use crate::backend::Backend;
use crate::command::Request;
use crate::connection::{Connection, ConnectionError, Received};
use crate::counters::Counters;
use crate::dispatch::{Attempts, Handled, Session};
use crate::outgoing::{self, Outgoing};
use crate::report::Reports;
use crate::server::Disconnect;
use crate::waiting::{Message, Waiting};
use crate::wire::{Header, Kind, MAX_MSG_FDS, WireError};

/// An attempt at a request that takes longer than this is named in the log,
/// because clients give up after a few seconds.
const SLOW: Duration = Duration::from_secs(1);

/// A negotiated client.
pub(crate) struct Conversation<'a, B: Backend> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) talk: Talk<'a, B>,
    /// Time without a message after which the client is dropped.
    pub(crate) idle: Option<Duration>,
}

/// The part of a conversation that handles a message.
pub(crate) struct Talk<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) session: Session<'a, B>,
    pub(crate) out: Outgoing,
    /// Bytes of data in one message.
    pub(crate) max_xfer: usize,
    /// The client's name in the log.
    pub(crate) name: &'a str,
    pub(crate) reports: &'a Reports,
    pub(crate) counters: &'a Counters,
}

impl<B: Backend> Conversation<'_, B> {
    /// Serves the client until it closes the connection.
    pub(crate) fn serve(mut self) -> Result<(), Disconnect> {
        let mut waiting = Waiting::new();
        let mut heard = Instant::now();
        loop {
            let mut left = None;
            if !waiting.is_empty() {
                let now = Instant::now();
                waiting.retry(now, |message| self.talk.retry(self.connection, message))?;
                // neither the work for a request nor its wait is silence of the client
                heard = Instant::now();
                left = waiting.next(now);
                if waiting.is_full() {
                    if self.connection.stream().peer_gone() {
                        return Ok(());
                    }
                    std::thread::sleep(left.unwrap_or_default());
                    continue;
                }
            }
            let silence = self.idle.filter(|_| left.is_none());
            let silence = silence.map(|idle| idle.saturating_sub(heard.elapsed()));
            let limit = left.or(silence).map_or(Limit::none(), Limit::within);
            let received = match self.connection.receive(&limit) {
                Ok(message) => message,
                Err(ConnectionError::Ended) => return Ok(()),
                Err(ConnectionError::Socket(SocketError::TimedOut { .. })) => {
                    match (silence, self.idle) {
                        (Some(_), Some(after)) => return Err(Disconnect::Idle { after }),
                        _ => continue,
                    }
                }
                Err(e) => {
                    if let ConnectionError::Misframed { header, .. } = &e {
                        outgoing::refuse(self.connection, header, Errno::EINVAL);
                    }
                    return Err(e.into());
                }
            };
            if let Some(message) = self.talk.handle(self.connection, received, &waiting)? {
                waiting.push(message);
            }
            if self.idle.is_some() {
                heard = Instant::now();
            }
        }
    }
}

impl<B: Backend> Talk<'_, B> {
    /// Handles the message that `connection` has received. Returns the message if it waits.
    fn handle(
        &mut self,
        connection: &Connection,
        received: Received,
        waiting: &Waiting<B::Wait>,
    ) -> Result<Option<Message<B::Wait>>, Disconnect> {
        let Received {
            header,
            descriptors,
        } = received;
        self.counters.received(header.size as usize);
        match header.kind {
            Kind::Command => {}
            Kind::Reply if self.session.reach.take_reply(&header, connection.payload()) => {
                return Ok(None);
            }
            Kind::Reply => {
                // there is nothing to reply to a reply
                self.malformed(
                    &header,
                    &"a reply, and this server has sent no such command",
                );
                return Ok(None);
            }
            Kind::Unknown(kind) => {
                self.malformed(&header, &WireError::BadType(kind));
                self.reply(connection, &header, Err(Errno::EINVAL))?;
                return Ok(None);
            }
        }
        let payload = connection.payload();
        let arrived = Instant::now();
        let mut message = Message {
            header,
            payload: Vec::new(),
            descriptors,
            attempts: Attempts::new(self.backend.arrived()),
            arrived,
            due: arrived,
        };
        if waiting.holds_back() {
            message.payload = payload.to_vec();
            return Ok(Some(message));
        }
        if let Some(time) = self.attempt(connection, payload, &mut message, arrived)? {
            message.due += time;
            message.payload = payload.to_vec();
            return Ok(Some(message));
        }
        Ok(None)
    }

    /// Another attempt at a message that waits.
    fn retry(
        &mut self,
        connection: &Connection,
        message: &mut Message<B::Wait>,
    ) -> Result<Option<Duration>, Disconnect> {
        let payload = std::mem::take(&mut message.payload);
        let due = self.attempt(connection, &payload, message, Instant::now());
        message.payload = payload;
        due
    }

    /// An attempt at a request, which begins now, and its reply if it is done. `Some` is how long
    /// the device wants to be left alone before the next attempt.
    fn attempt(
        &mut self,
        connection: &Connection,
        payload: &[u8],
        message: &mut Message<B::Wait>,
        now: Instant,
    ) -> Result<Option<Duration>, Disconnect> {
        let header = &message.header;
        let Descriptors { fds, lost, excess } = std::mem::take(&mut message.descriptors);
        let command = header.command;
        let request = match Request::decode(command, payload, self.max_xfer) {
            Ok(request) => request,
            Err(error) => {
                self.malformed(header, &error);
                self.counters.message(command, Duration::ZERO, true);
                self.reply(connection, header, Err(Errno::EINVAL))?;
                return Ok(None);
            }
        };
        self.out.clear();
        let handled = if excess {
            let max = MAX_MSG_FDS;
            self.malformed(
                header,
                &format_args!("a message with more than {max} descriptors"),
            );
            Err(Errno::EINVAL)
        } else if lost {
            let name = self.name;
            self.reports.log(
                Level::Error,
                "lost descriptors",
                format_args!(
                    "{name}: {command} failed: the server has no free descriptor for the \
                     descriptors of the message: raise its limit of open files (ulimit -n)"
                ),
            );
            Err(Errno::EMFILE)
        } else {
            self.session
                .handle(&request, fds, &mut message.attempts, &mut self.out)
        };
        let end = Instant::now();
        let took = end.saturating_duration_since(now);
        if took > SLOW {
            let (name, took) = (self.name, took.as_secs_f32());
            self.reports.log(
                Level::Warn,
                "slow requests",
                format_args!("{name}: {command} took {took:.1} s; a client may have given up"),
            );
        }
        let result = match handled {
            Ok(Handled::Waits(time)) => return Ok(Some(time)),
            Ok(Handled::Answered(fds)) => Ok(fds),
            Err(errno) => Err(errno),
        };
        let took = end.saturating_duration_since(message.arrived);
        self.counters.message(command, took, result.is_err());
        self.reply(connection, &message.header, result)?;
        if self.backend.memory_is_lost() {
            return Err(Disconnect::MemoryLost);
        }
        Ok(None)
    }

    /// Sends the reply that the header asks for.
    fn reply(
        &mut self,
        connection: &Connection,
        header: &Header,
        result: Result<Vec<OwnedFd>, Errno>,
    ) -> Result<(), ConnectionError> {
        if let Err(e) = &result {
            log::debug!("{} refused: {e}", header.command);
        }
        if header.no_reply {
            return Ok(());
        }
        match result {
            Ok(fds) => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                let reply = self.out.reply(header);
                self.counters.sent(reply.len());
                connection.send(reply, &fds)
            }
            Err(e) => {
                let reply = outgoing::error(header, e);
                self.counters.sent(reply.len());
                connection.send(&reply, &[])
            }
        }
    }

    /// Tells of a message that is refused for its form.
    fn malformed(&self, header: &Header, fault: &dyn Display) {
        let (name, command) = (self.name, header.command);
        self.reports.log(
            Level::Warn,
            "malformed messages",
            format_args!("{name}: {command} refused: {fault}"),
        );
    }
}
