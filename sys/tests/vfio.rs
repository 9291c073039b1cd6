//! Behaviour of the VFIO wrappers without a VFIO device; tests with a device run in the lab's VMs.

use varia_spec::errno::Errno;
use varia_spec::vfio::{RegionType, SparseArea};
use varia_sys::vfio::{Group, RawRegionInfo, position};

/// A region whose capability chain begins behind the structure.
fn region(caps: Vec<u8>) -> RawRegionInfo {
    let argsz = 32 + caps.len() as u32;
    RawRegionInfo {
        argsz,
        flags: 0xf,
        index: 2,
        cap_offset: 32,
        size: 1 << 20,
        offset: 0,
        caps,
    }
}

fn area(offset: u64, size: u64) -> SparseArea {
    SparseArea { offset, size }
}

fn capability(id: u16, next: u32, body: &[u64]) -> Vec<u8> {
    let mut bytes = [id.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
    bytes.extend(next.to_ne_bytes());
    bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

#[test]
fn sparse_areas_are_found_behind_another_capability() {
    let other = capability(2, 48, &[0]);
    let sparse = capability(1, 0, &[2, 0x1000, 0x2000, 0x8000, 0x1000]);
    let info = region([other, sparse].concat());
    assert_eq!(
        info.sparse_areas(),
        Some(vec![area(0x1000, 0x2000), area(0x8000, 0x1000)])
    );
}

#[test]
fn a_chain_that_ends_loops_or_leaves_the_buffer_has_no_areas() {
    for caps in [
        vec![],
        capability(2, 0, &[0]),
        capability(2, 32, &[0]),
        capability(2, 8, &[0]),
        capability(2, 4096, &[0]),
        capability(2, u32::MAX, &[0]),
        capability(1, 0, &[])[..4].to_vec(),
    ] {
        assert_eq!(region(caps.clone()).sparse_areas(), None, "{caps:?}");
    }
}

#[test]
fn areas_that_the_buffer_does_not_hold_are_left_out() {
    let info = region(capability(1, 0, &[3, 0x1000, 0x2000]));
    assert_eq!(info.sparse_areas(), Some(vec![area(0x1000, 0x2000)]));
}

#[test]
fn a_type_is_found_behind_another_capability() {
    let sparse = capability(1, 56, &[0]);
    let both = [
        sparse,
        vec![0; 8],
        capability(2, 0, &[2 << 32 | 0x8000_8086]),
    ]
    .concat();
    let igd = RegionType {
        kind: 0x8000_8086,
        subtype: 2,
    };
    assert_eq!(region(both).region_type(), Some(igd));
    for without in [capability(1, 0, &[0]), capability(2, 0, &[])] {
        assert_eq!(region(without).region_type(), None);
    }
}

#[test]
fn a_position_holds_the_index_above_bit_40() {
    assert_eq!(position(7, 0x10), 0x700_0000_0010);
    assert_eq!(position(0, 0), 0);
}

#[test]
fn a_group_that_is_not_there_is_enoent() {
    assert_eq!(Group::open(u32::MAX).unwrap_err(), Errno::ENOENT);
}
