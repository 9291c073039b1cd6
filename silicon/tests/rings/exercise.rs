//! Any bytes as a driver of the virtio network card, and what has to hold whatever it does to its
//! rings.
//!
//! Shared by the fuzz target `virtio_rings` and by the tests that replay its corpus. What holds:
//! the card changes no byte of the guest's memory but those of its used rings and of buffers that
//! the driver made writable for it, and none that it may not write or that is not mapped.

#[path = "../../../fuzz/input.rs"]
mod input;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use varia_core::{ConfigRegister, Device, Dma, DmaAccess, Interrupts};
use varia_silicon::profile::{self, Body};
use varia_silicon::{Options, Silicon, virtio::echo};
use varia_spec::pci::cap::msix;
use varia_spec::pci::header::{self, command};
use varia_spec::virtio::{F_VERSION_1, STATUS_DRIVER_OK, admin, common, legacy};
use varia_sys::memory::SharedMemory;

use input::Input;

/// The guest's memory: what the card may write, a page that it may read, a page that it can't reach.
const BASE: u64 = 0x4000_0000;
const WRITABLE: u64 = 0x1_0000;
const PAGE: u64 = 0x1000;
const LEN: u64 = WRITABLE + 2 * PAGE;
/// Where a driver that follows the rules has its buffers, behind two legacy queues.
const BUFFERS: u64 = 0x8000;

/// The modern interface's BAR, and what is where in it.
const BAR: u8 = 4;
const NOTIFY: u64 = 0x3000;
const TRANSMIT: u16 = 1;
const VECTORS: u16 = 3;

const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Bounds for an input, so that none takes long.
const MOST_OPERATIONS: u32 = 400;
const MOST_NOTIFICATIONS: u32 = 40;

/// How often something happened, so that a test can say that its questions are not all trivial.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Notifications, and those of them that changed the guest's memory.
    pub(crate) notified: u32,
    /// See `notified`.
    pub(crate) moved: u32,
    /// Notifications after which every changed byte was looked at.
    pub(crate) judged: u32,
    /// Notifications that brought an answer into a buffer.
    pub(crate) answered: u32,
    /// Interrupts.
    pub(crate) interrupts: u32,
}

/// Counts interrupts.
#[derive(Default)]
struct Line(AtomicU32);

impl Interrupts for Line {
    fn message(&self, vector: u16) {
        assert!(vector < VECTORS, "there is no vector {vector}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn intx(&self, _: bool) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Input<'_> {
    /// An address: most in the buffers, some at the edges of what is mapped, some anywhere.
    fn address(&mut self) -> Option<u64> {
        let (kind, near) = (self.byte()?, u64::from(self.word()?));
        Some(match kind % 16 {
            0..=9 => BASE + BUFFERS + near % (WRITABLE - BUFFERS),
            10..=11 => BASE + near % BUFFERS,
            12 => BASE + WRITABLE - 32 + near % 64,
            13 => BASE + WRITABLE + PAGE - 32 + near % 64,
            14 => near,
            _ => u64::MAX - near,
        })
    }
}

/// A queue that has been started.
#[derive(Clone, Copy, Debug)]
struct Queue {
    descriptors: u64,
    available: u64,
    used: u64,
    size: u16,
}

impl Queue {
    /// First byte and length of what the driver owns, and of the used ring.
    fn driver(&self) -> [(u64, u64); 2] {
        let size = u64::from(self.size);
        [
            (self.descriptors, 16 * size),
            (self.available, 6 + 2 * size),
        ]
    }

    fn used(&self) -> (u64, u64) {
        (self.used, 6 + 8 * u64::from(self.size))
    }
}

struct Guest<'a> {
    silicon: Silicon,
    memory: SharedMemory,
    line: Arc<Line>,
    /// Where the queues are, as long as it is known.
    queues: Option<[Queue; 2]>,
    /// Buffers made available so far.
    offered: [u16; 2],
    message_x: u16,
    /// Notifications so far.
    notifications: u32,
    seen: &'a mut Seen,
}

/// Lets the bytes drive a card.
pub(crate) fn exercise(bytes: &[u8], seen: &mut Seen) {
    let mut guest = Guest::new(seen);
    let mut input = Input(bytes);
    for _ in 0..MOST_OPERATIONS {
        if guest.operation(&mut input).is_none() || guest.notifications > MOST_NOTIFICATIONS {
            break;
        }
    }
    guest.seen.interrupts += guest.line.0.load(Ordering::Relaxed);
    guest.silicon.attach(None);
}

impl<'a> Guest<'a> {
    fn new(seen: &'a mut Seen) -> Self {
        let profile = profile::find("virtio-net").expect("a profile of the catalogue");
        let silicon = Silicon::new(profile, Options::default()).expect("the profile is sound");
        let memory = SharedMemory::anonymous("guest", LEN).expect("a memfd");
        memory
            .write(WRITABLE, &[0x5a; PAGE as usize])
            .expect("it is there");
        let dma = Dma::default();
        for (at, len, write) in [(0, WRITABLE, true), (WRITABLE, PAGE, false)] {
            let fd = memory.as_fd().try_clone_to_owned().expect("a descriptor");
            let access = DmaAccess { read: true, write };
            dma.map(BASE + at, len, access, Some((fd, at)))
                .expect("it is free");
        }
        silicon.attach(Some(Arc::new(dma)));
        let line = Arc::new(Line::default());
        silicon.connect(Some(Arc::clone(&line) as _));
        let mut capabilities = profile.capabilities.iter();
        let message_x = capabilities.find(|c| matches!(c.value.body, Body::MessageX { .. }));
        let message_x = message_x.expect("the card has MSI-X").value.offset;
        let guest = Self {
            silicon,
            memory,
            line,
            queues: None,
            offered: [0; 2],
            message_x,
            notifications: 0,
            seen,
        };
        guest.switch(true, false);
        guest
    }

    fn operation(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 16 {
            0 => {
                let at = u64::from(input.word()?);
                let len = usize::from(input.byte()? % 33);
                let bytes = input.bytes(len)?;
                self.put(BASE + at, &bytes);
            }
            1..=4 => self.descriptor(input)?,
            5..=7 => self.offer(input)?,
            8..=10 => {
                let queue = match input.byte()? {
                    0xff => input.word()?,
                    _ => TRANSMIT,
                };
                self.notify(queue);
            }
            11 | 12 => self.frame(input)?,
            13 => self.start(input)?,
            14 => self.registers(input)?,
            _ => {
                let bits = input.byte()?;
                if bits & 0xf0 == 0 {
                    self.silicon.reset().expect("it can be reset");
                    self.queues = None;
                }
                self.switch(bits & 3 != 0, bits & 4 != 0);
            }
        }
        Some(())
    }

    /// Bus mastering and MSI-X.
    fn switch(&self, master: bool, messages: bool) {
        let value = command::MEMORY | if master { command::MASTER } else { 0 };
        let register = ConfigRegister::word(header::COMMAND);
        let written = self.silicon.config_write(register, value.into());
        written.expect("a device answers");
        let value = if messages { msix::FLAGS_ENABLE } else { 0 };
        let register = ConfigRegister::word(self.message_x + msix::FLAGS);
        let written = self.silicon.config_write(register, value.into());
        written.expect("a device answers");
    }

    /// Writes what is in the guest's memory of the bytes.
    fn put(&self, at: u64, bytes: &[u8]) {
        let start = at.checked_sub(BASE).filter(|at| *at < WRITABLE);
        if let Some(start) = start {
            let len = bytes.len().min((WRITABLE - start) as usize);
            let written = self.memory.write(start, &bytes[..len]);
            written.expect("it is there");
        }
    }

    fn descriptor(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (queue, index) = (input.byte()? % 2, input.byte()?);
        let address = input.address()?;
        let len = match input.byte()? {
            0xff => u32::MAX - u32::from(input.word()?),
            kind if kind > 0xc0 => u32::from(input.word()?),
            kind => u32::from(kind) * 16,
        };
        let (flags, next) = (u16::from(input.byte()? % 8), u16::from(input.byte()?));
        let Some(queue) = self.queues.map(|queues| queues[usize::from(queue)]) else {
            return Some(());
        };
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let at = queue.descriptors.wrapping_add(16 * u64::from(index));
        self.put(at, &bytes);
        Some(())
    }

    fn offer(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (queue, head) = (usize::from(input.byte()? % 2), u16::from(input.byte()?));
        let Some(ring) = self.queues.map(|queues| queues[queue]) else {
            return Some(());
        };
        let slot = self.offered[queue] % ring.size;
        self.offered[queue] = self.offered[queue].wrapping_add(1);
        let at = ring.available.wrapping_add(4 + 2 * u64::from(slot));
        self.put(at, &head.to_le_bytes());
        let count = self.offered[queue].to_le_bytes();
        self.put(ring.available.wrapping_add(2), &count);
        Some(())
    }

    /// A frame that the other end answers, behind a header.
    fn frame(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (at, kind) = (input.address()?, input.byte()?);
        let guest = [2, 0, 0, 0, 0, 1];
        let frame = if kind % 4 == 0 {
            let start = [
                &[0xff; 6][..],
                &guest,
                &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
                &guest,
            ];
            [&start.concat()[..], &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]].concat()
        } else {
            let data = usize::from(kind) * 7;
            let [high, low] = (28 + data as u16).to_be_bytes();
            let mut packet = vec![
                0x45, 0, high, low, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0,
            ];
            packet.extend([0, 2, 8, 0, 0, 0, 0, 0, 0, 0]);
            packet.resize(28 + data, kind);
            [&echo::MAC[..], &guest, &[8, 0], &packet].concat()
        };
        let header = if kind & 0x40 == 0 { 10 } else { 12 };
        self.put(at, &[&vec![0; header], &frame[..]].concat());
        Some(())
    }

    /// Both queues, as a legacy or a modern driver starts them; the addresses may be anything.
    fn start(&mut self, input: &mut Input<'_>) -> Option<()> {
        let kind = input.byte()?;
        let aligned = kind & 0xc != 0;
        self.offered = [0; 2];
        self.queues = None;
        self.bar(common::STATUS, &[0]);
        let mut queues = Vec::new();
        for number in 0..2_u16 {
            self.bar(common::Q_SELECT, &number.to_le_bytes());
            let size = 256_u16 >> (kind >> 4 & 7);
            let own = BASE + u64::from(number) * 0x4000;
            let queue = match kind % 4 {
                0 | 1 => self.start_legacy(own),
                kind => {
                    // most of them aligned as they have to be
                    let mask = |low: u64| if aligned { !low } else { u64::MAX };
                    let [descriptors, available, used] = match kind {
                        2 => [own, own + 0x1000, own + 0x2000],
                        _ => [
                            input.address()? & mask(15),
                            input.address()? & mask(1),
                            input.address()? & mask(3),
                        ],
                    };
                    self.start_modern(Queue {
                        descriptors,
                        available,
                        used,
                        size,
                    })
                }
            };
            queues.push(queue);
        }
        self.bar(common::STATUS, &[STATUS_DRIVER_OK]);
        self.queues = <[Queue; 2]>::try_from(queues).ok();
        Some(())
    }

    fn start_legacy(&self, at: u64) -> Queue {
        let data = [
            &[legacy::QUEUE_PFN as u8, 0, 0, 0, 0, 0, 0, 0][..],
            &((at >> 12) as u32).to_le_bytes(),
        ];
        let command = admin::LEGACY_COMMON_CFG_WRITE;
        let done = self.silicon.owner_command(command, &data.concat(), &mut []);
        done.expect("the card has the command");
        Queue {
            descriptors: at,
            available: at + 0x1000,
            used: at + 0x2000,
            size: 256,
        }
    }

    fn start_modern(&self, queue: Queue) -> Queue {
        self.bar(common::Q_SIZE, &queue.size.to_le_bytes());
        self.bar(common::Q_DESC, &queue.descriptors.to_le_bytes());
        self.bar(common::Q_AVAIL, &queue.available.to_le_bytes());
        self.bar(common::Q_USED, &queue.used.to_le_bytes());
        self.bar(common::Q_ENABLE, &[1, 0]);
        self.bar(common::GFSELECT, &[1, 0, 0, 0]);
        self.bar(common::GF, &((F_VERSION_1 >> 32) as u32).to_le_bytes());
        queue
    }

    fn bar(&self, at: u64, bytes: &[u8]) {
        self.silicon
            .bar_write(BAR, at, bytes)
            .expect("it is in the BAR");
    }

    /// Registers of the card by either interface, any bytes. Where the queues are is not known
    /// afterwards.
    fn registers(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (kind, at, len) = (
            input.byte()?,
            input.word()?,
            usize::from(input.byte()? % 17),
        );
        let at = match kind % 4 {
            0 => u64::from(at % 0x40),
            1 => NOTIFY + u64::from(at % 4),
            2 => u64::from(at % 0x4004),
            _ => {
                let bytes = input.bytes(len)?;
                let opcode = at % 8;
                let mut result = vec![0; usize::from(kind)];
                let _ = self.silicon.owner_command(opcode, &bytes, &mut result);
                self.queues = None;
                return Some(());
            }
        };
        if kind & 0x80 != 0 {
            let _ = self.silicon.bar_read(BAR, at, &mut vec![0; len]);
            return Some(());
        }
        let bytes = input.bytes(len)?;
        self.queues = None;
        self.watched(|guest| {
            let _ = guest.silicon.bar_write(BAR, at, &bytes);
        });
        Some(())
    }

    fn notify(&mut self, queue: u16) {
        let mut status = [0];
        let read = self.silicon.bar_read(BAR, common::STATUS, &mut status);
        read.expect("it is in the BAR");
        let (before, after) = self.watched(|guest| guest.bar(NOTIFY, &queue.to_le_bytes()));
        let changed = changed(&before, &after);
        if queue != TRANSMIT || status[0] & STATUS_DRIVER_OK == 0 {
            assert!(changed.is_empty(), "nobody asked for {changed:x?}");
        }
        self.seen.moved += u32::from(!changed.is_empty());
        let Some(queues) = self.queues else {
            return;
        };
        let tables = tables(&queues, &before);
        let mut allowed = buffers(&queues[0], &before);
        let answers = allowed.clone();
        allowed.extend(queues.iter().map(Queue::used));
        // a driver that lets the card write its tables has no rules left
        if tables
            .iter()
            .any(|table| allowed.iter().any(|range| overlap(*table, *range)))
        {
            return;
        }
        self.seen.judged += 1;
        let inside = |ranges: &[(u64, u64)], at: usize| {
            let at = BASE + at as u64;
            ranges.iter().any(|range| overlap((at, 1), *range))
        };
        for at in &changed {
            assert!(
                inside(&allowed, *at),
                "{at:#x} is not the card's to write: {queues:x?}"
            );
        }
        self.seen.answered += u32::from(changed.iter().any(|at| inside(&answers, *at)));
    }

    /// The memory before and after something that may make the card write to it.
    fn watched(&mut self, act: impl FnOnce(&Self)) -> (Vec<u8>, Vec<u8>) {
        let snapshot = |memory: &SharedMemory| {
            let mut bytes = vec![0; LEN as usize];
            memory.read(0, &mut bytes).expect("it is there");
            bytes
        };
        let before = snapshot(&self.memory);
        act(self);
        let after = snapshot(&self.memory);
        let beyond = WRITABLE as usize..;
        assert_eq!(
            before[beyond.clone()],
            after[beyond],
            "it may not write there"
        );
        self.seen.notified += 1;
        self.notifications += 1;
        (before, after)
    }
}

/// Where the bytes differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<usize> {
    const CHUNK: usize = 64;
    let mut places = Vec::new();
    let chunks = before.chunks(CHUNK).zip(after.chunks(CHUNK)).enumerate();
    for (index, (before, after)) in chunks.filter(|(_, (before, after))| before != after) {
        let bytes = before.iter().zip(after).enumerate();
        let differ = bytes.filter(|(_, (before, after))| before != after);
        places.extend(differ.map(|(at, _)| CHUNK * index + at));
    }
    places
}

/// First byte and length: whether they share a byte.
fn overlap((a, a_len): (u64, u64), (b, b_len): (u64, u64)) -> bool {
    let (a, b) = (u128::from(a), u128::from(b));
    a < b + u128::from(b_len) && b < a + u128::from(a_len)
}

/// The descriptors in a table: address, length, flags.
fn descriptors(memory: &[u8], (at, len): (u64, u64)) -> Vec<(u64, u32, u16)> {
    let start = at.checked_sub(BASE).map_or(memory.len(), |at| at as usize);
    let table = memory.get(start..).unwrap_or_default();
    let entries = table.chunks_exact(16).take((len / 16) as usize);
    entries
        .map(|entry| {
            let word = u64::from_le_bytes(entry[8..16].try_into().expect("eight bytes"));
            let address = u64::from_le_bytes(entry[..8].try_into().expect("eight bytes"));
            (address, word as u32, (word >> 32) as u16)
        })
        .collect()
}

/// The indirect tables of a queue, and its own.
fn descriptor_tables(queue: &Queue, memory: &[u8]) -> Vec<(u64, u64)> {
    let own = queue.driver()[0];
    let entries = descriptors(memory, own).into_iter();
    let indirect = entries.filter(|(_, _, flags)| flags & INDIRECT != 0);
    indirect
        .map(|(at, len, _)| (at, u64::from(len)))
        .chain([own])
        .collect()
}

/// What the driver owns.
fn tables(queues: &[Queue; 2], memory: &[u8]) -> Vec<(u64, u64)> {
    let all = queues.iter().flat_map(|queue| {
        let available = queue.driver()[1];
        descriptor_tables(queue, memory)
            .into_iter()
            .chain([available])
    });
    all.collect()
}

/// What the driver made writable for the card.
fn buffers(queue: &Queue, memory: &[u8]) -> Vec<(u64, u64)> {
    let tables = descriptor_tables(queue, memory).into_iter();
    let entries = tables.flat_map(|table| descriptors(memory, table));
    let writable = entries.filter(|(_, _, flags)| flags & WRITE != 0);
    writable.map(|(at, len, _)| (at, u64::from(len))).collect()
}
