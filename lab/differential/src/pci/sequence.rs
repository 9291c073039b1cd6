//! Random operations, the same for a seed and a device everywhere.

use fastrand::Rng;
use varia_spec::pci::cap::{af, exp, id, pm};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE, header};
use varia_spec::vfio::{IrqIndex, RegionIndex};

use super::operation::{Data, Op};
use super::places::Place;

/// After one access in so many comes an operation of another kind.
const OTHERS: u32 = 25;
/// Writes that reset the device, or put it into low power, of which one is kept: each takes the time
/// that the specification gives a device.
const RESETS: u32 = 40;
const SLEEPS: u32 = 10;

/// Fields that firmware sets differently in two equal devices: addresses and interrupt lines.
fn preamble() -> Vec<Op> {
    let write = |at, data: &[u8]| Op::Write {
        at,
        data: data.to_vec(),
    };
    let mut ops: Vec<_> = (0..6)
        .map(|bar| write(header::BASE_ADDRESS_0 + 4 * bar, &[0; 4]))
        .collect();
    ops.push(write(header::ROM_ADDRESS, &[0; 4]));
    ops.push(write(header::INTERRUPT_LINE, &[0]));
    ops
}

/// `count` accesses to the configuration space of a device with these capabilities, other
/// operations among them, after those that make it comparable. `sizes` are the sizes of its regions, by index.
#[must_use]
pub fn operations(seed: u64, count: usize, places: &[Place], sizes: &[u64]) -> Vec<Op> {
    let mut rng = Rng::with_seed(seed);
    let mut ops = preamble();
    for index in 0..=RegionIndex::COUNT {
        ops.push(Op::RegionInfo(index));
    }
    for index in 0..=IrqIndex::COUNT {
        ops.push(Op::IrqInfo(index));
    }
    ops.extend([Op::Info, Op::HotResetInfo]);
    for _ in 0..count {
        ops.push(access(&mut rng, places));
        if rng.u32(0..OTHERS) == 0 {
            ops.push(other(&mut rng, sizes));
        }
    }
    ops.extend([Op::HotReset { owned: false }, Op::HotReset { owned: true }]);
    ops.extend(everything(places));
    for reset in [Op::Reset, Op::HotReset { owned: true }] {
        ops.extend(asleep(places));
        ops.push(reset);
        ops.extend(everything(places));
    }
    ops
}

/// Bytes of configuration space: a function without PCI Express has fewer.
fn space(places: &[Place]) -> u16 {
    if places.iter().any(|place| place.id == id::EXP) {
        CFG_SPACE_EXP_SIZE
    } else {
        CFG_SPACE_SIZE
    }
}

/// All of configuration space.
fn everything(places: &[Place]) -> impl Iterator<Item = Op> + use<> {
    (0..space(places))
        .step_by(8)
        .map(|at| Op::Read { at, len: 8 })
}

/// Puts a device that can sleep into D3hot, where it may lose its registers.
fn asleep(places: &[Place]) -> Option<Op> {
    let power = places.iter().find(|place| place.id == id::PM)?;
    Some(Op::Write {
        at: power.start + pm::CTRL,
        // all ones is D3hot
        data: pm::CTRL_STATE_MASK.to_le_bytes().to_vec(),
    })
}

/// An access to configuration space: most in or around a capability, some anywhere.
fn access(rng: &mut Rng, places: &[Place]) -> Op {
    let len = rng.u16(1..=8);
    let near = places.get(rng.usize(0..=places.len()));
    let at = match near {
        Some(place) => rng.u16(place.start.saturating_sub(2)..place.end),
        None => rng.u16(0..space(places)),
    };
    // half of them aligned, as most users are
    let at = if rng.bool() { at & !3 } else { at };
    let len = if rng.u8(0..3) == 0 { 4 } else { len };
    let len = len.min(space(places) - at);
    if rng.bool() {
        return Op::Read { at, len: len as u8 };
    }
    let mut data = match rng.u8(0..4) {
        0 => vec![0xff; usize::from(len)],
        1 => vec![0; usize::from(len)],
        _ => (0..len).map(|_| rng.u8(..)).collect(),
    };
    thin(rng, places, at, &mut data);
    Op::Write { at, data }
}

/// Takes most resets and sleeps out of a write.
fn thin(rng: &mut Rng, places: &[Place], at: u16, data: &mut [u8]) {
    for place in places {
        let (offset, bits, keep) = match place.id {
            id::EXP => (exp::DEVCTL + 1, (exp::DEVCTL_BCR_FLR >> 8) as u8, RESETS),
            id::AF => (af::CTRL, af::CTRL_FLR, RESETS),
            id::PM => (pm::CTRL, pm::CTRL_STATE_MASK as u8, SLEEPS),
            _ => continue,
        };
        let byte = (place.start + offset).checked_sub(at);
        let byte = byte.and_then(|byte| data.get_mut(usize::from(byte)));
        let Some(byte) = byte else { continue };
        if rng.u32(0..keep) != 0 {
            *byte &= !bits;
        }
    }
}

fn other(rng: &mut Rng, sizes: &[u64]) -> Op {
    match rng.u8(0..12) {
        0..=5 => region(rng, sizes),
        6..=9 => interrupts(rng),
        10 => Op::RegionInfo(RegionIndex::ROM.0),
        _ => match rng.u8(0..12) {
            0 => Op::Reset,
            1 => Op::HotReset { owned: true },
            _ => Op::IrqInfo(rng.u32(0..=IrqIndex::COUNT)),
        },
    }
}

/// The beginning and the end of a region, and what lies behind it.
fn region(rng: &mut Rng, sizes: &[u64]) -> Op {
    let region = rng.u32(0..=RegionIndex::ROM.0);
    let size = sizes.get(region as usize).copied().unwrap_or(0);
    let len = rng.u8(1..=16);
    let at = if rng.bool() {
        rng.u64(0..64)
    } else {
        size.saturating_sub(24) + rng.u64(0..32)
    };
    if rng.bool() {
        return Op::RegionRead { region, at, len };
    }
    let data = (0..len).map(|_| rng.u8(..)).collect();
    Op::RegionWrite { region, at, data }
}

fn interrupts(rng: &mut Rng) -> Op {
    let index = rng.u32(0..=IrqIndex::COUNT);
    let most = match IrqIndex(index) {
        IrqIndex::MSI | IrqIndex::MSIX => 3,
        _ => 1,
    };
    let data = match rng.u8(0..5) {
        0 | 1 => Data::Events,
        2 => Data::NoEvents,
        3 => Data::Bools,
        _ => Data::None,
    };
    // Most of them valid; a zero count with no data disables
    Op::SetIrqs {
        index,
        action: if rng.u8(0..4) == 0 { rng.u8(0..3) } else { 2 },
        start: if rng.u8(0..8) == 0 { rng.u32(0..3) } else { 0 },
        count: if rng.u8(0..3) == 0 {
            0
        } else {
            rng.u32(1..=most)
        },
        data,
    }
}
