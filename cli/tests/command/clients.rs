//! Clients that break the protocol: each gets an error reply, or loses its connection with a line in
//! the log, and the next client is served.

use std::os::fd::AsFd;
use std::time::Instant;

use varia_spec::Errno;
use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_sys::socket::Stream;
use varia_vfio_user::client::Client;
use varia_vfio_user::command::Command;
use varia_vfio_user::command::version::{Capabilities, MAX_DMA_MAPS, Version};
use varia_vfio_user::command::{DMA_READ, DMA_WRITE};
use varia_vfio_user::wire::Header;

use crate::process::{Folder, Serving, command, program};

fn serving() -> (Folder, Serving) {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &["gb200", "--memory", "1G"]);
    (folder, serving)
}

/// A client that has sent nothing.
fn silent(serving: &Serving) -> Client {
    Client::over(Stream::connect(&serving.socket).unwrap())
}

/// Waits for the line with the reason for a dropped client.
fn dropped(serving: &mut Serving, why: &str) {
    let line = serving.wait_for("dropped: ");
    for part in ["client (pid ", "uid ", why, "waits for the next"] {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
    served(serving);
}

/// Checks that the device is still served.
fn served(serving: &Serving) {
    let mut client = serving.client();
    assert_eq!(client.region_write(4, 0, &[1, 2, 3, 4]).unwrap(), 4);
    let mut seen = [0; 4];
    assert_eq!(client.region_read(4, 0, &mut seen).unwrap(), 4);
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn a_client_that_says_nothing() {
    let (_folder, mut serving) = serving();
    let begin = Instant::now();
    let _client = silent(&serving);
    dropped(&mut serving, "sent no complete VERSION message within 5 s");
    assert!(begin.elapsed().as_secs() >= 5);
}

#[test]
fn a_client_that_is_idle_for_longer_than_it_may() {
    let folder = Folder::new();
    let options = ["gb200", "--memory", "1G", "--idle-timeout", "1", "--spin"];
    let mut serving = Serving::start(&folder, &options);
    let _client = serving.client();
    dropped(&mut serving, "sent no message for 1 s (--idle-timeout)");
}

#[test]
fn a_client_that_stops_in_mid_message() {
    let (_folder, mut serving) = serving();
    let client = serving.client();
    let header = Header::command(1, Command::REGION_READ, 16).encode();
    client.send_bytes(&header, &[]).unwrap();
    client.send_bytes(&[0; 7], &[]).unwrap();
    dropped(
        &mut serving,
        "the peer stopped after 23 of 32 bytes of a message",
    );
}

#[test]
fn a_client_that_leaves_in_mid_message() {
    let (_folder, mut serving) = serving();
    let client = serving.client();
    client.send_bytes(&[0; 5], &[]).unwrap();
    drop(client);
    dropped(
        &mut serving,
        "the peer closed the connection after 5 of 16 bytes",
    );
}

#[test]
fn a_client_that_lies_about_a_length() {
    for (size, why) in [
        (15_u32, "15 bytes"),
        (u32::MAX, "4294967295 bytes"),
        (1 << 24, "16777216 bytes"),
    ] {
        let (_folder, mut serving) = serving();
        let client = serving.client();
        let mut header = Header::command(1, Command::REGION_READ, 16).encode();
        header[4..8].copy_from_slice(&size.to_ne_bytes());
        client.send_bytes(&header, &[]).unwrap();
        dropped(&mut serving, why);
    }
}

#[test]
fn a_client_whose_data_is_not_as_long_as_it_says() {
    let (_folder, mut serving) = serving();
    let mut client = serving.client();
    let mut payload = [0; 24];
    payload[8..12].copy_from_slice(&4_u32.to_ne_bytes());
    payload[12..16].copy_from_slice(&9_u32.to_ne_bytes());
    let header = Header::command(1, Command::REGION_WRITE, payload.len());
    let message = [&header.encode()[..], &payload].concat();
    client.send_bytes(&message, &[]).unwrap();
    let line = serving.wait_for("REGION_WRITE refused: ");
    assert!(line.contains("announces 9 and brings 8 bytes"), "{line}");
    let errno = Errno::EINVAL.get().cast_unsigned();
    assert_eq!(client.receive().unwrap().header.error, Some(errno));
    drop(client);
    served(&serving);
}

#[test]
fn a_client_that_sends_too_many_descriptors() {
    let (_folder, mut serving) = serving();
    let mut client = serving.client();
    let event = EventFd::new().unwrap();
    let header = Header::command(1, Command::DEVICE_RESET, 0).encode();
    client.send_bytes(&header, &[event.as_fd(); 40]).unwrap();
    let line = serving.wait_for("DEVICE_RESET refused: ");
    assert!(line.contains("more than 16 descriptors"), "{line}");
    let errno = Errno::EINVAL.get().cast_unsigned();
    assert_eq!(client.receive().unwrap().header.error, Some(errno));
    drop(client);
    served(&serving);
    let open = std::fs::read_dir(format!("/proc/{}/fd", serving.pid())).unwrap();
    assert!(open.count() < 30, "the descriptors were closed");
}

#[test]
fn a_client_with_a_wrong_version() {
    let (_folder, mut serving) = serving();
    let mut client = silent(&serving);
    let mut payload = Vec::new();
    Version {
        major: 7,
        minor: 1,
        capabilities: Capabilities::default(),
    }
    .encode(&mut payload);
    let refusal = client.request(Command::VERSION, &payload, &[]);
    assert_eq!(refusal.unwrap_err().errno(), Some(Errno::EPROTO));
    dropped(&mut serving, "version 7.1 and this server 0.0");
}

#[test]
fn a_client_that_begins_with_another_command() {
    let (_folder, mut serving) = serving();
    let client = silent(&serving);
    let header = Header::command(1, Command::DEVICE_RESET, 0).encode();
    client.send_bytes(&header, &[]).unwrap();
    dropped(&mut serving, "DEVICE_RESET instead of VERSION");
}

#[test]
fn a_client_that_speaks_no_protocol_at_all() {
    let (_folder, mut serving) = serving();
    let client = silent(&serving);
    let request = b"GET / HTTP/1.1\r\nHost: gpu\r\n\r\n";
    client.send_bytes(request, &[]).unwrap();
    dropped(&mut serving, "dropped: ");
}

#[test]
fn a_second_client_is_refused_and_the_first_does_not_notice() {
    let (_folder, mut serving) = serving();
    let mut first = serving.client();
    let mut second = silent(&serving);
    let refusal = second.negotiate().unwrap_err();
    assert_eq!(refusal.errno(), Some(Errno::EBUSY));
    let line = serving.wait_for("refused");
    assert!(line.contains("one client at a time"), "{line}");
    first.device_info().unwrap();
    assert_eq!(first.region_write(4, 0, &[1; 4]).unwrap(), 4);
    drop(first);
    served(&serving);
}

/// The usual limits of an ordinary user.
#[test]
fn the_most_mappings_of_a_client_with_1024_descriptors() {
    let folder = Folder::new();
    let socket = folder.path("gpu.sock");
    let mut limited = command("sh");
    let limits = "ulimit -Sn 256 && ulimit -Hn 1024 && exec \"$0\" \"$@\"";
    limited.args(["-c", limits]).arg(program());
    limited.args(["serve", "gb200", "--memory", "1G"]);
    limited.arg("--socket").arg(&socket);
    let serving = Serving::of(limited, socket);
    let proc = format!("/proc/{}", serving.pid().as_raw_nonzero());
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["1024", "1024"], "raised to the hard limit");
    let descriptors = || std::fs::read_dir(format!("{proc}/fd")).unwrap().count();

    let mut client = serving.client();
    let memory = SharedMemory::anonymous("ram", 2 * MAX_DMA_MAPS as u64 * 4096).unwrap();
    let before = descriptors();
    for page in 0..MAX_DMA_MAPS as u64 {
        let at = 2 * page * 4096;
        client
            .dma_map(at, 4096, DMA_READ | DMA_WRITE, Some((memory.as_fd(), at)))
            .unwrap();
    }
    assert_eq!(descriptors(), before + 1);
    client.dma_unmap_all().unwrap();
    assert_eq!(descriptors(), before);
    drop(client);
    served(&serving);
}
