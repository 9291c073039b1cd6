//! A device that is late, and one that can't be opened: what waits and what does not.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fake::{Event, Fake, LATE, Served, timeouts};
use varia_spec::errno::Errno;
use varia_vfio_user::client::{Client, ClientError, MultiWrite};
use varia_vfio_user::command::Command;
use varia_vfio_user::command::RegionAccess;
use varia_vfio_user::server::Timeouts;
use varia_vfio_user::wire::Header;

/// A server of a device whose region 7 is late.
fn late() -> Served {
    let fake = Fake::new();
    fake.late.store(true, Ordering::SeqCst);
    Served::of(fake)
}

/// Sends a read of 4 bytes of a region, and does not wait for the reply.
fn begin_read(client: &Client, id: u16, region: u32) {
    try_begin_read(client, id, region).unwrap();
}

/// As [`begin_read`]; an error if the server has ended the connection.
fn try_begin_read(client: &Client, id: u16, region: u32) -> Result<(), ClientError> {
    let mut payload = Vec::new();
    RegionAccess {
        offset: 0,
        region,
        count: 4,
    }
    .encode(&mut payload);
    let header = Header::command(id, Command::REGION_READ, payload.len());
    let message = [&header.encode()[..], &payload].concat();
    client.send_bytes(&message, &[])
}

fn write(region: u32, data: &[u8]) -> Event {
    Event::Write {
        region,
        offset: 0,
        data: data.to_vec(),
    }
}

#[test]
fn other_requests_are_served_while_an_access_waits() {
    let served = late();
    let mut client = served.client();
    begin_read(&client, 1000, 7);
    client.device_info().unwrap();
    assert_eq!(client.region_read(0, 0, &mut [0; 4]).unwrap(), 4);
    client.reset().unwrap();
    served.fake.config.write(0, &[1, 2, 3, 4]).unwrap();
    served.fake.late.store(false, Ordering::SeqCst);
    let reply = client.receive().unwrap();
    assert_eq!((reply.header.id, reply.header.error), (1000, None));
    assert!(reply.payload.ends_with(&[1, 2, 3, 4]));
}

/// A client that waits for a reply is not idle, however long the device takes.
#[test]
fn the_wait_of_a_request_is_no_idle_time() {
    let fake = Fake::new();
    fake.late.store(true, Ordering::SeqCst);
    let idle = Duration::from_millis(100);
    let timeouts = Timeouts {
        idle: Some(idle),
        ..timeouts()
    };
    let served = Served::with_timeouts(fake, timeouts);
    // on a busy machine, a client may be idle for too long before its first request
    let mut client = loop {
        let client = served.client();
        if try_begin_read(&client, 1000, 7).is_ok() {
            let arrived = || served.fake.arrivals.load(Ordering::SeqCst) > 0;
            while !arrived() && !client.stream().peer_gone() {
                std::thread::yield_now();
            }
            if arrived() {
                break client;
            }
        }
    };
    std::thread::sleep(2 * idle);
    let ready = Instant::now();
    served.fake.late.store(false, Ordering::SeqCst);
    assert_eq!(client.receive().unwrap().header.id, 1000);
    assert!(client.receive().is_err(), "the end of the stream");
    assert!(ready.elapsed() >= idle, "{:?}", ready.elapsed());
}

#[test]
fn accesses_that_wait_together_end_each_at_its_own_time() {
    let served = late();
    let client = &mut served.client();
    // A server that served one after the other would wait for ever.
    served.fake.times_out_from.store(5, Ordering::SeqCst);
    let begin = Instant::now();
    for id in 1..=5 {
        begin_read(client, id, 7);
    }
    for id in 1..=5 {
        let reply = client.receive().unwrap();
        assert_eq!(reply.header.id, id);
        let errno = Errno::ETIMEDOUT.get().cast_unsigned();
        assert_eq!(reply.header.error, Some(errno));
    }
    assert_eq!(served.fake.arrivals.load(Ordering::SeqCst), 5);
    assert!(begin.elapsed() >= LATE);
}

#[test]
fn what_comes_behind_a_posted_write_that_waits_keeps_its_order() {
    let served = late();
    let mut client = served.client();
    client.region_write_posted(7, 0, &[1]).unwrap();
    client.region_write_posted(0, 0, &[2]).unwrap();
    client.region_write_posted(7, 0, &[3]).unwrap();
    begin_read(&client, 1000, 0);
    served.fake.late.store(false, Ordering::SeqCst);
    client.receive().unwrap();
    client.reset().unwrap();
    let expected = [
        Event::Connected,
        write(7, &[1]),
        write(0, &[2]),
        write(7, &[3]),
        Event::Reset,
    ];
    assert_eq!(served.events(), expected);
}

#[test]
fn more_writes_than_may_wait_are_done_in_their_order_all_the_same() {
    let served = late();
    let mut client = served.client();
    for i in 0..100 {
        client.region_write_posted(7, 0, &[i]).unwrap();
    }
    served.fake.late.store(false, Ordering::SeqCst);
    assert_eq!(client.region_read(7, 0, &mut [0]).unwrap(), 1);
    let written = |event| match event {
        Event::Write { data, .. } => data.first().copied(),
        _ => None,
    };
    let written: Vec<_> = served.events().into_iter().filter_map(written).collect();
    assert_eq!(written, (0..100).collect::<Vec<_>>());
}

#[test]
fn coalesced_writes_go_on_where_they_had_to_wait() {
    let served = late();
    let mut client = served.client();
    let multi = |region, byte| MultiWrite {
        offset: 0,
        region,
        count: 1,
        bytes: [byte; 8],
    };
    std::thread::scope(|scope| {
        let writes = [multi(0, 1), multi(7, 2), multi(0, 3)];
        let done = scope.spawn(move || client.region_write_multi(&writes).unwrap());
        served.wait_for(&write(0, &[1]));
        served.fake.late.store(false, Ordering::SeqCst);
        assert_eq!(done.join().unwrap(), 3);
    });
    let expected = [write(0, &[1]), write(7, &[2]), write(0, &[3])];
    assert_eq!(served.events()[1..4], expected);
}

#[test]
fn a_client_that_leaves_while_it_waits_makes_room_for_the_next() {
    for posted in [3, 100] {
        let served = late();
        let mut client = served.client();
        for _ in 0..posted {
            client.region_write_posted(7, 0, &[1]).unwrap();
        }
        drop(client);
        served.wait_for(&Event::Disconnected);
        served.fake.late.store(false, Ordering::SeqCst);
        assert_eq!(served.client().region_read(7, 0, &mut [0]).unwrap(), 1);
    }
}

#[test]
fn a_server_stops_while_an_access_waits() {
    let served = late();
    let client = served.client();
    begin_read(&client, 1, 7);
    // the access never ends by itself
    assert!(served.stops(), "the server waits for the access");
}

#[test]
fn a_client_of_a_device_that_cannot_be_opened_is_told_and_the_next_is_served() {
    let served = Served::start();
    served.fake.broken.store(true, Ordering::SeqCst);
    let mut client = served.silent_client();
    let errno = client.negotiate().unwrap_err().errno();
    assert_eq!(errno, Some(Errno::ENODEV));
    assert!(client.receive().is_err(), "the connection has ended");
    assert_eq!(served.events(), []);
    served.fake.broken.store(false, Ordering::SeqCst);
    served.client().device_info().unwrap();
}
