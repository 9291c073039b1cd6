//! The layouts of coherent memory as a client sees them, beside the memory of the host.

use varia_silicon::profile;
use varia_spec::Errno;
use varia_spec::pci::header::command;
use varia_spec::vfio::{RegionType, SparseArea, region_flags};
use varia_sys::mapping::Access;
use varia_variant::MemoryLayout;

use crate::machine::{BAR0, BAR2, BAR4, CONFIG, GIB, MIB, READ_WRITE, SMALL, Wanted};

const MAPPED: u32 = region_flags::MMAP | region_flags::CAPS;

fn wanted(profile: &'static str, memory: u64, layout: MemoryLayout) -> Wanted {
    Wanted {
        layout,
        ..Wanted::of(profile, memory)
    }
}

/// Memory, and the regions that show it: offset in the memory, length, subtype.
fn described(bug: bool, memory: u64) -> Vec<(u64, u64, u32)> {
    if !bug {
        return vec![(0, memory, 0x100)];
    }
    let usemem = (memory - GIB) / (512 * MIB) * (512 * MIB);
    vec![(0, usemem, 0x100), (usemem, memory - usemem, 0x101)]
}

#[test]
fn layout_region_shows_the_memory_as_regions_that_can_only_be_mapped() {
    for (profile, bug, memory) in [
        ("gh200", true, SMALL),
        ("gh200", true, 96 * GIB),
        ("gb200", false, SMALL),
        ("gb200", false, 184 * GIB),
    ] {
        let machine = wanted(profile, memory, MemoryLayout::Region).serve();
        let mut client = machine.attach();
        let regions = described(bug, memory);
        let count = client.device_info().unwrap().num_regions;
        assert_eq!(count as usize, 9 + regions.len());
        for (index, (start, length, subtype)) in (9..).zip(regions) {
            let region = client.region_info(index).unwrap();
            assert_eq!((region.info.size, region.info.flags), (length, MAPPED));
            let kind = 0x8000_10de;
            assert_eq!(region.info.region_type, Some(RegionType { kind, subtype }));
            let area = SparseArea {
                offset: 0,
                size: length,
            };
            assert_eq!(region.info.areas, [area]);
            // the first and the last page, and across the middle
            for at in [0, length / 2 / 4096 * 4096, length - 4096] {
                let mapping = region.map(at, 4096, Access::ReadWrite).unwrap();
                let bytes = [index as u8, at as u8, 3, 4];
                mapping.write(16, &bytes).unwrap();
                assert_eq!(machine.host(start + at + 16), bytes);
            }
            let beyond = region.map(length - 4096, 8192, Access::ReadOnly);
            assert!(beyond.is_err(), "{profile}");
            for offset in [0, 1, length - 4, length, u64::MAX - 3] {
                assert_eq!(client.try_read(index, offset), Err(Errno::EINVAL));
                let write = client.try_write(index, offset, &[1; 4]);
                assert_eq!(write, Err(Errno::EINVAL));
            }
        }
        assert!(client.region_info(count).is_err());
    }
}

#[test]
fn layout_region_masks_bar2_and_bar4_and_leaves_bar0() {
    for profile in ["gh200", "gb200", "gb300", "cxl"] {
        let machine = wanted(profile, 8 * GIB, MemoryLayout::Region).serve();
        let mut client = machine.attach();
        for index in 1..=5 {
            let region = client.region_info(index).unwrap();
            assert_eq!((region.info.size, region.info.flags), (0, 0), "{profile}");
            assert!(region.file.is_none());
            assert_eq!(client.try_read(index, 0), Err(Errno::EINVAL));
            assert_eq!(client.try_write(index, 0, &[1; 4]), Err(Errno::EINVAL));
        }
        let bar0 = client.region_info(BAR0).unwrap();
        assert_eq!(bar0.info.size, 16 * MIB);
        client.write(CONFIG, 0x10, &[0xff; 0x18]);
        let bars: [u8; 0x18] = client.read(CONFIG, 0x10);
        assert_eq!(bars[8..], [0; 16], "{profile}");
        assert_ne!(bars[..8], [0; 8], "{profile}");
        // nothing of the write has reached the device below
        client.reset().unwrap();
        assert_eq!(client.register64(0x18), 0);
    }
}

#[test]
fn layout_physical_bar_shows_all_memory_in_bar2_of_the_physical_size() {
    for memory in [4096, SMALL, 184 * GIB, 256 * GIB] {
        let machine = wanted("gb200", memory, MemoryLayout::PhysicalBar).serve();
        let mut client = machine.attach();
        let region = client.region_info(BAR2).unwrap();
        assert_eq!(region.info.size, 256 * GIB);
        assert_eq!(region.info.flags, READ_WRITE | MAPPED);
        assert_eq!(region.info.areas.len(), 1);
        assert_eq!(region.info.areas[0].offset, 0);
        assert_eq!(region.info.areas[0].size, memory);
        assert_eq!(region.info.region_type, None);
        for at in [0, memory / 2 / 4096 * 4096, memory - 4096] {
            client.write(BAR2, at + 8, &[at as u8, 5, 6, 7]);
            assert_eq!(machine.host(at + 8), [at as u8, 5, 6, 7]);
            let mapping = region.map(at, 4096, Access::ReadWrite).unwrap();
            let mut seen = [0; 4];
            mapping.read(8, &mut seen).unwrap();
            assert_eq!(seen, [at as u8, 5, 6, 7]);
        }
        if memory < 256 * GIB {
            assert_eq!(client.read(BAR2, memory), [0xff; 4]);
            assert_eq!(client.read(BAR2, 256 * GIB - 4), [0xff; 4]);
            assert!(region.map(memory, 4096, Access::ReadOnly).is_err());
        }
        assert_eq!(client.try_read(BAR2, 256 * GIB), Err(Errno::EINVAL));
        // BAR4 is the device's own, and both are sized as the device's are
        let own = profile::find("gb200").unwrap().bar(4).unwrap().spec.size;
        assert_eq!(client.region_info(BAR4).unwrap().info.size, own);
        client.write(CONFIG, 0x18, &[0xff; 16]);
        assert_eq!(client.register64(0x18), !(256 * GIB - 1) | 0xc);
        assert_eq!(client.register64(0x20), !(own - 1) | 0xc);
    }
}

#[test]
fn a_layout_that_can_not_be_is_refused_with_both_sizes() {
    let (made, _) = wanted("gb200", 300 * GIB, MemoryLayout::PhysicalBar).make();
    let text = made.err().unwrap().to_string();
    assert!(
        text.contains("256 GiB") && text.contains("300 GiB"),
        "{text}"
    );
    let (made, _) = wanted("gh200", SMALL, MemoryLayout::PhysicalBar).make();
    let text = made.err().unwrap().to_string();
    assert!(text.contains("uncached memory for MIG"), "{text}");
    let mut both = wanted("gh200", SMALL, MemoryLayout::Region);
    both.honour_memory_enable = true;
    let text = both.make().0.err().unwrap().to_string();
    assert!(text.contains("memory-enable is about BARs"), "{text}");
}

/// A mapping can't be withdrawn over vfio-user, so none is offered.
#[test]
fn a_device_that_honours_memory_enable_offers_no_bar_for_mapping() {
    for (profile, layout) in [
        ("gh200", MemoryLayout::Bar),
        ("gb200", MemoryLayout::Bar),
        ("gb200", MemoryLayout::PhysicalBar),
    ] {
        let mut wanted = wanted(profile, SMALL, layout);
        wanted.honour_memory_enable = true;
        let machine = wanted.serve();
        let mut client = machine.attach();
        for index in 0..6 {
            let region = client.region_info(index).unwrap();
            assert_eq!(region.info.flags & !READ_WRITE, 0, "{profile} BAR{index}");
            assert!(region.file.is_none() && region.info.areas.is_empty());
            if region.info.size == 0 {
                continue;
            }
            client.write(index, 64, &[1, 2, 3, index as u8]);
            client.change16(4, 0, command::MEMORY);
            assert_eq!(client.try_read(index, 64), Err(Errno::EIO));
            assert_eq!(client.try_write(index, 64, &[9; 4]), Err(Errno::EIO));
            client.change16(4, command::MEMORY, 0);
            assert_eq!(client.read(index, 64), [1, 2, 3, index as u8]);
        }
    }
    let nic = Wanted {
        profile: "nic",
        honour_memory_enable: true,
        ..Wanted::default()
    };
    let machine = nic.serve();
    let mut client = machine.attach();
    for index in 0..6 {
        let region = client.region_info(index).unwrap();
        assert_eq!(region.info.flags & !READ_WRITE, 0, "nic BAR{index}");
        assert!(region.file.is_none() && !region.info.msix_mappable);
    }
}
