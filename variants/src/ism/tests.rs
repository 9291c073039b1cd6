//! Every access around every edge against a second, plain description of the kernel's.

use std::{string::ToString, vec, vec::Vec};

use varia_spec::vfio::region_flags;
use varia_variant::{Answer, PageShift};

use super::*;

const ENVIRONMENT: Environment = Environment::new(PageShift::KIB_4);
const TIB: u64 = 1 << 40;

/// A function with BARs of these sizes, 0 for none.
fn probe(longest: Answer, sizes: [u64; 6], environment: Environment) -> Ism {
    let answers = Answers::collect(Ism::QUESTIONS, |question| match question {
        Question::LongestStore => longest,
        Question::BarSize(bar) => match sizes[usize::from(bar.get())] {
            0 => Err(Errno::ENOENT),
            size => Ok(size),
        },
        other => panic!("{other:?}"),
    });
    Ism::probe(&answers, environment)
}

fn registers(ism: &Ism, index: u32) -> &dyn Registers {
    match ism.region(RegionIndex(index)) {
        Region::Registers(registers) => registers,
        other => panic!("{other:?}"),
    }
}

/// Bytes of the one store or of the read, or the error, as the kernel has them.
fn kernel(longest: u64, size: u64, write: bool, at: u64, count: u64) -> Result<u64, Errno> {
    if at >= size {
        return Err(Errno::EINVAL);
    }
    let count = if count > size - at { size - at } else { count };
    if write {
        if count > longest {
            return Err(Errno::EINVAL);
        }
        if at >> 12 != (at + count - 1) >> 12 {
            return Err(Errno::EINVAL);
        }
    }
    Ok(count)
}

#[test]
fn every_access_around_every_edge_is_the_kernels_and_a_store_is_never_split() {
    for longest in [1, 8, 128, 4096] {
        for size in [0x1000, 0x1_0000, 256 * TIB] {
            let ism = probe(Ok(longest), [size, 0, 0x4000, 0, 0, 0], ENVIRONMENT);
            assert_eq!(ism.outcome(), Outcome::Serve);
            let bar = registers(&ism, 0);
            assert_eq!(bar.info().size, size);
            let around = |at: u64| at.saturating_sub(9)..=at.saturating_add(9);
            let edges = [9, 0x1000, 0x2000, size / 2, size - 0x1000, size, u64::MAX];
            for offset in edges.into_iter().flat_map(around) {
                let lens = (1..=17).chain([127, 128, 129, 4095, 4096, 4097, u64::MAX]);
                for len in lens {
                    for direction in [Direction::Read, Direction::Write] {
                        let write = direction == Direction::Write;
                        let access = bar.access(RegisterAccess {
                            direction,
                            offset,
                            len,
                            msix: false,
                        });
                        let expected = kernel(longest, size, write, offset, len);
                        let expected = expected.map(|len| Target::Whole {
                            bar: BarIndex::BAR0,
                            offset,
                            len,
                        });
                        assert_eq!(access, expected, "{len} at {offset:#x}, write: {write}");
                    }
                }
            }
        }
    }
}

#[test]
fn bars_can_be_read_and_written_and_nothing_else_but_configuration_space_is_there() {
    for present in 0..64_u32 {
        let sizes = [0, 1, 2, 3, 4, 5].map(|bar| u64::from(present >> bar & 1) << (16 + bar));
        let ism = probe(Ok(4096), sizes, ENVIRONMENT);
        for (index, size) in (0..).zip(sizes) {
            match ism.region(RegionIndex(index)) {
                Region::Registers(bar) => {
                    let info = bar.info();
                    assert_eq!(info.size, size);
                    assert_eq!(info.flags, region_flags::READ | region_flags::WRITE);
                }
                Region::Absent => assert_eq!(size, 0),
                other => panic!("{other:?}"),
            }
        }
        for index in [6, 8] {
            assert!(matches!(ism.region(RegionIndex(index)), Region::Absent));
        }
        for index in [7, 9, 10, u32::MAX] {
            assert!(matches!(ism.region(RegionIndex(index)), Region::Base));
        }
    }
}

#[test]
fn without_the_platforms_facts_the_base_serves_and_strict_refuses() {
    let plain = probe(Err(Errno::ENODEV), [0x1000; 6], ENVIRONMENT);
    let Outcome::Decline(reason) = plain.outcome() else {
        panic!("{:?}", plain.outcome());
    };
    let says = "the platform names no longest store of the function's group (imaxstbl) (ENODEV): \
                served as a plain PCI device, whose stores are split; use a host of s390";
    assert!(reason.to_string().starts_with(says), "{reason}");
    for index in 0..12 {
        assert!(matches!(plain.region(RegionIndex(index)), Region::Base));
    }
    let strict = Environment {
        strict: true,
        ..ENVIRONMENT
    };
    let refused = probe(Err(Errno::ENODEV), [0x1000; 6], strict).outcome();
    assert_eq!(refused, Outcome::Fail(Refusal::Strict(reason)));
    let refused: Vec<_> = vec![0, 4097, u64::MAX];
    for longest in refused {
        let Outcome::Fail(refusal) = probe(Ok(longest), [0x1000; 6], ENVIRONMENT).outcome() else {
            panic!("{longest}");
        };
        assert_eq!(refusal.errno(), Errno::EINVAL);
        let text = refusal.to_string();
        let begin =
            std::format!("imaxstbl, a fact of the platform, is {longest}, outside 1 to 4096");
        assert!(text.starts_with(&begin), "{text}");
    }
}

#[test]
fn memory_enable_can_t_be_honoured() {
    let honour = Environment {
        honour_memory_enable: true,
        ..ENVIRONMENT
    };
    let ism = probe(Ok(8), [0x1000, 0, 0, 0, 0, 0], honour);
    assert_eq!(ism.outcome(), Outcome::Fail(Refusal::NothingToHonour));
}
