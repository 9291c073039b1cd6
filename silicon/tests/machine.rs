//! Made-up hosts: facts that depend on the chip.

use varia_silicon::machine::Machine;

#[test]
fn a_host_of_a_chip_that_is_not_on_grace_has_neither_graces_cpu_nor_its_root_port() {
    const BRIDGE: u32 = 0x06_04_00;
    let grace = (Some(0x410f_d4f0), vec![(0x10de, 0x22b2)]);
    for (chip, expected) in [
        ("gh200", grace.clone()),
        ("gb300", grace),
        ("vera-rubin", (None, vec![(0x1b36, 0x000c)])),
    ] {
        let facts = Machine::with(chip, 1, 1).unwrap().facts().unwrap();
        let ports = facts.functions.iter().filter(|f| f.class == BRIDGE);
        let ports = ports.map(|port| (port.vendor, port.device)).collect();
        assert_eq!((facts.host.midr, ports), expected, "{chip}");
    }
}
