//! A server of one device, for one client at a time.
//!
//! A client that breaks the protocol loses its connection, with a line in the
//! log that says why; the device keeps its state and serves the next. A second
//! client is answered `EBUSY` and closed, and the first does not notice.
//!
//! Each client has a thread of its own, on which the backend's methods run. A
//! request for which the device makes it wait does not keep others waiting; see
//! [`Backend`] for the order.

use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use varia_spec::errno::Errno;
use varia_sys::event::EventFd;
use varia_sys::socket::{Limit, Listener, SocketError, Stream};

use crate::backend::Backend;
use crate::connection::{Connection, ConnectionError, Received};
use crate::conversation::{Conversation, reply, stopped};
use crate::dispatch::{Answer, Session};
use crate::version::{Capabilities, MAJOR, MINOR, Version};
use crate::wire::{Command, HEADER_LEN, Kind, MAX_MSG_FDS, MAX_VERSION_LEN, WireError};

/// Timeouts of a server.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the connection to the end of the VERSION message.
    pub handshake: Duration,
    /// For a message that has begun, in either direction. Between messages a
    /// client may be silent for ever.
    pub message: Duration,
    /// For a second client's VERSION message, before it is turned away.
    pub refusal: Duration,
    /// For the previous client to be gone when a new client comes, before the new
    /// client is refused. The kernel may close the descriptors of a killed
    /// process some time after its end: with io_uring, which QEMU uses, several
    /// milliseconds.
    pub succession: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            message: Duration::from_secs(5),
            refusal: Duration::from_millis(500),
            succession: Duration::from_millis(300),
        }
    }
}

/// Pause after a client for which there was no descriptor. A connection that
/// could not be closed is still to be accepted, and the server must not spin.
const SHORTAGE: Duration = Duration::from_millis(100);

/// Interval between two polls of a client that may be gone.
const POLL: Duration = Duration::from_millis(2);

/// Room for the messages whose length does not depend on `max_data_xfer_size`:
/// 200 coalesced writes, the booleans of 2048 interrupts.
const LEAST_MESSAGE: usize = 8192;

/// Reason why a client lost its connection.
#[derive(Debug, thiserror::Error)]
pub enum Disconnect {
    /// The client sent nothing, or did not finish its first message.
    #[error("the client sent no complete VERSION message within {} s", after.as_secs_f32())]
    Silent {
        /// The time limit.
        after: Duration,
    },
    /// The client's first message was another command.
    #[error("the client's first message was {0} instead of VERSION")]
    NoVersion(Command),
    /// The client speaks another version.
    #[error("the client speaks protocol version {major}.{minor} and this server {MAJOR}.{MINOR}")]
    WrongVersion {
        /// The client's major version.
        major: u16,
        /// The client's minor version.
        minor: u16,
    },
    /// The client replied to a command that this server never sent.
    #[error("the client sent a reply to {0}, and this server sends no commands")]
    NotACommand(Command),
    /// The device can't be opened for the client.
    #[error("the device can't be opened ({0}): check the device, then connect again")]
    Refused(Errno),
    /// The server was told to stop.
    #[error("the server stops")]
    Stopped,
    /// The client's messages or the socket failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl From<WireError> for Disconnect {
    fn from(error: WireError) -> Self {
        Self::Connection(error.into())
    }
}

/// A device that is offered to clients.
#[derive(Debug)]
pub struct Server<B> {
    backend: B,
    timeouts: Timeouts,
}

impl<B: Backend> Server<B> {
    /// Offer `backend`.
    pub fn new(backend: B) -> Self {
        Self::with_timeouts(backend, Timeouts::default())
    }

    /// Offer `backend` with other time limits.
    pub fn with_timeouts(backend: B, timeouts: Timeouts) -> Self {
        Self { backend, timeouts }
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Serve the clients of `listener`, one at a time, until `stop` is
    /// triggered. A client for which there is no descriptor or no thread loses
    /// its connection. An error is one of the listener itself.
    pub fn serve_forever(&self, listener: &Listener, stop: &EventFd) -> Result<(), SocketError> {
        thread::scope(|scope| {
            let mut active: Option<(ScopedJoinHandle<'_, ()>, Stream)> = None;
            let mut short = false;
            loop {
                let stream = match listener.accept(Some(stop), None) {
                    Ok(Some(stream)) => stream,
                    Ok(None) => break,
                    Err(e @ SocketError::Exhausted { .. }) => {
                        // in the log once, not for each client of one shortage
                        if !short {
                            log::error!("client dropped: {e}");
                        }
                        short = true;
                        if stopped_in_pause(stop) {
                            break;
                        }
                        continue;
                    }
                    Err(e) => return Err(e),
                };
                short = false;
                // A client that was killed may be replaced before its thread
                // has seen the end of its stream.
                if let Some((thread, old)) = active.take() {
                    let gone = || thread.is_finished() || old.peer_gone();
                    if !self.soon(stop, gone) {
                        self.refuse(stream, stop);
                        active = Some((thread, old));
                        continue;
                    }
                    join(thread);
                }
                let handle = match stream.try_clone() {
                    Ok(handle) => handle,
                    Err(e) => {
                        log::error!("client dropped: {e}");
                        continue;
                    }
                };
                let serve = move || {
                    // what went wrong is in the log already
                    let _ = self.serve_one(stream, Some(stop));
                };
                match thread::Builder::new().spawn_scoped(scope, serve) {
                    Ok(thread) => active = Some((thread, handle)),
                    Err(e) => log::error!(
                        "client dropped: its thread can't be started ({e}): raise the limit of \
                         processes or of address space (ulimit -u, -v)"
                    ),
                }
            }
            if let Some((thread, _)) = active {
                join(thread);
            }
            Ok(())
        })
    }

    /// Serve one client to its end. `Ok` when it closed the connection between
    /// two messages. The end is in the log in any case.
    pub fn serve_one(&self, stream: Stream, stop: Option<&EventFd>) -> Result<(), Disconnect> {
        let name = name(&stream);
        log::info!("{name} connected");
        let first = HEADER_LEN + MAX_VERSION_LEN;
        let mut connection = Connection::new(stream, first, MAX_MSG_FDS, self.timeouts.message);
        let result = self.converse(&mut connection, stop, &name);
        // serve_forever holds the stream as well, so dropping it does not end it
        connection.stream().shutdown();
        match &result {
            Ok(()) => log::info!("{name} closed its connection"),
            Err(Disconnect::Stopped) => log::info!("{name} disconnected: the server stops"),
            Err(e) => log::warn!("{name} dropped: {e}; the device waits for the next client"),
        }
        result
    }

    fn converse(
        &self,
        connection: &mut Connection,
        stop: Option<&EventFd>,
        name: &str,
    ) -> Result<(), Disconnect> {
        let (client, session) = self.negotiate(connection, stop)?;
        let max_xfer = client.max_xfer();
        connection.set_max_message((HEADER_LEN + 16 + max_xfer).max(LEAST_MESSAGE));
        let conversation = Conversation {
            connection,
            backend: &self.backend,
            session,
            max_xfer,
            name,
            stop,
        };
        conversation.serve()
    }

    /// The first message and its answer; what the client can do.
    fn negotiate(
        &self,
        connection: &Connection,
        stop: Option<&EventFd>,
    ) -> Result<(Capabilities, Session<'_, B>), Disconnect> {
        let mut payload = Vec::new();
        let after = self.timeouts.handshake;
        let limit = Limit::within(after).or_stop(stop);
        let Received { header, .. } = match connection.receive(&mut payload, &limit, stop) {
            Ok(message) => message,
            Err(ConnectionError::Socket(SocketError::TimedOut { .. })) => {
                return Err(Disconnect::Silent { after });
            }
            Err(e) => return Err(stopped(e)),
        };
        if header.kind == Kind::Reply {
            return Err(Disconnect::NotACommand(header.command));
        }
        if header.command != Command::VERSION {
            return Err(Disconnect::NoVersion(header.command));
        }
        let theirs = Version::decode(&payload)?;
        if theirs.major != MAJOR {
            let Version { major, minor, .. } = theirs;
            // the connection ends anyway, so a failure to say why does not matter
            let _ = reply(connection, &header, Err(Errno::EPROTO), stop);
            return Err(Disconnect::WrongVersion { major, minor });
        }
        let session = match Session::new(&self.backend, theirs.capabilities.max_fds()) {
            Ok(session) => session,
            Err(errno) => {
                // as above
                let _ = reply(connection, &header, Err(errno), stop);
                return Err(Disconnect::Refused(errno));
            }
        };
        let mut answer = Answer::default();
        Version {
            major: MAJOR,
            minor: MINOR,
            capabilities: theirs.capabilities.answer(),
        }
        .encode(&mut answer.payload);
        reply(connection, &header, Ok(answer), stop).map_err(stopped)?;
        Ok((theirs.capabilities, session))
    }

    /// Polls until `done` returns true, for as long as a new client may have to
    /// wait for the previous client to be gone.
    fn soon(&self, stop: &EventFd, done: impl Fn() -> bool) -> bool {
        let begin = Instant::now();
        loop {
            if done() {
                return true;
            }
            // an error of the wait must not make this a busy loop
            if begin.elapsed() >= self.timeouts.succession || stop.wait(Some(POLL)).unwrap_or(true)
            {
                return false;
            }
        }
    }

    /// Tell a second client that the device is taken.
    fn refuse(&self, stream: Stream, stop: &EventFd) {
        let name = name(&stream);
        log::warn!(
            "{name} refused: another client is connected, and the device serves one client at a \
             time"
        );
        let first = HEADER_LEN + MAX_VERSION_LEN;
        let connection = Connection::new(stream, first, MAX_MSG_FDS, self.timeouts.refusal);
        let limit = Limit::within(self.timeouts.refusal).or_stop(Some(stop));
        if let Ok(message) = connection.receive(&mut Vec::new(), &limit, Some(stop)) {
            // it is closed in any case
            let _ = reply(&connection, &message.header, Err(Errno::EBUSY), Some(stop));
        }
    }
}

/// Lets [`SHORTAGE`] pass; `true` if the server was told to stop meanwhile.
fn stopped_in_pause(stop: &EventFd) -> bool {
    stop.wait(Some(SHORTAGE)).unwrap_or_else(|_| {
        // the shortage may be one that `poll` meets too: the server must neither end nor spin
        thread::sleep(SHORTAGE);
        false
    })
}

fn name(stream: &Stream) -> String {
    match stream.peer() {
        Ok(peer) => format!("client (pid {}, uid {})", peer.pid, peer.uid),
        Err(_) => "client".into(),
    }
}

fn join(thread: ScopedJoinHandle<'_, ()>) {
    if thread.join().is_err() {
        log::error!("a client's thread panicked; the device waits for the next client");
    }
}
