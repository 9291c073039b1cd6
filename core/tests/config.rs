//! The virtual configuration space, as a user of VFIO sees it.

use crate::fake::{
    AER, DVSEC, EXP, Fake, LINK_16GT, MSI, MSIX, PM, SECPCI, Traits, VNDR, open, read, write,
};
use varia_core::{Core, Errno, View};

#[test]
fn list_skips_the_unknown_and_ends() {
    let (_, core) = open(Traits::default());
    let mut found = Vec::new();
    let mut at = read(&core, 0x34, 1);
    while at != 0 {
        found.push((at as u16, read(&core, u64::from(at), 1)));
        at = read(&core, u64::from(at) + 1, 1);
    }
    assert_eq!(
        found,
        [(PM, 1), (MSI, 5), (EXP, 0x10), (VNDR, 9), (MSIX, 0x11)]
    );
}

#[test]
fn extended_list_hides_the_unknown_but_keeps_its_head() {
    let (fake, core) = open(Traits::default());
    assert_eq!(fake.raw(SECPCI, 2), 0x19);
    let header = |at: u16| read(&core, u64::from(at), 4);
    assert_eq!(header(SECPCI), u32::from(AER) << 20);
    assert_eq!(
        header(AER),
        u32::from(DVSEC) << 20 | 0x2_0001,
        "{LINK_16GT:#x} is skipped"
    );
    assert_eq!(header(DVSEC), 0x1_0023);
}

#[test]
fn ids_are_read_only() {
    let (fake, core) = open(Traits::default());
    write(&core, 0, 4, 0xffff_ffff);
    assert_eq!(read(&core, 0, 4), 0x1234_10de);
    assert_eq!(fake.raw(0, 4), 0x1234_10de);
}

#[test]
fn sizing_a_64_bit_bar_shows_its_size_and_leaves_the_device_alone() {
    let (fake, core) = open(Traits::default());
    let before = fake.raw(0x18, 4);
    write(&core, 0x18, 4, u32::MAX);
    write(&core, 0x1c, 4, u32::MAX);
    assert_eq!(read(&core, 0x18, 4), 0xc);
    assert_eq!(read(&core, 0x1c, 4), 0xffff_fffe);
    assert_eq!(fake.raw(0x18, 4), before);
}

#[test]
fn sizing_by_bytes_gives_the_same_answer() {
    let (_, core) = open(Traits::default());
    for at in (0x10..0x18).rev() {
        write(&core, at, 1, 0xff);
    }
    let bytes: Vec<u32> = (0x10..0x18).map(|at| read(&core, at, 1)).collect();
    assert_eq!(bytes, [0x0c, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn a_32_bit_bar_and_an_absent_one_are_sized_too() {
    let (_, core) = open(Traits::default());
    write(&core, 0x20, 4, u32::MAX);
    write(&core, 0x24, 4, u32::MAX);
    write(&core, 0x30, 4, u32::MAX);
    assert_eq!(read(&core, 0x20, 4), 0xffff_f000);
    assert_eq!(read(&core, 0x24, 4), 0);
    assert_eq!(read(&core, 0x30, 4), 0, "no ROM");
}

#[test]
fn a_bar_keeps_the_address_that_was_written() {
    let (_, core) = open(Traits::default());
    write(&core, 0x18, 4, 0xabcd_1234);
    write(&core, 0x1c, 4, 0x0000_0123);
    assert_eq!(read(&core, 0x18, 4), 0xc);
    assert_eq!(read(&core, 0x1c, 4), 0x122);
}

#[test]
fn open_enables_memory_and_takes_bus_mastering_away() {
    let (fake, core) = open(Traits::default());
    assert_eq!(read(&core, 4, 2), 0x2);
    assert_eq!(fake.raw(4, 2), 0x2);
    assert!(core.memory().enabled());
}

#[test]
fn command_goes_to_the_device_but_for_intx_disable() {
    let (fake, core) = open(Traits::default());
    write(&core, 4, 2, 0x0546);
    assert_eq!(read(&core, 4, 2), 0x0546);
    assert_eq!(fake.raw(4, 2), 0x0146);
}

#[test]
fn clearing_memory_enable_disables_memory() {
    let (_, core) = open(Traits::default());
    write(&core, 4, 1, 0x4);
    assert!(!core.memory().enabled());
    write(&core, 4, 4, 0x6);
    assert!(core.memory().enabled());
}

#[test]
fn an_access_across_owners_is_taken_apart() {
    let (_, core) = open(Traits::default());
    let mut whole = [0; 64];
    assert_eq!(core.config_read(0x3f, &mut whole), Ok(64));
    let bytes: Vec<u8> = (0x3f..0x7f).map(|at| read(&core, at, 1) as u8).collect();
    assert_eq!(whole[..], bytes);
    // from a reserved byte into the interrupt line and pin
    write(&core, 0x3b, 4, 0x11_22_33_44);
    assert_eq!(read(&core, 0x3c, 1), 0x33, "interrupt line");
    assert_eq!(read(&core, 0x3d, 1), 1, "interrupt pin");
}

#[test]
fn range_outside_the_space_is_efault() {
    let (_, core) = open(Traits::default());
    let mut bytes = [0; 8];
    assert_eq!(core.config_read(4092, &mut bytes[..4]), Ok(4));
    assert_eq!(core.config_read(4093, &mut bytes[..4]), Err(Errno::EFAULT));
    assert_eq!(core.config_read(4096, &mut bytes[..1]), Err(Errno::EFAULT));
    assert_eq!(core.config_write(u64::MAX, &bytes), Err(Errno::EFAULT));
    assert_eq!(core.config_read(0, &mut []), Ok(0));
}

#[test]
fn closed_is_enodev_and_open_twice_is_ebusy() {
    let (_, core) = open(Traits::default());
    assert_eq!(core.open(), Err(Errno::EBUSY));
    core.close();
    assert_eq!(core.config_read(0, &mut [0; 4]), Err(Errno::ENODEV));
    assert_eq!(core.open(), Ok(()));
}

#[test]
fn power_events_are_kept_from_the_user() {
    let (fake, core) = open(Traits::default());
    assert_eq!(fake.raw(PM + 2, 2), 0xf803);
    assert_eq!(read(&core, u64::from(PM) + 2, 2), 0x0003);
    assert_eq!(read(&core, u64::from(PM) + 4, 2), 0x0008);
}

#[test]
fn d3hot_disables_memory_until_d0() {
    let (fake, core) = open(Traits::default());
    write(&core, u64::from(PM) + 4, 2, 3);
    assert!(!core.memory().enabled());
    assert_eq!(fake.raw(PM + 4, 1) & 3, 3);
    write(&core, u64::from(PM) + 4, 2, 0);
    assert_eq!(fake.raw(PM + 4, 1) & 3, 0);
    assert!(core.memory().enabled());
}

#[test]
fn a_state_that_the_device_lacks_is_ignored() {
    let (fake, core) = open(Traits::default());
    write(&core, u64::from(PM) + 4, 2, 1);
    assert_eq!(fake.raw(PM + 4, 1) & 3, 0);
}

#[test]
fn waking_a_device_that_forgets_restores_its_registers_and_counts_a_reset() {
    let (fake, core) = open(Traits {
        soft_reset: true,
        ..Traits::default()
    });
    write(&core, 4, 2, 0x6);
    let bar = fake.raw(0x10, 4);
    let before = core.reset_count();
    write(&core, u64::from(PM) + 4, 2, 3);
    write(&core, u64::from(PM) + 4, 2, 0);
    assert_eq!(core.reset_count(), before + 1);
    assert_eq!(fake.raw(0x10, 4), bar);
    assert_eq!(fake.raw(4, 2), 0x6);
}

#[test]
fn flr_by_any_width_resets_once_and_reads_as_zero() {
    let (fake, core) = open(Traits::default());
    write(&core, 4, 2, 0x6);
    for (at, width, value) in [(9, 1, 0x80), (8, 2, 0x8000), (8, 4, 0x8000)] {
        let before = core.reset_count();
        write(&core, u64::from(EXP) + at, width, value);
        assert_eq!(core.reset_count(), before + 1);
        assert_eq!(read(&core, u64::from(EXP) + 8, 2) & 0x8000, 0);
        assert_eq!(fake.raw(4, 2), 0x6, "registers are put back");
    }
}

#[test]
fn flr_bit_of_a_device_without_flr_does_nothing() {
    let (_, core) = open(Traits {
        flr: false,
        ..Traits::default()
    });
    write(&core, u64::from(EXP) + 8, 2, 0x8000);
    assert_eq!(core.reset_count(), 0);
    assert_eq!(core.reset(), Err(Errno::EINVAL));
}

#[test]
fn payload_is_virtual_and_read_requests_are_no_smaller() {
    let (fake, core) = open(Traits::default());
    let at = u64::from(EXP) + 8;
    write(&core, at, 2, 5 << 12 | 3 << 5 | 0x10);
    assert_eq!(read(&core, at, 2), 5 << 12 | 3 << 5 | 0x10);
    assert_eq!(fake.raw(EXP + 8, 2), 5 << 12 | 1 << 5 | 0x10);
    write(&core, at, 2, 0);
    assert_eq!(fake.raw(EXP + 8, 2) >> 12 & 7, 1, "256 byte payloads");
}

#[test]
fn msi_can_only_be_enabled_by_setting_triggers() {
    let (fake, core) = open(Traits::default());
    write(&core, u64::from(MSI) + 2, 2, 0x0189 | 4 << 4);
    assert_eq!(read(&core, u64::from(MSI) + 2, 2) & 0x71, 0);
    assert_eq!(fake.raw(MSI + 2, 2) & 0x71, 0);
    write(&core, u64::from(MSI) + 4, 4, 0xfee0_1004);
    assert_eq!(read(&core, u64::from(MSI) + 4, 4), 0xfee0_1004);
    assert_eq!(fake.raw(MSI + 4, 4), 0, "the address is the user's own");
}

#[test]
fn vendor_specific_bytes_and_gaps_go_through() {
    let (fake, core) = open(Traits::default());
    for at in [VNDR + 4, 0xf0, DVSEC + 12] {
        write(&core, u64::from(at), 4, 0x0102_0304);
        assert_eq!(fake.raw(at, 4), 0x0102_0304);
        assert_eq!(read(&core, u64::from(at), 4), 0x0102_0304);
    }
}

#[test]
fn only_defined_error_bits_reach_the_device() {
    let (fake, core) = open(Traits::default());
    write(&core, u64::from(AER) + 8, 4, u32::MAX);
    assert_eq!(fake.raw(AER + 8, 4), 0x03ff_f031);
}

#[test]
fn physical_view_shows_and_changes_the_device_itself() {
    let fake = std::sync::Arc::new(Fake::new(Traits::default()));
    let core = Core::new(fake.clone(), View::Physical).unwrap();
    core.open().unwrap();
    assert_eq!(core.reset_count(), 0, "open changes nothing");
    assert_eq!(read(&core, u64::from(SECPCI), 2), 0x19);
    write(&core, 0x18, 4, u32::MAX);
    write(&core, 0x1c, 4, u32::MAX);
    assert_eq!(fake.raw(0x1c, 4), 0xffff_fffe);
    assert!(!core.memory().enabled());
    write(&core, 4, 2, 2);
    assert!(core.memory().enabled());
    write(&core, u64::from(EXP) + 8, 2, 0x8000);
    assert_eq!(core.reset_count(), 1);
    assert!(
        !core.memory().enabled(),
        "a reset clears the command register"
    );
}
