//! The copy engine of an emulated GPU, through the protocol: DMA in both directions, its faults, and
//! its interrupt.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use varia_core::{ConfigRegister, Device};
use varia_silicon::{Faults, Readiness, Silicon};
use varia_spec::copy_engine::{
    CHECKSUM_START, ID, MAX_LENGTH, NO_VECTOR, OFFSET, checksum, command, register, status,
};
use varia_spec::errno::Errno;
use varia_spec::vfio::{IrqIndex, irq_set};
use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_vfio_user::client::HeldMemory;
use varia_vfio_user::command::{DMA_READ, DMA_WRITE, SentIrqData};

use crate::machine::{Attached, BAR0, GIB, Machine, SMALL, Wanted};

const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 8 << 20;
const RW: u32 = DMA_READ | DMA_WRITE;
const MASTER: u16 = 4;
/// A limit that only a hang reaches.
const FOREVER: Duration = Duration::from_secs(600);
const BUS_TO_OWN: u32 = command::COPY | command::SOURCE_BUS;
const BUS_TO_BUS: u32 = BUS_TO_OWN | command::DESTINATION_BUS;
const OWN_TO_BUS: u32 = command::COPY | command::DESTINATION_BUS;

fn with_engine(change: impl FnOnce(&mut varia_silicon::Options)) -> Machine {
    let mut wanted = Wanted::of("gh200", SMALL);
    wanted.silicon.copy_engine = true;
    change(&mut wanted.silicon);
    wanted.serve()
}

/// A client with memory of a descriptor, and bus master enabled.
fn started(machine: &Machine) -> (Attached, SharedMemory) {
    let mut client = machine.attach();
    let ram = SharedMemory::anonymous("ram", RAM_LEN).unwrap();
    client
        .dma_map(RAM, RAM_LEN, RW, Some((ram.as_fd(), 0)))
        .unwrap();
    client.change16(4, MASTER, 0);
    (client, ram)
}

fn get32(client: &mut Attached, at: u64) -> u32 {
    u32::from_le_bytes(client.read(BAR0, OFFSET + at))
}

fn get64(client: &mut Attached, at: u64) -> u64 {
    u64::from_le_bytes(client.read(BAR0, OFFSET + at))
}

fn set64(client: &mut Attached, at: u64, value: u64) {
    client.write(BAR0, OFFSET + at, &value.to_le_bytes());
}

/// Starts a command and waits for its end: its status and the address of its fault.
fn run(client: &mut Attached, operation: u32, from: u64, to: u64, len: u64) -> (u32, u64) {
    let before = get32(client, register::COUNT);
    set64(client, register::SOURCE, from);
    set64(client, register::DESTINATION, to);
    set64(client, register::LENGTH, len);
    client.write(BAR0, OFFSET + register::COMMAND, &operation.to_le_bytes());
    let begin = Instant::now();
    while get32(client, register::STATUS) == status::BUSY {
        assert!(begin.elapsed() < FOREVER, "the command does not end");
        thread::yield_now();
    }
    assert_eq!(get32(client, register::COUNT), before + 1);
    let fault = get64(client, register::FAULT);
    (get32(client, register::STATUS), fault)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

const DONE: (u32, u64) = (status::DONE, 0);

#[test]
fn bytes_go_both_ways_at_odd_addresses_and_sums_agree() {
    let machine = with_engine(|_| ());
    let (mut client, ram) = started(&machine);
    assert_eq!(get32(&mut client, register::ID), ID);
    let bytes = pattern(70_001);
    ram.write(3, &bytes).unwrap();
    // across the end of usemem, into resmem
    let place = 512 * 1024 * 1024 - 4097;
    let len = bytes.len() as u64;
    assert_eq!(run(&mut client, BUS_TO_OWN, RAM + 3, place, len), DONE);
    let memory = &machine.silicon.coherent_memory().unwrap().bytes;
    let mut seen = vec![0; bytes.len()];
    memory.read(place, &mut seen).unwrap();
    assert!(seen == bytes, "the coherent memory has other bytes");
    assert_eq!(
        run(&mut client, OWN_TO_BUS, place, RAM + 0x10_0001, len),
        DONE
    );
    ram.read(0x10_0001, &mut seen).unwrap();
    assert!(seen == bytes, "the guest's memory has other bytes");
    let sum = checksum(CHECKSUM_START, &bytes);
    for (from, at) in [(0, place), (command::SOURCE_BUS, RAM + 3)] {
        assert_eq!(run(&mut client, command::CHECKSUM | from, at, 0, len), DONE);
        assert_eq!(get64(&mut client, register::RESULT), sum);
    }
    set64(&mut client, register::PATTERN, 0x0807_0605_0403_0201);
    assert_eq!(run(&mut client, command::FILL, 0, 17, 11), DONE);
    assert_eq!(machine.host(16), [0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 0]);
    // the most bytes that one command takes, inside the device's memory
    assert_eq!(run(&mut client, command::COPY, 0, GIB, MAX_LENGTH), DONE);
    assert_eq!(machine.host(GIB + 16), machine.host::<13>(16));
}

#[test]
fn an_address_that_is_not_mapped_is_an_error_and_nothing_is_written() {
    let machine = with_engine(|_| ());
    let (mut client, ram) = started(&machine);
    let read_only = SharedMemory::anonymous("read-only", 4096).unwrap();
    let after = RAM + RAM_LEN;
    client
        .dma_map(after, 4096, DMA_READ, Some((read_only.as_fd(), 0)))
        .unwrap();
    ram.fill(0, RAM_LEN, 0x55).unwrap();
    assert_eq!(run(&mut client, command::FILL, 0, 0, 8192), DONE);
    let zeros = [0; 16];
    for (operation, from, to, len, fault) in [
        (BUS_TO_OWN, 0x1000, 0, 16, 0x1000),
        (OWN_TO_BUS, 0, 0x1000, 16, 0x1000),
        // from mapped memory into memory that the device may only read, and beyond all of it
        (OWN_TO_BUS, 0, after - 16, 32, after),
        (BUS_TO_OWN, after + 4080, 0, 32, after + 4096),
        (BUS_TO_OWN, u64::MAX - 7, 0, 8, u64::MAX - 7),
        (BUS_TO_OWN, u64::MAX - 7, 0, 16, u64::MAX - 7),
        // address 0 is an address as others are
        (BUS_TO_BUS, RAM, 0, 16, 0),
        (BUS_TO_BUS, 0, RAM, 16, 0),
    ] {
        let ended = run(&mut client, operation, from, to, len);
        assert_eq!(
            ended,
            (status::NOT_MAPPED, fault),
            "{operation:#x} {from:#x} {to:#x}"
        );
        assert_eq!(
            machine.host::<16>(0),
            zeros,
            "the coherent memory is as before"
        );
        let mut tail = [0; 16];
        ram.read(RAM_LEN - 16, &mut tail).unwrap();
        assert_eq!(tail, [0x55; 16], "the guest's memory is as before");
    }
    client.dma_unmap(RAM, RAM_LEN).unwrap();
    let ended = run(&mut client, BUS_TO_OWN, RAM, 0, 16);
    assert_eq!(ended, (status::NOT_MAPPED, RAM), "a mapping that is gone");
}

#[test]
fn wrong_commands_and_conditions_of_the_device_have_a_status_of_their_own() {
    let page = 0x3000;
    let machine = with_engine(|options| {
        options.faults = Faults {
            poisoned_page: Some(page),
            ..Faults::NONE
        };
    });
    let (mut client, _ram) = started(&machine);
    let mut ends = |operation, from, to, len, ended| {
        assert_eq!(
            run(&mut client, operation, from, to, len),
            ended,
            "{operation:#x} {from:#x} {to:#x} {len:#x}"
        );
    };
    for operation in [0, 4, 0xff, 1 << 10 | command::COPY, u32::MAX] {
        ends(operation, 0, 0, 16, (status::BAD_COMMAND, 0));
    }
    for len in [0, MAX_LENGTH + 1, u64::MAX] {
        ends(command::COPY, 0, 0, len, (status::BAD_LENGTH, 0));
    }
    for at in [SMALL, SMALL - 15, u64::MAX - 3] {
        ends(BUS_TO_OWN, RAM, at, 16, (status::BAD_RANGE, at));
        ends(command::CHECKSUM, at, 0, 16, (status::BAD_RANGE, at));
    }
    ends(BUS_TO_OWN, RAM, page - 8, 16, (status::MEMORY_FAILED, page));
    ends(BUS_TO_OWN, RAM, page - 16, 16, DONE);
    client.change16(4, 0, MASTER);
    let mut ended = run(&mut client, BUS_TO_OWN, RAM, 0, 16);
    assert_eq!(ended, (status::NO_MASTER, 0));
    ended = run(&mut client, command::FILL, 0, 0, 16);
    assert_eq!(ended, DONE, "inside the device no bus is needed");

    let late = with_engine(|options| {
        options.readiness = Readiness::After(Duration::from_secs(3));
    });
    late.time.advance(3);
    let (mut client, _ram) = started(&late);
    // the open has reset the device
    late.time.advance(3);
    assert_eq!(run(&mut client, BUS_TO_OWN, RAM, 0, 16), DONE);
    client.reset().unwrap();
    client.change16(4, MASTER | 2, 0);
    let ended = run(&mut client, BUS_TO_OWN, RAM, 0, 16);
    assert_eq!(ended, (status::NOT_READY, 0));
}

#[test]
fn the_end_of_a_command_is_a_message_of_the_vector_that_was_chosen() {
    let machine = with_engine(|_| ());
    let (mut client, _ram) = started(&machine);
    let [first, third] = [(); 2].map(|()| EventFd::new().unwrap());
    let index = IrqIndex::MSIX.0;
    let none = EventFd::new().unwrap();
    let fds = [first.as_fd(), none.as_fd(), third.as_fd()];
    client
        .set_irqs(index, 0, irq_set::ACTION_TRIGGER, SentIrqData::Events(&fds))
        .unwrap();
    let choose = |client: &mut Attached, vector: u32| {
        client.write(BAR0, OFFSET + register::VECTOR, &vector.to_le_bytes());
    };
    assert_eq!(get32(&mut client, register::VECTOR), NO_VECTOR);
    run(&mut client, command::FILL, 0, 0, 16);
    choose(&mut client, 2);
    run(&mut client, BUS_TO_OWN, RAM, 0, 16);
    run(&mut client, BUS_TO_OWN, 0, 0, 16);
    run(&mut client, 0, 0, 0, 16);
    choose(&mut client, 0);
    run(&mut client, OWN_TO_BUS, 0, RAM, 16);
    // vectors that the device does not have
    for vector in [9, 0xffff, 0x1_0000] {
        choose(&mut client, vector);
        run(&mut client, command::FILL, 0, 0, 16);
    }
    assert_eq!(first.drain().unwrap(), 1);
    assert_eq!(third.drain().unwrap(), 3, "failures are told too");
    assert_eq!(none.drain().unwrap(), 0);
}

/// Memory that the client keeps to itself.
#[derive(Clone)]
struct Held(Arc<Mutex<Vec<u8>>>);

/// Same, of a client that does something else before it answers its first read, and refuses writes to
/// one page.
struct Busy {
    memory: Held,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
    refused: u64,
}

impl HeldMemory for Busy {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno> {
        if let Some(act) = self.meanwhile.take() {
            act();
        }
        self.memory.read(addr, data)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        match addr - addr % 4096 == self.refused {
            true => Err(Errno::EFAULT),
            false => self.memory.write(addr, data),
        }
    }
}

impl HeldMemory for Held {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno> {
        let start = (addr - RAM) as usize;
        data.copy_from_slice(&self.0.lock().unwrap()[start..start + data.len()]);
        Ok(())
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        let start = (addr - RAM) as usize;
        self.0.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[test]
fn memory_without_a_descriptor_is_reached_through_the_client() {
    let machine = with_engine(|_| ());
    let mut client = machine.attach();
    let bytes = pattern(20_000);
    let held = Held(Arc::new(Mutex::new(
        [bytes.as_slice(), &[0; 30_000]].concat(),
    )));
    client.hold_memory(Box::new(held.clone()));
    client.dma_map(RAM, 50_000, RW, None).unwrap();
    client.change16(4, MASTER, 0);
    assert_eq!(run(&mut client, BUS_TO_OWN, RAM, 5, 20_000), DONE);
    let mut seen = vec![0; 20_000];
    let memory = &machine.silicon.coherent_memory().unwrap().bytes;
    memory.read(5, &mut seen).unwrap();
    assert!(seen == bytes, "the coherent memory has other bytes");
    assert_eq!(run(&mut client, OWN_TO_BUS, 5, RAM + 30_000, 20_000), DONE);
    assert!(
        held.0.lock().unwrap()[30_000..] == bytes,
        "the client has other bytes"
    );
    let ended = run(&mut client, OWN_TO_BUS, 5, RAM + 49_000, 20_000);
    assert_eq!(ended, (status::NOT_MAPPED, RAM + 50_000));
    assert!(
        held.0.lock().unwrap()[30_000..] == bytes,
        "nothing was written"
    );
}

/// Something that happens to a device.
type Act = Box<dyn Fn(&Silicon) + Send + Sync>;

#[test]
fn a_command_stops_if_the_device_may_not_go_on() {
    let page = 8192;
    let poisoned = Faults {
        poisoned_page: Some(page),
        ..Faults::NONE
    };
    let down = Faults {
        c2c_down: true,
        ..Faults::NONE
    };
    let no_master = |device: &Silicon| {
        let command = ConfigRegister::word(4);
        let value = device.config_read(command).unwrap();
        device
            .config_write(command, value & !u32::from(MASTER))
            .unwrap();
    };
    let cases: [(&str, Act, (u32, u64)); 4] = [
        (
            "reset",
            Box::new(|device| {
                device.reset().unwrap();
                let all = u32::from(MASTER) | 2;
                device.config_write(ConfigRegister::word(4), all).unwrap();
            }),
            (status::IDLE, 0),
        ),
        ("master", Box::new(no_master), (status::NO_MASTER, 0)),
        (
            "page",
            Box::new(move |device| device.set_faults(poisoned).unwrap()),
            (status::MEMORY_FAILED, page),
        ),
        (
            "link",
            Box::new(move |device| device.set_faults(down).unwrap()),
            (status::MEMORY_FAILED, page),
        ),
    ];
    for (name, act, ended) in cases {
        let act = Arc::new(act);
        for operation in [BUS_TO_OWN, OWN_TO_BUS] {
            let machine = with_engine(|_| ());
            let mut client = machine.attach();
            let held = Held(Arc::new(Mutex::new(vec![0x66; 8192])));
            let (device, act) = (Arc::clone(&machine.silicon), Arc::clone(&act));
            let acted = Arc::new(AtomicBool::new(false));
            let of_client = Arc::clone(&acted);
            client.hold_memory(Box::new(Busy {
                memory: held.clone(),
                meanwhile: Some(Box::new(move || {
                    act(&device);
                    of_client.store(true, Ordering::SeqCst);
                })),
                refused: 0,
            }));
            client.dma_map(RAM, 8192, RW, None).unwrap();
            client.change16(4, MASTER, 0);
            let own = &machine.silicon.coherent_memory().unwrap().bytes;
            own.fill(page, 4096, 0x77).unwrap();
            let (from, to) = match operation {
                BUS_TO_OWN => (RAM, page),
                _ => (page, RAM),
            };
            set64(&mut client, register::SOURCE, from);
            set64(&mut client, register::DESTINATION, to);
            set64(&mut client, register::LENGTH, 4096);
            client.write(BAR0, OFFSET + register::COMMAND, &operation.to_le_bytes());
            let begin = Instant::now();
            let busy = |client: &mut Attached| get32(client, register::STATUS) == status::BUSY;
            while busy(&mut client) || !acted.load(Ordering::SeqCst) {
                assert!(
                    begin.elapsed() < FOREVER,
                    "{name}: the command does not end"
                );
            }
            let seen = (
                get32(&mut client, register::STATUS),
                get64(&mut client, register::FAULT),
            );
            assert_eq!(seen, ended, "{name} {operation:#x}");
            // commands run one after another: this one comes behind what is left of the first
            machine.silicon.set_faults(Faults::NONE).unwrap();
            client.change16(4, MASTER, 0);
            let sum = command::CHECKSUM | command::SOURCE_BUS;
            assert_eq!(run(&mut client, sum, RAM, 0, 8192), DONE, "{name}");
            let mut bytes = [0; 4096];
            own.read(page, &mut bytes).unwrap();
            assert_eq!(bytes, [0x77; 4096], "{name}: the coherent memory");
            let held = held.0.lock().unwrap();
            assert!(held.iter().all(|byte| *byte == 0x66), "{name}: the client");
        }
    }
}

#[test]
fn a_client_that_refuses_a_page_has_those_before_it() {
    let machine = with_engine(|_| ());
    let mut client = machine.attach();
    let held = Held(Arc::new(Mutex::new(vec![0x66; 16384])));
    client.hold_memory(Box::new(Busy {
        memory: held.clone(),
        meanwhile: None,
        refused: RAM + 12288,
    }));
    client.dma_map(RAM, 16384, RW, None).unwrap();
    client.change16(4, MASTER, 0);
    for (operation, from) in [(OWN_TO_BUS, 0), (BUS_TO_BUS, RAM)] {
        held.0.lock().unwrap()[..8192].fill(0);
        held.0.lock().unwrap()[8192..].fill(0x66);
        let ended = run(&mut client, operation, from, RAM + 8192, 8192);
        assert_eq!(ended, (status::NOT_MAPPED, RAM + 8192), "the destination");
        let held = held.0.lock().unwrap();
        assert_eq!(held[8192..12288], [0; 4096], "the page before");
        assert_eq!(held[12288..], [0x66; 4096], "the page that is refused");
    }
}

#[test]
fn a_device_without_the_engine_has_plain_registers_there_and_a_reset_clears_the_engine() {
    let machine = Machine::small();
    let mut client = machine.attach();
    for at in (0..varia_spec::copy_engine::LEN).step_by(8) {
        assert_eq!(get64(&mut client, at), 0);
    }
    client.write(
        BAR0,
        OFFSET + register::COMMAND,
        &command::FILL.to_le_bytes(),
    );
    assert_eq!(get32(&mut client, register::STATUS), 0);

    let machine = with_engine(|_| ());
    let (mut client, _ram) = started(&machine);
    run(&mut client, BUS_TO_OWN, 0x77, 0x99, 0x11);
    client.reset().unwrap();
    client.change16(4, 2, 0);
    let mut block = [0; 0x50];
    client.region_read(BAR0, OFFSET, &mut block).unwrap();
    let mut expected = [0; 0x50];
    expected[..4].copy_from_slice(b"VCE1");
    expected[0x40..0x44].fill(0xff);
    assert_eq!(block, expected);
}
