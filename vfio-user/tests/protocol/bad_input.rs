//! Clients that break the protocol. A message whose size is true gets an error reply, and the
//! connection lives; every other client loses its connection for a reason that names the value, and
//! gets an error reply first if its message has a header. The device serves the next.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use varia_spec::errno::Errno;
use varia_spec::vfio::irq_set;
use varia_sys::event::EventFd;
use varia_sys::socket::Stream;
use varia_vfio_user::client::{Client, ClientError};
use varia_vfio_user::command::Command;
use varia_vfio_user::command::SetIrqs;
use varia_vfio_user::connection::ConnectionError;
use varia_vfio_user::server::{Disconnect, Server, Timeouts};
use varia_vfio_user::wire::{Header, MAX_DATA_XFER};

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
        let serving = s.spawn(|| server.serve_one(theirs));
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
        // in one call: the time limit begins with the header
        let message = [&header(4, 32, 0)[..], &[0; 5]].concat();
        c.send_bytes(&message, &[]).unwrap();
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

/// The error of the reply to what a client has sent, behind which the connection ends.
fn refused_and_closed(client: &mut Client) -> Option<u32> {
    let reply = client.receive().unwrap();
    let end = client.receive().unwrap_err();
    assert!(
        matches!(end, ClientError::Connection(ConnectionError::Ended)),
        "{end}"
    );
    reply.header.error
}

const EINVAL: Option<u32> = Some(Errno::EINVAL.get().cast_unsigned());

#[test]
fn sizes_that_cannot_be_are_named_and_refused() {
    let max = (32 + MAX_DATA_XFER) as u32;
    for (size, text) in [
        (0, "claims 0 bytes"),
        (15, "claims 15 bytes"),
        (max + 1, "at most 1048608 are allowed"),
        (u32::MAX, "claims 4294967295 bytes"),
    ] {
        let end = end_after_negotiation_of(|c| {
            // bytes that nobody reads any more do not keep the reply from the client
            let bytes = [&header(9, size, 0)[..], &[0; 50_000]].concat();
            c.send_bytes(&bytes, &[]).unwrap();
            assert_eq!(refused_and_closed(c), EINVAL);
        });
        says(&end, text);
    }
}

#[test]
fn before_the_negotiation_a_message_is_short() {
    let end = end_of(|c| {
        c.send_bytes(&header(1, 70_000, 0), &[]).unwrap();
        assert_eq!(refused_and_closed(c), EINVAL);
    });
    says(&end, "claims 70000 bytes, and at most 65552");
}

/// Sends a message of these bytes, checks that it is refused, and that the connection lives.
fn refused(client: &mut Client, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    client.send_bytes(bytes, fds).unwrap();
    let reply = client.receive().unwrap();
    assert_eq!((reply.header.error, reply.payload.len()), (EINVAL, 0));
    client.device_info().unwrap();
}

#[test]
fn a_payload_shorter_than_the_commands_structure_is_refused_and_the_connection_lives() {
    let served = Served::start();
    let mut client = served.client();
    for (command, len) in [
        (2, 31),
        (3, 23),
        (4, 0),
        (5, 31),
        (7, 15),
        (8, 19),
        (9, 15),
        (10, 15),
        (15, 7),
    ] {
        let bytes = [&header(command, 16 + len, 0)[..], &vec![0; len as usize]].concat();
        refused(&mut client, &bytes, &[]);
    }
    assert_eq!(served.events(), [Event::Connected]);
}

#[test]
fn data_shorter_than_its_count_is_refused_and_the_connection_lives() {
    let served = Served::start();
    let mut client = served.client();
    // a write of two bytes with one, and two writes with the bytes of one
    let write = [&[0; 8][..], &7u32.to_ne_bytes(), &2u32.to_ne_bytes(), &[0]].concat();
    let writes = [&2u64.to_ne_bytes()[..], &[0; 24]].concat();
    let most = [&u64::MAX.to_ne_bytes()[..], &[0; 24]].concat();
    for (command, payload) in [(10, write), (15, writes), (15, most)] {
        let size = 16 + payload.len() as u32;
        let bytes = [&header(command, size, 0)[..], &payload].concat();
        refused(&mut client, &bytes, &[]);
    }
    assert_eq!(served.events(), [Event::Connected]);
}

#[test]
fn counts_beyond_max_data_xfer_size_are_refused_and_the_connection_lives() {
    let served = Served::start();
    for (limit, count) in [(None, MAX_DATA_XFER + 1), (Some(64), 65)] {
        let mut client = served.silent_client();
        let proposal = match limit {
            None => b"\0\0\0\0".to_vec(),
            // a client is held to the limit that it proposed
            Some(limit) => {
                format!("\0\0\0\0{{\"capabilities\":{{\"max_data_xfer_size\":{limit}}}}}\0")
                    .into_bytes()
            }
        };
        client.request(Command::VERSION, &proposal, &[]).unwrap();
        let access = [&[0; 12][..], &(count as u32).to_ne_bytes()].concat();
        for command in [9, 10] {
            let bytes = [&header(command, 32, 0)[..], &access].concat();
            refused(&mut client, &bytes, &[]);
        }
        drop(client);
        served.wait_for(&Event::Disconnected);
    }
}

#[test]
fn types_of_message_that_there_are_not_are_refused_and_the_connection_lives() {
    let served = Served::start();
    let mut client = served.client();
    for kind in 2..=15 {
        refused(&mut client, &header(4, 16, kind), &[]);
    }
    // there is nothing to reply to a reply
    client.send_bytes(&header(4, 16, 1), &[]).unwrap();
    client.device_info().unwrap();
    drop(client);
    let end = end_of(|c| {
        c.send_bytes(&header(1, 16, 1), &[]).unwrap();
        assert!(c.receive().is_err());
    });
    assert!(
        matches!(end, Disconnect::NotACommand(Command::VERSION)),
        "{end}"
    );
    let end = end_of(|c| {
        c.send_bytes(&header(1, 16, 7), &[]).unwrap();
        assert_eq!(refused_and_closed(c), EINVAL);
    });
    says(&end, "a message of type 7");
}

#[test]
fn too_many_descriptors_are_refused_and_the_connection_lives() {
    let served = Served::start();
    let mut client = served.client();
    let event = EventFd::new().unwrap();
    let message = [&header(8, 36, 0)[..], &[0; 20]].concat();
    for number in [17, 64] {
        refused(&mut client, &message, &vec![event.as_fd(); number]);
    }
}

#[test]
fn descriptors_spread_over_one_message_are_counted_together() {
    let served = Served::start();
    let mut client = served.client();
    let event = EventFd::new().unwrap();
    let fds = vec![event.as_fd(); 9];
    client.send_bytes(&header(8, 36, 0), &fds).unwrap();
    refused(&mut client, &[0; 20], &fds);
}

#[test]
fn descriptors_go_with_the_message_that_they_were_sent_with() {
    let served = Served::start();
    let mut client = served.client();
    let event = EventFd::new().unwrap();
    let set = |count: u32| {
        let mut payload = Vec::new();
        SetIrqs {
            flags: irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER,
            index: 2,
            start: 0,
            count,
            data: &[],
        }
        .encode(&mut payload);
        [&header(8, 36, 0)[..], &payload].concat()
    };
    // several at once, all of which are there when the server receives the first
    let mut expected = Vec::new();
    for (count, number) in [(3, 0), (1, 1), (2, 0), (4, 4), (8, 8)] {
        let fds = vec![event.as_fd(); number];
        let (head, tail) = (set(count), 20);
        client.send_bytes(&head[..tail], &fds).unwrap();
        client.send_bytes(&head[tail..], &[]).unwrap();
        expected.push(format!("{number} of {count} events"));
    }
    for _ in &expected {
        assert_eq!(client.receive().unwrap().header.error, None);
    }
    let events = served.events();
    let data = events.iter().filter_map(|event| match event {
        Event::Irqs { data, .. } => Some(data.clone()),
        _ => None,
    });
    assert_eq!(data.collect::<Vec<_>>(), expected);
}

#[test]
fn another_first_message_and_another_version_are_named() {
    let end = end_of(|c| {
        c.send_bytes(&header(13, 16, 0), &[]).unwrap();
        assert_eq!(refused_and_closed(c), EINVAL);
    });
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
        let end = end_of(|c| {
            let refusal = c.request(Command::VERSION, &payload, &[]).unwrap_err();
            assert_eq!(refusal.errno(), Some(Errno::EINVAL));
        });
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
    for bytes in [&header(9, 3, 0)[..], b"GET / HTTP/1.1\r\n"] {
        let mut bad = served.client();
        bad.send_bytes(bytes, &[]).unwrap();
        while bad.receive().is_ok() {}
        let mut good = served.client();
        good.region_write(7, 0, bytes).unwrap();
        let mut seen = vec![0; bytes.len()];
        good.region_read(7, 0, &mut seen).unwrap();
        assert_eq!(seen, bytes);
    }
}

#[test]
fn a_second_client_is_told_no_at_once_and_the_first_goes_on() {
    let served = Served::start();
    let mut first = served.client();
    // any number of clients that say nothing delay nobody
    let silent: Vec<_> = (0..20).map(|_| served.silent_client()).collect();
    let begin = Instant::now();
    for _ in 0..10 {
        let second = Client::connect(&served.path).unwrap_err();
        assert_eq!(second.errno(), Some(Errno::EBUSY), "{second}");
    }
    // the limit that each of those would take from the next
    assert!(begin.elapsed() < timeouts().handshake);
    first.device_info().unwrap();
    drop(first);
    served.wait_for(&Event::Disconnected);
    served.client().device_info().unwrap();
    drop(silent);
}

#[test]
fn of_too_many_silent_clients_the_oldest_is_closed_and_a_client_is_served() {
    let served = Served::start();
    let mut silent: Vec<_> = (0..66).map(|_| served.silent_client()).collect();
    served.client().device_info().unwrap();
    let end = silent[0].receive().unwrap_err();
    assert!(
        matches!(end, ClientError::Connection(ConnectionError::Ended)),
        "{end}"
    );
    assert!(!silent.pop().unwrap().stream().peer_gone());
}

#[test]
fn a_client_that_is_idle_is_dropped_only_if_the_server_is_told_so() {
    let idle = Duration::from_millis(150);
    let end = end_within(
        Timeouts {
            idle: Some(idle),
            ..timeouts()
        },
        |c| {
            c.negotiate().unwrap();
            // served if the request comes within that time, as it does unless the machine is busy
            let _ = c.device_info();
            // the end of the stream: nothing to receive before it
            assert!(c.receive().is_err());
        },
    );
    assert!(
        matches!(end, Disconnect::Idle { after } if after == idle),
        "{end}"
    );
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
    // this process lives on
    let limits = Timeouts {
        overlap: HANG,
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
    while bad.receive().is_ok() {}
    let mut first = served.client();
    Client::connect(&served.path).unwrap_err();
    first.send_bytes(&header(2, 20, 0), &[]).unwrap();
    first.send_bytes(&[0; 4], &[]).unwrap();
    assert_eq!(first.receive().unwrap().header.error, EINVAL);
    let me = format!("WARN client (pid {}, ", std::process::id());
    let deadline = Instant::now() + HANG;
    for text in [
        "dropped: a message claims 7 bytes",
        "refused: another client is connected, and the device serves one client at a time",
        "DMA_MAP refused: DMA_MAP has 4 bytes and needs",
    ] {
        // the client may know before the line is written
        loop {
            let lines = LINES.0.lock().unwrap().clone();
            let found = |l: &String| l.starts_with(&me) && l.contains(text);
            if lines.iter().any(found) {
                break;
            }
            assert!(Instant::now() < deadline, "{text:?} is not in {lines:#?}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
