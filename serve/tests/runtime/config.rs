//! The fake BARs in configuration space: sizing, partial accesses, resets.

use varia_spec::pci::cap::exp;

use crate::machine::{Attached, CONFIG, GIB, Machine, SMALL, Wanted};

/// Offset of the Express capability in the profiles.
const EXPRESS: u64 = 0x60;
/// Offsets of the registers of BAR0, BAR2 and BAR4.
const BARS: [u64; 3] = [0x10, 0x18, 0x20];

/// What a 64-bit prefetchable BAR of this size shows when all ones were written.
fn sized(size: u64) -> u64 {
    !(size - 1) | 0xc
}

fn bars(client: &mut Attached) -> [u64; 3] {
    BARS.map(|at| client.register64(at))
}

/// A GH200 and a client that has written ones to all three BARs.
fn sizing() -> (Machine, Attached) {
    let machine = Machine::small();
    let mut client = machine.attach();
    client.write(CONFIG, 0x10, &[0xff; 24]);
    (machine, client)
}

const SIZED: [u64; 3] = [
    !(16 * (1 << 20) - 1) | 0xc,
    !(2 * GIB - 1) | 0xc,
    !(GIB - 1) | 0xc,
];

#[test]
fn a_new_client_finds_the_bars_unset() {
    let machine = Machine::small();
    assert_eq!(bars(&mut machine.attach()), [0xc; 3]);
}

#[test]
fn sizing_tells_the_bars_sizes_by_accesses_of_every_width() {
    for (profile, memory, bar2, bar4) in [
        ("gh200", SMALL, 2 * GIB, GIB),
        ("gh200", 96 << 30, GIB, 128 * GIB),
        ("gh200", 65 << 30, GIB, 64 * GIB),
        ("gb200", 184 << 30, 256 * GIB, 256 * GIB),
        ("gb200", 4096, 256 * GIB, 4096),
        ("gb200", 1 << 40, 256 * GIB, 1 << 40),
    ] {
        let machine = Wanted::of(profile, memory).serve();
        for width in [1, 2, 4, 8] {
            let mut client = machine.attach();
            for at in (0x18..0x28).step_by(width) {
                client.write(CONFIG, at, &vec![0xff; width]);
            }
            let mut bytes = [0; 16];
            for (part, at) in bytes.chunks_mut(width).zip((0x18..).step_by(width)) {
                assert_eq!(client.region_read(CONFIG, at, part).unwrap(), width);
            }
            let expected = [sized(bar2).to_le_bytes(), sized(bar4).to_le_bytes()].concat();
            assert_eq!(bytes.to_vec(), expected, "{profile} {memory:#x} by {width}");
        }
    }
}

#[test]
fn an_address_is_kept_down_to_the_bars_size() {
    let (_machine, mut client) = sizing();
    client.write(CONFIG, 0x18, &0x12_3456_789a_bcde_u64.to_le_bytes());
    client.write(CONFIG, 0x20, &0x12_3456_789a_bcde_u64.to_le_bytes());
    let bars = bars(&mut client);
    assert_eq!(bars[1], (0x12_3456_789a_bcde & !(2 * GIB - 1)) | 0xc);
    assert_eq!(bars[2], (0x12_3456_789a_bcde & !(GIB - 1)) | 0xc);
}

#[test]
fn one_half_of_a_bar_changes_alone() {
    let (_machine, mut client) = sizing();
    client.write(CONFIG, 0x24, &[0x42, 0, 0, 0]);
    assert_eq!(bars(&mut client), [SIZED[0], SIZED[1], 0x42_c000_000c]);
    client.write(CONFIG, 0x20, &[0; 4]);
    assert_eq!(bars(&mut client)[2], 0x42_0000_000c);
    // the highest address byte of resmem's pair, and the lowest of usemem's
    client.write(CONFIG, 0x1f, &[0x11, 0x22]);
    let bars = bars(&mut client);
    assert_eq!(bars[1], 0x11ff_ffff_8000_000c);
    assert_eq!(bars[2], 0x42_0000_000c, "below the size nothing is kept");
}

#[test]
fn whole_config_access() {
    let machine = Machine::small();
    let mut client = machine.attach();
    // from the upper half of BAR0 to the lower half of BAR4
    client.write(CONFIG, 0x14, &[0xff; 16]);
    let [bar0, bar2, bar4] = bars(&mut client);
    assert_eq!(bar0, 0xffff_ffff_0000_000c);
    assert_eq!(bar2, SIZED[1]);
    assert_eq!(bar4, 0xc000_000c);
    // from the last byte of BAR1's register to the first behind BAR5's, which is read-only
    client.write(CONFIG, 0x17, &[0; 18]);
    assert_eq!(bars(&mut client), [0x00ff_ffff_0000_000c, 0xc, 0xc]);
    let whole: [u8; 64] = client.read(CONFIG, 0);
    for (at, byte) in whole.iter().enumerate() {
        let [single]: [u8; 1] = client.read(CONFIG, at as u64);
        assert_eq!(single, *byte, "byte {at:#x}");
    }
}

#[test]
fn reads_at_every_position_agree_with_a_read_of_all() {
    let (_machine, mut client) = sizing();
    let all: [u8; 256] = client.read(CONFIG, 0);
    for at in 0..0x40 {
        for len in 1..=24 {
            let mut part = vec![0; len];
            let read = client.region_read(CONFIG, at, &mut part).unwrap();
            assert_eq!(read, len);
            assert_eq!(part, all[at as usize..][..len], "{len} bytes at {at:#x}");
        }
    }
}

#[test]
fn device_reset_zeroes_the_fake_bars_and_keeps_the_cores() {
    let (_machine, mut client) = sizing();
    assert_eq!(bars(&mut client), SIZED);
    client.reset().unwrap();
    assert_eq!(bars(&mut client), [SIZED[0], 0xc, 0xc]);
}

#[test]
fn a_function_level_reset_keeps_all_bars() {
    let (machine, mut client) = sizing();
    let before = machine.endpoint.core().reset_count();
    client.change16(EXPRESS + u64::from(exp::DEVCTL), exp::DEVCTL_BCR_FLR, 0);
    assert_eq!(machine.endpoint.core().reset_count(), before + 1);
    assert_eq!(bars(&mut client), SIZED);
}

#[test]
fn the_next_client_does_not_see_the_last_ones_bars() {
    let (machine, client) = sizing();
    drop(client);
    assert_eq!(bars(&mut machine.attach()), [0xc; 3]);
}

#[test]
fn without_the_mig_bug_region_2_is_the_cores() {
    let machine = Wanted::of("gb200", GIB).serve();
    let mut client = machine.attach();
    client.write(CONFIG, 0x10, &[0xff; 24]);
    client.reset().unwrap();
    assert_eq!(
        bars(&mut client),
        [SIZED[0], sized(256 * GIB), 0xc],
        "the core keeps its own BAR2 over a reset"
    );
}
