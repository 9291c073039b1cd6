//! Clients that break the protocol: each loses its connection for a reason that
//! names the value, and the device serves the next.

use std::os::fd::AsFd;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use varia_spec::errno::Errno;
use varia_sys::event::EventFd;
use varia_sys::socket::Stream;
use varia_vfio_user::client::{Client, ClientError};
use varia_vfio_user::connection::ConnectionError;
use varia_vfio_user::server::{Disconnect, Server, Timeouts};
use varia_vfio_user::wire::{Command, Header, MAX_DATA_XFER};

use crate::fake::{Event, Fake, HANG, Served, short_timeouts, timeouts};

/// Serve one client, which does what `act` says and then keeps its end open, and
/// return why the server ended the conversation.
fn end_of(act: impl FnOnce(&mut Client) + Send) -> Disconnect {
    end_within(timeouts(), act)
}

fn end_within(timeouts: Timeouts, act: impl FnOnce(&mut Client) + Send) -> Disconnect {
    let (ours, theirs) = Stream::pair().unwrap();
    let server = Server::with_timeouts(Fake::new(), timeouts);
    let mut client = Client::over(ours);
    thread::scope(|s| {
        let serving = s.spawn(|| server.serve_one(theirs, None));
        act(&mut client);
        serving.join().unwrap().unwrap_err()
    })
}

/// As [`end_of`], after the negotiation.
fn end_after_negotiation_of(act: impl FnOnce(&mut Client) + Send) -> Disconnect {
    end_of(|client| {
        client.negotiate().unwrap();
        act(client);
    })
}

fn says(end: &Disconnect, text: &str) {
    assert!(end.to_string().contains(text), "{end}");
}

/// A header with fields of any value.
fn header(command: u16, size: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[2..4].copy_from_slice(&command.to_ne_bytes());
    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

#[test]
fn silence_before_the_handshake_is_ended_in_time() {
    let handshake = Duration::from_millis(150);
    let end = end_within(
        Timeouts {
            handshake,
            ..timeouts()
        },
        |_| {},
    );
    assert!(matches!(end, Disconnect::Silent { .. }), "{end}");
    says(&end, "no complete VERSION message within 0.15 s");
}

#[test]
fn a_client_may_be_silent_between_messages() {
    let served = Served::with_timeouts(Fake::new(), short_timeouts());
    let mut client = served.client();
    thread::sleep(short_timeouts().message * 2);
    client.device_info().unwrap();
}

#[test]
fn stopping_in_the_middle_of_a_header_or_a_payload_is_ended_in_time() {
    let end = end_within(short_timeouts(), |c| {
        c.negotiate().unwrap();
        c.send_bytes(&[1, 0, 4], &[]).unwrap();
    });
    says(&end, "stopped after 3 of 16 bytes");
    let end = end_within(short_timeouts(), |c| {
        c.negotiate().unwrap();
        c.send_bytes(&header(4, 32, 0), &[]).unwrap();
        c.send_bytes(&[0; 5], &[]).unwrap();
    });
    says(&end, "stopped after 21 of 32 bytes");
}

#[test]
fn a_stream_that_ends_in_the_middle_of_a_message_is_no_regular_end() {
    let end = end_after_negotiation_of(|c| {
        c.send_bytes(&header(4, 32, 0), &[]).unwrap();
        c.stream().shutdown_write();
    });
    says(&end, "closed the connection after 16 of 32 bytes");
}

#[test]
fn sizes_that_cannot_be_are_named() {
    let max = (32 + MAX_DATA_XFER) as u32;
    for (size, text) in [
        (0, "claims 0 bytes"),
        (15, "claims 15 bytes"),
        (max + 1, "at most 1048608 are allowed"),
        (u32::MAX, "claims 4294967295 bytes"),
    ] {
        let end = end_after_negotiation_of(|c| c.send_bytes(&header(9, size, 0), &[]).unwrap());
        says(&end, text);
    }
}

#[test]
fn before_the_negotiation_a_message_is_short() {
    let end = end_of(|c| c.send_bytes(&header(1, 5000, 0), &[]).unwrap());
    says(&end, "claims 5000 bytes, and at most 4112");
}

#[test]
fn a_payload_that_is_not_the_commands_structure_is_named() {
    for (command, len, text) in [
        (2, 31, "DMA_MAP has 31 bytes and needs 32"),
        (2, 33, "DMA_MAP has 33 bytes and takes 32"),
        (3, 23, "DMA_UNMAP has 23 bytes and needs 24"),
        (4, 0, "DEVICE_GET_INFO has 0 bytes and needs 4"),
        (5, 31, "DEVICE_GET_REGION_INFO has 31 bytes"),
        (7, 17, "DEVICE_GET_IRQ_INFO has 17 bytes and takes 16"),
        (8, 19, "DEVICE_SET_IRQS has 19 bytes and needs 20"),
        (9, 15, "REGION_READ has 15 bytes and needs 16"),
        (9, 17, "REGION_READ"),
        (10, 15, "REGION_WRITE has 15 bytes and needs 16"),
        (10, 17, "REGION_WRITE announces 0 and brings 1 bytes"),
        (13, 1, "DEVICE_RESET has 1 bytes and takes 0"),
        (15, 7, "REGION_WRITE_MULTI has 7 bytes and needs 8"),
        (15, 32, "REGION_WRITE_MULTI announces 0 and brings 24 bytes"),
    ] {
        let end = end_after_negotiation_of(|c| c.post(Command(command), &vec![0; len]).unwrap());
        says(&end, text);
    }
}

#[test]
fn counts_beyond_max_data_xfer_size_are_named() {
    let count = (MAX_DATA_XFER + 1) as u32;
    let access = [&[0; 12][..], &count.to_ne_bytes()].concat();
    for command in [Command::REGION_READ, Command::REGION_WRITE] {
        let end = end_after_negotiation_of(|c| c.post(command, &access).unwrap());
        says(&end, "of 1048577 bytes, and max_data_xfer_size is 1048576");
    }
}

#[test]
fn a_client_is_held_to_the_limit_that_it_proposed() {
    let end = end_of(|c| {
        let proposal = b"\0\0\0\0{\"capabilities\":{\"max_data_xfer_size\":64}}\0";
        c.request(Command::VERSION, proposal, &[]).unwrap();
        let access = [&[0; 12][..], &65u32.to_ne_bytes()].concat();
        c.post(Command::REGION_READ, &access).unwrap();
    });
    says(&end, "of 65 bytes, and max_data_xfer_size is 64");
}

#[test]
fn replies_and_unknown_types_of_message_are_no_commands() {
    let end = end_after_negotiation_of(|c| c.send_bytes(&header(4, 16, 1), &[]).unwrap());
    assert!(
        matches!(end, Disconnect::NotACommand(Command::DEVICE_GET_INFO)),
        "{end}"
    );
    let end = end_after_negotiation_of(|c| c.send_bytes(&header(4, 16, 7), &[]).unwrap());
    says(&end, "a message of type 7");
    let end = end_of(|c| c.send_bytes(&header(1, 16, 1), &[]).unwrap());
    assert!(
        matches!(end, Disconnect::NotACommand(Command::VERSION)),
        "{end}"
    );
}

#[test]
fn too_many_descriptors_are_counted() {
    let event = EventFd::new().unwrap();
    for number in [17, 64] {
        let fds = vec![event.as_fd(); number];
        let end = end_after_negotiation_of(|c| c.send_bytes(&header(8, 36, 0), &fds).unwrap());
        says(&end, "more than 16 descriptors");
    }
}

#[test]
fn descriptors_spread_over_one_message_are_counted_together() {
    let event = EventFd::new().unwrap();
    let fds = vec![event.as_fd(); 9];
    let end = end_after_negotiation_of(|c| {
        c.send_bytes(&header(8, 36, 0), &fds).unwrap();
        c.send_bytes(&[0; 4], &fds).unwrap();
    });
    says(&end, "more than 16 descriptors");
}

#[test]
fn another_first_message_and_another_version_are_named() {
    let end = end_of(|c| c.post(Command::DEVICE_RESET, &[]).unwrap());
    assert!(
        matches!(end, Disconnect::NoVersion(Command::DEVICE_RESET)),
        "{end}"
    );
    let mut refusal = None;
    let end = end_of(|c| refusal = c.request(Command::VERSION, &[9, 0, 2, 0], &[]).err());
    assert!(
        matches!(end, Disconnect::WrongVersion { major: 9, minor: 2 }),
        "{end}"
    );
    assert_eq!(refusal.unwrap().errno(), Some(Errno::EPROTO));
}

#[test]
fn version_data_that_is_no_json_object_is_named() {
    for (data, text) in [
        (&b"{}"[..], "the zero byte is missing"),
        (b"\0", "EOF"),
        (b"[1]\0", "not an object"),
        (b"{\"capabilities\":3}\0", "`capabilities` is not an object"),
        (
            b"{\"capabilities\":{\"max_msg_fds\":\"many\"}}\0",
            "max_msg_fds is \"many\"",
        ),
        (
            b"{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            "max_msg_fds is -1",
        ),
        (
            b"{\"capabilities\":{\"max_data_xfer_size\":0}}\0",
            "a whole number above zero",
        ),
        (
            b"{\"capabilities\":{\"write_multiple\":1}}\0",
            "true or false",
        ),
        (b"{\"\xff\":1}\0", "not a JSON object"),
    ] {
        let payload = [&[0; 4], data].concat();
        let end = end_of(|c| c.post(Command::VERSION, &payload).unwrap());
        says(&end, text);
    }
    let deep = [&[0; 4], "[".repeat(4000).as_bytes(), b"\0"].concat();
    let end = end_of(|c| c.post(Command::VERSION, &deep).unwrap());
    says(&end, "recursion limit");
}

#[test]
fn a_client_that_takes_no_replies_is_ended_in_time() {
    let end = end_within(short_timeouts(), |c| {
        c.negotiate().unwrap();
        let access = [&[0; 12][..], &16384u32.to_ne_bytes()].concat();
        let message = [
            &Header::command(1, Command::REGION_READ, 16).encode()[..],
            &access,
        ]
        .concat();
        // the server stops reading when nobody takes its replies
        while c.send_bytes(&message, &[]).is_ok() {}
    });
    says(&end, "made no progress within 0.15 s");
}

#[test]
fn the_device_serves_the_next_client_after_each_bad_one() {
    let served = Served::start();
    for bytes in [
        &header(9, 3, 0)[..],
        &header(9, 16, 5),
        &header(2, 16, 0),
        b"GET / HTTP/1.1\r\n",
    ] {
        let mut bad = served.client();
        bad.send_bytes(bytes, &[]).unwrap();
        let end = bad.receive().unwrap_err();
        assert!(
            matches!(end, ClientError::Connection(ConnectionError::Ended)),
            "{end}"
        );
        let mut good = served.client();
        good.region_write(7, 0, bytes).unwrap();
        let mut seen = vec![0; bytes.len()];
        good.region_read(7, 0, &mut seen).unwrap();
        assert_eq!(seen, bytes);
    }
}

#[test]
fn a_second_client_is_told_no_and_the_first_goes_on() {
    for says_something in [true, false] {
        // a client that says nothing is closed as well, after a time
        let limits = if says_something {
            timeouts()
        } else {
            short_timeouts()
        };
        let served = Served::with_timeouts(Fake::new(), limits);
        let mut first = served.client();
        if says_something {
            let second = Client::connect(&served.path).unwrap_err();
            assert_eq!(second.errno(), Some(Errno::EBUSY), "{second}");
        } else {
            assert!(served.silent_client().receive().is_err());
        }
        first.device_info().unwrap();
        drop(first);
        served.wait_for(&Event::Disconnected);
        served.client().device_info().unwrap();
    }
}

#[test]
fn a_client_that_was_killed_can_be_replaced_at_once() {
    let served = Served::start();
    for round in 0..200 {
        let client = served.client();
        if round % 2 == 0 {
            // killed in the middle of a message
            client.send_bytes(&header(4, 32, 0), &[]).unwrap();
        }
        drop(client);
    }
    served.client().device_info().unwrap();
}

#[test]
fn a_client_whose_end_comes_late_is_succeeded_by_the_next() {
    let limits = Timeouts {
        succession: HANG,
        ..timeouts()
    };
    let served = Served::with_timeouts(Fake::new(), limits);
    let first = served.client();
    // as the kernel may, after a process was killed
    let held = first.stream().try_clone().unwrap();
    drop(first);
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    served.client().device_info().unwrap();
    release.join().unwrap();
}

#[test]
fn a_server_that_is_told_to_stop_does_so_with_a_client_connected() {
    let served = Served::start();
    let mut client = served.client();
    let begin = Instant::now();
    drop(served);
    assert!(begin.elapsed() < HANG);
    assert!(client.receive().is_err());
}

/// Keeps the lines that are logged.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        self.0.lock().unwrap().push(line);
    }
    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

#[test]
fn the_log_says_why_a_client_was_dropped_or_refused() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let served = Served::start();
    let mut bad = served.client();
    bad.send_bytes(&header(9, 7, 0), &[]).unwrap();
    bad.receive().unwrap_err();
    let _first = served.client();
    Client::connect(&served.path).unwrap_err();
    let me = format!("WARN client (pid {}, ", std::process::id());
    let lines = LINES.0.lock().unwrap().clone();
    for text in [
        "dropped: a message claims 7 bytes",
        "refused: another client is connected, and the device serves one client at a time",
    ] {
        let found = lines.iter().any(|l| l.starts_with(&me) && l.contains(text));
        assert!(found, "{text:?} is not in {lines:#?}");
    }
}
