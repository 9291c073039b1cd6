//! A negotiated client's messages, one after another to the end.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use varia_spec::errno::Errno;
use varia_sys::event::EventFd;
use varia_sys::socket::{Descriptors, Limit, SocketError};

use crate::backend::Backend;
use crate::connection::{Connection, ConnectionError, Received};
use crate::dispatch::{Answer, Attempts, Handled, Session};
use crate::request::Request;
use crate::server::Disconnect;
use crate::waiting::{Message, Waiting};
use crate::wire::{Header, Kind};

/// An attempt at a request that takes longer than this is named in the log,
/// because clients give up after a few seconds.
const SLOW: Duration = Duration::from_secs(1);

/// A negotiated client.
pub(crate) struct Conversation<'a, B: Backend> {
    pub(crate) connection: &'a Connection,
    pub(crate) backend: &'a B,
    pub(crate) session: Session<'a, B>,
    /// Bytes of data in one message.
    pub(crate) max_xfer: usize,
    /// The client's name in the log.
    pub(crate) name: &'a str,
    pub(crate) stop: Option<&'a EventFd>,
}

impl<B: Backend> Conversation<'_, B> {
    /// Serves the client until it closes the connection.
    pub(crate) fn serve(mut self) -> Result<(), Disconnect> {
        let mut waiting = Waiting::new();
        let mut payload = Vec::new();
        loop {
            waiting.retry(Instant::now(), |message| self.attempt(message))?;
            let left = waiting.next(Instant::now());
            if waiting.is_full() {
                if self.connection.stream().peer_gone() {
                    return Ok(());
                }
                self.pause(left.unwrap_or_default())?;
                continue;
            }
            let limit = left.map_or(Limit::none(), Limit::within);
            let limit = limit.or_stop(self.stop);
            let Received {
                header,
                descriptors,
            } = match self.connection.receive(&mut payload, &limit, self.stop) {
                Ok(message) => message,
                Err(ConnectionError::Ended) => return Ok(()),
                Err(ConnectionError::Socket(SocketError::TimedOut { .. })) => continue,
                Err(e) => return Err(stopped(e)),
            };
            if header.kind == Kind::Reply {
                return Err(Disconnect::NotACommand(header.command));
            }
            let mut message = Message {
                header,
                payload: std::mem::take(&mut payload),
                descriptors,
                attempts: Attempts::new(self.backend.arrived()),
                due: Instant::now(),
            };
            if !waiting.holds_back() {
                match self.attempt(&mut message)? {
                    Some(time) => message.due += time,
                    None => {
                        payload = message.payload;
                        continue;
                    }
                }
            }
            waiting.push(message);
        }
    }

    /// An attempt at a request, and its reply if it is done. `Some` is how long
    /// the device wants to be left alone before the next attempt.
    fn attempt(&mut self, message: &mut Message<B::Wait>) -> Result<Option<Duration>, Disconnect> {
        let Message {
            header,
            payload,
            descriptors,
            attempts,
            ..
        } = message;
        let Descriptors { fds, lost } = std::mem::take(descriptors);
        let request = Request::decode(header.command, payload, self.max_xfer)?;
        let begin = Instant::now();
        let handled = match lost {
            false => self.session.handle(request, fds, attempts),
            true => {
                let (name, command) = (self.name, header.command);
                log::error!(
                    "{name}: {command} failed: the server has no free descriptor for the \
                     descriptors of the message: raise its limit of open files (ulimit -n)"
                );
                Err(Errno::EMFILE)
            }
        };
        let took = begin.elapsed();
        if took > SLOW {
            let (name, command, took) = (self.name, header.command, took.as_secs_f32());
            log::warn!("{name}: {command} took {took:.1} s; a client may have given up");
        }
        let answer = match handled {
            Ok(Handled::Waits(time)) => return Ok(Some(time)),
            Ok(Handled::Answered(answer)) => Ok(answer),
            Err(errno) => Err(errno),
        };
        reply(self.connection, header, answer, self.stop).map_err(stopped)?;
        Ok(None)
    }

    fn pause(&self, time: Duration) -> Result<(), Disconnect> {
        let Some(stop) = self.stop else {
            std::thread::sleep(time);
            return Ok(());
        };
        match stop.wait(Some(time)) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Disconnect::Stopped),
            Err(source) => {
                let what = "wait for the stop event".into();
                Err(ConnectionError::from(SocketError::Io { what, source }).into())
            }
        }
    }
}

/// Sends the reply that the header asks for.
pub(crate) fn reply(
    connection: &Connection,
    header: &Header,
    answer: Result<Answer, Errno>,
    stop: Option<&EventFd>,
) -> Result<(), ConnectionError> {
    if let Err(e) = &answer {
        log::debug!("{} refused: {e}", header.command);
    }
    if header.no_reply {
        return Ok(());
    }
    match answer {
        Ok(answer) => {
            let fds: Vec<_> = answer.fds.iter().map(AsFd::as_fd).collect();
            let header = header.reply(answer.payload.len());
            connection.send(&header, &answer.payload, &fds, stop)
        }
        Err(e) => {
            let header = header.error_reply(e.get().cast_unsigned());
            connection.send(&header, &[], &[], stop)
        }
    }
}

/// Being told to stop is not a failure of the connection.
pub(crate) fn stopped(error: ConnectionError) -> Disconnect {
    match error {
        ConnectionError::Socket(SocketError::Stopped) => Disconnect::Stopped,
        other => other.into(),
    }
}
