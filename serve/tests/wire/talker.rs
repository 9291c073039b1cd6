//! A client that keeps no rules: messages as they are told, and answers of any kind to the device's
//! DMA.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use varia_spec::copy_engine::{OFFSET, register, status};
use varia_spec::errno::Errno;
use varia_sys::socket::{Descriptors, Limit, Stream};
use varia_vfio_user::command::version::{Capabilities, TwinSocket, Version};
use varia_vfio_user::command::{Command, Counting, DmaAccess};
use varia_vfio_user::wire::{HEADER_LEN, Header, Kind};

use super::{CONFIG, FOREVER, Seen};

/// Reads in which a device without a register for it may do its DMA.
const ROUNDS: u32 = 32;
/// Most bytes of an answer to DMA_READ.
const LONGEST: u64 = 1 << 20;

/// A socket with what has come on it.
struct End {
    stream: Stream,
    bytes: Vec<u8>,
    /// Commands of the server without an answer.
    commands: VecDeque<(Header, DmaAccess)>,
}

pub(crate) struct Talker {
    main: End,
    twin: Option<End>,
    next_id: u16,
    /// Id of the last reply, and its payload.
    replied: Option<u16>,
    last: Vec<u8>,
    /// True as long as each byte was part of a whole message.
    is_framed: bool,
    is_ended: bool,
}

impl End {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            commands: VecDeque::new(),
        }
    }

    /// Takes what has come, with the stream of a twin socket if one came; `None` at the end.
    fn receive(&mut self) -> Option<Option<Stream>> {
        let mut descriptors = Descriptors::default();
        let mut buffer = [0; 4096];
        loop {
            match self.stream.try_recv(&mut buffer, &mut descriptors, 16) {
                Ok(Some(count)) => self.bytes.extend(buffer.get(..count)?),
                Ok(None) => return Some(descriptors.fds.pop().map(Stream::from)),
                Err(_) => return None,
            }
        }
    }

    /// The next message, if all of it is there.
    fn message(&mut self) -> Option<(Header, Vec<u8>)> {
        let header = Header::decode(self.bytes.first_chunk()?);
        let size = header.size as usize;
        assert!(size >= HEADER_LEN, "a message of the server: {header:?}");
        if self.bytes.len() < size {
            return None;
        }
        let mut message: Vec<_> = self.bytes.drain(..size).collect();
        Some((header, message.split_off(HEADER_LEN)))
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        // the server may have ended the connection, which the next receive tells
        let _ = self.stream.send(bytes, fds, &Limit::within(FOREVER));
    }

    /// Answers a command as a client should, with `bytes` over and over; refuses one that asks for
    /// the form of the count.
    fn answer(&self, (header, access): &(Header, DmaAccess), bytes: &[u8]) {
        let is_read = header.command == Command::DMA_READ;
        if access.count > LONGEST {
            return self.send(
                &header.error_reply(Errno::EINVAL.get() as u32).encode(),
                &[],
            );
        }
        let mut payload = Vec::new();
        access.encode(Counting::Wide, &[], &mut payload);
        if is_read {
            payload.extend(bytes.iter().cycle().take(access.count as usize));
        }
        let reply = header.reply(payload.len()).encode();
        self.send(&[&reply[..], &payload].concat(), &[]);
    }
}

impl Talker {
    /// Connects and proposes a version.
    pub(crate) fn connect(socket: &Path, with_twin: bool) -> Self {
        let stream = Stream::connect(socket).expect("the server listens");
        let mut talker = Self {
            main: End::new(stream),
            twin: None,
            next_id: 0,
            replied: None,
            last: Vec::new(),
            is_framed: true,
            is_ended: false,
        };
        let twin_socket = with_twin.then_some(TwinSocket {
            supported: true,
            fd_index: None,
        });
        let version = Version {
            major: 0,
            minor: 0,
            capabilities: Capabilities {
                twin_socket,
                ..Capabilities::ours()
            },
        };
        let mut payload = Vec::new();
        version.encode(&mut payload);
        talker.command(Command::VERSION, &payload, &[], false);
        talker
    }

    pub(crate) fn command(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        posted: bool,
    ) {
        self.next_id = self.next_id.wrapping_add(1);
        let mut header = Header::command(self.next_id, command, payload.len());
        header.no_reply = posted;
        self.main
            .send(&[&header.encode()[..], payload].concat(), fds);
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.is_framed = false;
        self.main.send(bytes, &[]);
    }

    /// Answers the oldest command of the device.
    pub(crate) fn answer(&mut self, bytes: &[u8], seen: &mut Seen) {
        self.await_command(seen);
        for end in self.ends() {
            if let Some(command) = end.commands.pop_front() {
                end.answer(&command, bytes);
            }
        }
    }

    /// Answers the oldest command with any payload, or to another id.
    pub(crate) fn answer_badly(&mut self, other_id: bool, payload: &[u8], seen: &mut Seen) {
        self.await_command(seen);
        for end in self.ends() {
            if let Some((mut header, _)) = end.commands.pop_front() {
                header.id = header.id.wrapping_add(u16::from(other_id));
                let reply = header.reply(payload.len()).encode();
                end.send(&[&reply[..], payload].concat(), &[]);
            }
        }
    }

    fn ends(&mut self) -> impl Iterator<Item = &mut End> {
        std::iter::once(&mut self.main).chain(&mut self.twin)
    }

    /// Takes what the server has sent; `false` once the server has ended the connection.
    pub(crate) fn drain(&mut self, seen: &mut Seen) -> bool {
        match self.main.receive() {
            Some(Some(stream)) if self.twin.is_none() => {
                seen.twins += 1;
                self.twin = Some(End::new(stream));
            }
            Some(_) => {}
            None => {
                seen.ended += u32::from(!self.is_ended);
                self.is_ended = true;
            }
        }
        if let Some(twin) = &mut self.twin {
            twin.receive();
        }
        let mut last = None;
        for end in self.ends() {
            while let Some((header, payload)) = end.message() {
                match header.kind {
                    Kind::Reply => {
                        seen.replies += 1;
                        seen.refused += u32::from(header.error.is_some());
                        last = Some((header.id, payload));
                    }
                    Kind::Command => {
                        seen.dma += 1;
                        // an answer may have made the server take this for a client like QEMU
                        let narrow = || DmaAccess::decode(Counting::Narrow, &payload);
                        let access = DmaAccess::decode(Counting::Wide, &payload);
                        let access = access.or_else(|_| narrow());
                        let (access, _) = access.expect("a command of the server is whole");
                        end.commands.push_back((header, access));
                    }
                    Kind::Unknown(_) => panic!("a message of the server: {header:?}"),
                }
            }
        }
        if let Some((id, payload)) = last {
            self.replied = Some(id);
            self.last = payload;
        }
        !self.is_ended
    }

    /// Waits until the server has done all that was asked of it, or has ended the connection.
    /// Answers the device's DMA meanwhile: until a copy engine is idle, or for some rounds.
    pub(crate) fn settle(&mut self, is_gpu: bool, seen: &mut Seen) {
        if !self.is_framed {
            self.main.stream.shutdown_write();
            self.wait(None, true, seen);
            return;
        }
        let begin = Instant::now();
        for round in 0.. {
            assert!(begin.elapsed() < FOREVER, "the copy engine does not end");
            match is_gpu {
                true => self.read(0, OFFSET + register::STATUS, 4),
                false => self.read(CONFIG, 0, 4),
            }
            if !self.wait(Some(self.next_id), true, seen) {
                return;
            }
            let is_busy = self.last.ends_with(&status::BUSY.to_le_bytes());
            if if is_gpu { !is_busy } else { round == ROUNDS } {
                return;
            }
        }
    }

    /// Gives the device some time to send a command that waits for an answer.
    fn await_command(&mut self, seen: &mut Seen) {
        for _ in 0..ROUNDS {
            if !self.is_framed || self.ends().any(|end| !end.commands.is_empty()) {
                return;
            }
            self.read(CONFIG, 0, 4);
            if !self.wait(Some(self.next_id), false, seen) {
                return;
            }
        }
    }

    /// Waits for the reply with this id, or for the end, and answers the device's DMA meanwhile if
    /// so asked; `false` at the end.
    fn wait(&mut self, id: Option<u16>, answers: bool, seen: &mut Seen) -> bool {
        let begin = Instant::now();
        while self.drain(seen) {
            for end in self.ends().filter(|_| answers) {
                for command in std::mem::take(&mut end.commands) {
                    end.answer(&command, &[0]);
                }
            }
            if id.is_some() && self.replied == id {
                return true;
            }
            assert!(begin.elapsed() < FOREVER, "the server does not reply");
            thread::sleep(Duration::from_micros(50));
        }
        false
    }
}
