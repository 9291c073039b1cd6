//! Region information around every rounding edge of both profiles.

use std::sync::Arc;

use varia_serve::{Backend, Endpoint, Options};
use varia_silicon::Silicon;
use varia_silicon::profile::{self, Body};
use varia_spec::{
    Errno,
    vfio::{RegionIndex, SparseArea, region_flags},
};
use varia_sys::mapping::page_size;
use varia_vfio_user::backend::Backend as _;

use crate::machine::{BAR0, BAR2, BAR4, CONFIG, GIB, MIB, READ_WRITE, Wanted};

/// Length and BAR size of a memory region.
type Sizes = (u64, u64);

const ROM: u32 = RegionIndex::ROM.0;
const MAPPABLE: u32 = READ_WRITE | region_flags::MMAP | region_flags::CAPS;

/// With the MIG bug: memory, usemem, resmem.
const GH200: [(u64, Sizes, Sizes); 12] = [
    (GIB + 512 * MIB, (512 * MIB, 512 * MIB), (GIB, GIB)),
    (
        GIB + 512 * MIB + 4096,
        (512 * MIB, GIB),
        (GIB + 4096, 2 * GIB),
    ),
    (
        2 * GIB - 4096,
        (512 * MIB, GIB),
        (GIB + 512 * MIB - 4096, 2 * GIB),
    ),
    (2 * GIB, (GIB, GIB), (GIB, GIB)),
    (2 * GIB + 4096, (GIB, 2 * GIB), (GIB + 4096, 2 * GIB)),
    (
        65 * GIB - 4096,
        (64 * GIB - 512 * MIB, 64 * GIB),
        (GIB + 512 * MIB - 4096, 2 * GIB),
    ),
    (65 * GIB, (64 * GIB, 64 * GIB), (GIB, GIB)),
    (
        65 * GIB + 100 * MIB,
        (64 * GIB, 128 * GIB),
        (GIB + 100 * MIB, 2 * GIB),
    ),
    (96 * GIB, (95 * GIB, 128 * GIB), (GIB, GIB)),
    (
        96 * GIB + 300 * MIB,
        (95 * GIB, 128 * GIB),
        (GIB + 300 * MIB, 2 * GIB),
    ),
    (
        96 * GIB + 512 * MIB,
        (95 * GIB + 512 * MIB, 128 * GIB),
        (GIB, GIB),
    ),
    (129 * GIB, (128 * GIB, 128 * GIB), (GIB, GIB)),
];

/// Without it: memory, the size of BAR4.
const GB200: [(u64, u64); 12] = [
    (4096, 4096),
    (3 * 4096, 4 * 4096),
    (512 * MIB, 512 * MIB),
    (GIB - 4096, GIB),
    (GIB, GIB),
    (GIB + 4096, 2 * GIB),
    (128 * GIB, 128 * GIB),
    (128 * GIB + 4096, 256 * GIB),
    (184 * GIB, 256 * GIB),
    (184 * GIB + 300 * MIB, 256 * GIB),
    (512 * GIB, 512 * GIB),
    (1024 * GIB, 1024 * GIB),
];

#[test]
fn a_gh200_has_usemem_in_region_4_and_resmem_in_region_2() {
    for (memory, usemem, resmem) in GH200 {
        let machine = Wanted::of("gh200", memory).serve();
        let mut client = machine.attach();
        for (index, (length, size)) in [(BAR4, usemem), (BAR2, resmem)] {
            let region = client.region_info(index).unwrap();
            assert_eq!(region.info.size, size, "region {index} of {memory:#x}");
            assert_eq!(region.info.flags, MAPPABLE, "region {index} of {memory:#x}");
            let area = SparseArea {
                offset: 0,
                size: length,
            };
            assert_eq!(region.info.areas, [area], "region {index} of {memory:#x}");
        }
        let regions = machine.memory_regions();
        let expected = [
            (BAR2, usemem.0, resmem.0, resmem.1),
            (BAR4, 0, usemem.0, usemem.1),
        ];
        assert_eq!(regions, expected, "{memory:#x}");
        assert_eq!(usemem.0 + resmem.0, memory, "nothing is lost");
    }
}

#[test]
fn a_gb200_has_usemem_in_region_4_and_its_own_bar_in_region_2() {
    for (memory, size) in GB200 {
        let machine = Wanted::of("gb200", memory).serve();
        let mut client = machine.attach();
        let region = client.region_info(BAR4).unwrap();
        assert_eq!(
            (region.info.size, region.info.flags),
            (size, MAPPABLE),
            "{memory:#x}"
        );
        let area = SparseArea {
            offset: 0,
            size: memory,
        };
        assert_eq!(region.info.areas, [area], "{memory:#x}");
        let physical = client.region_info(BAR2).unwrap();
        assert_eq!(physical.info.size, 256 * GIB);
        assert_eq!(physical.info.flags, READ_WRITE | region_flags::MMAP);
        assert_eq!(physical.info.areas, [], "all of it");
    }
}

#[test]
fn the_other_regions_are_the_cores() {
    let machine = Wanted::default().serve();
    let mut client = machine.attach();
    let mut of = |index| {
        let region = client.region_info(index).unwrap();
        (region.info.size, region.info.flags, region.file.is_some())
    };
    // registers have side effects, so nobody maps them
    assert_eq!(of(BAR0), (16 * MIB, READ_WRITE, false));
    assert_eq!(of(CONFIG), (4096, READ_WRITE, false));
    for absent in [1, 3, 5, 6] {
        assert_eq!(of(absent), (0, 0, false), "region {absent}");
    }
    // there is no VGA
    assert_eq!(of(8), (0, 0, false));
    for none in [9, u32::MAX] {
        let errno = client.region_info(none).unwrap_err().errno();
        assert_eq!(errno, Some(Errno::EINVAL), "region {none}");
    }
}

/// A BAR with nothing but the pages of the MSI-X table is not offered for mapping.
#[test]
fn a_bar_that_is_only_the_table_is_not_mapped() {
    let page = page_size() as u64;
    let mut profile = profile::find("nic").unwrap().clone();
    let bar = profile.bars.iter_mut().find(|bar| bar.value.index == 3);
    bar.unwrap().value.spec.size = page;
    for capability in &mut profile.capabilities {
        if let Body::MessageX { table, pending, .. } = &mut capability.value.body {
            (*table, *pending) = (0, 0x800);
        }
    }
    let silicon = Silicon::new(&profile, varia_silicon::Options::default()).unwrap();
    let endpoint = Endpoint::new(Arc::new(silicon), Options::default()).unwrap();
    let backend = Backend::new(Arc::new(endpoint));
    let bar = backend.region_info(3).unwrap();
    assert_eq!(bar.info.size, page);
    assert_eq!(bar.info.areas, []);
    assert_eq!(bar.info.flags, READ_WRITE);
}

/// The network card has its MSI-X table in a BAR that can be mapped, and a ROM.
#[test]
fn a_card_shows_a_rom_and_a_table_that_can_be_mapped() {
    let machine = Wanted {
        profile: "nic",
        ..Wanted::default()
    };
    let machine = machine.serve();
    let mut client = machine.attach();
    let table = client.region_info(3).unwrap();
    assert!(table.info.msix_mappable && table.file.is_some());
    let page = page_size() as u64;
    let at = 0x1000 - 0x1000 % page;
    let areas = [(0, at), (at + page, table.info.size - at - page)];
    let areas = areas.map(|(offset, size)| SparseArea { offset, size });
    let areas = areas.into_iter().filter(|area| area.size > 0);
    assert_eq!(table.info.areas, areas.collect::<Vec<_>>());
    let other = client.region_info(1).unwrap();
    assert!(!other.info.msix_mappable && other.file.is_some());
    let rom = client.region_info(ROM).unwrap();
    assert_eq!(
        (rom.info.size, rom.info.flags),
        (64 << 10, region_flags::READ)
    );
    let mut data = [0; 2];
    assert_eq!(client.region_read(rom.index, 0, &mut data).unwrap(), 2);
    assert_eq!(data, [0x55, 0xaa]);
}
