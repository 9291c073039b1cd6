//! The card, driven as a driver does, in memory that stands for a guest's.

use std::os::fd::OwnedFd;

use varia_core::DmaAccess;
use varia_spec::virtio::STATUS_DRIVER_OK;
use vm_memory::Bytes;

use super::*;

const ON: Switches = Switches {
    master: true,
    msix: false,
};
const BOTH: DmaAccess = DmaAccess {
    read: true,
    write: true,
};
/// Address and size of the guest's memory.
const BASE: u64 = 0x4000_0000;
const LEN: u64 = 1 << 20;
/// In it: the queues, 16 KiB each, and buffers.
const RINGS: [u64; 2] = [BASE, BASE + 0x4000];
const BUFFERS: u64 = BASE + 0x1_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

struct Guest {
    card: Card,
    memory: Arc<Dma>,
}

impl Guest {
    fn new() -> Self {
        let card = Card::new(4).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let memory = Arc::new(Dma::default());
        let fd: OwnedFd = file.into();
        memory.map(BASE, LEN, BOTH, Some((fd, 0))).unwrap();
        card.attach(Some(Arc::clone(&memory)));
        Self { card, memory }
    }

    fn write_legacy(&self, opcode: u16, offset: u8, bytes: &[u8]) -> Result<(), Errno> {
        let data = [&[offset, 0, 0, 0, 0, 0, 0, 0], bytes].concat();
        self.card.command(opcode, &data, &mut [], ON).map(drop)
    }

    fn read_legacy<const N: usize>(&self, opcode: u16, offset: u8) -> [u8; N] {
        let mut bytes = [0xee; N];
        let read = self.card.command(opcode, &[offset], &mut bytes, ON);
        read.unwrap();
        bytes
    }

    /// Sets the card up as a legacy driver does: both queues where [`RINGS`] says, then the driver is ready.
    fn start(&self) {
        for (queue, at) in [0u16, 1].into_iter().zip(RINGS) {
            self.write_legacy(2, 14, &queue.to_le_bytes()).unwrap();
            let pfn = (at >> 12) as u32;
            self.write_legacy(2, 8, &pfn.to_le_bytes()).unwrap();
            assert_eq!(self.read_legacy(3, 8), pfn.to_le_bytes());
        }
        self.write_legacy(2, 18, &[STATUS_DRIVER_OK]).unwrap();
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let memory = self.memory.mappings();
        memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let memory = self.memory.mappings();
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn descriptor(&self, queue: usize, index: u64, at: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.put(RINGS[queue] + 16 * index, &bytes);
    }

    /// Makes descriptor `head` the `count`th buffer of a queue.
    fn offer(&self, queue: usize, count: u16, head: u16) {
        let ring = RINGS[queue] + 16 * 256;
        let slot = u64::from((count - 1) % 256);
        self.put(ring + 4 + 2 * slot, &head.to_le_bytes());
        self.put(ring + 2, &count.to_le_bytes());
    }

    /// Number of used buffers of a queue, and the length of the last.
    fn used(&self, queue: usize) -> (u16, u32) {
        let ring = RINGS[queue] + 0x2000;
        let count = u16::from_le_bytes(self.get(ring + 2));
        let last = u64::from(count.wrapping_sub(1) % 256);
        (count, u32::from_le_bytes(self.get(ring + 4 + 8 * last + 4)))
    }

    fn notify(&self, queue: u16, switches: Switches) -> Vec<Signal> {
        self.card.write(NOTIFY_AT.0, &queue.to_le_bytes(), switches)
    }

    /// Sends an ARP request in two descriptors, with a buffer for the answer.
    fn ask(&self, count: u16) {
        self.descriptor(0, 0, BUFFERS, 1526, WRITE, 0);
        self.offer(0, count, 0);
        self.put(BUFFERS + 0x1000, &[0; 10]);
        self.put(BUFFERS + 0x2000, &request());
        self.descriptor(1, 0, BUFFERS + 0x1000, 10, NEXT, 1);
        self.descriptor(1, 1, BUFFERS + 0x2000, 42, 0, 0);
        self.offer(1, count, 0);
    }
}

fn request() -> Vec<u8> {
    let guest = [0x52, 0x54, 0, 1, 2, 3];
    [
        [0xff; 6].as_slice(),
        &guest,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &guest,
        &[10, 0, 0, 1],
        &[0; 6],
        &[10, 0, 0, 2],
    ]
    .concat()
}

#[test]
fn a_frame_is_answered_into_the_other_queue_and_the_driver_is_told() {
    let guest = Guest::new();
    guest.start();
    guest.ask(1);
    let signals = guest.notify(1, ON);
    assert_eq!(signals, [Signal::Pin(true), Signal::Pin(true)]);
    assert_eq!((guest.used(0), guest.used(1)), ((1, 52), (1, 0)));
    let answer: [u8; 52] = guest.get(BUFFERS);
    assert_eq!(answer[..10], [0; 10]);
    assert_eq!(Some(answer[10..].to_vec()), echo::answer(request()));
    // the interrupt status says why, once
    assert_eq!(guest.read_legacy(3, 19), [1]);
    assert_eq!(guest.read_legacy(3, 19), [0]);
}

#[test]
fn with_msix_the_queues_vectors_are_told_and_no_pin() {
    let guest = Guest::new();
    let msix = Switches { msix: true, ..ON };
    guest.start();
    for (queue, vector) in [(0u16, 1u16), (1, 2)] {
        guest.write_legacy(2, 14, &queue.to_le_bytes()).unwrap();
        let data = [&[22, 0, 0, 0, 0, 0, 0, 0], vector.to_le_bytes().as_slice()].concat();
        guest.card.command(2, &data, &mut [], msix).unwrap();
    }
    guest.ask(1);
    let signals = guest.notify(1, msix);
    assert_eq!(signals, [Signal::Message(1), Signal::Message(2)]);
    assert_eq!(guest.read_legacy(3, 19), [0]);
    // a driver that looks by itself wants no interrupts
    guest.put(RINGS[0] + 16 * 256, &[1, 0]);
    guest.put(RINGS[1] + 16 * 256, &[1, 0]);
    guest.ask(2);
    assert_eq!(guest.notify(1, msix), []);
    assert_eq!(guest.used(0).0, 2);
}

#[test]
fn nothing_moves_without_bus_mastering_memory_or_a_ready_driver() {
    let guest = Guest::new();
    let off = Switches {
        master: false,
        ..ON
    };
    guest.start();
    guest.ask(1);
    assert_eq!(guest.notify(1, off), []);
    guest.card.attach(None);
    assert_eq!(guest.notify(1, ON), []);
    guest.card.attach(Some(Arc::clone(&guest.memory)));
    guest.write_legacy(2, 18, &[3]).unwrap();
    assert_eq!(guest.notify(1, ON), []);
    for queue in [0, 2, u16::MAX] {
        assert_eq!(guest.notify(queue, ON), []);
    }
    assert_eq!((guest.used(0).0, guest.used(1).0), (0, 0));
    guest.write_legacy(2, 18, &[4]).unwrap();
    assert_eq!(guest.notify(1, ON).len(), 2);
}

#[test]
fn an_answer_without_a_buffer_is_lost_and_one_that_is_too_small_gets_nothing() {
    let guest = Guest::new();
    guest.start();
    guest.ask(1);
    guest.descriptor(0, 0, BUFFERS, 51, WRITE, 0);
    guest.notify(1, ON);
    assert_eq!((guest.used(0), guest.used(1)), ((1, 0), (1, 0)));
    // one more frame and no buffer for its answer
    guest.offer(1, 2, 0);
    guest.notify(1, ON);
    assert_eq!((guest.used(0).0, guest.used(1).0), (1, 2));
}

#[test]
fn what_a_driver_writes_into_its_rings_does_no_harm() {
    let guest = Guest::new();
    for (at, len, flags, next) in [
        (u64::MAX - 4, 42, 0, 0),
        (0, 42, 0, 0),
        (BASE + LEN - 1, 42, 0, 0),
        (BUFFERS, u32::MAX, 0, 0),
        (BUFFERS, 0, 0, 0),
        // a loop, one out of the table, and indirect descriptors
        (BUFFERS, 42, NEXT, 0),
        (BUFFERS, 42, NEXT, 0x1fff),
        (BUFFERS, 42, 4, 0),
    ] {
        guest.write_legacy(2, 18, &[0]).unwrap();
        guest.put(RINGS[1] + 16 * 256, &[0; 8]);
        guest.put(RINGS[1] + 0x2000, &[0; 8]);
        guest.start();
        guest.descriptor(1, 0, at, len, flags, next);
        guest.offer(1, 1, 0);
        guest.notify(1, ON);
        assert_eq!(guest.used(0).0, 0, "{at:#x} {len} {flags} {next}");
    }
    // more buffers than the queue has, and heads that are none
    guest.write_legacy(2, 18, &[0]).unwrap();
    guest.start();
    guest.offer(1, 300, 0xffff);
    guest.notify(1, ON);
    // rings where there is no memory
    guest.write_legacy(2, 14, &[1, 0]).unwrap();
    guest.write_legacy(2, 8, &[0xff; 4]).unwrap();
    guest.notify(1, ON);
}

#[test]
fn commands_answer_as_the_specification_has_them_and_refuse_all_else() {
    let guest = Guest::new();
    let mut list = [0xee; 16];
    guest.card.command(0, &[], &mut list, ON).unwrap();
    assert_eq!(list, [[0x7d, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat()[..]);
    let mut places = [0xee; 64];
    guest.card.command(6, &[], &mut places, ON).unwrap();
    assert_eq!(
        places[..16],
        [2, 4, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(places[16..], [0; 48]);
    let features: [u8; 4] = guest.read_legacy(3, 0);
    assert_eq!(u32::from_le_bytes(features), 1 << 5 | 1 << 16);
    assert_eq!(guest.read_legacy(3, 12), [0, 1]);
    let device: [u8; 8] = guest.read_legacy(5, 0);
    assert_eq!(device, [0x52, 0x54, 0, 0x76, 0x61, 0x72, 1, 0]);
    for (opcode, data, len) in [
        (1, vec![], 8),
        (7, vec![], 8),
        (0, vec![0], 8),
        (3, vec![], 1),
        (3, vec![20], 1),
        (3, vec![19], 2),
        (5, vec![11], 2),
        (2, vec![18], 0),
        (2, vec![20, 0, 0, 0, 0, 0, 0, 0, 1], 0),
        (4, vec![12, 0, 0, 0, 0, 0, 0, 0, 1], 0),
    ] {
        let answer = guest.card.command(opcode, &data, &mut vec![0; len], ON);
        assert_eq!(answer, Err(Errno::EINVAL), "{opcode} {data:?}");
    }
}

#[test]
fn a_part_of_a_register_can_be_written_and_a_reset_takes_all_back() {
    let guest = Guest::new();
    guest.write_legacy(2, 5, &[0x34, 0x12]).unwrap();
    assert_eq!(guest.read_legacy(3, 4), [0, 0x34, 0x12, 0]);
    guest.write_legacy(4, 4, &[9]).unwrap();
    let mac: [u8; 6] = guest.read_legacy(5, 0);
    assert_eq!(mac, [0x52, 0x54, 0, 0x76, 9, 0x72]);
    // crossing from the queue's number into the status is two registers
    guest.write_legacy(2, 15, &[0, 0, 0, 7]).unwrap();
    assert_eq!(guest.read_legacy(3, 18), [7]);
    assert_eq!(guest.card.reset(), Signal::Pin(false));
    assert_eq!(guest.read_legacy(3, 4), [0; 4]);
    assert_eq!(guest.read_legacy(3, 18), [0]);
    let mac: [u8; 6] = guest.read_legacy(5, 0);
    assert_eq!(mac, MAC);
}

#[test]
fn the_modern_interface_agrees_on_features_and_starts_queues() {
    let guest = Guest::new();
    let write = |at: u64, bytes: &[u8]| {
        guest.card.write(at, bytes, ON);
    };
    let read = |at: u64| {
        let mut bytes = [0xee; 4];
        guest.card.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    write(common::DFSELECT, &[1, 0, 0, 0]);
    assert_eq!(read(common::DF), 1);
    write(common::GFSELECT, &[1, 0, 0, 0]);
    write(common::GF, &[3, 0, 0, 0]);
    write(common::STATUS, &[11]);
    assert_eq!(
        read(common::STATUS) & 0xff,
        3,
        "a feature that is not there"
    );
    write(common::GF, &[1, 0, 0, 0]);
    write(common::STATUS, &[11]);
    assert_eq!(read(common::STATUS) & 0xff, 11);
    for (queue, at) in [0u16, 1].into_iter().zip(RINGS) {
        write(common::Q_SELECT, &queue.to_le_bytes());
        write(common::Q_DESC, &(at as u32).to_le_bytes());
        write(common::Q_DESC + 4, &[0; 4]);
        write(common::Q_AVAIL, &(at + 16 * 256).to_le_bytes());
        write(common::Q_USED, &(at + 0x2000).to_le_bytes());
        write(common::Q_ENABLE, &[1, 0]);
        assert_eq!(read(common::Q_ENABLE) & 0xffff, 1);
    }
    write(common::STATUS, &[15]);
    guest.ask(1);
    // the header has two more bytes
    guest.descriptor(1, 0, BUFFERS + 0x1000, 12, NEXT, 1);
    guest.notify(1, ON);
    assert_eq!(guest.used(0), (1, 54));
    let answer: [u8; 54] = guest.get(BUFFERS);
    assert_eq!((answer[10], answer[12]), (1, 0x52));
    assert_eq!(read(ISR_AT.0), 1);
    assert_eq!(read(ISR_AT.0), 0);
    write(common::Q_SELECT, &[2, 0]);
    assert_eq!(read(common::Q_SIZE), 0xffff_0000, "no third queue");
}
