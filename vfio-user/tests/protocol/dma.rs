//! DMA_MAP and DMA_UNMAP, with and without descriptors.

use std::os::fd::AsFd;

use crate::fake::{DMA_AT, Event, Served};
use varia_spec::errno::Errno;
use varia_sys::memory::SharedMemory;
use varia_vfio_user::client::Client;
use varia_vfio_user::command::Command;
use varia_vfio_user::command::{DMA_READ, DMA_WRITE};

const RW: u32 = DMA_READ | DMA_WRITE;

fn unmapped(addr: u64, size: u64) -> Event {
    Event::Unmap { addr, size }
}

#[test]
fn the_device_reaches_memory_that_comes_with_a_descriptor() {
    let served = Served::start();
    let mut client = served.client();
    let ram = SharedMemory::anonymous("ram", 8192).unwrap();
    ram.write(4096, b"dma").unwrap();
    client
        .dma_map(0x10000, 4096, RW, Some((ram.as_fd(), 4096)))
        .unwrap();
    let region = served.fake.dma.lock().unwrap().pop().unwrap();
    let theirs = SharedMemory::from_fd(region.fd.unwrap(), region.offset, region.size).unwrap();
    let mut seen = [0; 3];
    theirs.read(0, &mut seen).unwrap();
    assert_eq!((&seen, region.addr, region.flags), (b"dma", 0x10000, RW));
}

/// QEMU tells of the mappings of the device's own BARs in this way.
#[test]
fn a_mapping_without_a_descriptor_is_taken() {
    let served = Served::start();
    served
        .client()
        .dma_map(0xfe60_0000, 0x2000, RW, None)
        .unwrap();
    let map = Event::Map {
        addr: 0xfe60_0000,
        size: 0x2000,
        flags: RW,
        offset: 0,
        fd: false,
    };
    assert!(served.events().contains(&map));
}

#[test]
fn overlapping_empty_and_overflowing_mappings_are_refused() {
    let served = Served::start();
    let mut client = served.client();
    client.dma_map(0x1000, 0x1000, RW, None).unwrap();
    for (addr, size, flags, errno) in [
        (0x1000, 0x1000, RW, Errno::EEXIST),
        (0x1fff, 0x1, RW, Errno::EEXIST),
        (0x0, 0x10000, RW, Errno::EEXIST),
        (0x8000, 0, RW, Errno::EINVAL),
        (u64::MAX - 1, 0x1000, RW, Errno::EINVAL),
        (0x8000, 0x1000, 1 << 2, Errno::EINVAL),
    ] {
        let e = client.dma_map(addr, size, flags, None).unwrap_err();
        assert_eq!(e.errno(), Some(errno), "{addr:#x}+{size:#x}");
    }
    client.dma_map(0x2000, 0x1000, DMA_READ, None).unwrap();
}

#[test]
fn a_mapping_that_the_device_refuses_can_be_made_again() {
    let served = Served::start();
    let mut client = served.client();
    for _ in 0..2 {
        let e = client.dma_map(0xbad000, 0x1000, RW, None).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::ENOMEM));
    }
}

#[test]
fn unmapping_gives_the_device_each_mapping_in_the_range() {
    let served = Served::start();
    let mut client = served.client();
    for addr in [0x1000, 0x2000, 0x5000] {
        client.dma_map(addr, 0x1000, RW, None).unwrap();
    }
    let e = client.dma_unmap(0x1800, 0x1000).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    client.dma_unmap(0x1000, 0x2000).unwrap();
    client.dma_unmap(0x1000, 0x2000).unwrap();
    client.dma_unmap_all().unwrap();
    let gone: Vec<_> = served
        .events()
        .into_iter()
        .filter(|e| matches!(e, Event::Unmap { .. }))
        .collect();
    assert_eq!(
        gone,
        [
            unmapped(0x1000, 0x1000),
            unmapped(0x2000, 0x1000),
            unmapped(0x5000, 0x1000)
        ]
    );
    assert!(served.fake.dma.lock().unwrap().is_empty());
}

#[test]
fn a_client_that_goes_takes_its_mappings_with_it() {
    let served = Served::start();
    let mut client = served.client();
    let ram = SharedMemory::anonymous("ram", 4096).unwrap();
    client
        .dma_map(0x1000, 0x1000, RW, Some((ram.as_fd(), 0)))
        .unwrap();
    drop(client);
    served.wait_for(&Event::Disconnected);
    let events = served.events();
    assert_eq!(
        events[events.len() - 2..],
        [unmapped(0x1000, 0x1000), Event::Disconnected]
    );
    assert!(served.fake.dma.lock().unwrap().is_empty());
}

#[test]
fn two_descriptors_for_one_mapping_are_refused_and_the_connection_stays() {
    let served = Served::start();
    let mut client = served.client();
    let ram = SharedMemory::anonymous("ram", 4096).unwrap();
    let mut payload = Vec::new();
    varia_vfio_user::command::DmaMap {
        flags: RW,
        offset: 0,
        addr: 0x1000,
        size: 0x1000,
    }
    .encode(&mut payload);
    let fds = [ram.as_fd(), ram.as_fd()];
    let e = client
        .request(Command::DMA_MAP, &payload, &fds)
        .unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    client
        .dma_map(0x1000, 0x1000, RW, Some((ram.as_fd(), 0)))
        .unwrap();
}

#[test]
fn a_client_that_truncates_what_it_mapped_is_dropped_when_the_device_meets_the_hole() {
    let served = Served::start();
    for round in 0..3 {
        let mut client = served.client();
        let ram = tempfile::tempfile().unwrap();
        ram.set_len(0x4000).unwrap();
        client
            .dma_map(0x10_0000, 0x4000, RW, Some((ram.as_fd(), 0)))
            .unwrap();
        let read = |client: &mut Client, at: u64| client.region_write(7, DMA_AT, &at.to_ne_bytes());
        assert_eq!(read(&mut client, 0x10_3000).unwrap(), 8);
        ram.set_len(0x1000).unwrap();
        // what is still there can be used
        assert_eq!(read(&mut client, 0x10_0000).unwrap(), 8);
        assert_eq!(read(&mut client, 0x10_3000).unwrap(), 8);
        assert!(client.receive().is_err(), "dropped in round {round}");
        drop(client);
        // the whole of the next client's memory is there
        let mut next = served.client();
        next.dma_map(0x10_0000, 0x1000, RW, Some((ram.as_fd(), 0)))
            .unwrap();
        assert_eq!(read(&mut next, 0x10_0000).unwrap(), 8);
        let nowhere = read(&mut next, 0x10_3000).unwrap_err();
        assert_eq!(nowhere.errno(), Some(Errno::EIO));
    }
}
