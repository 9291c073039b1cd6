//! REGION_WRITE and REGION_WRITE_MULTI: order, posted writes, refusals.

use crate::fake::{BAR0_LEN, Event, Served};
use varia_spec::errno::Errno;
use varia_vfio_user::client::MultiWrite;

fn write(region: u32, offset: u64, data: &[u8]) -> Event {
    Event::Write {
        region,
        offset,
        data: data.to_vec(),
    }
}

fn multi(region: u32, offset: u64, data: &[u8]) -> MultiWrite {
    let mut bytes = [0; 8];
    bytes[..data.len()].copy_from_slice(data);
    MultiWrite {
        offset,
        region,
        count: data.len() as u32,
        bytes,
    }
}

#[test]
fn bytes_of_any_length_and_alignment_arrive() {
    let served = Served::start();
    let mut client = served.client();
    for (offset, data) in [
        (0, &[1][..]),
        (5, &[2, 3]),
        (9, &[4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ] {
        assert_eq!(client.region_write(7, offset, data).unwrap(), data.len());
        let mut seen = vec![0; data.len()];
        served.fake.config.read(offset, &mut seen).unwrap();
        assert_eq!(seen, data);
    }
}

#[test]
fn posted_writes_are_done_before_the_next_reply_and_have_none_themselves() {
    let served = Served::start();
    let mut client = served.client();
    for i in 0..100 {
        client.region_write_posted(7, i, &[i as u8]).unwrap();
    }
    // refused, and nobody hears of it
    client.region_write_posted(3, 0, &[1]).unwrap();
    let mut seen = [0; 100];
    assert_eq!(client.region_read(7, 0, &mut seen).unwrap(), 100);
    assert!(seen.iter().enumerate().all(|(i, b)| i == usize::from(*b)));
}

#[test]
fn a_write_across_the_end_is_short_and_one_behind_it_is_refused() {
    let served = Served::start();
    let mut client = served.client();
    assert_eq!(client.region_write(0, BAR0_LEN - 3, &[1; 8]).unwrap(), 3);
    let e = client.region_write(0, BAR0_LEN + 1, &[1; 8]).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    let e = client.region_write(9, 0, &[1; 8]).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    client.device_info().unwrap();
}

#[test]
fn coalesced_writes_are_done_in_their_order() {
    let served = Served::start();
    let writes = [
        multi(7, 4, &[1, 2]),
        multi(0, 0, &[3; 8]),
        multi(7, 4, &[4]),
    ];
    assert_eq!(served.client().region_write_multi(&writes).unwrap(), 3);
    let expected = [
        write(7, 4, &[1, 2]),
        write(0, 0, &[3; 8]),
        write(7, 4, &[4]),
    ];
    assert_eq!(served.events()[1..4], expected);
}

#[test]
fn coalesced_writes_end_at_the_first_that_fails() {
    let served = Served::start();
    let mut client = served.client();
    let bad = MultiWrite {
        count: 9,
        ..multi(7, 0, &[])
    };
    assert_eq!(
        client
            .region_write_multi(&[multi(7, 0, &[1]), bad])
            .unwrap(),
        1
    );
    assert_eq!(
        client.region_write_multi(&[bad]).unwrap_err().errno(),
        Some(Errno::EINVAL)
    );
    assert_eq!(
        client
            .region_write_multi(&[multi(9, 0, &[1])])
            .unwrap_err()
            .errno(),
        Some(Errno::EINVAL)
    );
    assert_eq!(client.region_write_multi(&[]).unwrap(), 0);
}
