//! Finding a designated vendor-specific capability.

use crate::fake::{AER, DVSEC, Fake, SECPCI, Traits};
use varia_core::find_dvsec;

const VENDOR: u16 = 0x10de;

/// A device whose last capability is not at [`DVSEC`] but at `at`, written as far as there is room.
fn moved_to(at: u16) -> Fake {
    let fake = Fake::new(Traits::default());
    fake.put_raw(AER, 4, u32::from(at) << 20 | 2 << 16 | 0x01);
    fake.put_raw(at, 4, 1 << 16 | 0x23);
    for (offset, value) in [(4, 0x10 << 20 | u32::from(VENDOR)), (8, 1 << 16 | 3)] {
        if at + offset < 4096 {
            fake.put_raw(at + offset, 4, value);
        }
    }
    fake
}

#[test]
fn it_is_found_behind_others_by_vendor_and_id() {
    let fake = Fake::new(Traits::default());
    assert_eq!(find_dvsec(&fake, VENDOR, 3), Ok(Some(DVSEC)));
    assert_eq!(find_dvsec(&fake, VENDOR, 4), Ok(None));
    assert_eq!(find_dvsec(&fake, 0x1e98, 3), Ok(None));
}

#[test]
fn the_last_place_that_holds_its_headers_will_do() {
    assert_eq!(find_dvsec(&moved_to(0xff4), VENDOR, 3), Ok(Some(0xff4)));
}

#[test]
fn one_that_reaches_beyond_the_space_is_not_judged_by_the_header_at_0() {
    // what a read that wraps around would take for its vendor, and for its id
    let wrapped = moved_to(0xff8);
    wrapped.put_raw(0, 4, 3);
    assert_eq!(find_dvsec(&wrapped, VENDOR, 3), Ok(None));
    let wrapped = moved_to(0xffc);
    wrapped.put_raw(0, 4, u32::from(VENDOR));
    wrapped.put_raw(4, 4, 3);
    assert_eq!(find_dvsec(&wrapped, VENDOR, 3), Ok(None));
}

#[test]
fn no_list_and_a_list_without_an_end_have_none() {
    for first in [0, u32::MAX, u32::from(SECPCI) << 20 | 1 << 16 | 0x19] {
        let fake = Fake::new(Traits::default());
        fake.put_raw(SECPCI, 4, first);
        assert_eq!(find_dvsec(&fake, VENDOR, 3), Ok(None), "{first:#x}");
    }
}
