//! Thousands of malformed messages and cut connections: the server lives, its log stays short, and
//! its descriptors, threads and memory are those of before.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use varia_sys::event::EventFd;
use varia_sys::socket::Stream;
use varia_vfio_user::client::Client;
use varia_vfio_user::command::Command;
use varia_vfio_user::wire::{Header, Kind};

use crate::process::{Folder, HANG, Serving};

const CONNECTIONS: usize = 500;
const MESSAGES: usize = 20;
const CUT: usize = 100;

/// Descriptors, threads, and resident memory in KiB.
fn held(serving: &Serving) -> (usize, usize, u64) {
    let proc = format!("/proc/{}", serving.pid().as_raw_nonzero());
    let count = |what: &str| {
        let entries = std::fs::read_dir(format!("{proc}/{what}"));
        entries.unwrap().count()
    };
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().split_whitespace().next().unwrap();
    (count("fd"), count("task"), resident.parse().unwrap())
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
fn malformed_messages_and_cut_connections_leave_nothing_behind() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &["gb200", "--memory", "1G"]);
    let mut rng = fastrand::Rng::with_seed(15);
    let event = EventFd::new().unwrap();
    drop(serving.client());
    let (files, threads, memory) = held(&serving);
    for _ in 0..CONNECTIONS {
        let client = serving.client();
        for _ in 0..MESSAGES {
            let fds = vec![event.as_fd(); if rng.u8(..4) == 0 { rng.usize(..20) } else { 0 }];
            // the server may have ended the connection
            let _ = client.send_bytes(&message(&mut rng), &fds);
        }
    }
    for _ in 0..CUT {
        let client = match rng.bool() {
            true => Client::over(Stream::connect(&serving.socket).unwrap()),
            false => Client::connect(&serving.socket).unwrap(),
        };
        let bytes = message(&mut rng);
        let part = rng.usize(1..=bytes.len());
        let _ = client.send_bytes(&bytes[..part], &[event.as_fd(); 3]);
        client.stream().shutdown();
    }
    let deadline = Instant::now() + HANG;
    loop {
        let (files_now, threads_now, memory_now) = held(&serving);
        // a thread that ended is joined when the next client comes; the allocator keeps some memory
        if files_now <= files && threads_now <= threads && memory_now < memory + (32 << 10) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{files} descriptors, {threads} threads, {memory} KiB became {files_now}, \
             {threads_now}, {memory_now}"
        );
        drop(serving.client());
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut client = serving.client();
    assert_eq!(client.region_write(4, 0, &[1, 2, 3, 4]).unwrap(), 4);
    drop(client);
    let (status, text) = serving.end(Signal::TERM);
    assert!(status.success(), "{text}");
    let lines = text.lines().count();
    assert!(lines < 1000, "{lines} lines for 10,000 messages");
    assert!(
        text.contains("lines on malformed messages left out before"),
        "{text}"
    );
}
