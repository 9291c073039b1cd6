//! Mapping through the descriptors that the server sends.

use varia_spec::Errno;
use varia_sys::mapping::Access;
use varia_vfio_user::client::ClientError;

use crate::machine::{BAR0, BAR2, BAR4, CONFIG, GIB, Machine, Wanted};

fn refused(result: Result<impl Sized, ClientError>) -> bool {
    matches!(result, Err(ClientError::Map { errno, .. }) if errno == Errno::EINVAL)
}

#[test]
fn a_mapping_shows_the_same_bytes_as_reads_and_as_the_host() {
    let machine = Machine::small();
    let mut client = machine.attach();
    for (index, base, length, _) in machine.memory_regions() {
        let region = client.region_info(index).unwrap();
        for at in [0, 4096, length - 4096] {
            let mapping = region.map(at, 4096, Access::ReadWrite).unwrap();
            mapping.write(8, &[1, 2, 3, index as u8]).unwrap();
            assert_eq!(client.read(index, at + 8), [1, 2, 3, index as u8]);
            assert_eq!(machine.host(base + at + 8), [1, 2, 3, index as u8]);
            client.write(index, at + 4092, &[7; 4]);
            let mut seen = [0; 4];
            mapping.read(4092, &mut seen).unwrap();
            assert_eq!(seen, [7; 4]);
        }
    }
}

#[test]
fn only_the_memory_can_be_mapped_and_not_the_rest_of_the_bar() {
    let machine = Machine::small();
    let mut client = machine.attach();
    for (index, _, length, size) in machine.memory_regions() {
        let region = client.region_info(index).unwrap();
        assert!(region.map(0, length, Access::ReadOnly).is_ok(), "all of it");
        for (at, len) in [
            (length, 4096),
            (length - 4096, 8192),
            (0, size),
            (size - 4096, 4096),
            (size, 4096),
            (u64::MAX - 4095, 4096),
        ] {
            assert!(
                refused(region.map(at, len, Access::ReadOnly)),
                "{len} bytes at {at:#x}"
            );
        }
    }
}

#[test]
fn registers_and_configuration_space_can_not_be_mapped() {
    let machine = Machine::small();
    let mut client = machine.attach();
    for index in [BAR0, CONFIG] {
        let region = client.region_info(index).unwrap();
        assert!(
            refused(region.map(0, 4096, Access::ReadOnly)),
            "region {index}"
        );
    }
}

#[test]
fn a_bar_that_is_the_devices_own_can_be_mapped_whole() {
    let machine = Wanted::of("gb200", GIB).serve();
    let mut client = machine.attach();
    let region = client.region_info(BAR2).unwrap();
    let end = region.info.size - 4096;
    let mapping = region.map(end, 4096, Access::ReadWrite).unwrap();
    mapping.write(0, &[5; 4]).unwrap();
    assert_eq!(client.read(BAR2, end), [5; 4]);
    assert_eq!(machine.host(0), [0; 4], "that is not the coherent memory");
}

#[test]
fn a_mapping_keeps_the_memory_after_its_client_has_left() {
    let machine = Machine::small();
    let mapping = {
        let mut client = machine.attach();
        let region = client.region_info(BAR4).unwrap();
        region.map(0, 4096, Access::ReadWrite).unwrap()
    };
    mapping.write(0, &[3; 4]).unwrap();
    assert_eq!(machine.attach().read(BAR4, 0), [3; 4]);
}
