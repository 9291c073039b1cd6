//! Memory, registers, readiness, resets and faults of a device.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use varia_core::{ConfigRegister, Core, Device, Errno, HostPhys, Interrupts, View, Width};
use varia_facts::{HexBytes, Number, PlatformFacts, PlatformMemory};
use varia_silicon::profile::{self, Body, Capability, Fact};
use varia_silicon::{Faults, ManualClock, Options, Readiness, Silicon};
use varia_spec::intel;
use varia_spec::nvidia::{bar0, property};

const MIB: u64 = 1 << 20;
const BASE: HostPhys = HostPhys(0x4200_0000_0000);

fn gh200(options: Options) -> Silicon {
    let options = Options {
        memory: options.memory.or(Some(2048 * MIB)),
        ..options
    };
    Silicon::new(profile::find("gh200").unwrap(), options).unwrap()
}

fn register(device: &Silicon, at: u64) -> u32 {
    let mut bytes = [0; 4];
    device.bar_read(0, at, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

/// {link, training}
fn status(device: &Silicon) -> (u32, u32) {
    (
        register(device, bar0::C2C_LINK),
        register(device, bar0::HBM_TRAINING),
    )
}

fn config_write(device: &Silicon, at: u16, width: Width, value: u32) {
    device
        .config_write(ConfigRegister::new(at, width).unwrap(), value)
        .unwrap();
}

#[test]
fn a_device_that_is_ready_says_so_in_both_registers() {
    assert_eq!(status(&gh200(Options::default())), (0xff, 0xff));
}

#[test]
fn late_readiness_comes_after_its_time_and_again_after_a_reset() {
    let clock = Arc::new(ManualClock::default());
    let readiness = Readiness::After(Duration::from_secs(3));
    let device = gh200(Options {
        readiness,
        clock: clock.clone(),
        ..Options::default()
    });
    clock.advance(Duration::from_millis(2999));
    assert_eq!(status(&device), (0, 0));
    clock.advance(Duration::from_millis(1));
    assert_eq!(status(&device), (0xff, 0xff));
    device.reset().unwrap();
    assert_eq!(status(&device), (0, 0));
    clock.advance(Duration::from_secs(3));
    assert!(device.is_ready());
}

#[test]
fn a_dead_device_is_never_ready() {
    let clock = Arc::new(ManualClock::default());
    let readiness = Readiness::Never;
    let device = gh200(Options {
        readiness,
        clock: clock.clone(),
        ..Options::default()
    });
    clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(status(&device), (0, 0));
}

#[test]
fn a_link_that_is_down_shows_in_its_register_the_size_and_the_memory() {
    let faults = Faults {
        c2c_down: true,
        ..Faults::default()
    };
    let device = gh200(Options {
        faults,
        ..Options::default()
    });
    assert_eq!(status(&device), (0, 0xff));
    assert_eq!(device.property(property::MEM_SIZE), Some(0));
    assert_eq!(device.memory_read(BASE, &mut [0]), Err(Errno::EIO));
    assert!(device.memory_fd(BASE, 4096).is_none());
}

#[test]
fn properties_describe_the_memory() {
    let device = gh200(Options::default());
    assert_eq!(device.property(property::MEM_BASE_PA), Some(BASE.0));
    assert_eq!(device.property(property::MEM_SIZE), Some(2048 * MIB));
    assert_eq!(device.property(property::MEM_PXM_START), Some(16));
    assert_eq!(device.property(property::MEM_PXM_COUNT), Some(8));
    assert_eq!(device.property("nvidia,egm-base-pa"), None);
    let size_zero = Faults {
        size_zero: true,
        ..Faults::default()
    };
    let device = gh200(Options {
        faults: size_zero,
        ..Options::default()
    });
    assert_eq!(device.property(property::MEM_SIZE), Some(0));
    assert_eq!(status(&device), (0xff, 0xff));
    let no_properties = Faults {
        no_properties: true,
        ..Faults::default()
    };
    let device = gh200(Options {
        faults: no_properties,
        ..Options::default()
    });
    assert_eq!(device.property(property::MEM_BASE_PA), None);
}

#[test]
fn memory_is_there_from_its_first_to_its_last_byte() {
    let device = gh200(Options::default());
    let last = HostPhys(BASE.0 + 2048 * MIB - 1);
    device.memory_write(BASE, &[1]).unwrap();
    device.memory_write(last, &[2]).unwrap();
    let mut byte = [0];
    device.memory_read(BASE, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    device.memory_read(last, &mut byte).unwrap();
    assert_eq!(byte, [2]);
    for outside in [BASE.0 - 1, last.0 + 1, 0, u64::MAX] {
        assert_eq!(
            device.memory_read(HostPhys(outside), &mut byte),
            Err(Errno::EFAULT)
        );
        assert_eq!(
            device.memory_write(HostPhys(outside), &byte),
            Err(Errno::EFAULT)
        );
    }
    assert_eq!(device.memory_read(last, &mut [0; 2]), Err(Errno::EFAULT));
}

#[test]
fn the_default_is_all_of_the_chips_memory_at_no_cost() {
    for (name, gib) in [
        ("gh200", 96),
        ("gh200-480gb", 96),
        ("gb200", 184),
        ("gb300", 278),
    ] {
        let device = Silicon::new(profile::find(name).unwrap(), Options::default()).unwrap();
        assert_eq!(device.property(property::MEM_SIZE), Some(gib << 30));
        let memory = device.coherent_memory().unwrap();
        assert!(memory.bytes.allocated().unwrap() < MIB);
        assert!(device.memory_fd(memory.base, gib << 30).is_some());
    }
}

#[test]
fn memory_can_be_lent_out_at_its_offset() {
    let device = gh200(Options::default());
    let address = HostPhys(BASE.0 + 5 * 4096);
    assert_eq!(device.memory_fd(address, 4096).unwrap().offset, 5 * 4096);
    assert!(
        device.memory_fd(address, 2048 * MIB).is_none(),
        "reaches beyond the end"
    );
}

#[test]
fn a_reset_keeps_memory_and_loses_registers() {
    let device = gh200(Options::default());
    device.memory_write(BASE, b"kept").unwrap();
    device.bar_write(0, 0x100, b"lost").unwrap();
    config_write(&device, 4, Width::Word, 0x6);
    config_write(&device, 0x1c, Width::Dword, 0x60);
    let before = device.reset_count();
    config_write(&device, 0x68, Width::Word, 0x8000);
    assert_eq!(device.reset_count(), before + 1);
    let mut bytes = [0; 4];
    device.memory_read(BASE, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    assert_eq!(register(&device, 0x100), 0);
    let command = ConfigRegister::word(4);
    assert_eq!(device.config_read(command), Ok(0));
    assert_eq!(device.config_read(ConfigRegister::dword(0x1c)), Ok(0));
}

#[test]
fn the_platforms_memory_outlives_a_reset_and_is_lost_when_it_is_switched_off() {
    for name in ["v100-nvlink", "v100-bridge"] {
        let profile = profile::find(name).unwrap();
        let memory = HostPhys(profile.platform.as_ref().unwrap().memory[0].base.0);
        let device = Silicon::new(profile, Options::default()).unwrap();
        device.memory_write(memory, b"kept").unwrap();
        device.reset().unwrap();
        let mut bytes = [0; 4];
        device.memory_read(memory, &mut bytes).unwrap();
        assert_eq!(&bytes, b"kept", "{name}");
        device.forget().unwrap();
        device.memory_read(memory, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4], "{name}");
    }
}

#[test]
fn what_firmware_puts_into_the_platforms_memory_is_there_again() {
    let facts = profile::find("igd").unwrap().platform.as_ref().unwrap();
    let range = facts.memory.iter().find(|range| !range.bytes.0.is_empty());
    let (base, first) = range
        .map(|range| (HostPhys(range.base.0), range.bytes.0[0]))
        .unwrap();
    let device = Silicon::new(profile::find("igd").unwrap(), Options::default()).unwrap();
    device.memory_write(base, &[!first]).unwrap();
    device.forget().unwrap();
    let mut byte = [0];
    device.memory_read(base, &mut byte).unwrap();
    assert_eq!(byte, [first]);
}

#[test]
fn a_reset_keeps_the_scratch_space_of_firmware() {
    let device = Silicon::new(profile::find("igd").unwrap(), Options::default()).unwrap();
    let [asls, latency] = [intel::ASLS, 0x0c].map(ConfigRegister::dword);
    device.config_write(asls, 0x1234_5000).unwrap();
    let before = device.config_read(latency).unwrap();
    device.config_write(latency, !before).unwrap();
    device.reset().unwrap();
    assert_eq!(device.config_read(asls), Ok(0x1234_5000));
    assert_eq!(device.config_read(latency), Ok(before));
}

#[test]
fn the_platforms_memory_is_not_where_the_chips_own_is() {
    let with_memory = |base, size| {
        let memory = PlatformMemory {
            base: Number(base),
            size: Number(size),
            bytes: HexBytes::default(),
        };
        let options = Options {
            memory: Some(MIB),
            platform: Some(PlatformFacts {
                memory: vec![memory],
                ..PlatformFacts::new()
            }),
            ..Options::default()
        };
        Silicon::new(profile::find("gh200").unwrap(), options)
    };
    for (base, size) in [(BASE.0 - MIB, MIB), (BASE.0 + MIB, MIB)] {
        assert!(with_memory(base, size).is_ok(), "{base:#x} touches it");
    }
    for (base, size) in [
        (BASE.0 - MIB, MIB + 1),
        (BASE.0 + MIB - 1, 1),
        (BASE.0, MIB),
        (0, 1 << 47),
    ] {
        let refused = with_memory(base, size).unwrap_err().to_string();
        let says = format!("at {base:#x} overlaps the coherent memory: give one of the two");
        assert!(refused.contains(&says), "{refused}");
    }
}

#[test]
fn every_width_of_an_flr_resets_and_no_other_bit_does() {
    let device = gh200(Options::default());
    for (at, width, value) in [
        (0x69, Width::Byte, 0x80),
        (0x68, Width::Word, 0x8000),
        (0x68, Width::Dword, 0x8000),
    ] {
        let before = device.reset_count();
        config_write(&device, at, width, value);
        assert_eq!(device.reset_count(), before + 1);
    }
    let before = device.reset_count();
    config_write(&device, 0x68, Width::Word, 0x7fff);
    config_write(&device, 0x68, Width::Byte, 0xff);
    assert_eq!(device.reset_count(), before);
}

#[test]
fn status_registers_cannot_be_written_even_by_a_write_around_them() {
    let device = gh200(Options::default());
    device.bar_write(0, bar0::C2C_LINK - 4, &[7; 12]).unwrap();
    assert_eq!(register(&device, bar0::C2C_LINK - 4), 0x0707_0707);
    assert_eq!(register(&device, bar0::C2C_LINK), 0xff);
    assert_eq!(register(&device, bar0::C2C_LINK + 4), 0x0707_0707);
    let mut middle = [0; 2];
    device.bar_read(0, bar0::C2C_LINK + 3, &mut middle).unwrap();
    assert_eq!(middle, [0, 7]);
}

#[test]
fn msix_vectors_are_masked_after_a_reset() {
    let device = gh200(Options::default());
    let control = |vector: u64| register(&device, 0xb9_0000 + 16 * vector + 12);
    assert_eq!((control(0), control(8), control(9)), (1, 1, 0));
    device.bar_write(0, 0xb9_000c, &[0; 4]).unwrap();
    assert_eq!(control(0), 0);
    device.reset().unwrap();
    assert_eq!(control(0), 1);
}

#[test]
fn without_msix_bar_0_is_read_and_loses_its_bytes_all_the_same() {
    let mut profile = profile::find("gh200").unwrap().clone();
    let message_x = |c: &Fact<Capability>| matches!(c.value.body, Body::MessageX { .. });
    profile.capabilities.retain(|c| !message_x(c));
    let options = Options {
        memory: Some(MIB),
        ..Options::default()
    };
    let device = Silicon::new(&profile, options).unwrap();
    assert_eq!(status(&device), (0xff, 0xff));
    let at = 0x100;
    device.bar_write(0, at, b"lost").unwrap();
    assert_eq!(register(&device, at), u32::from_le_bytes(*b"lost"));
    device.reset().unwrap();
    assert_eq!(register(&device, at), 0);
}

#[test]
fn bars_end_where_they_end() {
    let device = gh200(Options::default());
    for (bar, size) in [(0, 16 * MIB), (2, 131_072 * MIB), (4, 32 * MIB)] {
        assert_eq!(device.bar_write(bar, size - 1, &[5]), Ok(()));
        let mut byte = [0];
        assert_eq!(device.bar_read(bar, size - 1, &mut byte), Ok(()));
        assert_eq!(byte, [5]);
        assert_eq!(device.bar_read(bar, size, &mut byte), Err(Errno::EINVAL));
        assert_eq!(device.bar_write(bar, u64::MAX, &byte), Err(Errno::EINVAL));
    }
    assert_eq!(device.bar_read(1, 0, &mut [0]), Err(Errno::EINVAL));
    assert!(device.bar_fd(0).is_none(), "registers have side effects");
    assert!(device.bar_fd(2).is_some() && device.bar_fd(4).is_some());
}

#[test]
fn cxl_readiness_shows_in_the_dvsec() {
    const AT: u16 = 0x320;
    let profile = profile::find("cxl").unwrap();
    let status = |readiness, clock: Arc<ManualClock>| {
        let options = Options {
            memory: Some(MIB),
            readiness,
            clock,
            ..Options::default()
        };
        let device = Silicon::new(profile, options).unwrap();
        move || {
            device
                .config_read(ConfigRegister::dword(AT + 0x1c))
                .unwrap()
        }
    };
    let clock = Arc::new(ManualClock::default());
    let late = status(Readiness::After(Duration::from_secs(2)), clock.clone());
    assert_eq!(late(), 1 << 13 | 1);
    clock.advance(Duration::from_secs(2));
    assert_eq!(late(), 1 << 13 | 3);
    assert_eq!(status(Readiness::Never, clock)(), 1 << 13);
}

/// Keeps what it heard.
#[derive(Default)]
struct Ear(Mutex<Vec<u16>>);

impl Interrupts for Ear {
    fn message(&self, vector: u16) {
        self.0.lock().unwrap().push(vector);
    }

    fn intx(&self, _asserted: bool) {}
}

#[test]
fn messages_are_sent_only_while_enabled() {
    let device = gh200(Options::default());
    let ear = Arc::new(Ear::default());
    device.connect(Some(ear.clone()));
    device.raise(1);
    config_write(&device, 0xb2, Width::Word, 0x8000);
    device.raise(2);
    config_write(&device, 0xb2, Width::Word, 0);
    config_write(&device, 0x4a, Width::Word, 1);
    device.raise(3);
    assert_eq!(*ear.0.lock().unwrap(), [2, 3]);
}

#[test]
fn the_core_shows_a_vm_what_vfio_pci_shows_of_a_gh100() {
    let core = Core::new(Arc::new(gh200(Options::default())), View::Virtual).unwrap();
    core.open().unwrap();
    let header = |at: u64| {
        let mut bytes = [0; 4];
        core.config_read(at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    };
    assert_eq!(header(0x100), 0x12c << 20, "lspci: Null");
    let mut found = Vec::new();
    let mut at = 0x12c;
    while at != 0 {
        found.push((at, header(at) as u16));
        at = u64::from(header(at) >> 20);
    }
    let listed = [
        (0x12c, 0x18),
        (0x134, 0x15),
        (0x1b8, 1),
        (0x2a4, 0xb),
        (0x2b8, 4),
        (0x2f0, 3),
    ];
    assert_eq!(found, listed);
}
