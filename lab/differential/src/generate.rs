//! Seeded operations around every edge of the device under test.

use fastrand::Rng;
use varia_spec::{
    pci::{CFG_SPACE_EXP_SIZE, header},
    vfio::RegionIndex,
};

use crate::op::{Op, Shape};

/// Lengths that accesses like to have, in bytes.
const LENGTHS: [u32; 16] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 31, 64, 255, 4096, 4099];

/// `argsz` values around the header and the capability.
const ARGSZ: [u32; 10] = [0, 16, 31, 32, 33, 40, 63, 64, 80, 4096];

/// At least `count` operations for a device of this shape; the same for the same arguments.
///
/// A write that two implementations may carry out differently is followed by writes that bring
/// both to the same state, so that one difference does not show again in later answers.
pub fn operations(seed: u64, count: usize, shape: &Shape) -> Vec<Op> {
    let mut rng = Rng::with_seed(seed);
    let mut ops = Vec::new();
    first_look(&mut rng, shape, &mut ops);
    while ops.len() < count {
        match rng.u32(0..100) {
            0..8 => ops.push(Op::RegionInfo {
                region: rng.u32(0..12),
                argsz: rng.choice(ARGSZ).unwrap_or(32),
            }),
            8..36 => ops.push(config_read(&mut rng)),
            36..52 => config_write(&mut rng, &mut ops),
            52..70 => ops.push(read(&mut rng, shape)),
            70..88 => ops.push(write(&mut rng, shape)),
            88..97 => {
                let asleep = asleep(&ops);
                ops.push(map(&mut rng, shape, asleep));
            }
            97 => ops.extend(settle()),
            98 => ops.push(Op::MapPrivate {
                region: rng.choice([2, 4]).unwrap_or(4),
                offset: rng.u64(0..4) * shape.page,
            }),
            _ => {
                ops.push(Op::Reset);
                first_look(&mut rng, shape, &mut ops);
            }
        }
    }
    ops
}

/// After a reset: the first look at readiness, by a fault or by a read. A runtime that does not see
/// faults looks at the read.
fn first_look(rng: &mut Rng, shape: &Shape, ops: &mut Vec<Op>) {
    ops.extend(settle());
    if rng.bool() {
        ops.push(map(rng, shape, false));
    }
    ops.push(Op::Read {
        region: RegionIndex::BAR4.0,
        offset: 0,
        len: 1,
    });
}

/// Power, memory, and what [`bars`] sets.
fn settle() -> Vec<Op> {
    let mut ops = vec![
        write_config(PM_CONTROL, vec![0, 0]),
        write_config(header::COMMAND, vec![0x06, 0x04]),
    ];
    ops.extend(bars());
    ops
}

/// The BARs and the interrupt line as a guest might program them: all that a write near the fake
/// BARs can change.
fn bars() -> Vec<Op> {
    let addresses = [
        (0x10, 0x10_0000_0000u64),
        (0x18, 0x20_0000_0000),
        (0x20, 0x40_0000_0000),
    ];
    addresses
        .into_iter()
        .map(|(register, address)| write_config(register, address.to_le_bytes().into()))
        .chain([write_config(header::INTERRUPT_LINE, vec![0x20])])
        .collect()
}

fn write_config(offset: u16, data: Vec<u8>) -> Op {
    Op::Write {
        region: RegionIndex::CONFIG.0,
        offset: offset.into(),
        data,
    }
}

/// An offset in configuration space: near the BARs, in the header, in a capability or beyond.
fn config_offset(rng: &mut Rng) -> u64 {
    match rng.u32(0..10) {
        0..5 => rng.u64(0x0e..0x2c),
        5..7 => rng.u64(0..0x40),
        7..9 => rng.u64(0..u64::from(CFG_SPACE_EXP_SIZE)),
        _ => u64::from(CFG_SPACE_EXP_SIZE) - 8 + rng.u64(0..16),
    }
}

fn config_len(rng: &mut Rng) -> u32 {
    match rng.u32(0..10) {
        0..6 => rng.choice([1, 2, 4, 8]).unwrap_or(4),
        6..9 => rng.u32(0..20),
        _ => rng.u32(20..300),
    }
}

fn config_read(rng: &mut Rng) -> Op {
    Op::Read {
        region: RegionIndex::CONFIG.0,
        offset: config_offset(rng),
        len: config_len(rng),
    }
}

/// Where the power management capability of the profiles under test has its control register.
const PM_CONTROL: u16 = 0x44;

/// A write near the BARs, or one that takes memory or power away for a while.
fn config_write(rng: &mut Rng, ops: &mut Vec<Op>) {
    match rng.u32(0..30) {
        0 | 1 => {
            let command = rng.choice([0x00, 0x02, 0x04, 0x06]).unwrap_or(0x06);
            return ops.push(write_config(header::COMMAND, vec![command, 0x04]));
        }
        2 => {
            return ops.push(write_config(
                PM_CONTROL,
                vec![rng.choice([0, 3]).unwrap_or(0), 0],
            ));
        }
        _ => {}
    }
    let offset = rng.u64(0x10..0x2a);
    // Not beyond the header: a capability's state would not be brought back below.
    let len = config_len(rng).min(u32::from(header::STD_HEADER_SIZEOF) - offset as u32) as usize;
    let data = match rng.u32(0..3) {
        0 => vec![0xff; len],
        1 => vec![0; len],
        _ => bytes(rng, len),
    };
    ops.push(Op::Write {
        region: RegionIndex::CONFIG.0,
        offset,
        data,
    });
    if !aligned_to_a_register(offset, len as u64) {
        ops.extend(bars());
    }
}

/// Whether an access stays inside one 64-bit BAR register pair.
fn aligned_to_a_register(offset: u64, len: u64) -> bool {
    len == 0 || offset / 8 == (offset + len - 1) / 8
}

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.u8(..)).collect()
}

/// A region, most often one of the fake BARs; its edges.
fn place(rng: &mut Rng, shape: &Shape) -> (u32, u64) {
    let region = match rng.u32(0..20) {
        0..9 => 4,
        9..18 => 2,
        18 => rng.u32(0..12),
        _ => 0,
    };
    let Some(memory) = shape.memory(region) else {
        // Regions of the base: from their end on, where nothing has a side effect.
        return (
            region,
            rng.choice([1 << 39, (1 << 40) - 4, 1 << 38])
                .unwrap_or(1 << 39),
        );
    };
    let edge = rng
        .choice([0, shape.page, memory.length, memory.length, memory.size])
        .unwrap_or(0);
    (region, (edge + rng.u64(0..40)).saturating_sub(24))
}

fn read(rng: &mut Rng, shape: &Shape) -> Op {
    let (region, offset) = place(rng, shape);
    Op::Read {
        region,
        offset,
        len: rng.choice(LENGTHS).unwrap_or(4),
    }
}

fn write(rng: &mut Rng, shape: &Shape) -> Op {
    let (region, offset) = place(rng, shape);
    let len = rng.choice(LENGTHS).unwrap_or(4) as usize;
    Op::Write {
        region,
        offset,
        data: bytes(rng, len),
    }
}

/// Whether the last writes to the command and power registers have left memory inaccessible.
fn asleep(ops: &[Op]) -> bool {
    let last = |register: u16| {
        ops.iter().rev().find_map(|op| match op {
            Op::Write {
                region,
                offset,
                data,
            } if *region == RegionIndex::CONFIG.0 && *offset == u64::from(register) => {
                data.first().copied()
            }
            _ => None,
        })
    };
    let disabled = last(header::COMMAND).is_some_and(|command| command & 0x02 == 0);
    disabled || last(PM_CONTROL).is_some_and(|control| control & 0x03 == 3)
}

/// A mapping that ends near the end of the memory, or lies at its start.
fn map(rng: &mut Rng, shape: &Shape, asleep: bool) -> Op {
    let region = if rng.bool() { 4 } else { 2 };
    let length = shape.memory(region).map_or(0, |memory| memory.length);
    let pages = rng.u64(1..4);
    let last = length / shape.page;
    let first = match rng.u32(0..4) {
        0 => 0,
        1 => rng.u64(0..8),
        _ => (last + rng.u64(0..3)).saturating_sub(pages),
    };
    let len = pages * shape.page;
    let touch = rng.u64(0..len / 8) * 8;
    let data = if rng.bool() && !asleep {
        bytes(rng, 8)
    } else {
        Vec::new()
    };
    Op::Map {
        asleep,
        region,
        offset: first * shape.page,
        len,
        touch,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::MemoryShape;

    const SHAPE: Shape = Shape {
        usemem: MemoryShape {
            length: 512 << 20,
            size: 1 << 30,
        },
        resmem: Some(MemoryShape {
            length: (1 << 30) + 0x3000,
            size: 2 << 30,
        }),
        page: 4096,
    };

    #[test]
    fn the_same_seed_makes_the_same_operations() {
        assert_eq!(operations(7, 1000, &SHAPE), operations(7, 1000, &SHAPE));
        assert_ne!(operations(7, 1000, &SHAPE), operations(8, 1000, &SHAPE));
    }

    #[test]
    fn ten_thousand_operations_reach_every_kind_and_every_edge() {
        let ops = operations(1, 10_000, &SHAPE);
        assert!(ops.len() >= 10_000);
        let count = |what: fn(&Op) -> bool| ops.iter().filter(|op| what(op)).count();
        assert!(count(|op| matches!(op, Op::RegionInfo { .. })) > 500);
        assert!(count(|op| matches!(op, Op::Map { .. })) > 500);
        assert!(count(|op| matches!(op, Op::MapPrivate { .. })) > 50);
        assert!(count(|op| matches!(op, Op::Reset)) > 50);
        for (region, memory) in [(2, SHAPE.resmem.expect("resmem")), (4, SHAPE.usemem)] {
            for edge in [memory.length, memory.size] {
                let crosses = ops.iter().any(|op| {
                    matches!(op, Op::Read { region: r, offset, len }
                        if *r == region && *offset < edge && offset + u64::from(*len) > edge)
                });
                assert!(crosses, "no read crosses {edge:#x} of region {region}");
            }
        }
    }
}
