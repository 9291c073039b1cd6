//! Vital product data: the core moves the bytes, the user never reaches the device's window.

use crate::fake::{Fake, Traits, VPD, open, read, write};
use varia_core::Core;

const ADDR: u64 = VPD as u64 + 2;
const DATA: u64 = VPD as u64 + 4;
const FLAG: u32 = 0x8000;

fn product() -> (std::sync::Arc<Fake>, Core<Fake>) {
    open(Traits {
        vpd: true,
        ..Traits::default()
    })
}

fn read_data(core: &Core<Fake>, addr: u32) -> Option<u32> {
    write(core, ADDR, 2, addr);
    (read(core, ADDR, 2) == addr | FLAG).then(|| read(core, DATA, 4))
}

#[test]
fn a_read_is_over_at_once_and_shows_the_bytes() {
    let (_, core) = product();
    assert_eq!(
        read_data(&core, 0),
        Some(u32::from_le_bytes(*b"\x82\x05\x00v"))
    );
    assert_eq!(read_data(&core, 4), Some(u32::from_le_bytes(*b"aria")));
    assert_eq!(read_data(&core, 5), Some(u32::from_le_bytes(*b"ria\x91")));
}

#[test]
fn what_lies_behind_the_end_tag_reads_as_zero() {
    let (_, core) = product();
    assert_eq!(
        read_data(&core, 0x10),
        Some(u32::from_le_bytes(*b"cd\x78\0"))
    );
    assert_eq!(read_data(&core, 0x14), Some(0));
    assert_eq!(read_data(&core, 0x7ffc), Some(0));
}

#[test]
fn a_write_reaches_the_device_and_one_beyond_the_end_never_completes() {
    let (_, core) = product();
    write(&core, DATA, 4, 0x3433_3231);
    write(&core, ADDR, 2, 0x0c | FLAG);
    assert_eq!(read(&core, ADDR, 2), 0x0c);
    assert_eq!(read_data(&core, 0x0c), Some(0x3433_3231));
    write(&core, ADDR, 2, 0x10 | FLAG);
    assert_eq!(read(&core, ADDR, 2), 0x10 | FLAG, "five bytes are left");
    write(&core, ADDR, 2, 0x0e | FLAG);
    assert_eq!(read(&core, ADDR, 2), 0x0e | FLAG, "not aligned");
}

#[test]
fn only_the_byte_with_the_flag_starts_a_transfer() {
    let (fake, core) = product();
    write(&core, ADDR, 1, 4);
    assert_eq!(read(&core, ADDR, 2), 4);
    assert_eq!(fake.raw(VPD + 2, 2), 0, "the device was not asked");
    write(&core, ADDR + 1, 1, 0);
    assert_eq!(read(&core, ADDR, 2), 4 | FLAG);
    assert_eq!(read(&core, DATA, 4), u32::from_le_bytes(*b"aria"));
}

#[test]
fn data_without_tags_never_completes() {
    let (fake, core) = product();
    fake.put_product_data(&[0xff; 64]);
    assert_eq!(read_data(&core, 0), None);
    assert_eq!(read(&core, ADDR, 2), 0);
}
