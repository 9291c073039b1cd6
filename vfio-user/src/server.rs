//! A server of one device, for one client at a time.
//!
//! Each connection has a thread of its own from its acceptance on, so that a client which is
//! silent, refused or malformed delays no other. A request that is malformed gets an error reply,
//! and the connection lives; a connection ends with a line in the log that says why, and, where the
//! client can still read, with an error reply. The device keeps its state and serves the next
//! client. A second client is answered `EBUSY`, and the first does not notice.
//!
//! A request for which the device makes it wait does not keep others waiting; see [`Backend`] for
//! the order.

use std::fmt;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use log::Level;
use varia_spec::errno::Errno;
use varia_sys::event::EventFd;
use varia_sys::socket::{Limit, Listener, SocketError, Stream};

use crate::backend::Backend;
use crate::command::Command;
use crate::command::version::{Capabilities, MAJOR, MINOR, TwinSocket, Version};
use crate::connection::{Connection, ConnectionError, Received};
use crate::conversation::{Conversation, Talk};
use crate::counters::Counters;
use crate::dispatch::Session;
use crate::outgoing::{self, Outgoing};
use crate::place::{Place, Taken};
use crate::reach::Reach;
use crate::report::Reports;
use crate::wire::{HEADER_LEN, Header, Kind, MAX_MSG_FDS, MAX_VERSION_LEN, WireError};

/// Timeouts of a server.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the connection to the end of the VERSION message.
    pub handshake: Duration,
    /// For a message that has begun, in either direction. Between messages a
    /// client may be silent for ever, or for [`idle`](Self::idle).
    pub message: Duration,
    /// Without a message while no request waits: the client is dropped. A client that hangs can't
    /// be told from one that has nothing to say.
    pub idle: Option<Duration>,
    /// For the previous client to be gone when a new client comes, if the previous client's
    /// process has ended or nothing is known of the process. The kernel may close the descriptors
    /// of a killed process some time after its end: with io_uring, which QEMU uses, several
    /// milliseconds.
    pub succession: Duration,
    /// The same for a previous client whose process lives, and which may have closed its
    /// connection just now.
    pub overlap: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            message: Duration::from_secs(5),
            idle: None,
            succession: Duration::from_millis(300),
            overlap: Duration::from_millis(20),
        }
    }
}

/// Pause after a client for which there was no descriptor. A connection that
/// could not be closed is still to be accepted, and the server must not spin.
const SHORTAGE: Duration = Duration::from_millis(100);

/// Connections that have not negotiated at one time. When another comes, the oldest is closed.
const MOST_STRANGERS: usize = 64;

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
    /// The client sent nothing for a long time.
    #[error("the client sent no message for {} s (--idle-timeout)", after.as_secs_f32())]
    Idle {
        /// The time limit.
        after: Duration,
    },
    /// The client's first message was another command.
    #[error("the client's first message was {0} instead of VERSION")]
    NoVersion(Command),
    /// The client's first message was malformed.
    #[error(transparent)]
    BadVersion(WireError),
    /// The client speaks another version.
    #[error("the client speaks protocol version {major}.{minor} and this server {MAJOR}.{MINOR}")]
    WrongVersion {
        /// The client's major version.
        major: u16,
        /// The client's minor version.
        minor: u16,
    },
    /// The client began with a reply.
    #[error("the client began with a reply to {0}, and not with the command VERSION")]
    NotACommand(Command),
    /// Another client is connected.
    #[error("another client is connected, and the device serves one client at a time")]
    Busy,
    /// The device can't be opened for the client.
    #[error("the device can't be opened ({0}): check the device, then connect again")]
    Refused(Errno),
    /// The client has taken back memory that the device was to reach.
    #[error(
        "memory that the client had mapped with DMA_MAP can't be accessed (SIGBUS): the file was \
         truncated, the host has no page left for the memory, or the memory has failed; unmap memory \
         with DMA_UNMAP before the file is truncated, and allocate the file's pages in advance"
    )]
    MemoryLost,
    /// The server was told to stop.
    #[error("the server stops")]
    Stopped,
    /// The client's messages or the socket failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// A device that is offered to clients.
#[derive(Debug)]
pub struct Server<B> {
    backend: B,
    timeouts: Timeouts,
    spin: Duration,
    reports: Reports,
    counters: Arc<Counters>,
}

impl<B: Backend> Server<B> {
    /// Offer `backend`.
    pub fn new(backend: B) -> Self {
        Self::with_timeouts(backend, Timeouts::default())
    }

    /// Offer `backend` with other time limits.
    pub fn with_timeouts(backend: B, timeouts: Timeouts) -> Self {
        Self {
            backend,
            timeouts,
            spin: Duration::ZERO,
            reports: Reports::default(),
            counters: Arc::default(),
        }
    }

    /// The counters of this server.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Poll for this time after a message without sleeping, for shorter answers at the cost of a CPU
    /// while messages come so soon. A server without messages sleeps, and one whose messages come
    /// further apart hardly polls.
    #[must_use]
    pub fn with_spin(self, spin: Duration) -> Self {
        Self { spin, ..self }
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Serve the clients of `listener`, one at a time, until `stop` is
    /// triggered. A client for which there is no descriptor or no thread loses
    /// its connection. An error is one of the listener itself.
    pub fn serve_forever(&self, listener: &Listener, stop: &EventFd) -> Result<(), SocketError> {
        let place = Place::default();
        let served = thread::scope(|scope| {
            // its thread alone owns a connection, so that nothing is left of it when the thread ends
            let mut guests: Vec<Weak<Stream>> = Vec::new();
            let result = loop {
                let stream = match listener.accept(Some(stop), None) {
                    Ok(Some(stream)) => Arc::new(stream),
                    Ok(None) => break Ok(()),
                    Err(e @ SocketError::Exhausted { .. }) => {
                        let line = format_args!("client dropped: {e}");
                        self.reports.log(Level::Error, "descriptors", line);
                        if stopped_in_pause(stop) {
                            break Ok(());
                        }
                        continue;
                    }
                    Err(e) => break Err(e),
                };
                guests.retain(|guest| guest.strong_count() > 0);
                make_way(&guests, &place);
                let (guest, place) = (Arc::downgrade(&stream), &place);
                // a thread that nobody joins leaves no stack behind
                match thread::Builder::new().spawn_scoped(scope, move || self.host(stream, place)) {
                    Ok(_) => guests.push(guest),
                    Err(e) => self.reports.log(
                        Level::Error,
                        "threads",
                        format_args!(
                            "client dropped: its thread can't be started ({e}): raise the limit \
                             of processes or of address space (ulimit -u, -v)"
                        ),
                    ),
                }
            };
            place.stop();
            for stream in guests.iter().filter_map(Weak::upgrade) {
                stream.shutdown();
            }
            result
        });
        self.reports.finish();
        served
    }

    /// Serve one client to its end. `Ok` when it closed the connection between
    /// two messages. The end is in the log in any case.
    pub fn serve_one(&self, stream: Stream) -> Result<(), Disconnect> {
        self.attend(&Arc::new(stream), &Place::default())
    }

    /// Serves a connection to its end, of which a panic of the device's is one: the scope of the
    /// threads would take over the panic of a thread that nobody joins.
    fn host(&self, stream: Arc<Stream>, place: &Place) {
        // what went wrong is in the log already
        let attend = || drop(self.attend(&stream, place));
        if catch_unwind(AssertUnwindSafe(attend)).is_err() {
            stream.shutdown();
            let line =
                format_args!("a client's thread panicked; the device waits for the next client");
            self.reports.log(Level::Error, "panics", line);
        }
    }

    /// Serves a connection to its end.
    fn attend(&self, stream: &Arc<Stream>, place: &Place) -> Result<(), Disconnect> {
        let name = name(stream);
        self.report(Level::Info, "connections", &name, &"connected");
        let first = HEADER_LEN + MAX_VERSION_LEN;
        let mut connection = Connection::new(
            Arc::clone(stream),
            first,
            MAX_MSG_FDS,
            self.timeouts.message,
        );
        let result = self.converse(&mut connection, stream, place, &name);
        let result = match result {
            // whatever the conversation met when the server shut its stream
            _ if place.is_stopped() => Err(Disconnect::Stopped),
            result => result,
        };
        // others may hold the stream as well, as a job that waits for the client's memory
        stream.finish();
        match &result {
            Ok(()) => self.report(
                Level::Info,
                "ended connections",
                &name,
                &"closed its connection",
            ),
            Err(e @ Disconnect::Stopped) => {
                let line = format_args!("disconnected: {e}");
                self.report(Level::Info, "ended connections", &name, &line);
            }
            Err(e @ Disconnect::Busy) => {
                let line = format_args!("refused: {e}");
                self.report(Level::Warn, "refused clients", &name, &line);
            }
            Err(e) => {
                self.counters.dropped();
                let line = format_args!("dropped: {e}; the device waits for the next client");
                self.report(Level::Warn, "dropped clients", &name, &line);
            }
        }
        result
    }

    fn converse(
        &self,
        connection: &mut Connection,
        stream: &Arc<Stream>,
        place: &Place,
        name: &str,
    ) -> Result<(), Disconnect> {
        let header = self.first(connection)?;
        let theirs = match proposal(&header, connection.payload()) {
            Ok(theirs) => theirs,
            Err((errno, end)) => {
                outgoing::refuse(connection, &header, errno);
                return Err(end);
            }
        };
        let _held = match place.take(stream, &self.timeouts) {
            Ok(held) => held,
            Err(taken) => {
                let (errno, end) = match taken {
                    Taken::Busy => (Errno::EBUSY, Disconnect::Busy),
                    Taken::Stopped => (Errno::ENODEV, Disconnect::Stopped),
                };
                outgoing::refuse(connection, &header, errno);
                return Err(end);
            }
        };
        let max_xfer = theirs.max_xfer();
        let (reach, twin) = self.reach(stream, &theirs);
        let session = match Session::new(&self.backend, theirs.max_fds(), reach) {
            Ok(session) => session,
            Err(errno) => {
                outgoing::refuse(connection, &header, errno);
                return Err(Disconnect::Refused(errno));
            }
        };
        let mut out = Outgoing::default();
        let answer = Version {
            major: MAJOR,
            minor: MINOR,
            capabilities: Capabilities {
                twin_socket: twin.as_ref().map(|_| TwinSocket {
                    supported: true,
                    fd_index: Some(0),
                }),
                ..theirs.answer()
            },
        };
        out.encode(|bytes| answer.encode(bytes));
        let fds: Vec<_> = twin.iter().map(AsFd::as_fd).collect();
        connection.send(out.reply(&header), &fds)?;
        drop(twin);
        let _connected = self.counters.client();
        connection.set_max_message((HEADER_LEN + 16 + max_xfer).max(LEAST_MESSAGE));
        connection.set_spin(self.spin);
        let conversation = Conversation {
            connection,
            idle: self.timeouts.idle,
            talk: Talk {
                backend: &self.backend,
                session,
                out,
                max_xfer,
                name,
                reports: &self.reports,
                counters: &self.counters,
            },
        };
        conversation.serve()
    }

    /// The way to the client's memory, and the client's end of a twin socket if the client offers
    /// to use one and there is a descriptor and a thread for it.
    fn reach(&self, stream: &Arc<Stream>, theirs: &Capabilities) -> (Arc<Reach>, Option<Stream>) {
        let (max_xfer, timeout) = (theirs.max_xfer(), self.timeouts.message);
        let offered = theirs.twin_socket.is_some_and(|twin| twin.supported);
        let pair = (offered && theirs.max_fds() > 0).then(Stream::pair);
        if let Some(Ok((ours, client))) = pair {
            let ours = Arc::new(ours);
            let reach = Reach::twin(Arc::clone(&ours), max_xfer, timeout);
            let reach = Arc::new(reach);
            let most = HEADER_LEN + 16 + max_xfer;
            let replies = Connection::new(ours, most, 0, timeout);
            let of_thread = Arc::clone(&reach);
            let thread = thread::Builder::new().name("twin socket".into());
            let receive = move || of_thread.receive_replies(replies);
            if thread.spawn(receive).is_ok() {
                return (reach, Some(client));
            }
        }
        let reach = Reach::new(Arc::clone(stream), max_xfer, timeout);
        (Arc::new(reach), None)
    }

    /// Receives a client's first message.
    fn first(&self, connection: &mut Connection) -> Result<Header, Disconnect> {
        let after = self.timeouts.handshake;
        match connection.receive(&Limit::within(after)) {
            Ok(Received { header, .. }) => Ok(header),
            Err(ConnectionError::Socket(SocketError::TimedOut { .. })) => {
                Err(Disconnect::Silent { after })
            }
            Err(e) => {
                if let ConnectionError::Misframed { header, .. } = &e {
                    outgoing::refuse(connection, header, Errno::EINVAL);
                }
                Err(e.into())
            }
        }
    }

    fn report(&self, level: Level, kind: &'static str, name: &str, line: &dyn fmt::Display) {
        self.reports.log(level, kind, format_args!("{name} {line}"));
    }
}

/// Ends the oldest connections that have not negotiated, as far as there are too many. One that ends
/// already may be among them until its thread has ended.
fn make_way(guests: &[Weak<Stream>], place: &Place) {
    let excess = guests.len().saturating_sub(MOST_STRANGERS);
    let guests = guests.iter().filter_map(Weak::upgrade);
    let strangers = guests.filter(|stream| !place.is_held_by(stream));
    for oldest in strangers.take(excess) {
        oldest.shutdown();
    }
}

/// What a client proposes in its first message; or the error number for the client and the reason
/// why its connection ends.
fn proposal(header: &Header, payload: &[u8]) -> Result<Capabilities, (Errno, Disconnect)> {
    let command = header.command;
    let bad = |error| (Errno::EINVAL, Disconnect::BadVersion(error));
    match header.kind {
        Kind::Command => {}
        Kind::Reply => return Err((Errno::EINVAL, Disconnect::NotACommand(command))),
        Kind::Unknown(kind) => return Err(bad(WireError::BadType(kind))),
    }
    if command != Command::VERSION {
        return Err((Errno::EINVAL, Disconnect::NoVersion(command)));
    }
    let Version {
        major,
        minor,
        capabilities,
    } = Version::decode(payload).map_err(bad)?;
    if major != MAJOR {
        return Err((Errno::EPROTO, Disconnect::WrongVersion { major, minor }));
    }
    Ok(capabilities)
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
