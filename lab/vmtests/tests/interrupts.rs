//! MSI and MSI-X, from the silicon through the server and a real QEMU to where the guest asked.
//!
//! A message is a write to the address that the guest programs. Here that is RAM, where the test
//! looks for it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use varia_lab::HANG;
use varia_serve::View;
use varia_silicon::{Options, profile};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::qtest::Machine;

/// Where messages go, in RAM, and where BAR0 is put.
const TARGET: u64 = 0x10_0000;
const BAR0: u64 = 0x50_0000_0000;
/// Offsets of the profile's capabilities in configuration space.
const MSI: u32 = 0x48;
const MSIX: u32 = 0xb0;
const MEMORY_AND_MASTER: u32 = 0x6;

fn machine() -> (Gpu, Machine) {
    let gh200 = profile::find("gh200").expect("a profile");
    let gpu = Gpu::serve(gh200, View::Virtual, Options::default()).expect("a server");
    let mut machine = Machine::start(&gpu);
    machine.config_write(0x10, BAR0 as u32);
    machine.config_write(0x14, (BAR0 >> 32) as u32);
    machine.config_write(0x04, MEMORY_AND_MASTER);
    machine.write(TARGET, 0);
    (gpu, machine)
}

/// Waits until the message has arrived.
fn expect(machine: &mut Machine, message: u64) {
    let deadline = Instant::now() + HANG;
    loop {
        let seen = machine.read(TARGET);
        if seen == message {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{seen:#x} instead of {message:#x}"
        );
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_msi_arrives_where_the_guest_asked_and_none_once_it_is_disabled() {
    let (gpu, mut machine) = machine();
    let head = machine.config_read(MSI) as u32;
    assert_eq!(head & 0xff, 0x05, "an MSI capability");
    machine.config_write(MSI + 4, TARGET as u32);
    machine.config_write(MSI + 8, 0);
    machine.config_write(MSI + 12, 0x4d51);
    machine.config_write(MSI, head | 1 << 16);
    gpu.silicon().raise(0);
    expect(&mut machine, 0x4d51);

    machine.config_write(MSI, head & !(1 << 16));
    machine.write(TARGET, 0);
    gpu.silicon().raise(0);
    sleep(Duration::from_millis(200));
    assert_eq!(machine.read(TARGET), 0, "MSI is disabled");
}

#[test]
fn each_msix_vector_arrives_with_its_own_data() {
    let (gpu, mut machine) = machine();
    let head = machine.config_read(MSIX) as u32;
    assert_eq!(head & 0xff, 0x11, "an MSI-X capability");
    let table = machine.config_read(MSIX + 4);
    assert_eq!(table & 7, 0, "the table is in BAR0");
    machine.config_write(MSIX, head | 1 << 31);
    for vector in [0, 3, 8] {
        // address, then data and an unmasked control word
        let entry = BAR0 + table + 16 * vector;
        machine.write(entry, TARGET);
        machine.write(entry + 8, 0x7700 + vector);
    }
    for vector in [3, 0, 8] {
        gpu.silicon().raise(vector as u16);
        expect(&mut machine, 0x7700 + vector);
    }
}
