//! Devices that are late or dead: what waits, how long, and what then.

use std::time::{Duration, Instant};

use varia_serve::{Error, Progress};
use varia_silicon::{Faults, Options, Readiness};
use varia_spec::{
    Errno,
    nvidia::bar0,
    pci::{cap::exp, header::command},
    vfio::RegionIndex,
};
use varia_variant::Millis;
use varia_vfio_user::command::Command;
use varia_vfio_user::command::RegionAccess;
use varia_vfio_user::wire::Header;

use crate::machine::{BAR0, BAR2, BAR4, CONFIG, Machine, SMALL, Wanted};

const USEMEM: RegionIndex = RegionIndex::BAR4;

fn late(seconds: u64) -> Wanted {
    let mut wanted = Wanted::of("gh200", SMALL);
    wanted.silicon.readiness = Readiness::After(Duration::from_secs(seconds));
    wanted
}

/// A device that is open, and not ready for so many seconds.
fn open(seconds: u64) -> Machine {
    let machine = late(seconds).serve();
    machine.endpoint.open().unwrap();
    machine
}

#[test]
fn the_probe_waits_until_the_device_is_ready() {
    for (seconds, end) in [(0, 0), (1, 1), (7, 7), (30, 30)] {
        let (made, time) = late(seconds).make();
        assert!(made.is_ok(), "{seconds} s");
        assert_eq!(time.seconds(), end);
    }
}

#[test]
fn the_probe_gives_up_on_a_device_that_is_not_ready_in_30_s() {
    let mut never = Wanted::of("gh200", SMALL);
    never.silicon.readiness = Readiness::Never;
    let mut link = Wanted::of("gh200", SMALL);
    link.silicon.faults.c2c_down = true;
    for wanted in [late(32), never, link] {
        let (made, time) = wanted.make();
        let error = made.err().expect("it is not ready");
        assert!(matches!(error, Error::NotReady(Errno::ETIME)), "{error:?}");
        assert_eq!(time.seconds(), 31);
        let text = error.to_string();
        assert!(
            text.contains("ETIME") && text.contains("reset it"),
            "{text}"
        );
    }
}

#[test]
fn the_first_access_waits_and_the_next_does_not() {
    let machine = open(3);
    let begin = machine.time.seconds();
    let data = [1, 2, 3, 4];
    assert_eq!(machine.endpoint.write(USEMEM, 0, &data), Ok(4));
    assert_eq!(machine.time.seconds() - begin, 3);
    let mut read = [0; 4];
    assert_eq!(machine.endpoint.read(USEMEM, 0, &mut read), Ok(4));
    assert_eq!((read, machine.time.seconds() - begin), (data, 3));
}

#[test]
fn an_attempt_does_nothing_but_say_how_long_to_wait() {
    let machine = open(2);
    let mut operation = machine.endpoint.arrived();
    let mut write = || {
        let endpoint = &machine.endpoint;
        endpoint.try_write(USEMEM, 0, &[9; 4], &mut operation)
    };
    assert_eq!(write(), Ok(Progress::Wait(Millis(1000))));
    assert_eq!(machine.host(0), [0; 4]);
    machine.time.advance(1);
    assert_eq!(write(), Ok(Progress::Wait(Millis(1000))));
    machine.time.advance(1);
    assert_eq!(write(), Ok(Progress::Done(4)));
    assert_eq!(machine.host(0), [9; 4]);
}

#[test]
fn every_open_and_every_reset_asks_for_a_new_check() {
    let machine = open(3);
    let read = || {
        let begin = machine.time.seconds();
        machine.endpoint.read(USEMEM, 0, &mut [0; 4]).unwrap();
        machine.time.seconds() - begin
    };
    assert_eq!((read(), read()), (3, 0));
    machine.endpoint.reset().unwrap();
    assert_eq!((read(), read()), (3, 0), "DEVICE_RESET");
    let control = 0x60 + u64::from(exp::DEVCTL);
    let flr = exp::DEVCTL_BCR_FLR.to_le_bytes();
    let config = RegionIndex::CONFIG;
    machine.endpoint.write(config, control, &flr).unwrap();
    assert_eq!((read(), read()), (3, 0), "a function-level reset");
    machine.endpoint.close();
    machine.endpoint.open().unwrap();
    assert_eq!((read(), read()), (3, 0), "a new user");
}

#[test]
fn a_device_that_stays_late_costs_each_access_the_timeout_and_is_polled_again() {
    let machine = open(10);
    let begin = machine.time.seconds();
    let read = || {
        let result = machine.endpoint.read(USEMEM, 0, &mut [0; 4]);
        (result, machine.time.seconds() - begin)
    };
    assert_eq!(read(), (Err(Errno::ETIMEDOUT), 4));
    assert_eq!(read(), (Err(Errno::ETIMEDOUT), 8));
    assert_eq!(read(), (Ok(4), 10));
}

#[test]
fn a_failed_write_changes_nothing() {
    let machine = open(20);
    for index in [RegionIndex::BAR2, USEMEM] {
        let written = machine.endpoint.write(index, 0, &[7; 4]);
        assert_eq!(written, Err(Errno::ETIMEDOUT));
    }
    assert_eq!(machine.host(0), [0; 4]);
    assert_eq!(machine.host(machine.memory_regions()[1].2), [0; 4]);
}

#[test]
fn what_reaches_no_memory_waits_as_the_kernels_driver_does() {
    let machine = open(20);
    let (_, _, length, size) = machine.memory_regions()[1];
    let endpoint = &machine.endpoint;
    let waits = |progress: Result<Progress, Errno>| matches!(progress, Ok(Progress::Wait(_)));
    let read = |at, len| {
        let mut data = vec![0; len];
        endpoint.try_read(USEMEM, at, &mut data, &mut endpoint.arrived())
    };
    let write = |at, len| endpoint.try_write(USEMEM, at, &vec![0; len], &mut endpoint.arrived());
    assert!(waits(read(length, 4)), "a read beyond the memory");
    assert!(waits(read(0, 0)), "a read of nothing");
    assert!(waits(write(length - 1, 0)), "a write of nothing");
    assert_eq!(write(length, 4), Ok(Progress::Done(4)), "a dropped write");
    assert_eq!(read(size, 4), Err(Errno::EINVAL));
}

#[test]
fn registers_and_configuration_space_do_not_wait() {
    let machine = open(20);
    let mut word = [0; 4];
    let endpoint = &machine.endpoint;
    let read = endpoint.read(RegionIndex::BAR0, bar0::HBM_TRAINING, &mut word);
    assert_eq!(
        (read, word),
        (Ok(4), [0; 4]),
        "the guest can look by itself"
    );
    assert_eq!(endpoint.read(RegionIndex::CONFIG, 0, &mut word), Ok(4));
    assert_eq!(machine.time.seconds(), 20, "all of it the probe's");
}

#[test]
fn reset_generation() {
    // A reset that comes while an access waits: the device is ready 2 s after *that* reset.
    let machine = open(2);
    let endpoint = &machine.endpoint;
    let mut operation = endpoint.arrived();
    let mut read = || endpoint.try_read(USEMEM, 0, &mut [0; 4], &mut operation);
    let wait = Ok(Progress::Wait(Millis(1000)));
    assert_eq!(read(), wait);
    machine.time.advance(1);
    assert_eq!(read(), wait);
    endpoint.reset().unwrap();
    machine.time.advance(1);
    assert_eq!(read(), wait, "the old reset's time has passed");
    machine.time.advance(1);
    assert_eq!(read(), Ok(Progress::Done(4)));
    // and its timeout was one: it would have failed a second later
    endpoint.reset().unwrap();
    assert_eq!(read(), wait);
    machine.time.advance(1);
    assert_eq!(read(), Err(Errno::ETIMEDOUT));
}

#[test]
fn no_access_is_served_between_a_reset_and_readiness_whatever_races() {
    let machine = open(2);
    let endpoint = &machine.endpoint;
    std::thread::scope(|scope| {
        for index in [RegionIndex::BAR2, USEMEM] {
            scope.spawn(move || {
                for i in 0..2000_u32 {
                    let mut operation = endpoint.arrived();
                    let at = u64::from(i % 64) * 4;
                    let _ = endpoint.try_write(index, at, &i.to_le_bytes(), &mut operation);
                    let _ = endpoint.try_read(index, at, &mut [0; 4], &mut operation);
                }
            });
        }
        scope.spawn(|| {
            for i in 0..500 {
                if i % 3 == 0 {
                    machine.time.advance(2);
                }
                endpoint.reset().unwrap();
                // nobody else moves the clock, so the device can't be ready
                let mut operation = endpoint.arrived();
                let read = endpoint.try_read(USEMEM, 0, &mut [0; 4], &mut operation);
                assert_eq!(read, Ok(Progress::Wait(Millis(1000))));
            }
        });
    });
}

#[test]
fn with_memory_disabled_a_device_is_served_once_it_was_seen_ready() {
    let machine = Wanted::of("gh200", SMALL).serve();
    let mut client = machine.attach();
    client.change16(4, 0, command::MEMORY);
    assert_eq!(
        client.try_read(BAR4, 0),
        Err(Errno::EIO),
        "not yet looked at"
    );
    assert_eq!(client.try_read(BAR0, 0), Err(Errno::EIO), "the core's own");
    client.change16(4, command::MEMORY, 0);
    client.write(BAR4, 0, &[1, 2, 3, 4]);
    client.change16(4, 0, command::MEMORY);
    assert_eq!(client.read(BAR4, 0), [1, 2, 3, 4]);
    assert_eq!(client.try_write(BAR2, 0, &[1]), Ok(1));
    client.reset().unwrap();
    let enabled = u16::from_le_bytes(client.read(CONFIG, 4)) & command::MEMORY;
    assert_eq!(enabled, 0, "the virtual command register is kept");
    assert_eq!(client.try_read(BAR4, 0), Err(Errno::EIO), "a new check");
}

#[test]
fn honour_memory_enable() {
    let mut wanted = Wanted::of("gh200", SMALL);
    wanted.honour_memory_enable = true;
    let machine = wanted.serve();
    let mut client = machine.attach();
    for (index, _, length, _) in machine.memory_regions() {
        client.write(index, 0, &[1, 2, 3, 4]);
        client.change16(4, 0, command::MEMORY);
        assert_eq!(client.try_read(index, length), Err(Errno::EIO));
        assert_eq!(client.try_write(index, length, &[9; 4]), Ok(4), "dropped");
        assert_eq!(client.try_read(index, 0), Err(Errno::EIO));
        assert_eq!(client.try_write(index, 0, &[9; 4]), Err(Errno::EIO));
        client.change16(4, command::MEMORY, 0);
        assert_eq!(client.read(index, 0), [1, 2, 3, 4]);
    }
}

#[test]
fn in_d3hot_a_device_can_not_be_looked_at() {
    let machine = Wanted::of("gh200", SMALL).serve();
    let mut client = machine.attach();
    let power = 0x40 + 4;
    client.change16(power, 3, 0);
    assert_eq!(client.try_read(BAR4, 0), Err(Errno::EIO));
    client.change16(power, 0, 3);
    assert_eq!(client.try_read(BAR4, 0), Ok(4));
}

#[test]
fn a_client_is_answered_while_its_access_waits() {
    const REQUESTS: u64 = 600;
    let machine = late(3).serve();
    let mut client = machine.attach();
    let mut payload = Vec::new();
    RegionAccess {
        offset: 0,
        region: BAR4,
        count: 4,
    }
    .encode(&mut payload);
    let header = Header::command(1000, Command::REGION_READ, payload.len());
    let message = [&header.encode()[..], &payload].concat();
    let begin = Instant::now();
    client.send_bytes(&message, &[]).unwrap();
    for _ in 0..REQUESTS / 2 {
        assert_eq!(client.try_read(CONFIG, 0), Ok(4));
        assert_eq!(client.try_read(BAR0, 0), Ok(4));
    }
    let took = begin.elapsed();
    // a server that slept between two polls, which are a second apart, would take as many seconds
    assert!(took < Duration::from_secs(REQUESTS), "{took:?}");
    machine.time.advance(3);
    let reply = client.receive().unwrap();
    assert_eq!((reply.header.id, reply.header.error), (1000, None));
}

#[test]
fn a_device_whose_link_is_down_only_for_its_firmware_is_ready() {
    let faults = Faults {
        size_zero: true,
        ..Faults::default()
    };
    let wanted = Wanted {
        silicon: Options {
            faults,
            ..Options::default()
        },
        ..Wanted::default()
    };
    let (made, time) = wanted.make();
    assert!(made.unwrap().endpoint.declined().is_some());
    assert_eq!(time.seconds(), 0);
}
