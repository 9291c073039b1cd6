//! Ioctls: of all sizes, with addresses and descriptors that are good and bad.
//!
//! The structures are those of Linux 7.2 `include/uapi/linux/vfio.h`; all fields are u32 in the
//! machine's order, which is little-endian on both architectures.

use varia_spec::vfio::{RegionIndex, irq_set};

use super::Generator;
use crate::op::{
    DOORBELLS, Descriptor, EVENTS, FEATURE, GET_HOT_RESET_INFO, GET_INFO, GET_IRQ_INFO,
    GET_REGION_INFO, HOT_RESET, IOEVENTFD, Op, Pointer, SET_IRQS,
};

/// `argsz` values around the header and the capability of region info, and of the others.
const ARGSZ: [u32; 18] = [
    0,
    1,
    4,
    8,
    12,
    16,
    20,
    24,
    28,
    31,
    32,
    33,
    40,
    63,
    64,
    80,
    4096,
    u32::MAX,
];
/// Arguments of region info that a vfio-user client uses as well.
const PORTABLE_ARGSZ: [u32; 10] = [0, 16, 31, 32, 33, 40, 63, 64, 80, 4096];

/// `VFIO_DEVICE_FEATURE_*`.
mod feature {
    pub(super) const GET: u32 = 1 << 16;
    pub(super) const SET: u32 = 1 << 17;
    pub(super) const PROBE: u32 = 1 << 18;
    pub(super) const LOW_POWER_ENTRY: u32 = 3;
    pub(super) const LOW_POWER_ENTRY_WITH_WAKEUP: u32 = 4;
    pub(super) const LOW_POWER_EXIT: u32 = 5;
    pub(super) const DMA_BUF: u32 = 11;
    /// First number that Linux 7.2 does not know.
    pub(super) const COUNT: u32 = 14;
}

/// `O_RDWR | O_CLOEXEC`.
const OPEN_FLAGS: u32 = 0x8_0002;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Generator<'_> {
    fn call(&mut self, number: u8, argument: Vec<u8>, descriptors: Vec<(u16, Descriptor)>) {
        let pointer = match self.rng.u32(0..16) {
            0 => Pointer::Null,
            1 => Pointer::ReadOnly,
            2 | 3 => Pointer::Cut(self.rng.usize(0..argument.len() + 1) as u16),
            _ => Pointer::Good,
        };
        self.push(Op::Ioctl {
            number,
            argument,
            descriptors,
            pointer,
        });
    }

    /// A call with a good address, for what has to succeed.
    fn good_call(&mut self, number: u8, argument: Vec<u8>, descriptors: Vec<(u16, Descriptor)>) {
        self.push(Op::Ioctl {
            number,
            argument,
            descriptors,
            pointer: Pointer::Good,
        });
    }

    pub(super) fn region_info(&mut self) {
        let region = self.rng.u32(0..12);
        let argsz = self.choice(&PORTABLE_ARGSZ, 32);
        self.push(Op::RegionInfo { region, argsz });
    }

    /// Queries of a device, with room of all sizes.
    pub(super) fn information(&mut self) {
        let asked = [GET_INFO, GET_REGION_INFO, GET_IRQ_INFO, GET_HOT_RESET_INFO];
        let number = self.choice(&asked, GET_INFO);
        let argsz = self.choice(&ARGSZ, 32);
        let index = match self.rng.u32(0..8) {
            0 => self.rng.u32(..),
            _ => self.rng.u32(0..12),
        };
        let flags = self.choice(&[0, 0, 0, 1, u32::MAX], 0);
        let mut argument = words(&[argsz, flags, index]);
        argument.resize(80, 0);
        self.call(number, argument, Vec::new());
    }

    /// Every feature, asked for in every way; low power is left to [`low_power`](Self::low_power).
    pub(super) fn feature(&mut self) {
        let ways = [0, feature::GET, feature::SET, feature::GET | feature::SET];
        let probe = self.choice(&[0, 0, feature::PROBE], 0);
        let flags = probe | self.choice(&ways, 0);
        let index = match self.rng.u32(0..16) {
            0 => 0xffff,
            1 => self.rng.u32(0..0x1_0000),
            2..7 => return self.dma_buf(flags),
            _ => self.rng.u32(0..feature::COUNT),
        };
        let enters = [
            feature::LOW_POWER_ENTRY,
            feature::LOW_POWER_ENTRY_WITH_WAKEUP,
        ];
        let flags = match enters.contains(&index) {
            true => flags | feature::PROBE,
            false => flags,
        };
        let argsz = self.choice(&ARGSZ, 8);
        let reserved = self.choice(&[0, 0, 0, 1 << 19, 1 << 31], 0);
        let mut argument = words(&[argsz, flags | index | reserved]);
        let room = self.choice(&[8, 16, 24, 40, 64], 16);
        let data = match self.rng.bool() {
            true => vec![0; room],
            false => self.bytes(room),
        };
        argument.extend(data);
        self.call(FEATURE, argument, Vec::new());
    }

    /// A dma-buf of one range or more, across every edge.
    fn dma_buf(&mut self, flags: u32) {
        let page = self.shape.page;
        let region = match self.rng.u32(0..8) {
            0 => self.rng.u32(0..10),
            1 => 0,
            2..5 => 2,
            _ => 4,
        };
        let length = self.shape.region(region).map_or(0, |memory| memory.length);
        let size = self.shape.region(region).map_or(0, |memory| memory.size);
        let count = self.choice(&[1, 1, 1, 2, 3, 0], 1);
        let mut ranges = Vec::new();
        for _ in 0..count {
            let len = match self.rng.u32(0..8) {
                0 => 0,
                1 => page / 2,
                2 => length,
                3 => size,
                _ => page * self.rng.u64(1..4),
            };
            let start = match self.rng.u32(0..6) {
                0 => page / 2,
                1 => length / page * page,
                2 => (length / page * page).saturating_sub(len),
                3 => size,
                _ => page * self.rng.u64(0..4),
            };
            ranges.extend(start.to_le_bytes());
            ranges.extend(len.to_le_bytes());
        }
        let claimed = match self.rng.u32(0..16) {
            0 => u32::MAX,
            1 => 0,
            _ => count,
        };
        let reserved = self.choice(&[0, 0, 0, 0, 1], 0);
        let open = self.choice(&[OPEN_FLAGS, OPEN_FLAGS, 0, u32::MAX], OPEN_FLAGS);
        let full = 24 + ranges.len() as u32;
        let argsz = self.choice(&[full, full, full, 24, 23, 8], full);
        let flags = match self.rng.u32(0..4) {
            0 => flags,
            _ => feature::GET,
        };
        let mut argument = words(&[
            argsz,
            flags | feature::DMA_BUF,
            region,
            open,
            reserved,
            claimed,
        ]);
        argument.extend(ranges);
        self.call(FEATURE, argument, Vec::new());
    }

    /// Interrupts of every index, enabled, masked, triggered and disabled.
    pub(super) fn interrupts(&mut self) {
        let index = self.rng.u32(0..6);
        let most = [1, 16, 9, 1, 1, 1];
        let most = most.get(index as usize).copied().unwrap_or(1);
        let data = self.choice(
            &[
                irq_set::DATA_NONE,
                irq_set::DATA_BOOL,
                irq_set::DATA_EVENTFD,
                irq_set::DATA_EVENTFD,
            ],
            irq_set::DATA_NONE,
        );
        let action = self.choice(
            &[
                irq_set::ACTION_MASK,
                irq_set::ACTION_UNMASK,
                irq_set::ACTION_TRIGGER,
                irq_set::ACTION_TRIGGER,
                irq_set::ACTION_TRIGGER,
            ],
            irq_set::ACTION_TRIGGER,
        );
        let flags = match self.rng.u32(0..16) {
            0 => self.rng.u32(0..0x80),
            _ => data | action,
        };
        let start = match self.rng.u32(0..4) {
            0 => self.rng.u32(0..most + 2),
            _ => 0,
        };
        let count = match self.rng.u32(0..8) {
            0 => 0,
            1 => self.rng.u32(0..most + 2),
            2 => u32::MAX,
            3 | 4 => most,
            _ => 1,
        };
        let mut descriptors = Vec::new();
        let mut argument = words(&[0, flags, index, start, count]);
        for place in 0..count.min(most + 2) {
            if flags & irq_set::DATA_EVENTFD != 0 {
                let at = argument.len() as u16;
                argument.extend((-1i32).to_le_bytes());
                match self.rng.u32(0..8) {
                    0 => {}
                    1 => descriptors.push((at, Descriptor::Device)),
                    _ => {
                        descriptors.push((at, Descriptor::Event((place % u32::from(EVENTS)) as u8)))
                    }
                }
            } else if flags & irq_set::DATA_BOOL != 0 {
                argument.push(self.rng.u8(0..2));
            }
        }
        let full = argument.len() as u32;
        let argsz = self.choice(&[full, full, full, full, 20, 19, full + 4], full);
        if let Some(field) = argument.first_chunk_mut() {
            *field = argsz.to_le_bytes();
        }
        self.call(SET_IRQS, argument, descriptors);
    }

    /// A write to a BAR whenever an event comes; the fake ones refuse it, and so has a device that
    /// has any.
    pub(super) fn ioeventfd(&mut self) {
        let region = match self.rng.u32(0..8) {
            0 => self.choice(&[1, 6, 7, 8, 9], 7),
            _ => self.choice(&[0, 2, 4], 4),
        };
        let size = self.shape.region(region).map_or(0, |memory| memory.size);
        let near = [0, 0, 8, 8, 0x100, size.saturating_sub(4), size];
        let offset = self.choice(&near, 0) | u64::from(region) << 40;
        let width = self.choice(&[1, 2, 4, 4, 4, 8, 0, 3, 16], 4);
        let mut argument = words(&[32, width]);
        argument.extend(offset.to_le_bytes());
        // Few values, so that one that is registered is met again.
        argument.extend(self.rng.u64(0..2).to_le_bytes());
        argument.extend((-1i32).to_le_bytes());
        argument.extend([0; 4]);
        let event = EVENTS + self.rng.u8(0..DOORBELLS);
        let descriptors = match self.rng.u32(0..8) {
            0..3 => Vec::new(),
            3 => vec![(24, Descriptor::Device)],
            _ => vec![(24, Descriptor::Event(event))],
        };
        self.call(IOEVENTFD, argument, descriptors);
    }

    /// Numbers that Linux 7.2 gives to other devices, or to none, with any argument.
    pub(super) fn unknown_call(&mut self) {
        let number = self.choice(&[13, 14, 15, 18, 19, 20, 21, 22, 30, 40], 14);
        let argument = match self.rng.bool() {
            true => vec![0; 64],
            false => self.bytes(64),
        };
        self.call(number, argument, Vec::new());
    }

    pub(super) fn hot_reset(&mut self) {
        let argument = words(&[16, 0, 1, 0]);
        self.good_call(HOT_RESET, argument, vec![(12, Descriptor::Group)]);
    }

    /// Low power with and without a wish to be woken, and some use of the device in it.
    pub(super) fn low_power(&mut self) {
        let wakeup = self.rng.bool();
        let (entry, descriptors) = match wakeup {
            true => (
                words(&[
                    16,
                    feature::SET | feature::LOW_POWER_ENTRY_WITH_WAKEUP,
                    u32::MAX,
                    0,
                ]),
                vec![(8, Descriptor::Event(0))],
            ),
            false => (
                words(&[8, feature::SET | feature::LOW_POWER_ENTRY]),
                Vec::new(),
            ),
        };
        self.good_call(FEATURE, entry, descriptors);
        self.push(Op::AwaitSuspend);
        for _ in 0..self.rng.u32(0..3) {
            match self.rng.u32(0..6) {
                0 | 1 => self.touch(),
                2 => self.map(),
                3 => self.read(),
                4 => self.write(),
                _ => self.push(Op::Read {
                    region: RegionIndex::CONFIG.0,
                    offset: 0,
                    len: 64,
                }),
            }
        }
        if wakeup {
            self.push(Op::Drain { event: 0 });
        }
        let exit = words(&[8, feature::SET | feature::LOW_POWER_EXIT]);
        self.good_call(FEATURE, exit, Vec::new());
    }
}
