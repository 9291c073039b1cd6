//! DEVICE_GET_REGION_INFO: flags, sizes, descriptors, sparse areas, mapping.

use crate::fake::{BAR0_LEN, BAR1_LEN, Served};
use varia_spec::errno::Errno;
use varia_spec::vfio::region_flags::{CAPS, MMAP, READ, WRITE};
use varia_spec::vfio::{RegionType, SparseArea};
use varia_sys::mapping::Access;
use varia_vfio_user::command::Command;
use varia_vfio_user::command::RegionQuery;

#[test]
fn a_mappable_region_comes_with_its_descriptor() {
    let served = Served::start();
    let region = served.client().region_info(0).unwrap();
    assert_eq!(
        (region.info.flags, region.info.size),
        (READ | WRITE | MMAP, BAR0_LEN)
    );
    let map = region.map(0, BAR0_LEN, Access::ReadWrite).unwrap();
    map.write(0x2004, b"seen").unwrap();
    let mut seen = [0; 4];
    served.fake.bar0.read(0x2004, &mut seen).unwrap();
    assert_eq!(&seen, b"seen");
}

#[test]
fn only_the_sparse_areas_can_be_mapped() {
    let served = Served::start();
    let region = served.client().region_info(1).unwrap();
    assert_eq!(
        (region.info.flags, region.info.size),
        (READ | WRITE | MMAP | CAPS, BAR1_LEN)
    );
    assert_eq!(
        region.info.areas,
        [SparseArea {
            offset: 4096,
            size: 4096
        }]
    );
    let region_type = RegionType {
        kind: 5,
        subtype: 6,
    };
    assert_eq!(region.info.region_type, Some(region_type));
    assert!(region.info.msix_mappable);
    region.map(4096, 4096, Access::ReadWrite).unwrap();
    for (offset, size) in [
        (0, 4096),
        (0, 8192),
        (4096, 8192),
        (8192, 4096),
        (u64::MAX, 2),
    ] {
        let e = region.map(offset, size, Access::ReadWrite).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL), "{offset:#x}+{size:#x}");
    }
}

#[test]
fn nothing_behind_the_end_of_a_region_can_be_mapped() {
    let served = Served::start();
    let region = served.client().region_info(0).unwrap();
    for (offset, size) in [(0, BAR0_LEN + 4096), (BAR0_LEN, 4096), (0, 0), (1, 4096)] {
        let e = region.map(offset, size, Access::ReadWrite).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL), "{offset:#x}+{size:#x}");
    }
}

#[test]
fn a_region_without_a_descriptor_is_not_offered_for_mapping() {
    let served = Served::start();
    let region = served.client().region_info(7).unwrap();
    assert_eq!(region.info.flags, READ | WRITE);
    assert!(region.file.is_none());
    assert!(region.map(0, 4096, Access::ReadOnly).is_err());
}

#[test]
fn a_region_that_is_not_there_has_size_zero() {
    let served = Served::start();
    let mut client = served.client();
    // the device refuses 8, which `num_regions` counts
    for index in [3, 8] {
        let region = client.region_info(index).unwrap();
        assert_eq!((region.info.flags, region.info.size), (0, 0));
    }
}

#[test]
fn bad_indices_are_refused_and_the_connection_stays() {
    let served = Served::start();
    let mut client = served.client();
    for index in [9, 100, u32::MAX] {
        let e = client.region_info(index).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL), "index {index}");
    }
    client.region_info(0).unwrap();
}

#[test]
fn a_reply_without_room_for_capabilities_says_how_much_they_need() {
    let served = Served::start();
    let mut client = served.client();
    let mut ask = |argsz| {
        let mut payload = Vec::new();
        RegionQuery { argsz, index: 1 }.encode(&mut payload);
        client.request(Command::DEVICE_GET_REGION_INFO, &payload, &[])
    };
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    for argsz in [32, 87] {
        let reply = ask(argsz).unwrap();
        assert_eq!((reply.payload.len(), reply.fds.len()), (32, 0));
        assert_eq!((word(&reply.payload, 0), word(&reply.payload, 12)), (88, 0));
        assert_eq!(word(&reply.payload, 4) & (CAPS | MMAP), MMAP);
    }
    let reply = ask(88).unwrap();
    assert_eq!((reply.payload.len(), reply.fds.len()), (88, 1));
    assert_eq!(word(&reply.payload, 12), 32);
    assert_ne!(word(&reply.payload, 4) & CAPS, 0);
    assert_eq!(ask(31).unwrap_err().errno(), Some(Errno::EINVAL));
}
