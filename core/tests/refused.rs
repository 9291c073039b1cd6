//! Devices whose registers contradict themselves are refused when the core is made.

use std::sync::Arc;

use crate::fake::{
    AER, DVSEC, EXP, Fake, MSI, MSIX, MSIX_TABLE, PM, SECPCI, Traits, UNKNOWN, VNDR,
};
use varia_core::{
    BarSpace, BarSpec, ConfigRegister, Core, Device, Errno, Interrupts, Refused, SharedFd, View,
};

/// A fake with BARs of its own.
struct Odd {
    fake: Fake,
    bars: [Option<BarSpec>; 6],
    rom: Option<u64>,
}

impl Device for Odd {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        self.fake.config_read(register)
    }
    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        self.fake.config_write(register, value)
    }
    fn bar(&self, bar: u8) -> Option<BarSpec> {
        self.bars[usize::from(bar)]
    }
    fn bar_read(&self, _bar: u8, _offset: u64, _data: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    fn bar_fd(&self, _bar: u8) -> Option<SharedFd<'_>> {
        None
    }
    fn rom(&self) -> Option<u64> {
        self.rom
    }
    fn reset(&self) -> Result<(), Errno> {
        self.fake.reset()
    }
    fn reset_count(&self) -> u64 {
        self.fake.reset_count()
    }
    fn connect(&self, _sink: Option<Arc<dyn Interrupts>>) {}
}

/// What becomes of a fake with these bytes in its registers: {offset, width, value}.
fn made(registers: &[(u16, u16, u32)]) -> Result<(), Refused> {
    let fake = Fake::new(Traits::default());
    for (at, width, value) in registers {
        fake.put_raw(*at, *width, *value);
    }
    Core::new(Arc::new(fake), View::Virtual).map(drop)
}

/// What becomes of a fake with one BAR changed.
fn with_bar(index: usize, size: u64, space: BarSpace) -> Result<(), Refused> {
    let fake = Fake::new(Traits::default());
    let mut bars: [Option<BarSpec>; 6] = std::array::from_fn(|bar| fake.bar(bar as u8));
    bars[index] = Some(BarSpec {
        size,
        space,
        prefetchable: false,
    });
    let rom = None;
    Core::new(Arc::new(Odd { fake, bars, rom }), View::Virtual).map(drop)
}

#[test]
fn the_unchanged_device_is_taken() {
    assert_eq!(made(&[]), Ok(()));
    assert_eq!(with_bar(4, 0x1000, BarSpace::Memory32), Ok(()));
}

#[test]
fn a_device_that_is_gone_is_refused_with_enodev() {
    let refused = made(&[(0, 4, u32::MAX)]).unwrap_err();
    assert_eq!(refused, Refused::Gone);
    assert_eq!(refused.errno(), Errno::ENODEV);
}

#[test]
fn a_list_that_loops_is_refused_at_the_pointer() {
    let looped = made(&[(UNKNOWN + 1, 1, u32::from(PM))]).unwrap_err();
    let (from, to) = (UNKNOWN + 1, PM);
    assert_eq!(looped, Refused::Loop { from, to });
    assert_eq!(
        looped.to_string(),
        "the capability list loops: the pointer at 0xc1 leads back to 0x40"
    );
    let itself = made(&[(PM + 1, 1, u32::from(PM))]);
    let from = PM + 1;
    assert_eq!(itself, Err(Refused::Loop { from, to }));
    let extended = made(&[(DVSEC, 4, u32::from(AER) << 20 | 1 << 16 | 0x23)]);
    let (from, to) = (DVSEC, AER);
    assert_eq!(extended, Err(Refused::Loop { from, to }));
}

#[test]
fn a_pointer_out_of_its_space_is_refused() {
    let into_header = made(&[(UNKNOWN + 1, 1, 0x3c)]);
    assert_eq!(
        into_header,
        Err(Refused::Pointer {
            from: UNKNOWN + 1,
            to: 0x3c,
            start: 0x40,
            end: 0x100
        })
    );
    let below = made(&[(DVSEC, 4, 0x40 << 20 | 1 << 16 | 0x23)]);
    assert_eq!(
        below,
        Err(Refused::Pointer {
            from: DVSEC,
            to: 0x40,
            start: 0x100,
            end: 0x1000
        })
    );
}

#[test]
fn a_capability_that_leaves_its_space_is_refused() {
    let (at, len, end) = (0xf8, 12, 0x100);
    let moved = made(&[(UNKNOWN + 1, 1, 0xf8), (0xf8, 4, 0x02)]);
    assert_eq!(moved, Err(Refused::Outside { at, len, end }));
    let long = made(&[(VNDR + 2, 1, 0xff)]);
    let (at, len) = (VNDR, 0xff);
    assert_eq!(long, Err(Refused::Outside { at, len, end }));
    let (at, len, end) = (0xff0, 0x20, 0x1000);
    let extended = made(&[
        (DVSEC, 4, 0xff0 << 20 | 1 << 16 | 0x23),
        (0xff0, 4, 1 << 16 | 0x0b),
        (0xff4, 4, 0x20 << 20),
    ]);
    assert_eq!(extended, Err(Refused::Outside { at, len, end }));
}

/// The field that says the length lies beyond the space: it is not read from its beginning.
#[test]
fn a_length_that_lies_beyond_the_space_is_not_taken_from_the_header() {
    let refused = made(&[
        (DVSEC, 4, 0xffc << 20 | 1 << 16 | 0x23),
        (0xffc, 4, 1 << 16 | 0x0b),
    ]);
    let (at, len, end) = (0xffc, 8, 0x1000);
    assert_eq!(refused, Err(Refused::Outside { at, len, end }));
}

#[test]
fn capabilities_that_overlap_are_refused() {
    let grown = made(&[(VNDR + 2, 1, 0x18)]);
    let (at, other) = (MSIX, VNDR);
    assert_eq!(grown, Err(Refused::Overlap { at, other }));
    let extended = made(&[
        (AER, 4, u32::from(AER + 0x20) << 20 | 2 << 16 | 0x01),
        (AER + 0x20, 4, 1 << 16 | 0x0e),
    ]);
    let (at, other) = (AER + 0x20, AER);
    assert_eq!(extended, Err(Refused::Overlap { at, other }));
}

#[test]
fn a_second_one_of_a_kind_and_one_shorter_than_its_header_are_refused() {
    let second = made(&[(UNKNOWN, 4, 0x13), (EXP, 1, 0x13), (SECPCI, 4, 0)]);
    let (at, first) = (UNKNOWN, EXP);
    assert_eq!(second, Err(Refused::Twice { at, first }));
    let (at, len, least) = (VNDR, 2, 3);
    assert_eq!(
        made(&[(VNDR + 2, 1, 2)]),
        Err(Refused::Short { at, len, least })
    );
    let (at, len, least) = (DVSEC, 8, 10);
    assert_eq!(
        made(&[(DVSEC + 4, 4, 8 << 20 | 0x10de)]),
        Err(Refused::Short { at, len, least })
    );
    assert_eq!(made(&[(VNDR + 2, 1, 0)]), Ok(()), "no length: hidden");
}

#[test]
fn bars_that_no_register_can_describe_are_refused() {
    for (size, space, least, most) in [
        (0x1800, BarSpace::Memory32, 16, 1 << 31),
        (0, BarSpace::Memory32, 16, 1 << 31),
        (8, BarSpace::Memory32, 16, 1 << 31),
        (1 << 32, BarSpace::Memory32, 16, 1 << 31),
        (2, BarSpace::Io, 4, 1 << 16),
        (24, BarSpace::Io, 4, 1 << 16),
        (3 << 30, BarSpace::Memory64, 16, 1 << 40),
    ] {
        let at = 0x20;
        let bad = Refused::BarSize {
            at,
            size,
            least,
            most,
        };
        assert_eq!(with_bar(4, size, space), Err(bad));
    }
}

#[test]
fn the_upper_half_of_a_bar_is_no_bar_of_its_own() {
    let own = with_bar(1, 0x1000, BarSpace::Memory32);
    assert_eq!(own, Err(Refused::BarHalf { at: 0x10 }));
    let last = with_bar(5, 0x1000, BarSpace::Memory64);
    assert_eq!(last, Err(Refused::BarHalf { at: 0x24 }));
}

#[test]
fn a_rom_that_no_register_can_describe_is_refused() {
    let fake = Fake::new(Traits::default());
    let bars = std::array::from_fn(|bar| fake.bar(bar as u8));
    let rom = Some(0x1800);
    let refused = Core::new(Arc::new(Odd { fake, bars, rom }), View::Virtual).map(drop);
    let (at, size, least, most) = (0x30, 0x1800, 0x800, 1 << 31);
    let bad = Refused::BarSize {
        at,
        size,
        least,
        most,
    };
    assert_eq!(refused, Err(bad));
}

#[test]
fn an_msix_table_outside_its_bar_is_refused() {
    let outside = made(&[(MSIX + 4, 4, crate::fake::BAR0_SIZE as u32 - 0x20)]).unwrap_err();
    assert_eq!(
        outside,
        Refused::MsixOutside {
            at: MSIX,
            what: "table",
            bar: 0,
            end: crate::fake::BAR0_SIZE + 0x20,
            size: crate::fake::BAR0_SIZE,
        }
    );
    let pending = made(&[(MSIX + 8, 4, crate::fake::BAR0_SIZE as u32)]);
    assert!(matches!(
        pending,
        Err(Refused::MsixOutside {
            what: "pending bits",
            ..
        })
    ));
    for bar in [1, 3, 7] {
        let nowhere = made(&[(MSIX + 4, 4, MSIX_TABLE as u32 | bar)]);
        let (at, what, bar) = (MSIX, "table", bar as u8);
        assert_eq!(nowhere, Err(Refused::MsixBar { at, what, bar }));
    }
    let ports = with_bar(0, 0x8000, BarSpace::Io);
    assert!(matches!(ports, Err(Refused::MsixBar { bar: 0, .. })));
}

/// Whatever bytes a device has: it is refused, or served without a panic.
#[test]
fn random_configuration_space_is_refused_or_served() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut served = 0;
    for round in 0..1000 {
        let fake = Fake::new(Traits::default());
        for _ in 0..1 + round % 6 {
            let at = [
                PM, MSI, EXP, VNDR, MSIX, UNKNOWN, SECPCI, AER, DVSEC, 0x34, 0xd0,
            ][(next() % 11) as usize];
            fake.put_raw(at + (next() % 8) as u16, 1, next() as u32 & 0xff);
        }
        let Ok(core) = Core::new(Arc::new(fake), View::Virtual) else {
            continue;
        };
        core.open().unwrap();
        served += 1;
        for _ in 0..40 {
            let data = next().to_le_bytes();
            let _ = core.config_write(next() % 0x400, &data[..1 + (next() % 8) as usize]);
        }
        let mut whole = vec![0; 4096];
        assert_eq!(core.config_read(0, &mut whole), Ok(4096));
        core.close();
    }
    assert!((150..980).contains(&served), "{served} of 1000 served");
}
