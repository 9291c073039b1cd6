//! Bits that a user may not change, and those that never reach the device.

use crate::fake::{EXP, PM, Traits, open, read, write};

#[test]
fn the_interrupt_line_is_the_users_own() {
    let (fake, core) = open(Traits::default());
    write(&core, 0x3c, 1, 9);
    assert_eq!(read(&core, 0x3c, 1), 9);
    assert_eq!(fake.raw(0x3c, 1), 0);
}

#[test]
fn power_management_events_stay_hidden() {
    let (_, core) = open(Traits::default());
    write(&core, u64::from(PM) + 4, 2, 0x8100);
    assert_eq!(read(&core, u64::from(PM) + 4, 2) & 0x8100, 0);
}

#[test]
fn phantom_functions_stay_off() {
    let (fake, core) = open(Traits::default());
    write(&core, u64::from(EXP) + 8, 2, 0x0200);
    assert_eq!(fake.raw(EXP + 8, 2) & 0x0200, 0);
}
