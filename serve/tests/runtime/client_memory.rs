//! Memory that a client maps without a descriptor: the card's rings and buffers lie in it, and the
//! card reaches them by DMA_READ and DMA_WRITE.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use varia_silicon::virtio::echo;
use varia_spec::errno::Errno;
use varia_sys::socket::Stream;
use varia_vfio_user::client::{Client, HeldMemory, Reply};
use varia_vfio_user::command::{Command, DMA_READ, DMA_WRITE, TELLING_COUNT};
use varia_vfio_user::server::Server;
use varia_vfio_user::wire::{Header, Kind};

use crate::machine::{Machine, Wanted};

const BASE: u64 = 0x4000_0000;
const LEN: usize = 1 << 20;
const RINGS: [u64; 2] = [BASE, BASE + 0x4000];
const BUFFERS: u64 = BASE + 0x1_0000;
const RW: u32 = DMA_READ | DMA_WRITE;
const CONFIG: u32 = 7;

/// A limit that only a hang reaches.
const FOREVER: Duration = Duration::from_secs(600);

/// The client's memory, and the commands that came for it.
#[derive(Clone, Default)]
struct Ram(Arc<Mutex<(Vec<u8>, Vec<Command>)>>);

impl Ram {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((vec![0; LEN], Vec::new()))))
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let start = (at - BASE) as usize;
        self.0.lock().unwrap().0[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let start = (at - BASE) as usize;
        self.0.lock().unwrap().0[start..start + len].to_vec()
    }

    fn commands(&self) -> Vec<Command> {
        self.0.lock().unwrap().1.clone()
    }

    fn used(&self, queue: usize) -> u16 {
        let bytes = self.get(RINGS[queue] + 0x2000 + 2, 2);
        u16::from_le_bytes(bytes.try_into().unwrap())
    }

    fn wait_for_used(&self) {
        let begin = std::time::Instant::now();
        while (self.used(0), self.used(1)) != (1, 1) {
            assert!(begin.elapsed() < FOREVER, "no answer");
            thread::yield_now();
        }
    }

    fn descriptor(&self, queue: usize, at: u64, len: u32, flags: u16) {
        let bytes = [
            &at.to_le_bytes()[..],
            &len.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat();
        self.put(RINGS[queue], &bytes);
        let ring = RINGS[queue] + 16 * 256;
        self.put(ring + 2, &[1, 0, 0, 0]);
    }

    /// Puts an ARP request into the transmit queue, and a buffer into the receive queue.
    fn ask(&self) {
        self.descriptor(0, BUFFERS, 1526, 2);
        self.put(BUFFERS + 0x1000 + 10, &request());
        self.descriptor(1, BUFFERS + 0x1000, 52, 0);
    }

    fn check_answer(&self) {
        let answer = self.get(BUFFERS, 52);
        assert_eq!(Some(answer[10..].to_vec()), echo::answer(request()));
        let untouched = self.get(BUFFERS + 52, 1526 - 52);
        assert!(untouched.iter().all(|byte| *byte == 0));
    }
}

impl HeldMemory for Ram {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno> {
        let bytes = self.get(addr, data.len());
        data.copy_from_slice(&bytes);
        self.0.lock().unwrap().1.push(Command::DMA_READ);
        Ok(())
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        self.put(addr, data);
        self.0.lock().unwrap().1.push(Command::DMA_WRITE);
        Ok(())
    }
}

fn request() -> Vec<u8> {
    let guest = [2, 0, 0, 0, 0, 1];
    [
        &[0xff; 6][..],
        &guest,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &guest,
        &[10, 0, 0, 1],
        &[0; 6],
        &[10, 0, 0, 2],
    ]
    .concat()
}

fn card() -> Machine {
    Wanted {
        profile: "virtio-net",
        ..Wanted::default()
    }
    .serve()
}

/// Sets the card up as a legacy driver does.
fn start(client: &mut Client) {
    client.dma_map(BASE, LEN as u64, RW, None).unwrap();
    client.region_write(CONFIG, 4, &[7, 0]).unwrap();
    for (queue, at) in [0u16, 1].into_iter().zip(RINGS) {
        client.region_write(0, 14, &queue.to_le_bytes()).unwrap();
        let pfn = (at >> 12) as u32;
        client.region_write(0, 8, &pfn.to_le_bytes()).unwrap();
    }
    client.region_write(0, 18, &[4]).unwrap();
}

/// The payload of a write of the queue's number to the notification port.
fn notification() -> Vec<u8> {
    let access = [
        &16u64.to_ne_bytes()[..],
        &0u32.to_ne_bytes(),
        &2u32.to_ne_bytes(),
    ];
    [access.concat(), vec![1, 0]].concat()
}

/// Receives until the reply to `command`; the server's commands that came before are put into
/// `pending`, and not served.
fn reply_to(client: &mut Client, command: Command, pending: &mut VecDeque<Reply>) -> Reply {
    loop {
        let message = client.receive().unwrap();
        match message.header.kind {
            Kind::Reply => {
                assert_eq!(
                    (message.header.command, message.header.error),
                    (command, None)
                );
                return message;
            }
            _ => pending.push_back(message),
        }
    }
}

fn send(client: &Client, command: Command, payload: &[u8]) {
    let header = Header::command(77, command, payload.len()).encode();
    client
        .send_bytes(&[&header[..], payload].concat(), &[])
        .unwrap();
}

#[test]
fn a_twin_socket_carries_the_devices_reads_and_writes() {
    let machine = card();
    let (ours, theirs) = Stream::pair().unwrap();
    let server = Server::new(varia_serve::Backend::new(Arc::clone(&machine.endpoint)));
    let serving = thread::spawn(move || server.serve_one(theirs));
    let mut client = Client::over(ours);
    let twin = client.negotiate_twin().unwrap().expect("a twin socket");
    let ram = Ram::new();
    let mut held = ram.clone();
    let twin = thread::spawn(move || twin.serve(&mut held));
    start(&mut client);
    ram.ask();
    client.region_write(0, 16, &[1, 0]).unwrap();
    ram.wait_for_used();
    ram.check_answer();
    assert!(ram.commands().contains(&Command::DMA_WRITE));
    drop(client);
    serving.join().unwrap().unwrap();
    twin.join().unwrap().unwrap();
}

#[test]
fn a_client_that_does_not_offer_a_twin_socket_gets_none_and_is_asked_on_its_own() {
    let machine = card();
    let mut attachment = machine.attach();
    let client: &mut Client = &mut attachment;
    assert_eq!(client.server().twin_socket, None);
    let ram = Ram::new();
    client.hold_memory(Box::new(ram.clone()));
    start(client);
    ram.ask();
    client.region_write(0, 16, &[1, 0]).unwrap();
    while (ram.used(0), ram.used(1)) != (1, 1) {
        client.serve_command().unwrap();
    }
    ram.check_answer();
}

#[test]
fn the_write_that_causes_dma_and_what_follows_are_replied_to_before_the_client_serves_it() {
    let machine = card();
    let mut attachment = machine.attach();
    let client: &mut Client = &mut attachment;
    let ram = Ram::new();
    start(client);
    ram.ask();
    let mut pending = VecDeque::new();
    send(client, Command::REGION_WRITE, &notification());
    reply_to(client, Command::REGION_WRITE, &mut pending);
    // the card's registers are read, and the mappings change, while its read is on its way
    if pending.is_empty() {
        pending.push_back(client.receive().unwrap());
    }
    let status = [
        &18u64.to_ne_bytes()[..],
        &0u32.to_ne_bytes(),
        &1u32.to_ne_bytes(),
    ]
    .concat();
    send(client, Command::REGION_READ, &status);
    let reply = reply_to(client, Command::REGION_READ, &mut pending);
    assert_eq!(reply.payload[16..], [4]);
    let mut map = Vec::new();
    varia_vfio_user::command::DmaMap {
        flags: RW,
        offset: 0,
        addr: BASE + LEN as u64,
        size: 4096,
    }
    .encode(&mut map);
    send(client, Command::DMA_MAP, &map);
    reply_to(client, Command::DMA_MAP, &mut pending);
    // now the client serves what it was asked, and what it is asked again
    let mut held = ram.clone();
    while (ram.used(0), ram.used(1)) != (1, 1) {
        let command = pending.pop_front();
        let command = command.unwrap_or_else(|| client.receive().unwrap());
        serve_as(client, &command, &mut held, false);
    }
    ram.check_answer();
}

/// Serves a command by hand: as the specification says, or with a count of 32 bits as QEMU does.
fn serve_as(client: &Client, message: &Reply, ram: &mut Ram, narrow: bool) {
    let payload = &message.payload;
    let addr = u64::from_ne_bytes(payload[..8].try_into().unwrap());
    let (count, data_at) = if narrow {
        (
            u64::from(u32::from_ne_bytes(payload[8..12].try_into().unwrap())),
            12,
        )
    } else {
        (u64::from_ne_bytes(payload[8..16].try_into().unwrap()), 16)
    };
    let header = message.header;
    if count > 1 << 20 {
        assert_eq!((count, narrow), (TELLING_COUNT, false));
        let refusal = header.error_reply(Errno::EINVAL.get() as u32).encode();
        return client.send_bytes(&refusal, &[]).unwrap();
    }
    let mut reply = payload[..data_at].to_vec();
    if header.command == Command::DMA_READ {
        let mut bytes = vec![0; count as usize];
        ram.read(addr, &mut bytes).unwrap();
        reply.extend(bytes);
        if narrow {
            // the structure has four bytes of padding, which count as its length
            reply.extend([0; 4]);
        }
    } else {
        ram.write(addr, &payload[data_at..][..count as usize])
            .unwrap();
    }
    let head = header.reply(reply.len()).encode();
    client
        .send_bytes(&[&head[..], &reply].concat(), &[])
        .unwrap();
}

#[test]
fn a_client_that_counts_in_32_bits_is_found_out_and_served() {
    let machine = card();
    let mut attachment = machine.attach();
    let client: &mut Client = &mut attachment;
    let mut ram = Ram::new();
    start(client);
    ram.ask();
    let mut pending = VecDeque::new();
    send(client, Command::REGION_WRITE, &notification());
    reply_to(client, Command::REGION_WRITE, &mut pending);
    while (ram.used(0), ram.used(1)) != (1, 1) {
        let command = pending.pop_front();
        let command = command.unwrap_or_else(|| client.receive().unwrap());
        serve_as(client, &command, &mut ram, true);
    }
    ram.check_answer();
}

#[test]
fn a_client_that_refuses_its_memory_or_leaves_ends_the_exchange_alone() {
    let machine = card();
    for leaves in [false, true] {
        let mut attachment = machine.attach();
        let client: &mut Client = &mut attachment;
        start(client);
        Ram::new().ask();
        let mut pending = VecDeque::new();
        send(client, Command::REGION_WRITE, &notification());
        reply_to(client, Command::REGION_WRITE, &mut pending);
        if leaves {
            continue;
        }
        let mut status = [0];
        while status[0] & 0x40 == 0 {
            let question = pending.pop_front();
            if let Some(question) = question {
                let refusal = question.header.error_reply(Errno::EFAULT.get() as u32);
                client.send_bytes(&refusal.encode(), &[]).unwrap();
            }
            let at = [
                &18u64.to_ne_bytes()[..],
                &0u32.to_ne_bytes(),
                &1u32.to_ne_bytes(),
            ]
            .concat();
            send(client, Command::REGION_READ, &at);
            let reply = reply_to(client, Command::REGION_READ, &mut pending);
            status[0] = reply.payload[16];
        }
        assert_eq!(machine.endpoint.reset(), Ok(()));
    }
}
