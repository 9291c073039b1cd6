//! The decisions against the semantics of Linux 7.2's driver: every access, not a choice of them.

use std::{vec, vec::Vec};

use varia_spec::Errno;
use varia_variant::{Answer, BarSize, Command, PageShift, RegisterAccess, Registers, Target};

use super::*;

const ABSENT: Answer = Err(Errno::ENOENT);
const ALL: Answer = Ok(admin::LEGACY_BITMAP);
const ENVIRONMENT: Environment = Environment::new(PageShift::KIB_4);
/// A place in BAR4, 0x3000 on.
const PLACE: [Answer; 2] = [Ok(0x0402), Ok(0x3000)];
const END: [Answer; 2] = [Ok(0), Ok(0)];

fn probe(bar0: Answer, commands: Answer, places: [[Answer; 2]; 4]) -> Virtio {
    let answers = Answers::collect(Virtio::QUESTIONS, |question| match question {
        BAR0_SIZE => bar0,
        COMMANDS => commands,
        place => {
            let mut places = (0..).zip(places);
            let found = places.find_map(|(entry, [place_answer, offset_answer])| {
                [
                    (notify_place(entry), place_answer),
                    (notify_offset(entry), offset_answer),
                ]
                .into_iter()
                .find_map(|(asked, answer)| (asked == place).then_some(answer))
            });
            found.expect("a question about one of the places")
        }
    });
    Virtio::probe(&answers, ENVIRONMENT)
}

fn card() -> Virtio {
    probe(ABSENT, ALL, [PLACE, END, END, END])
}

fn registers(card: &Virtio) -> &dyn Registers {
    match card.region(RegionIndex::BAR0) {
        Region::Registers(registers) => registers,
        other => panic!("{other:?}"),
    }
}

fn access(
    card: &Virtio,
    direction: Direction,
    at: (u64, u64),
    msix: bool,
) -> Result<Target, Errno> {
    let (offset, len) = at;
    registers(card).access(RegisterAccess {
        direction,
        offset,
        len,
        msix,
    })
}

fn enable_io(card: &Virtio) {
    card.config_store(4, &[1]);
}

fn notified(card: &Virtio) -> Option<(u8, u64)> {
    enable_io(card);
    match access(card, Direction::Write, (16, 2), false) {
        Ok(Target::Bar { bar, offset }) => Some((bar.get(), offset)),
        _ => None,
    }
}

#[test]
fn a_card_is_served_with_all_commands_a_place_to_notify_and_no_bar0() {
    assert_eq!(card().outcome(), Outcome::Serve);
    let some = |left_out: u16| Ok(admin::LEGACY_BITMAP & !(1 << left_out));
    let places = [PLACE, END, END, END];
    for opcode in 2..=6 {
        let card = probe(ABSENT, some(opcode), places);
        assert_eq!(
            card.outcome(),
            Outcome::Decline(Decline::NoCommands),
            "without {opcode}"
        );
    }
    let more = probe(ABSENT, Ok(u64::MAX), places);
    assert_eq!(more.outcome(), Outcome::Serve);
    let none = probe(ABSENT, Err(Errno::ENOTTY), places);
    assert_eq!(none.outcome(), Outcome::Decline(Decline::NoCommands));
    let taken = probe(Ok(4096), ALL, places);
    assert_eq!(
        taken.outcome(),
        Outcome::Decline(Decline::BarTaken(BarIndex::BAR0))
    );
    let unanswered = Virtio::probe(&Answers::collect(&[], |_| ABSENT), ENVIRONMENT);
    assert_eq!(unanswered.outcome(), Outcome::Decline(Decline::NoCommands));
}

#[test]
fn the_first_place_in_the_cards_own_bars_is_taken_and_none_behind_the_end() {
    let owners: [Answer; 2] = [Ok(0x0001), Ok(0x1000)];
    let other: [Answer; 2] = [Ok(0x0202), Ok(0x5000)];
    let bad: [Answer; 2] = [Ok(0x0602), Ok(0x5000)];
    for (places, expected) in [
        ([PLACE, other, END, END], Some((4, 0x3000))),
        ([owners, other, PLACE, END], Some((2, 0x5000))),
        ([owners, owners, owners, PLACE], Some((4, 0x3000))),
        ([owners, END, PLACE, END], None),
        ([END, PLACE, PLACE, PLACE], None),
        ([owners, owners, owners, owners], None),
        // no such BAR
        ([bad, PLACE, END, END], None),
        ([[ABSENT, ABSENT], PLACE, END, END], None),
    ] {
        let card = probe(ABSENT, ALL, places);
        assert_eq!(
            card.outcome() == Outcome::Serve,
            expected.is_some(),
            "{places:?}"
        );
        if let Some(expected) = expected {
            assert_eq!(notified(&card), Some(expected), "{places:?}");
            let needed = (0..6)
                .filter_map(BarIndex::new)
                .filter(|bar| card.needs_bar(*bar));
            assert_eq!(needed.map(BarIndex::get).collect::<Vec<_>>(), [expected.0]);
        }
    }
}

#[test]
fn the_legacy_registers_are_a_bar0_of_32_bytes_and_nothing_else_is_replaced() {
    let card = card();
    let registers = registers(&card);
    assert_eq!(Some(registers.size()), BarSize::covering(32));
    let info = registers.info();
    assert_eq!((info.size, info.flags, info.areas), (32, 0b11, []));
    for index in 1..12 {
        assert!(matches!(card.region(RegionIndex(index)), Region::Base));
    }
}

/// What the kernel's driver does with an access, in its own order of questions.
fn expected(
    direction: Direction,
    offset: u64,
    len: u64,
    msix: bool,
    io: bool,
) -> Result<Target, Errno> {
    if !io {
        return Err(Errno::EIO);
    }
    if offset > 32 || len > 32 - offset {
        return Err(Errno::EINVAL);
    }
    if offset == 16 {
        let bar = BarIndex::new(4).expect("a BAR");
        let notify = Target::Bar {
            bar,
            offset: 0x3000,
        };
        return if len == 2 {
            Ok(notify)
        } else {
            Err(Errno::EINVAL)
        };
    }
    let begins = if msix { 24 } else { 20 };
    let (opcode, at) = match (offset < begins, direction) {
        (true, Direction::Write) => (2, offset),
        (true, Direction::Read) => (3, offset),
        (false, Direction::Write) => (4, offset - begins),
        (false, Direction::Read) => (5, offset - begins),
    };
    let header = if direction == Direction::Read { 1 } else { 8 };
    Ok(Target::Command(Command::new(
        opcode,
        at.to_le_bytes(),
        header,
    )))
}

#[test]
fn every_access_goes_where_the_kernels_driver_sends_it() {
    let (off, on) = (card(), card());
    enable_io(&on);
    let mut seen = 0;
    for (card, io) in [(&off, false), (&on, true)] {
        for msix in [false, true] {
            for direction in [Direction::Read, Direction::Write] {
                let offsets = (0..40).chain([255, 256, u64::MAX - 1, u64::MAX]);
                for at in offsets.flat_map(|o| (1..40).chain([u64::MAX]).map(move |l| (o, l))) {
                    let said = access(card, direction, at, msix);
                    let ought = expected(direction, at.0, at.1, msix, io);
                    assert_eq!(said, ought, "{direction:?} {at:?} MSI-X {msix} I/O {io}");
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 2 * 2 * 2 * 44 * 40);
}

/// Configuration space as a runtime shows it over a base that answers `base` everywhere.
fn shown(card: &Virtio, base: u8) -> Vec<u8> {
    let mut bytes = vec![base; 0x40];
    card.config_load(0, &mut bytes);
    bytes
}

#[test]
fn the_identity_is_a_transitional_cards_whatever_the_base_answers() {
    for base in [0, 0xff] {
        let bytes = shown(&card(), base);
        let mut ought = vec![base; 0x40];
        ought[2..4].copy_from_slice(&[0x00, 0x10]);
        ought[8] = 0;
        ought[0x10..0x14].copy_from_slice(&[1, 0, 0, 0]);
        ought[0x2c..0x30].copy_from_slice(&[0xf4, 0x1a, 1, 0]);
        assert_eq!(bytes, ought);
    }
}

#[test]
fn every_read_shows_what_a_read_of_the_whole_shows() {
    let card = card();
    card.config_store(0, &[0xff; 0x40]);
    let whole = shown(&card, 0x5a);
    for from in 0..0x40 {
        for len in 0..=0x40 - from {
            let mut bytes = vec![0x5a; len];
            card.config_load(from as u64, &mut bytes);
            assert_eq!(bytes, whole[from..from + len], "{len} bytes at {from:#x}");
        }
    }
}

#[test]
fn every_write_reaches_the_base_and_the_registers_of_the_card() {
    let owned = |at: u64| matches!(at, 2..=5 | 8 | 0x10..=0x13 | 0x2c..=0x2f);
    // segments end where a register does, so that the base gets registers whole
    let ends = [2, 4, 6, 8, 9, 0x10, 0x14, 0x2c, 0x2e, 0x30];
    let card = card();
    for from in 0..0x44 {
        for len in 1..=0x44 {
            let (mut at, end) = (from, from + len);
            while at < end {
                let segment = card.config_segment(Direction::Write, at, end - at);
                let next = at + segment.len;
                assert!(
                    (1..=end - at).contains(&segment.len),
                    "{segment:?} at {at:#x}"
                );
                for byte in at..next {
                    let both = segment.owner == ConfigOwner::Both;
                    assert_eq!(both, owned(byte), "byte {byte:#x}");
                }
                assert!(
                    next == end || ends.contains(&next),
                    "{segment:?} at {at:#x}"
                );
                at = next;
            }
        }
    }
}

#[test]
fn bar0_sizes_as_32_ports_and_a_reset_leaves_it() {
    let card = card();
    let bar0 = || shown(&card, 0xee)[0x10..0x14].to_vec();
    card.config_store(0x10, &[0xff; 4]);
    assert_eq!(bar0(), [0xe1, 0xff, 0xff, 0xff]);
    card.config_store(0x11, &[0xc0, 0]);
    assert_eq!(bar0(), [0xe1, 0xc0, 0, 0xff]);
    card.event(Event::ResetRequested);
    card.event(Event::ResetDone);
    assert_eq!(bar0(), [0xe1, 0xc0, 0, 0xff]);
    card.event(Event::Opened);
    assert_eq!(bar0(), [1, 0, 0, 0]);
}

#[test]
fn io_enable_shows_over_the_base_until_a_reset() {
    let card = card();
    let command = |base| u16::from_le_bytes([shown(&card, base)[4], shown(&card, base)[5]]);
    card.config_store(4, &[0xfe, 0xff]);
    assert_eq!((command(0), command(0xff)), (0, 0xffff));
    assert_eq!(
        access(&card, Direction::Read, (0, 4), false),
        Err(Errno::EIO)
    );
    card.config_store(4, &[0xff, 0xff]);
    assert_eq!((command(0), command(0x40)), (1, 0x4041));
    assert!(access(&card, Direction::Read, (0, 4), false).is_ok());
    // the high byte alone takes nothing away
    card.config_store(5, &[0]);
    assert_eq!(command(0), 1);
    for (event, on) in [
        (Event::ResetRequested, true),
        (Event::ResetDone, false),
        (Event::Opened, false),
    ] {
        enable_io(&card);
        card.event(event);
        assert_eq!(command(0) == 1, on, "{event:?}");
        assert_eq!(access(&card, Direction::Read, (0, 4), false).is_ok(), on);
    }
}

#[test]
fn a_declined_card_is_transparent() {
    let card = probe(Ok(4096), ALL, [PLACE, END, END, END]);
    card.config_store(0, &[0xff; 0x40]);
    assert_eq!(shown(&card, 0x5a), [0x5a; 0x40]);
    let segment = ConfigSegment {
        len: 0x40,
        owner: ConfigOwner::Base,
    };
    assert_eq!(card.config_segment(Direction::Write, 0, 0x40), segment);
    assert!(matches!(card.region(RegionIndex::BAR0), Region::Base));
    assert!(
        (0..6)
            .filter_map(BarIndex::new)
            .all(|bar| !card.needs_bar(bar))
    );
    card.event(Event::Opened);
    card.event(Event::ResetDone);
}
