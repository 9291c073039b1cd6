//! Resets: every one is told, before anything is served after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fake::{AER, EXP, PM, Traits, open, read, write};
use varia_core::{Core, Errno, View};
use varia_spec::vfio::{RegionIndex, device_flags};

#[test]
fn the_hook_hears_of_open_ioctl_flr_and_close() {
    let fake = Arc::new(crate::fake::Fake::new(Traits::default()));
    let core = Core::new(fake, View::Virtual).unwrap();
    let heard = Arc::new(AtomicU64::new(0));
    let hook = heard.clone();
    core.on_reset(move || {
        hook.fetch_add(1, Ordering::SeqCst);
    });
    core.open().unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    core.reset().unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 2);
    write(&core, u64::from(EXP) + 8, 2, 0x8000);
    assert_eq!(heard.load(Ordering::SeqCst), 3);
    core.close();
    assert_eq!(heard.load(Ordering::SeqCst), 4);
}

#[test]
fn virtual_registers_survive_a_reset_and_memory_stays_enabled() {
    let (_, core) = open(Traits::default());
    write(&core, 0x18, 4, 0);
    write(&core, 0x1c, 4, 0x400);
    write(&core, 0x3c, 1, 11);
    core.reset().unwrap();
    assert_eq!(read(&core, 0x1c, 4), 0x400);
    assert_eq!(read(&core, 0x3c, 1), 11);
    assert!(core.memory().enabled());
}

#[test]
fn error_masks_survive_a_reset() {
    let (fake, core) = open(Traits::default());
    write(&core, u64::from(AER) + 8, 4, 0x10_0000);
    core.reset().unwrap();
    assert_eq!(fake.raw(AER + 8, 4), 0x10_0000);
}

#[test]
fn opening_again_starts_from_the_device() {
    let (_, core) = open(Traits::default());
    write(&core, 0x1c, 4, 0x400);
    core.close();
    core.open().unwrap();
    assert_eq!(read(&core, 0x1c, 4), 0x20);
}

#[test]
fn reset_wakes_the_device_and_clears_its_registers() {
    let (fake, core) = open(Traits::default());
    core.region_write(RegionIndex::BAR0, 0x10, &[7]).unwrap();
    write(&core, u64::from(PM) + 4, 2, 3);
    core.reset().unwrap();
    assert_eq!(fake.raw(PM + 4, 1) & 3, 0);
    let mut byte = [1];
    core.region_read(RegionIndex::BAR0, 0x10, &mut byte)
        .unwrap();
    assert_eq!(byte, [0]);
}

#[test]
fn info_says_whether_the_device_can_be_reset() {
    let (_, able) = open(Traits::default());
    let (_, unable) = open(Traits {
        flr: false,
        ..Traits::default()
    });
    assert_eq!(able.info().flags, device_flags::PCI | device_flags::RESET);
    assert_eq!(unable.info().flags, device_flags::PCI);
    assert_eq!((able.info().num_regions, able.info().num_irqs), (9, 5));
}

#[test]
fn a_reset_waits_for_the_memory_hold_and_shows_in_the_next() {
    let (_, core) = open(Traits::default());
    let before = core.reset_count();
    std::thread::scope(|scope| {
        let guard = core.memory();
        let resetter = scope.spawn(|| core.reset());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(core.reset_count(), before);
        assert!(guard.enabled());
        drop(guard);
        resetter.join().unwrap().unwrap();
    });
    assert_eq!(core.reset_count(), before + 1);
}

#[test]
fn a_hot_reset_needs_the_group_and_a_bus_of_its_own() {
    let bus = |functions| {
        let traits = Traits {
            functions,
            ..Traits::default()
        };
        open(traits).1
    };
    assert_eq!(bus(0).hot_reset_info(), Err(Errno::ENODEV));
    assert_eq!(bus(0).hot_reset(&[7]), Err(Errno::ENODEV));
    let alone = bus(1);
    assert_eq!(alone.hot_reset_info().unwrap().len(), 1);
    assert_eq!(alone.hot_reset(&[]), Err(Errno::EINVAL));
    assert_eq!(alone.hot_reset(&[8]), Err(Errno::EINVAL));
    assert_eq!(alone.hot_reset(&[7, 7]), Err(Errno::EINVAL));
    assert_eq!(bus(2).hot_reset(&[7]), Err(Errno::EINVAL));
    let before = alone.reset_count();
    write(&alone, 0x1c, 4, 0x400);
    assert_eq!(alone.hot_reset(&[7]), Ok(()));
    assert_eq!(alone.reset_count(), before + 1);
    assert_eq!(read(&alone, 0x1c, 4), 0x400);
    assert!(alone.memory().enabled());
}
