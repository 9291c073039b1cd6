//! Thousands of malformed messages, cut connections and killed clients: the server lives, its log stays short, and
//! its descriptors, threads and memory are those of before.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{self, Stdio};

use rustix::process::Signal;
use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_sys::socket::Stream;
use varia_vfio_user::client::Client;
use varia_vfio_user::command::{Command, DMA_READ, DMA_WRITE};
use varia_vfio_user::wire::{Header, Kind};

use crate::held::Held;
use crate::process::{Folder, HANG, Serving};

/// Messages of a connection.
const MESSAGES: usize = 20;

/// Environment variable that gives a killed client the server's socket.
const SOCKET: &str = "VARIA_TEST_HOSTILE_CLIENT";
const NAME: &str = "hostile::malformed_messages_and_killed_clients_leave_nothing_behind";

/// Malformed messages, and a hundredth as many killed clients, at most a thousand.
fn counts() -> (usize, usize) {
    let messages = std::env::var("VARIA_COUNT").map_or(10_000, |text| text.parse().unwrap());
    (messages, (messages / 100).clamp(1, 1000))
}

/// The client that is killed, in the middle of a message and with a mapping.
fn connect_until_killed(socket: &Path) -> ! {
    let mut client = Client::connect(socket).unwrap();
    let memory = SharedMemory::anonymous("killed", 4096).unwrap();
    let access = DMA_READ | DMA_WRITE;
    client
        .dma_map(0, 4096, access, Some((memory.as_fd(), 0)))
        .unwrap();
    let header = Header::command(1, Command::REGION_READ, 16).encode();
    client.send_bytes(&header, &[memory.as_fd()]).unwrap();
    println!("mapped");
    std::thread::sleep(HANG);
    panic!("nobody killed it");
}

/// Starts a client in a process of its own and kills it once it has mapped memory.
fn kill_a_client(serving: &Serving) {
    let mut killed = process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(SOCKET, &serving.socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    let mapped = lines.any(|line| line.unwrap().ends_with("mapped"));
    assert!(mapped, "{}", serving.text());
    killed.kill().unwrap();
    killed.wait().unwrap();
}

/// A message of any command whose payload has any length and bytes; one in fifty has a size that
/// can't be true.
fn message(rng: &mut fastrand::Rng) -> Vec<u8> {
    let payload: Vec<u8> = match rng.u8(..3) {
        0 => (0..rng.usize(..64)).map(|_| rng.u8(..)).collect(),
        // small fields, which get further
        _ => (0..rng.usize(..16))
            .flat_map(|_| rng.u32(..40).to_ne_bytes())
            .collect(),
    };
    let mut header = Header::command(rng.u16(..), Command(rng.u16(..20)), payload.len());
    header.no_reply = rng.u8(..8) == 0;
    if rng.u8(..16) == 0 {
        header.kind = Kind::Unknown(rng.u8(2..16));
    }
    if rng.u8(..50) == 0 {
        header.size = if rng.bool() { rng.u32(..16) } else { u32::MAX };
    }
    [&header.encode()[..], &payload].concat()
}

#[test]
fn malformed_messages_and_killed_clients_leave_nothing_behind() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        connect_until_killed(Path::new(&socket));
    }
    let (messages, kills) = counts();
    let folder = Folder::new();
    let serving = Serving::start(&folder, &["gb200", "--memory", "1G"]);
    let mut rng = fastrand::Rng::with_seed(15);
    let event = EventFd::new().unwrap();
    let before = Held::by(&serving);
    for _ in 0..messages.div_ceil(MESSAGES) {
        let client = serving.client();
        for _ in 0..MESSAGES {
            let fds = vec![event.as_fd(); if rng.u8(..4) == 0 { rng.usize(..20) } else { 0 }];
            // the server may have ended the connection
            let _ = client.send_bytes(&message(&mut rng), &fds);
        }
    }
    for _ in 0..kills {
        let client = match rng.bool() {
            true => Client::over(Stream::connect(&serving.socket).unwrap()),
            false => Client::connect(&serving.socket).unwrap(),
        };
        let bytes = message(&mut rng);
        let part = rng.usize(1..=bytes.len());
        let _ = client.send_bytes(&bytes[..part], &[event.as_fd(); 3]);
        client.stream().shutdown();
    }
    for _ in 0..kills {
        kill_a_client(&serving);
    }
    let after = before.again(&serving);
    println!(
        "result: {messages} malformed messages, {kills} cut connections and {kills} killed \
         clients: {before:?}, {after:?}"
    );
    let mut client = serving.client();
    assert_eq!(client.region_write(4, 0, &[1, 2, 3, 4]).unwrap(), 4);
    drop(client);
    let (status, text) = serving.end(Signal::TERM);
    assert!(status.success(), "{text}");
    let lines = text.lines().count();
    assert!(
        lines < messages / 10,
        "{lines} lines for {messages} messages"
    );
    assert!(
        text.contains("lines on malformed messages left out before"),
        "{text}"
    );
}
