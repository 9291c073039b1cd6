//! An extension over every variant of the table: a vendor capability at the end of conventional
//! configuration space and a region of registers, unknown to the layers below.

use std::sync::atomic::{AtomicU8, Ordering};

use varia_spec::{Errno, intel, vfio::RegionIndex, virtio::admin};
use varia_variant::{
    Answer, Answers, BarIndex, BarSize, ConfigOwner, ConfigSegment, Direction, Environment, Event,
    Extended, Extension, Outcome, PageShift, Question, Region, RegisterAccess, Registers, Target,
    Variant,
};
use varia_variants::{AnyVariant, TABLE};

/// A capability of 8 bytes: id, next, length, one byte that the user may write.
const AT: u64 = 0xe0;
const SCRATCH: u64 = AT + 3;

#[derive(Default)]
struct Clique {
    scratch: AtomicU8,
}

impl Registers for Clique {
    fn name(&self) -> &'static str {
        "clique"
    }

    fn size(&self) -> BarSize {
        BarSize::covering(16).unwrap()
    }

    fn access(&self, _: RegisterAccess) -> Result<Target, Errno> {
        Err(Errno::EIO)
    }
}

impl Extension for Clique {
    fn region<'a>(&'a self, index: RegionIndex, below: Region<'a>) -> Region<'a> {
        match index {
            RegionIndex::BAR5 => Region::Registers(self),
            _ => below,
        }
    }

    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        ConfigSegment::split(offset, len, (AT, AT + 8), ConfigOwner::Keep).unwrap_or(
            ConfigSegment {
                len,
                owner: ConfigOwner::Base,
            },
        )
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        let bytes = [
            9,
            0,
            8,
            self.scratch.load(Ordering::Relaxed),
            0,
            b'P',
            b'2',
            b'P',
        ];
        for (at, byte) in (AT..).zip(bytes) {
            let index = at.checked_sub(offset).map(|index| index as usize);
            if let Some(slot) = index.and_then(|index| out.get_mut(index)) {
                *slot = byte;
            }
        }
    }

    fn config_store(&self, offset: u64, data: &[u8]) {
        let index = SCRATCH.checked_sub(offset).map(|index| index as usize);
        if let Some(byte) = index.and_then(|index| data.get(index)) {
            self.scratch.store(*byte, Ordering::Relaxed);
        }
    }

    fn event(&self, event: Event) {
        if event == Event::Opened {
            self.scratch.store(0, Ordering::Relaxed);
        }
    }
}

/// A variant that serves its device.
fn served(index: usize) -> AnyVariant {
    let entry = &TABLE[index];
    let answer = |question| -> Answer {
        match question {
            Question::Property("nvidia,gpu-mem-base-pa") => Ok(0x42_0000_0000),
            Question::Property(_) => Ok(96 << 30),
            Question::BarSize(BarIndex::BAR0) if entry.name == "nvgrace-gpu" => Ok(16 << 20),
            Question::CommandWord { opcode: 0, .. } => Ok(admin::LEGACY_BITMAP),
            Question::CommandWord { offset: 0, .. } => Ok(0x0402),
            Question::CommandWord { .. } => Ok(0),
            Question::ConfigDword(_) => Ok(0x7b00_0000),
            Question::PointedWord { offset, .. } => Ok(match offset {
                0 => intel::opregion::SIGNATURE[0],
                8 => intel::opregion::SIGNATURE[1],
                intel::opregion::SIZE => 8,
                _ => 0,
            }),
            Question::RootDword { offset: 0, .. } => Ok(intel::VENDOR_ID.into()),
            Question::RootDword { function, .. } => Ok(u64::from(match function.device {
                0 => intel::class::HOST_BRIDGE << 8,
                _ => intel::class::LPC_BRIDGE << 8,
            })),
            Question::RootConfigSize(_) => Ok(256),
            Question::LongestStore => Ok(4096),
            Question::TreeWord(_) => Ok(1),
            Question::TreeDoubleword(_) => Ok(0x42_0000_0000),
            _ => Err(Errno::ENOENT),
        }
    };
    let answers = Answers::collect(entry.questions, answer);
    let environment = Environment::new(PageShift::KIB_4);
    let variant = (entry.probe)(&answers, environment);
    assert_eq!(variant.outcome(), Outcome::Serve, "{}", entry.name);
    variant
}

fn kind(region: Region<'_>) -> String {
    format!("{region:?}")
}

/// Configuration space over a base that answers `base` everywhere.
fn shown(variant: &dyn Variant, base: u8) -> Vec<u8> {
    let mut bytes = vec![base; 256];
    variant.config_load(0, &mut bytes);
    bytes
}

/// Writes as a runtime does, and says which bytes the base got.
fn write(variant: &dyn Variant, offset: u64, data: &[u8]) -> Vec<u64> {
    let (mut at, end) = (offset, offset + data.len() as u64);
    let mut base = Vec::new();
    while at < end {
        let segment = variant.config_segment(Direction::Write, at, end - at);
        assert!(
            (1..=end - at).contains(&segment.len),
            "{segment:?} at {at:#x}"
        );
        let bytes = &data[(at - offset) as usize..][..segment.len as usize];
        if segment.owner != ConfigOwner::Keep {
            base.extend(at..at + segment.len);
        }
        if segment.owner != ConfigOwner::Base {
            variant.config_store(at, bytes);
        }
        at += segment.len;
    }
    base
}

#[test]
fn an_extension_adds_its_own_to_every_variant_and_changes_nothing_else() {
    for (index, entry) in TABLE.iter().enumerate() {
        let alone = served(index);
        let extended = Extended::new(served(index), Clique::default());
        for region in 0..9 {
            let region = RegionIndex(region);
            let expected = match region {
                RegionIndex::BAR5 => "Registers(\"clique\")".to_owned(),
                _ => kind(alone.region(region)),
            };
            assert_eq!(kind(extended.region(region)), expected, "{}", entry.name);
        }
        for bar in (0..6).filter_map(BarIndex::new) {
            assert_eq!(extended.needs_bar(bar), alone.needs_bar(bar));
        }
        assert_eq!(extended.outcome(), alone.outcome());
        let own = AT as usize..AT as usize + 8;
        for base in [0, 0xff] {
            let mut expected = shown(&alone, base);
            expected[own.clone()].copy_from_slice(&[9, 0, 8, 0, 0, b'P', b'2', b'P']);
            assert_eq!(shown(&extended, base), expected, "{}", entry.name);
        }
    }
}

#[test]
fn every_write_reaches_the_layers_that_own_its_bytes() {
    for index in 0..TABLE.len() {
        for offset in 0..0x100 {
            for len in [1, 2, 3, 4, 8, 0x40, 0x100 - offset] {
                let data = vec![0xff; len.min(0x100 - offset) as usize];
                let alone = served(index);
                let extended = Extended::new(served(index), Clique::default());
                let mut base = write(&alone, offset, &data);
                base.retain(|at| !(AT..AT + 8).contains(at));
                assert_eq!(
                    write(&extended, offset, &data),
                    base,
                    "{len} at {offset:#x}"
                );
                let scratch = (offset..offset + data.len() as u64).contains(&SCRATCH);
                let mut expected = shown(&alone, 0);
                let value = if scratch { 0xff } else { 0 };
                expected[AT as usize..AT as usize + 8]
                    .copy_from_slice(&[9, 0, 8, value, 0, b'P', b'2', b'P']);
                assert_eq!(shown(&extended, 0), expected, "{len} at {offset:#x}");
            }
        }
    }
}

#[test]
fn extensions_pile_up_and_hear_of_events() {
    let inner = Extended::new(served(0), Clique::default());
    let outer = Extended::new(inner, Clique::default());
    outer.config_store(SCRATCH, &[7]);
    let scratch = |variant: &dyn Variant| shown(variant, 0)[SCRATCH as usize];
    assert_eq!(
        (scratch(&outer), scratch(outer.variant())),
        (7, 0),
        "the upper one keeps it"
    );
    outer.event(Event::Opened);
    assert_eq!(scratch(&outer), 0);
}

/// An extension that shares a register with the variant below.
struct Watcher<'a>(&'a AtomicU8);

impl Extension for Watcher<'_> {
    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        ConfigSegment::split(offset, len, (4, 5), ConfigOwner::Both).unwrap_or(ConfigSegment {
            len,
            owner: ConfigOwner::Base,
        })
    }

    fn config_store(&self, _: u64, data: &[u8]) {
        self.0.store(data[0], Ordering::Relaxed);
    }
}

#[test]
fn what_both_own_reaches_both_and_the_base() {
    let seen = AtomicU8::new(0);
    let extended = Extended::new(served(1), Watcher(&seen));
    assert_eq!(write(&extended, 4, &[1, 0]), [4, 5]);
    assert_eq!(shown(&extended, 0)[4], 1, "virtio keeps I/O enable");
    assert_eq!(write(&extended, 0x10, &[0xff; 4]), [0x10, 0x11, 0x12, 0x13]);
    let gpu = Extended::new(served(0), Watcher(&seen));
    assert_eq!(write(&gpu, 4, &[7, 0]), [4, 5]);
    assert_eq!(write(&gpu, 0x20, &[0xff; 4]), [0; 0], "a fake BAR is kept");
    gpu.config_store(3, &[0, 9, 0]);
    assert_eq!(
        seen.load(Ordering::Relaxed),
        9,
        "it gets its own bytes alone"
    );
}
