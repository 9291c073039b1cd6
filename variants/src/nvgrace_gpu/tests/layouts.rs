//! The layouts against a second description: every region, and every access to the header of
//! configuration space, for chips with and without the MIG bug.

use varia_spec::vfio::{RegionType, region_flags};
use varia_variant::MemoryRegion;

use super::{accesses::segments, *};

/// A region as the second description has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    Base,
    Absent,
    /// Offset in the memory, length, size, write-combining, and for a device-specific region the
    /// subtype.
    Memory(u64, u64, u64, bool, Option<u32>),
}

use Shown::{Absent, Base, Memory};

/// A chip in a layout.
struct Case {
    device: Device,
    layout: MemoryLayout,
    /// Regions 2, 4, 9 and 10; regions 3 and 5 are absent with region 2, all others are the base's.
    regions: [Shown; 4],
}

const WHOLE: u32 = 0x100;
const UNCACHED: u32 = 0x101;

/// 184 GiB without the MIG bug, and a physical BAR2 of 256 GiB.
const GB200: Device = Device {
    size: Ok(184 * GIB),
    bitmap: FIXED,
    bar2: Ok(256 * GIB),
    ..GH200
};

/// A memory that ends beyond a multiple of 512 MiB.
const UNEVEN: Device = Device {
    size: Ok(96 * GIB + 300 * MIB),
    ..GH200
};

fn cases() -> Vec<Case> {
    let tail = GIB + 300 * MIB;
    let case = |device, layout, regions| Case {
        device,
        layout,
        regions,
    };
    let usemem = Memory(0, 95 * GIB, 128 * GIB, false, None);
    vec![
        case(
            GH200,
            MemoryLayout::Bar,
            [Memory(95 * GIB, GIB, GIB, true, None), usemem, Base, Base],
        ),
        case(
            UNEVEN,
            MemoryLayout::Bar,
            [
                Memory(95 * GIB, tail, 2 * GIB, true, None),
                usemem,
                Base,
                Base,
            ],
        ),
        case(
            GB200,
            MemoryLayout::Bar,
            [
                Base,
                Memory(0, 184 * GIB, 256 * GIB, false, None),
                Base,
                Base,
            ],
        ),
        case(
            GH200,
            MemoryLayout::Region,
            [
                Absent,
                Absent,
                Memory(0, 95 * GIB, 95 * GIB, false, Some(WHOLE)),
                Memory(95 * GIB, GIB, GIB, true, Some(UNCACHED)),
            ],
        ),
        case(
            UNEVEN,
            MemoryLayout::Region,
            [
                Absent,
                Absent,
                Memory(0, 95 * GIB, 95 * GIB, false, Some(WHOLE)),
                Memory(95 * GIB, tail, tail, true, Some(UNCACHED)),
            ],
        ),
        case(
            GB200,
            MemoryLayout::Region,
            [
                Absent,
                Absent,
                Memory(0, 184 * GIB, 184 * GIB, false, Some(WHOLE)),
                Base,
            ],
        ),
        case(
            GB200,
            MemoryLayout::PhysicalBar,
            [
                Memory(0, 184 * GIB, 256 * GIB, false, None),
                Base,
                Base,
                Base,
            ],
        ),
        case(
            // a BAR that is far larger, and one of exactly the memory's size
            Device {
                size: Ok(GIB),
                ..GB200
            },
            MemoryLayout::PhysicalBar,
            [Memory(0, GIB, 256 * GIB, false, None), Base, Base, Base],
        ),
        case(
            Device {
                size: Ok(256 * GIB),
                ..GB200
            },
            MemoryLayout::PhysicalBar,
            [
                Memory(0, 256 * GIB, 256 * GIB, false, None),
                Base,
                Base,
                Base,
            ],
        ),
    ]
}

fn probe(device: Device, layout: MemoryLayout) -> NvgraceGpu {
    device.probe_in(Environment {
        layout,
        ..ENVIRONMENT
    })
}

fn shown(gpu: &NvgraceGpu, index: u32) -> Shown {
    match gpu.region(RegionIndex(index)) {
        Region::Base => Base,
        Region::Absent => Absent,
        Region::Memory(region) => {
            let info = region.info();
            let whole = info.areas[0];
            assert_eq!((whole.offset, whole.size), (0, region.length()));
            assert_eq!(info.size, region.size().0);
            let subtype = info.region_type.map(|RegionType { kind, subtype }| {
                assert_eq!(kind, 0x8000_10de);
                subtype
            });
            let flags = match subtype {
                Some(_) => region_flags::MMAP,
                None => region_flags::READ | region_flags::WRITE | region_flags::MMAP,
            };
            assert_eq!(info.flags, flags, "region {index}");
            Memory(
                region.base().0 - BASE,
                region.length(),
                info.size,
                region.memory() == MemoryType::WriteCombining,
                subtype,
            )
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_region_of_every_layout_is_as_described() {
    for case in cases() {
        let gpu = probe(case.device, case.layout);
        assert_eq!(gpu.outcome(), Outcome::Serve);
        let [bar2, bar4, first, second] = case.regions;
        let upper = if bar2 == Absent { Absent } else { Base };
        for index in 0..40 {
            let expected = match index {
                2 => bar2,
                3 | 5 => upper,
                4 => bar4,
                9 => first,
                10 => second,
                _ => Base,
            };
            assert_eq!(
                shown(&gpu, index),
                expected,
                "{:?} region {index}",
                case.layout
            );
        }
    }
}

/// A register pair of configuration space after `written`: `None` if it is the base's.
fn pair(shown: Shown, written: u64) -> Option<u64> {
    match shown {
        Base => None,
        Absent => Some(0),
        Memory(_, _, size, _, None) => Some(written & !(size - 1) | 0xc),
        Memory(..) => panic!("no BAR"),
    }
}

#[test]
fn every_access_to_the_header_goes_byte_by_byte_where_it_belongs() {
    let written: [u8; 64] = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0xa5);
    let word = |at: usize| u64::from_le_bytes(*written[at..].first_chunk().unwrap());
    for case in cases() {
        let gpu = probe(case.device, case.layout);
        gpu.config_store(0, &written);
        let physical = case.layout == MemoryLayout::PhysicalBar;
        let of = |shown, at| {
            if physical {
                None
            } else {
                pair(shown, word(at))
            }
        };
        let pairs = [of(case.regions[0], 0x18), of(case.regions[1], 0x20)];
        let byte = |at: u64| match at {
            0x18..0x28 => {
                let at = at as usize - 0x18;
                pairs[at / 8].map(|pair| pair.to_le_bytes()[at % 8])
            }
            _ => None,
        };
        for offset in 0x10..0x30 {
            for len in 1..=0x30 - offset {
                for (at, count, kept) in segments(&gpu, offset, len) {
                    for at in at..at + count {
                        assert_eq!(kept, byte(at).is_some(), "{:?} {at:#x}", case.layout);
                    }
                }
                let mut out = vec![0x5e; len as usize];
                gpu.config_load(offset, &mut out);
                for (at, out) in (offset..).zip(out) {
                    assert_eq!(out, byte(at).unwrap_or(0x5e), "{:?} {at:#x}", case.layout);
                }
            }
        }
    }
}

#[test]
fn a_region_that_can_only_be_mapped_refuses_each_read_and_write() {
    for device in [GH200, GB200] {
        let gpu = probe(device, MemoryLayout::Region);
        let regions = (9..11).filter_map(|index| match gpu.region(RegionIndex(index)) {
            Region::Memory(region) => Some(region),
            _ => None,
        });
        let regions: Vec<MemoryRegion> = regions.collect();
        assert_eq!(regions.len(), if device.bitmap == ABSENT { 2 } else { 1 });
        for region in regions {
            for direction in [Direction::Read, Direction::Write] {
                for offset in [0, 1, region.length() - 1, region.length(), u64::MAX] {
                    for count in [0, 1, 8, u64::MAX] {
                        let begun = region.begin(direction, offset, count);
                        assert_eq!(begun, Begin::Refuse(Errno::EINVAL));
                    }
                }
            }
            let request = MmapRequest {
                offset: 0,
                len: region.length(),
                copy_on_write: false,
            };
            let uncached = region.memory() == MemoryType::WriteCombining;
            let mapping = region.mmap(request).unwrap();
            assert_eq!(mapping.allow_uncached, uncached);
        }
    }
}

#[test]
fn a_layout_that_the_device_can_not_have_is_refused_with_the_values() {
    let in_layout = |device: Device, layout, honour_memory_enable| {
        let gpu = device.probe_in(Environment {
            layout,
            honour_memory_enable,
            ..ENVIRONMENT
        });
        match gpu.outcome() {
            Outcome::Fail(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    };
    let physical = |device| in_layout(device, MemoryLayout::PhysicalBar, false);
    for bar2 in [ABSENT, Ok(0), Ok(128 * GIB), Ok(64 << 10)] {
        let refusal = physical(Device { bar2, ..GB200 });
        let size = Bytes(bar2.unwrap_or(0));
        let memory = Bytes(184 * GIB);
        let bar = BarIndex::BAR2;
        assert_eq!(refusal, Refusal::PhysicalBarTooSmall { bar, size, memory });
        assert_eq!(refusal.errno(), Errno::EOVERFLOW);
    }
    let text = physical(Device {
        size: Ok(300 * GIB),
        ..GB200
    });
    let text = format!("{text}");
    assert!(
        text.contains("256 GiB") && text.contains("300 GiB"),
        "{text}"
    );
    for bar2 in [2 << 40, 1 << 63, u64::MAX] {
        let length = Bytes(bar2);
        let bar2 = Ok(bar2);
        let refusal = physical(Device { bar2, ..GB200 });
        assert_eq!(refusal, Refusal::BarTooLarge { length });
    }
    // the carve-out has no place in the one BAR
    let reserve = Bytes(GIB + 300 * MIB);
    assert_eq!(physical(UNEVEN), Refusal::NoUncachedPart { reserve });
    for device in [GH200, GB200] {
        let refusal = in_layout(device, MemoryLayout::Region, true);
        assert_eq!(refusal, Refusal::NoBarToHonour);
    }
    // what no layout can have, and a device without memory, come first
    let lost = Device {
        size: Ok(GIB),
        ..GH200
    };
    assert!(matches!(physical(lost), Refusal::NothingUsable { .. }));
    let declined = Device {
        base: ABSENT,
        ..GH200
    };
    for layout in [MemoryLayout::Region, MemoryLayout::PhysicalBar] {
        let gpu = probe(declined, layout);
        assert!(matches!(gpu.outcome(), Outcome::Decline(_)));
        assert!((0..12).all(|index| shown(&gpu, index) == Base));
    }
}

#[test]
fn bars_that_do_not_exist_stay_so_through_resets() {
    let gpu = probe(GH200, MemoryLayout::Region);
    for event in [Event::Opened, Event::ResetRequested, Event::ResetDone] {
        gpu.config_store(0x18, &[0xff; 16]);
        gpu.event(event);
        let mut out = [0x5e; 18];
        gpu.config_load(0x17, &mut out);
        assert_eq!((out[0], out[17]), (0x5e, 0x5e));
        assert_eq!(out[1..17], [0; 16]);
    }
}
