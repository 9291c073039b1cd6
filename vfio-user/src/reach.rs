//! Reading and writing a client's memory through the client: DMA_READ and DMA_WRITE.
//!
//! The commands go over the twin socket if it was negotiated, else over the client's one socket,
//! where replies come between the client's own commands. No reply to a client waits for the
//! client: a thread of its own, which is started at the first job, does the waiting. One command
//! is on its way at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use varia_spec::errno::Errno;
use varia_sys::socket::{Limit, Stream};

use crate::command::{Command, Counting, DmaAccess, TELLING_COUNT};
use crate::connection::Connection;
use crate::wire::{HEADER_LEN, Header, Kind};

/// Work that may wait for the client.
pub type Job = Box<dyn FnOnce() + Send>;

/// Way to a client's memory.
#[derive(Debug)]
pub struct Reach {
    stream: Arc<Stream>,
    /// The stream is for these commands alone.
    is_twin: bool,
    /// Bytes of data in one message.
    max_xfer: usize,
    /// Timeout for the client to reply.
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    id: u16,
    sent: Option<Sent>,
    counting: Option<Counting>,
    jobs: VecDeque<Job>,
    has_thread: bool,
    is_closed: bool,
}

/// A command that the client has to reply to.
struct Sent {
    id: u16,
    command: Command,
    /// The reply, once it has come.
    reply: Option<Result<Vec<u8>, Errno>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("counting", &self.counting)
            .field("jobs", &self.jobs.len())
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

impl Reach {
    /// A way over the client's one socket.
    pub(crate) fn new(stream: Arc<Stream>, max_xfer: usize, timeout: Duration) -> Self {
        Self {
            stream,
            is_twin: false,
            max_xfer,
            timeout,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A way over a twin socket, whose clients count as the specification says.
    pub(crate) fn twin(stream: Arc<Stream>, max_xfer: usize, timeout: Duration) -> Self {
        let state = State {
            counting: Some(Counting::Wide),
            ..State::default()
        };
        Self {
            is_twin: true,
            state: Mutex::new(state),
            ..Self::new(stream, max_xfer, timeout)
        }
    }

    /// Reads the client's memory. `cancelled` is asked while this waits.
    ///
    /// # Errors
    /// `EINTR` once `cancelled` is true, `EIO` if the client has gone, replies wrongly or not in
    /// time; the client's error.
    pub fn read(
        &self,
        addr: u64,
        data: &mut [u8],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Errno> {
        let counting = self.counting(addr, cancelled)?;
        let mut addr = addr;
        for part in data.chunks_mut(self.max_xfer) {
            let access = DmaAccess {
                addr,
                count: part.len() as u64,
            };
            let reply = self.exchange(Command::DMA_READ, counting, access, &[], cancelled)?;
            let (answer, bytes) = DmaAccess::decode(counting, &reply).map_err(|_| Errno::EIO)?;
            let bytes = bytes.get(..part.len()).filter(|_| answer == access);
            part.copy_from_slice(bytes.ok_or(Errno::EIO)?);
            addr = addr.wrapping_add(part.len() as u64);
        }
        Ok(())
    }

    /// Writes the client's memory.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, addr: u64, data: &[u8], cancelled: &dyn Fn() -> bool) -> Result<(), Errno> {
        let counting = self.counting(addr, cancelled)?;
        let mut addr = addr;
        for part in data.chunks(self.max_xfer) {
            let access = DmaAccess {
                addr,
                count: part.len() as u64,
            };
            self.exchange(Command::DMA_WRITE, counting, access, part, cancelled)?;
            addr = addr.wrapping_add(part.len() as u64);
        }
        Ok(())
    }

    /// Makes reads and writes that wait ask `cancelled` again.
    pub fn wake(&self) {
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// Runs a job on the client's thread, behind those that came before.
    ///
    /// # Errors
    /// `ENODEV` if the client has gone, `EAGAIN` if the thread can't be started.
    pub fn run(self: &Arc<Self>, job: Job) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Errno::ENODEV);
        }
        if !state.has_thread {
            let reach = Arc::clone(self);
            let thread = thread::Builder::new().name("client memory".into());
            let started = thread.spawn(move || reach.work());
            started.map_err(|_| Errno::EAGAIN)?;
            state.has_thread = true;
        }
        state.jobs.push_back(job);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes a reply that came on the socket; `false` if it answers no command.
    pub(crate) fn take_reply(&self, header: &Header, payload: &[u8]) -> bool {
        let mut state = self.lock();
        let expected = |sent: &&mut Sent| {
            sent.reply.is_none() && (sent.id, sent.command) == (header.id, header.command)
        };
        let Some(sent) = state.sent.as_mut().filter(expected) else {
            return false;
        };
        let errno = |error| i32::try_from(error).ok().and_then(Errno::new);
        sent.reply = Some(match header.error {
            Some(error) => Err(errno(error).unwrap_or(Errno::EIO)),
            None => Ok(payload.to_vec()),
        });
        self.changed.notify_all();
        true
    }

    /// Receives the replies of a twin socket, until it is closed.
    pub(crate) fn receive_replies(&self, mut connection: Connection) {
        while let Ok(received) = connection.receive(&Limit::none()) {
            let is_reply = received.header.kind == Kind::Reply;
            if !is_reply || !self.take_reply(&received.header, connection.payload()) {
                break;
            }
        }
        self.close();
    }

    /// The client goes: what waits for it fails, and its thread ends.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.jobs.clear();
        if self.is_twin {
            self.stream.shutdown();
        }
        self.changed.notify_all();
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            match state.jobs.pop_front() {
                Some(job) => {
                    drop(state);
                    job();
                    state = self.lock();
                }
                None => state = self.wait(state, None),
            }
        }
    }

    /// The form of the count that the client uses. The question has no effect: the client refuses a
    /// read of 4 GiB, or takes it for a read of nothing.
    fn counting(&self, addr: u64, cancelled: &dyn Fn() -> bool) -> Result<Counting, Errno> {
        if let Some(counting) = self.lock().counting {
            return Ok(counting);
        }
        let access = DmaAccess {
            addr,
            count: TELLING_COUNT,
        };
        let command = Command::DMA_READ;
        let counting = match self.exchange(command, Counting::Wide, access, &[], cancelled) {
            Ok(_) => Counting::Narrow,
            Err(errno @ (Errno::EINTR | Errno::EIO)) => return Err(errno),
            Err(_) => Counting::Wide,
        };
        self.lock().counting = Some(counting);
        Ok(counting)
    }

    /// Sends a command and waits for its reply.
    fn exchange(
        &self,
        command: Command,
        counting: Counting,
        access: DmaAccess,
        data: &[u8],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Errno> {
        let mut message = vec![0; HEADER_LEN];
        access.encode(counting, data, &mut message);
        let deadline = Instant::now() + self.timeout;
        let mut state = self.lock();
        // an earlier command may have been cancelled: its reply is still to come
        let id = loop {
            match self.refusal(&state, deadline, cancelled) {
                Some(errno) => return Err(errno),
                None if state.sent.as_ref().is_some_and(|sent| sent.reply.is_none()) => {
                    state = self.wait(state, Some(deadline));
                }
                None => break state.id.wrapping_add(1),
            }
        };
        state.id = id;
        state.sent = Some(Sent {
            id,
            command,
            reply: None,
        });
        drop(state);
        let header = Header::command(id, command, message.len() - HEADER_LEN);
        if let Some(start) = message.first_chunk_mut() {
            *start = header.encode();
        }
        let sent = self.stream.send_within(&message, &[], self.timeout);
        if sent.is_err() {
            // a part of the command may have been sent: no message can follow it
            self.stream.shutdown();
            self.close();
            return Err(Errno::EIO);
        }
        let mut state = self.lock();
        loop {
            let reply = state.sent.as_mut().and_then(|sent| sent.reply.take());
            if let Some(reply) = reply {
                state.sent = None;
                return reply;
            }
            if let Some(errno) = self.refusal(&state, deadline, cancelled) {
                return Err(errno);
            }
            state = self.wait(state, Some(deadline));
        }
    }

    /// Reason to wait no longer.
    fn refusal(
        &self,
        state: &State,
        deadline: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Errno> {
        if state.is_closed || Instant::now() >= deadline {
            return Some(Errno::EIO);
        }
        cancelled().then_some(Errno::EINTR)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        match deadline {
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use varia_sys::socket::{Descriptors, SocketError};

    use super::*;

    #[test]
    fn a_command_that_is_sent_in_part_ends_the_connection_in_either_mode() {
        type Make = fn(Arc<Stream>, usize, Duration) -> Reach;
        for make in [Reach::new as Make, Reach::twin] {
            let (server, client) = Stream::pair().unwrap();
            // more than the socket's buffer holds, and the client takes nothing
            let data = vec![7; 4 << 20];
            let reach = make(Arc::new(server), data.len(), Duration::from_millis(20));
            reach.lock().counting = Some(Counting::Wide);
            assert_eq!(reach.write(0, &data, &|| false), Err(Errno::EIO));
            let mut taken = 0;
            let mut buffer = vec![0; 1 << 20];
            let end = loop {
                let mut descriptors = Descriptors::default();
                match client.recv(&mut buffer, &mut descriptors, 0, &Limit::none()) {
                    Ok(count) => taken += count,
                    Err(error) => break error,
                }
            };
            assert!(matches!(end, SocketError::Closed), "{end}");
            assert!(taken > 0 && taken < data.len(), "{taken}");
        }
    }
}
