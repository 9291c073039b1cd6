//! The copy engine, by its registers.

use std::os::fd::AsFd;
use std::sync::Arc;

use varia_core::{ConfigRegister, Device, Dma, DmaAccess, HostPhys, Width};
use varia_silicon::{Options, Silicon, profile};
use varia_spec::copy_engine::{self, MAX_LENGTH, OFFSET, command, register, status};
use varia_spec::pci::header;
use varia_sys::memory::SharedMemory;

const BUS: u64 = 0x4000_0000;
const LEN: u64 = 1 << 20;
const OWN: u64 = 0x3000;

/// A device that may use the bus, the memory there, and the address of the device's own.
fn device() -> (Silicon, SharedMemory, u64) {
    let options = Options {
        copy_engine: true,
        ..Options::default()
    };
    let device = Silicon::new(profile::find("gh200").unwrap(), options).unwrap();
    let ram = SharedMemory::anonymous("ram", LEN).unwrap();
    let dma = Dma::default();
    let access = DmaAccess {
        read: true,
        write: true,
    };
    let fd = ram.as_fd().try_clone_to_owned().unwrap();
    dma.map(BUS, LEN, access, Some((fd, 0))).unwrap();
    device.attach(Some(Arc::new(dma)));
    let register = ConfigRegister::new(header::COMMAND, Width::Word).unwrap();
    device.config_write(register, 0x6).unwrap();
    let base = device.coherent_memory().unwrap().base.0;
    (device, ram, base)
}

fn get(device: &Silicon, at: u64) -> u64 {
    let mut bytes = [0; 8];
    device.bar_read(0, OFFSET + at, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// Runs a command to its end: its status.
fn run(device: &Silicon, operation: u32, from: u64, to: u64, len: u64) -> u32 {
    for (at, value) in [
        (register::SOURCE, from),
        (register::DESTINATION, to),
        (register::LENGTH, len),
    ] {
        let bytes = value.to_le_bytes();
        device.bar_write(0, OFFSET + at, &bytes).unwrap();
        assert_eq!(get(device, at), value);
    }
    let count = get(device, register::COUNT) as u32;
    let at = OFFSET + register::COMMAND;
    device.bar_write(0, at, &operation.to_le_bytes()).unwrap();
    while (get(device, register::STATUS) as u32) == status::BUSY {
        std::thread::yield_now();
    }
    assert_eq!(get(device, register::COUNT) as u32, count + 1);
    assert_eq!(get(device, register::COUNT) >> 32, u64::from(operation));
    get(device, register::STATUS) as u32
}

#[test]
fn bytes_arrive_and_their_sum_is_the_result() {
    let (device, ram, base) = device();
    let bytes: Vec<u8> = (0..777).map(|at| (at * 7 % 251) as u8).collect();
    ram.write(0x111, &bytes).unwrap();
    let to_own = command::COPY | command::SOURCE_BUS;
    assert_eq!(run(&device, to_own, BUS + 0x111, OWN, 777), status::DONE);
    let mut seen = vec![0; 777];
    device.memory_read(HostPhys(base + OWN), &mut seen).unwrap();
    assert_eq!(seen, bytes);
    assert_eq!(run(&device, command::CHECKSUM, OWN, 0, 777), status::DONE);
    let sum = copy_engine::checksum(copy_engine::CHECKSUM_START, &bytes);
    assert_eq!(get(&device, register::RESULT), sum);
    assert_eq!(get(&device, 0) as u32, copy_engine::ID);
    let to_bus = command::COPY | command::DESTINATION_BUS;
    assert_eq!(run(&device, to_bus, OWN, BUS + 0x8000, 777), status::DONE);
    ram.read(0x8000, &mut seen).unwrap();
    assert_eq!(seen, bytes);
}

#[test]
fn lengths_and_ranges_have_limits() {
    let (device, _ram, base) = device();
    let own = device.coherent_memory().unwrap().bytes.len();
    let mut last = [0; 1];
    device
        .memory_read(HostPhys(base + own - 1), &mut last)
        .unwrap();
    for (from, len, expected) in [
        (0, 0, status::BAD_LENGTH),
        (0, MAX_LENGTH + 1, status::BAD_LENGTH),
        (0, MAX_LENGTH, status::DONE),
        (own - 16, 16, status::DONE),
        (own - 16, 17, status::BAD_RANGE),
    ] {
        let ended = run(&device, command::CHECKSUM, from, 0, len);
        assert_eq!(ended, expected, "{len} bytes at {from:#x}");
    }
}
