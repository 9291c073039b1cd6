//! Features that the network card has and a GPU lacks.

use std::sync::Arc;

use varia_core::{BarSpace, ConfigRegister, Core, Device, Errno, View, Width};
use varia_silicon::{Faults, Options, Silicon, SiliconError, profile};

const POWER: u16 = 0x40;
const VPD: u16 = 0x48;
const ADVANCED: u16 = 0xac;

fn nic() -> Silicon {
    Silicon::new(profile::find("nic").unwrap(), Options::default()).unwrap()
}

fn read(device: &Silicon, at: u16, width: Width) -> u32 {
    let register = ConfigRegister::new(at, width).expect("the test aligns its accesses");
    device.config_read(register).unwrap()
}

fn write(device: &Silicon, at: u16, width: Width, value: u32) {
    let register = ConfigRegister::new(at, width).expect("the test aligns its accesses");
    device.config_write(register, value).unwrap();
}

/// The vital product data, four bytes at a time.
fn vital(device: &Silicon, len: u16) -> Vec<u8> {
    let word = |at: u16| {
        write(device, VPD + 2, Width::Word, u32::from(at));
        assert_eq!(
            read(device, VPD + 2, Width::Word),
            u32::from(at | 1 << 15),
            "the flag says that the data is there"
        );
        read(device, VPD + 4, Width::Dword).to_le_bytes()
    };
    (0..len.div_ceil(4)).flat_map(|i| word(4 * i)).collect()
}

#[test]
fn bars_of_every_kind_are_sized_by_the_protocol() {
    let device = nic();
    let sized = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map(|at| {
        write(&device, at, Width::Dword, u32::MAX);
        read(&device, at, Width::Dword)
    });
    let expected = [
        0xfffe_0000,
        0xffff_0008,
        0xffff_ffe1,
        0xffff_c000,
        0xfff0_000c,
        0xffff_ffff,
        0xffff_0001,
    ];
    assert_eq!(sized, expected);
    write(&device, 4, Width::Word, 0xffff);
    assert_eq!(read(&device, 4, Width::Word), 0x547, "I/O enable is there");
    assert_eq!(device.bar(2).unwrap().space, BarSpace::Io);
    assert!(device.bar_fd(2).is_none() && device.bar_fd(3).is_some());
}

#[test]
fn the_rom_has_a_signature_and_points_to_its_ids() {
    let device = nic();
    assert_eq!(device.rom(), Some(64 << 10));
    let mut image = [0; 64];
    device.rom_read(0, &mut image).unwrap();
    assert_eq!(image[..2], [0x55, 0xaa]);
    let data = usize::from(u16::from_le_bytes([image[0x18], image[0x19]]));
    assert_eq!(&image[data..data + 4], b"PCIR");
    assert_eq!(image[data + 4..data + 8], [0x34, 0x12, 0x1c, 0x0e]);
    assert_eq!(image[data + 21], 0x80, "the last image");
    let mut last = [0];
    device.rom_read((64 << 10) - 1, &mut last).unwrap();
    assert_eq!(last, [0xff]);
    for (at, len) in [(64 << 10, 1), ((64 << 10) - 1, 2), (u64::MAX, 1)] {
        let mut bytes = vec![0; len];
        assert_eq!(device.rom_read(at, &mut bytes), Err(Errno::EINVAL));
    }
    let gpu = Silicon::new(profile::find("gb200").unwrap(), Options::default()).unwrap();
    assert_eq!(gpu.rom(), None);
    assert_eq!(gpu.rom_read(0, &mut [0]), Err(Errno::EINVAL));
}

#[test]
fn vital_product_data_has_a_good_checksum() {
    let data = vital(&nic(), 0x100);
    let name = b"network card of no maker";
    assert_eq!(data[0], 0x82);
    assert_eq!(&data[3..3 + name.len()], name);
    let sum = data
        .windows(3)
        .position(|bytes| bytes == b"RV\x01")
        .unwrap();
    let total = data[..sum + 4]
        .iter()
        .fold(0u8, |all, b| all.wrapping_add(*b));
    assert_eq!(total, 0);
}

#[test]
fn only_the_writable_part_of_the_vital_product_data_is_written_and_it_outlives_a_reset() {
    let device = nic();
    let before = vital(&device, 0x100);
    for at in (0..0x100).step_by(4) {
        write(&device, VPD + 4, Width::Dword, 0x5a5a_5a5a);
        write(&device, VPD + 2, Width::Word, at | 1 << 15);
        assert_eq!(
            read(&device, VPD + 2, Width::Word),
            at,
            "the flag says done"
        );
    }
    device.reset().unwrap();
    let after = vital(&device, 0x100);
    let free = before
        .windows(3)
        .position(|bytes| bytes == b"RW\x1d")
        .unwrap()
        + 3;
    for (at, (old, new)) in before.into_iter().zip(after).enumerate() {
        let expected = if (free..free + 29).contains(&at) {
            0x5a
        } else {
            old
        };
        assert_eq!(new, expected, "at {at:#x}");
    }
}

#[test]
fn a_write_of_the_address_alone_starts_no_transfer() {
    let device = nic();
    vital(&device, 4);
    let data = read(&device, VPD + 4, Width::Dword);
    write(&device, VPD + 2, Width::Byte, 0x10);
    assert_eq!(read(&device, VPD + 2, Width::Word), 1 << 15 | 0x10);
    assert_eq!(read(&device, VPD + 4, Width::Dword), data);
}

#[test]
fn advanced_features_reset_it_and_express_does_not() {
    let device = nic();
    for (at, width, value) in [
        (ADVANCED + 4, Width::Byte, 1),
        (ADVANCED + 4, Width::Word, 1),
        (ADVANCED + 4, Width::Dword, 1),
    ] {
        write(&device, 0x3c, Width::Byte, 9);
        let before = device.reset_count();
        write(&device, at, width, value);
        assert_eq!(device.reset_count(), before + 1);
        assert_eq!(read(&device, 0x3c, Width::Byte), 0);
        assert_eq!(read(&device, at, Width::Byte), 0, "it is never stored");
    }
    let before = device.reset_count();
    write(&device, 0x68, Width::Word, 0xffff);
    write(&device, ADVANCED + 4, Width::Byte, 0xfe);
    write(&device, ADVANCED, Width::Dword, u32::MAX);
    assert_eq!(device.reset_count(), before);
}

#[test]
fn d1_and_d2_are_entered_and_d3hot_loses_the_registers() {
    let device = nic();
    for state in [1, 2, 3] {
        write(&device, POWER + 4, Width::Word, state);
        assert_eq!(read(&device, POWER + 4, Width::Word), state);
    }
    write(&device, 0x3c, Width::Byte, 9);
    let before = device.reset_count();
    write(&device, POWER + 4, Width::Word, 0);
    assert_eq!(device.reset_count(), before + 1);
    assert_eq!(read(&device, 0x3c, Width::Byte), 0);
}

#[test]
fn a_reset_by_a_user_who_put_it_to_sleep_keeps_the_hosts_addresses() {
    let device = Arc::new(nic());
    write(&device, 0x10, Width::Dword, 0xa000_0000);
    let core = Core::new(Arc::clone(&device), View::Virtual).unwrap();
    core.open().unwrap();
    let resets = device.reset_count();
    core.config_write(u64::from(POWER + 4), &[3]).unwrap();
    core.config_write(u64::from(ADVANCED + 4), &[1]).unwrap();
    assert_eq!(
        device.reset_count(),
        resets + 2,
        "it wakes up, and is reset"
    );
    assert_eq!(read(&device, 0x10, Width::Dword), 0xa000_0000);
}

#[test]
fn the_msix_table_is_masked_and_its_pending_bits_stay_zero() {
    let device = nic();
    let word = |at| {
        let mut bytes = [0; 4];
        device.bar_read(3, at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    };
    assert_eq!((word(0x100c), word(0x104c), word(0x105c)), (1, 1, 0));
    device.bar_write(3, 0x2000, &[0xff; 16]).unwrap();
    assert_eq!((word(0x2000), word(0x2004), word(0x2008)), (0, 0, u32::MAX));
    device.bar_write(3, 0x100c, &[0; 4]).unwrap();
    device.reset().unwrap();
    assert_eq!((word(0x100c), word(0x2008)), (1, u32::MAX));
}

#[test]
fn it_has_no_memory_and_says_so_when_asked() {
    let device = nic();
    assert!(device.coherent_memory().is_none());
    assert_eq!(
        device.property(varia_spec::nvidia::property::MEM_SIZE),
        None
    );
    let profile = profile::find("nic").unwrap();
    let memory = Options {
        memory: Some(4096),
        ..Options::default()
    };
    let late = Options {
        readiness: varia_silicon::Readiness::Never,
        clock: Arc::new(varia_silicon::ManualClock::default()),
        ..Options::default()
    };
    for options in [memory, late] {
        let error = Silicon::new(profile, options).unwrap_err();
        assert!(matches!(error, SiliconError::NotCoherent { .. }), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("a nic has no coherent memory")
        );
    }
}

#[test]
fn faults_of_memory_are_refused_by_a_card_without_any() {
    let profile = profile::find("nic").unwrap();
    let none = Faults::NONE;
    let card = Silicon::new(profile, Options::default()).unwrap();
    let of_memory = [
        Faults {
            c2c_down: true,
            ..none
        },
        Faults {
            size_zero: true,
            ..none
        },
        Faults {
            no_properties: true,
            ..none
        },
        Faults {
            lost_after_resets: Some(1),
            ..none
        },
        Faults {
            poisoned_page: Some(0),
            ..none
        },
    ];
    for faults in of_memory {
        let options = Options {
            faults,
            ..Options::default()
        };
        let error = Silicon::new(profile, options).unwrap_err().to_string();
        assert!(
            error.starts_with("a nic has no coherent memory that could fail"),
            "{error}"
        );
        assert!(card.set_faults(faults).is_err());
        assert_eq!(card.faults(), none);
    }
    let gone = Faults {
        gone_after: Some(std::time::Duration::ZERO),
        ..none
    };
    card.set_faults(gone).unwrap();
    assert_eq!(card.faults(), gone);
}
