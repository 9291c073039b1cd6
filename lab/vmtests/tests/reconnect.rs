//! A QEMU that is killed, and started again on the same server: the device serves, and a named
//! backing file still has its bytes.
//!
//! No guest runs: the test itself drives QEMU's configuration space and memory (`-qtest`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use varia_lab::vm::MEMORY_FOLDER;
use varia_serve::View;
use varia_silicon::{Backing, Options, profile};
use varia_vfio_user::client::Client;
use varia_vmtests::gpu::Gpu;
use varia_vmtests::qtest::Machine;

const GIB: u64 = 1 << 30;
/// Half a GiB of usemem behind a BAR of 1 GiB, and the rest behind one of 2 GiB.
const MEMORY: u64 = GIB + (512 << 20) + 4096;
const USEMEM: u64 = 512 << 20;
/// Where the test puts the BARs, above all RAM.
const BAR2: u64 = 0x60_0000_0000;
const BAR4: u64 = 0x80_0000_0000;

fn start(gpu: &Gpu) -> Machine {
    let mut machine = Machine::start(gpu);
    assert_eq!(machine.config_read(0), 0x2342_10de);
    machine.place_bar(2, 2 * GIB, BAR2);
    machine.place_bar(4, GIB, BAR4);
    machine.enable_memory();
    machine
}

fn word(file: &Path, at: u64) -> u64 {
    let mut bytes = [0; 8];
    let file = File::open(file).expect("the backing file");
    file.read_exact_at(&mut bytes, at).expect("its bytes");
    u64::from_le_bytes(bytes)
}

#[test]
fn a_qemu_that_is_killed_and_started_again_finds_its_device_and_its_bytes() {
    let folder = tempfile::tempdir_in(MEMORY_FOLDER).expect("a folder");
    let backing = folder.path().join("memory");
    let profile = profile::find("gh200").expect("a profile");
    let options = Options {
        memory: Some(MEMORY),
        backing: Backing::File(backing.clone()),
        ..Options::default()
    };
    let gpu = Gpu::serve(profile, View::Virtual, options.clone()).expect("a server");
    // where QEMU writes, and where that is in the memory
    let places = [
        (BAR4, 0),
        (BAR4 + USEMEM - 8, USEMEM - 8),
        (BAR2 + 4096, USEMEM + 4096),
    ];
    let before = |round: u64| {
        if round == 1 {
            0
        } else {
            (round - 1) << 32 | 0x5a
        }
    };
    for round in 1..=3 {
        let mut machine = start(&gpu);
        for (address, offset) in places {
            assert_eq!(machine.read(address), before(round), "round {round}");
            machine.write(address, before(round + 1));
            assert_eq!(word(&backing, offset), before(round + 1));
        }
        // beyond usemem, which the server answers
        machine.write(BAR4 + USEMEM, 7);
        assert_eq!(machine.read(BAR4 + USEMEM), u64::MAX);
        machine.kill();
    }
    let mut client = Client::connect(&gpu.socket()).expect("the device serves");
    let mut seen = [0; 8];
    client.region_read(4, 0, &mut seen).expect("a read");
    assert_eq!(u64::from_le_bytes(seen), before(4));
    drop(client);
    // the server is started again as well
    drop(gpu);
    let gpu = Gpu::serve(profile, View::Virtual, options).expect("a server");
    let mut machine = start(&gpu);
    for (address, _) in places {
        assert_eq!(machine.read(address), before(4));
    }
}
