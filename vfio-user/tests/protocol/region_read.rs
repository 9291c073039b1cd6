//! REGION_READ: data, short reads, long reads, and refusals.

use crate::fake::{BAR0_LEN, Fake, Served};
use varia_spec::errno::Errno;
use varia_sys::memory::SharedMemory;
use varia_vfio_user::command::Command;
use varia_vfio_user::command::RegionAccess;

#[test]
fn bytes_of_any_length_and_alignment_arrive() {
    let served = Served::start();
    let mut client = served.client();
    let data: Vec<u8> = (0..64).collect();
    served.fake.bar0.write(0, &data).unwrap();
    for (offset, len) in [(0, 1), (1, 2), (3, 4), (5, 8), (7, 13), (0, 64)] {
        let mut buf = vec![0xee; len];
        assert_eq!(client.region_read(0, offset, &mut buf).unwrap(), len);
        assert_eq!(buf, data[offset as usize..offset as usize + len]);
    }
}

#[test]
fn a_read_across_the_end_is_short_and_one_behind_it_is_refused() {
    let served = Served::start();
    let mut client = served.client();
    let mut buf = [0xee; 8];
    assert_eq!(client.region_read(0, BAR0_LEN - 3, &mut buf).unwrap(), 3);
    assert_eq!(buf, [0, 0, 0, 0xee, 0xee, 0xee, 0xee, 0xee]);
    assert_eq!(client.region_read(0, BAR0_LEN, &mut buf).unwrap(), 0);
    for offset in [BAR0_LEN + 1, u64::MAX] {
        let e = client.region_read(0, offset, &mut buf).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL), "{offset:#x}");
    }
}

#[test]
fn bad_regions_are_refused_and_the_connection_stays() {
    let served = Served::start();
    let mut client = served.client();
    for region in [3, 9, u32::MAX] {
        let e = client.region_read(region, 0, &mut [0; 4]).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL), "region {region}");
    }
    assert_eq!(client.region_read(0, 0, &mut []).unwrap(), 0);
}

#[test]
fn a_read_longer_than_one_message_is_split() {
    let served = Served::start();
    let proposal = b"\0\0\0\0{\"capabilities\":{\"max_data_xfer_size\":1000}}\0";
    let mut client = served.silent_client();
    client.request(Command::VERSION, proposal, &[]).unwrap();
    // the plain client did not read the reply, so it still takes 1 MiB messages
    let mut payload = Vec::new();
    RegionAccess {
        offset: 0,
        region: 0,
        count: 1000,
    }
    .encode(&mut payload);
    let reply = client.request(Command::REGION_READ, &payload, &[]).unwrap();
    assert_eq!(reply.payload.len(), 16 + 1000);
    drop(client);

    let mut client = served.client();
    let pattern: Vec<u8> = (0..BAR0_LEN).map(|i| (i % 251) as u8).collect();
    served.fake.bar0.write(0, &pattern).unwrap();
    let mut buf = vec![0; BAR0_LEN as usize + 5];
    assert_eq!(
        client.region_read(0, 0, &mut buf).unwrap(),
        BAR0_LEN as usize
    );
    assert_eq!(buf[..pattern.len()], pattern);
}

#[test]
fn two_mebibytes_take_several_messages() {
    let device = Fake {
        bar0: big(),
        ..Fake::new()
    };
    let served = Served::of(device);
    let data: Vec<u8> = (0..(2 << 20) + 7u32).map(|i| (i % 253) as u8).collect();
    let mut client = served.client();
    assert_eq!(client.region_write(0, 3, &data).unwrap(), data.len());
    let mut seen = vec![0; data.len()];
    assert_eq!(client.region_read(0, 3, &mut seen).unwrap(), data.len());
    assert!(seen == data);
}

fn big() -> SharedMemory {
    SharedMemory::anonymous("big", 4 << 20).unwrap()
}
