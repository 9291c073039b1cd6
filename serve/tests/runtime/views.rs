//! The physical view: bare silicon, for a VM that plays the host.

use varia_serve::View;
use varia_spec::{
    Errno,
    nvidia::bar0,
    vfio::{device_flags, region_flags},
};

use crate::machine::{BAR0, BAR2, BAR4, CONFIG, GIB, MIB, Machine, READ_WRITE, Wanted};

fn physical(profile: &'static str) -> Machine {
    Wanted {
        profile,
        view: View::Physical,
        ..Wanted::default()
    }
    .serve()
}

#[test]
fn a_host_sees_the_physical_bars_and_no_variant() {
    for (profile, bar2) in [("gh200", 128 * GIB), ("gb200", 256 * GIB)] {
        let machine = physical(profile);
        assert_eq!(machine.endpoint.variant_name(), None);
        assert_eq!(machine.memory_regions(), []);
        let mut client = machine.attach();
        for (index, size) in [(BAR2, bar2), (BAR4, 32 * MIB)] {
            let region = client.region_info(index).unwrap();
            assert_eq!(
                (region.info.size, region.info.flags),
                (size, READ_WRITE | region_flags::MMAP)
            );
        }
        client.write(CONFIG, 0x10, &[0xff; 24]);
        let sized = |size: u64| !(size - 1) | 0xc;
        let bars = [0x10, 0x18, 0x20].map(|at| client.register64(at));
        assert_eq!(bars, [sized(16 * MIB), sized(bar2), sized(32 * MIB)]);
    }
}

#[test]
fn a_hosts_driver_finds_the_readiness_registers_behind_memory_enable() {
    let machine = physical("gh200");
    let mut client = machine.attach();
    assert_eq!(
        client.try_read(BAR0, bar0::C2C_LINK),
        Err(Errno::EIO),
        "after power-on"
    );
    client.change16(4, 2, 0);
    for register in [bar0::C2C_LINK, bar0::HBM_TRAINING] {
        assert_eq!(client.read(BAR0, register), [0xff, 0, 0, 0]);
    }
}

#[test]
fn a_hosts_writes_stay_when_its_vmm_is_started_again() {
    let machine = physical("gh200");
    let mut client = machine.attach();
    client.change16(4, 2, 0);
    client.write(BAR2, 4096, &[1, 2, 3, 4]);
    drop(client);
    let mut client = machine.attach();
    client.change16(4, 2, 0);
    assert_eq!(client.read(BAR2, 4096), [1, 2, 3, 4]);
}

#[test]
fn both_views_can_be_reset() {
    for machine in [physical("gh200"), Machine::small()] {
        let mut client = machine.attach();
        let info = client.device_info().unwrap();
        assert_eq!(info.flags, device_flags::PCI | device_flags::RESET);
        assert_eq!((info.num_regions, info.num_irqs), (9, 5));
        let before = machine.endpoint.core().reset_count();
        client.reset().unwrap();
        assert_eq!(machine.endpoint.core().reset_count(), before + 1);
    }
}
