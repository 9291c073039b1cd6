//! Behaviour of a broken device.

use std::sync::Arc;
use std::time::Duration;

use varia_core::{ConfigRegister, Device, Errno, HostPhys};
use varia_silicon::{Faults, ManualClock, Options, Silicon, profile};
use varia_spec::nvidia::bar0;

const MIB: u64 = 1 << 20;
/// The CXL status register of that profile.
const CXL_STATUS: u16 = 0x33c;

fn broken(name: &str, faults: Faults) -> (Silicon, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let options = Options {
        memory: Some(2048 * MIB),
        faults,
        clock: Arc::clone(&clock) as Arc<_>,
        ..Options::default()
    };
    let device = Silicon::new(profile::find(name).unwrap(), options).unwrap();
    (device, clock)
}

fn base(device: &Silicon) -> u64 {
    device.coherent_memory().unwrap().base.0
}

fn dword(device: &Silicon, at: u16) -> u32 {
    device.config_read(ConfigRegister::dword(at)).unwrap()
}

#[test]
fn readiness_lost_after_resets_shows_in_both_methods() {
    let lost = Faults {
        lost_after_resets: Some(2),
        ..Faults::NONE
    };
    let (device, clock) = broken("gh200", lost);
    let training = || {
        let mut bytes = [0; 4];
        device.bar_read(0, bar0::HBM_TRAINING, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    };
    for _ in 0..2 {
        assert_eq!(training(), 0xff);
        device.reset().unwrap();
    }
    clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(training(), 0);
    let (device, _) = broken("cxl", lost);
    for _ in 0..2 {
        assert_eq!(dword(&device, CXL_STATUS) & 3, 3);
        device.reset().unwrap();
    }
    assert_eq!(dword(&device, CXL_STATUS) & 3, 0);
}

#[test]
fn a_cxl_device_without_its_link_is_valid_and_never_active() {
    let down = Faults {
        c2c_down: true,
        ..Faults::NONE
    };
    assert_eq!(dword(&broken("cxl", down).0, CXL_STATUS) & 3, 1);
}

#[test]
fn a_poisoned_page_fails_and_its_neighbours_do_not() {
    let poisoned = Faults {
        poisoned_page: Some(MIB + 5),
        ..Faults::NONE
    };
    let (device, _) = broken("gh200", poisoned);
    let page = base(&device) + MIB;
    let read = |at: u64, len| device.memory_read(HostPhys(at), &mut vec![0; len]);
    let write = |at: u64, len| device.memory_write(HostPhys(at), &vec![0; len]);
    for (at, len, answer) in [
        (page - 8, 8, Ok(())),
        (page - 8, 9, Err(Errno::EIO)),
        (page, 1, Err(Errno::EIO)),
        (page + 4095, 1, Err(Errno::EIO)),
        (page + 4096, 8, Ok(())),
        (page + 1, 0, Ok(())),
    ] {
        assert_eq!(read(at, len), answer, "{len} bytes at {at:#x}");
        assert_eq!(write(at, len), answer, "{len} bytes at {at:#x}");
    }
    assert!(device.memory_fd(HostPhys(page - 4096), 4096).is_some());
    assert!(device.memory_fd(HostPhys(page - 4096), 8192).is_none());
    let beyond = Options {
        memory: Some(4096),
        faults: Faults {
            poisoned_page: Some(4096),
            ..Faults::NONE
        },
        ..Options::default()
    };
    let error = Silicon::new(profile::find("gh200").unwrap(), beyond).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no page at 0x1000 can be poisoned in 4 KiB of memory: choose a smaller offset"
    );
}

#[test]
fn a_device_that_is_gone_reads_as_ones_and_takes_nothing() {
    let gone = Faults {
        gone_after: Some(Duration::from_secs(2)),
        ..Faults::NONE
    };
    for name in ["gh200", "gb200", "cxl"] {
        let (device, clock) = broken(name, gone);
        clock.advance(Duration::from_millis(1999));
        assert_eq!(dword(&device, 0) & 0xffff, 0x10de);
        device.config_write(ConfigRegister::word(4), 6).unwrap();
        device.bar_write(0, 0x100, &[7]).unwrap();
        clock.advance(Duration::from_millis(1));
        for at in (0..4096).step_by(4) {
            assert_eq!(dword(&device, at), u32::MAX);
        }
        let byte = ConfigRegister::byte(CXL_STATUS);
        assert_eq!(device.config_read(byte), Ok(0xff));
        assert_eq!(device.config_write(ConfigRegister::word(4), 0), Ok(()));
        let mut byte = [0];
        assert_eq!(device.bar_read(0, 0x100, &mut byte), Ok(()));
        assert_eq!(byte, [0xff]);
        assert_eq!(device.bar_write(0, 0x100, &[0]), Ok(()));
        assert_eq!(device.bar_read(0, 1 << 40, &mut byte), Err(Errno::EINVAL));
        let memory = HostPhys(base(&device));
        assert_eq!(device.memory_read(memory, &mut byte), Err(Errno::EIO));
        assert_eq!(device.memory_write(memory, &byte), Err(Errno::EIO));
        assert!(device.memory_fd(memory, 4096).is_none());
        let resets = device.reset_count();
        assert_eq!(device.reset(), Err(Errno::ENOTTY));
        assert_eq!(device.reset_count(), resets);
    }
}

#[test]
fn the_platforms_memory_of_a_device_that_is_gone_does_not_answer() {
    let faults = Faults {
        gone_after: Some(Duration::from_secs(2)),
        ..Faults::NONE
    };
    for name in ["v100-nvlink", "v100-bridge"] {
        let profile = profile::find(name).unwrap();
        let memory = HostPhys(profile.platform.as_ref().unwrap().memory[0].base.0);
        let clock = Arc::new(ManualClock::default());
        let options = Options {
            faults,
            clock: clock.clone(),
            ..Options::default()
        };
        let device = Silicon::new(profile, options).unwrap();
        let mut byte = [0];
        assert_eq!(device.memory_read(memory, &mut byte), Ok(()));
        assert!(device.memory_fd(memory, 4096).is_some());
        clock.advance(Duration::from_secs(2));
        assert_eq!(device.memory_read(memory, &mut byte), Err(Errno::EIO));
        assert_eq!(device.memory_write(memory, &byte), Err(Errno::EIO));
        assert!(device.memory_fd(memory, 4096).is_none());
        let nowhere = HostPhys(memory.0 - 1);
        assert_eq!(device.memory_read(nowhere, &mut byte), Err(Errno::EFAULT));
    }
}
