//! Devices that the variant leaves to the core: the physical BARs, and why.

use varia_silicon::Faults;
use varia_spec::{Errno, vfio::region_flags};
use varia_variant::Decline;

use crate::machine::{BAR2, BAR4, CONFIG, GIB, MIB, Machine, READ_WRITE, Wanted};

fn faulty(faults: Faults) -> Machine {
    let mut wanted = Wanted::default();
    wanted.silicon.faults = faults;
    wanted.serve()
}

fn devices() -> [(Machine, &'static str); 2] {
    let no_properties = faulty(Faults {
        no_properties: true,
        ..Faults::default()
    });
    let size_zero = faulty(Faults {
        size_zero: true,
        ..Faults::default()
    });
    [(no_properties, "gpu-mem-base-pa"), (size_zero, "size of 0")]
}

#[test]
fn fallback_reason() {
    let [(no_properties, _), (size_zero, _)] = devices();
    let missing = Decline::Property {
        name: "nvidia,gpu-mem-base-pa",
        errno: Errno::ENOENT,
    };
    assert_eq!(no_properties.endpoint.declined(), Some(missing));
    assert_eq!(size_zero.endpoint.declined(), Some(Decline::LinkDown));
    for (machine, named) in devices() {
        let reason = machine.endpoint.declined().unwrap().to_string();
        assert!(reason.contains(named), "{reason}");
        assert_eq!(machine.endpoint.variant_name(), Some("nvgrace-gpu"));
    }
    assert_eq!(Machine::small().endpoint.declined(), None);
}

#[test]
fn regions_2_and_4_are_the_physical_bars() {
    for (machine, why) in devices() {
        let mut client = machine.attach();
        assert_eq!(machine.memory_regions(), []);
        for (index, size) in [(BAR2, 128 * GIB), (BAR4, 32 * MIB)] {
            let region = client.region_info(index).unwrap();
            assert_eq!(region.info.size, size, "{why}");
            assert_eq!(region.info.flags, READ_WRITE | region_flags::MMAP);
            client.write(index, size - 4, &[1, 2, 3, 4]);
            assert_eq!(client.read(index, size - 4), [1, 2, 3, 4]);
            assert_eq!(client.try_read(index, size), Err(Errno::EINVAL));
        }
        client.write(BAR4, 0, &[7; 4]);
        assert_eq!(
            machine.host(0),
            [0; 4],
            "the coherent memory is not reached"
        );
    }
}

#[test]
fn sizing_shows_the_physical_bars_and_a_reset_keeps_them() {
    for (machine, why) in devices() {
        let mut client = machine.attach();
        client.write(CONFIG, 0x18, &[0xff; 16]);
        let sized = [!(128 * GIB - 1) | 0xc, !(32 * MIB - 1) | 0xc];
        assert_eq!([0x18, 0x20].map(|at| client.register64(at)), sized, "{why}");
        client.reset().unwrap();
        assert_eq!([0x18, 0x20].map(|at| client.register64(at)), sized, "{why}");
    }
}

#[test]
fn the_physical_bars_honour_memory_enable() {
    let [(machine, _), _] = devices();
    let mut client = machine.attach();
    client.change16(4, 0, 2);
    assert_eq!(client.try_read(BAR4, 0), Err(Errno::EIO));
}
