//! Nothing that a user does panics, and reads agree with each other whatever their width.

use crate::fake::{Traits, open};
use varia_core::IrqData;
use varia_spec::vfio::{IrqAction, IrqIndex, RegionIndex};

/// xorshift64: a seed is a whole run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[test]
fn twenty_thousand_random_operations_keep_the_space_consistent() {
    for traits in [
        Traits::default(),
        Traits {
            soft_reset: true,
            vpd: true,
            rom: true,
            functions: 1,
            ..Traits::default()
        },
        Traits {
            soft_reset: true,
            flr: false,
            ..Traits::default()
        },
    ] {
        let (_, core) = open(traits);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20_000 {
            let at = random.below(4100);
            let mut data = random.next().to_le_bytes();
            let len = random.below(9) as usize;
            let _ = match random.below(6) {
                0 | 1 => core.config_write(at, &data[..len]),
                2 => core.config_read(at, &mut data[..len]),
                3 => core.region_write(RegionIndex(at as u32 % 10), random.below(1 << 17), &data),
                4 => core.region_read(
                    RegionIndex(at as u32 % 10),
                    random.below(1 << 17),
                    &mut data,
                ),
                _ => {
                    let (index, action) = (IrqIndex(at as u32 % 6), IrqAction::Trigger);
                    core.set_irqs(index, action, 0, len as u32, IrqData::None)
                        .map(|()| 0)
                }
            };
        }
        let mut whole = vec![0; 4096];
        assert_eq!(core.config_read(0, &mut whole), Ok(4096));
        for (at, byte) in (0..).zip(&whole) {
            let mut one = [0];
            assert_eq!(core.config_read(at, &mut one), Ok(1));
            assert_eq!(one[0], *byte, "at {at:#x}");
        }
        assert_eq!(whole[..4], [0xde, 0x10, 0x34, 0x12]);
    }
}
