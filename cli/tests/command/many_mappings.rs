//! Clients with many mappings at many devices of one server, whose user has 1,024 descriptors: when
//! the clients have left, the server holds what it held before.

use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::path::Path;
use std::thread;

use rustix::process::geteuid;
use varia_sys::memory::SharedMemory;
use varia_vfio_user::command::version::MAX_DMA_MAPS;
use varia_vfio_user::command::{DMA_READ, DMA_WRITE};

use crate::held::{Held, mappings};
use crate::process::{Attached, Folder, NOBODY, Serving, as_ordinary_user, command};

/// Name of the clients' files, as `/proc` shows it.
const FILE: &str = "many-mappings";
const PAGE: u64 = 4096;
/// Descriptors of the clients' files that the server has room for beside its own.
const ROOM: usize = 320;

/// Devices, and mappings of the client of each: few, or with large counts as many as there can be.
fn counts() -> (usize, usize) {
    match std::env::var_os("VARIA_COUNT") {
        Some(_) => (64, MAX_DMA_MAPS),
        None => (8, 2_000),
    }
}

/// A server with the limits of an ordinary user.
fn start(folder: &Folder, devices: usize) -> Serving {
    let run = folder.argument("run");
    std::fs::create_dir(&run).unwrap();
    if geteuid().is_root() {
        chown(&run, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let devices = format!("nic:{devices}");
    let varia = folder.ordinary_user(&["serve", &devices, "--directory", &run]);
    let limits = "ulimit -Sn 256 && ulimit -Hn 1024 && exec \"$0\" \"$@\"";
    let mut limited = command("sh");
    limited.args(["-c", limits]).arg(varia.get_program());
    limited.args(varia.get_args());
    as_ordinary_user(&mut limited);
    Serving::of(limited, folder.path("run/nic-0.sock"))
}

/// A client that has mapped pages of all files in turn.
fn client(serving: &Serving, socket: &Path, files: &[SharedMemory], mappings: usize) -> Attached {
    let mut client = serving.client_of(socket);
    for index in 0..mappings {
        let file = files[index % files.len()].as_fd();
        let offset = (index / files.len()) as u64 * PAGE;
        let at = 2 * index as u64 * PAGE;
        let access = DMA_READ | DMA_WRITE;
        client
            .dma_map(at, PAGE, access, Some((file, offset)))
            .unwrap();
    }
    client
}

#[test]
fn clients_with_many_mappings_leave_nothing_behind() {
    let (devices, count) = counts();
    let folder = Folder::new();
    let serving = start(&folder, devices);
    let of_each = ROOM / devices;
    let len = count.div_ceil(of_each) as u64 * PAGE;
    let files: Vec<_> = (0..of_each)
        .map(|_| SharedMemory::anonymous(FILE, len).unwrap())
        .collect();
    let before = Held::by(&serving);
    let clients: Vec<_> = thread::scope(|scope| {
        let (serving, files) = (&serving, &files[..]);
        let start = |device: usize| {
            let socket = folder.path(&format!("run/nic-{device}.sock"));
            scope.spawn(move || client(serving, &socket, files, count))
        };
        let threads: Vec<_> = (0..devices).map(start).collect();
        let clients = threads.into_iter().map(|thread| thread.join().unwrap());
        clients.collect()
    });
    assert_eq!(mappings(&serving, FILE), devices * of_each);
    let during = Held::by(&serving);
    assert!(during.descriptors >= before.descriptors + devices * (of_each + 1));
    drop(clients);
    let after = before.again(&serving);
    assert_eq!(mappings(&serving, FILE), 0);
    println!(
        "result: {devices} clients with {count} mappings each: {before:?}, {during:?}, {after:?}"
    );
    // and each device serves the next client
    for device in 0..devices {
        let socket = folder.path(&format!("run/nic-{device}.sock"));
        serving.client_of(&socket).device_info().unwrap();
    }
}
