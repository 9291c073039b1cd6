//! Made-up hosts: facts that depend on the chip.

use varia_facts::{Bytes, Facts, PciFunction, PhysicalBar};
use varia_silicon::machine::{self, Entry, Machine};

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

const GIB: u64 = 1 << 30;

fn facts(machine: &Machine) -> Facts {
    machine.facts().unwrap()
}

fn gpus(facts: &Facts) -> Vec<&PciFunction> {
    let functions = facts.functions.iter();
    functions.filter(|it| it.acpi_path.is_some()).collect()
}

#[test]
fn hosts_have_the_sockets_gpus_and_names_that_are_said() {
    for (machine, product, cpus, count) in [
        (&machine::GH200, "NVIDIA Grace Hopper", 72, 1),
        (&machine::GH200_X4, "NVIDIA Grace Hopper", 288, 4),
        (&machine::GB200_NVL4, "NVIDIA GB200 NVL4", 144, 4),
        (&machine::GB200_EGM, "NVIDIA GB200 NVL4", 144, 4),
        (&machine::GB300_NVL4, "NVIDIA GB300 NVL4", 144, 4),
        (&machine::NONE, "Example Server", 72, 0),
    ] {
        let name = machine.name;
        let facts = facts(machine);
        assert_eq!(facts.host.product.as_deref(), Some(product), "{name}");
        assert_eq!(facts.host.cpus, (0..cpus).collect(), "{name}");
        assert_eq!((gpus(&facts).len(), machine.gpus().len()), (count, count));
        let addresses: Vec<_> = gpus(&facts).iter().map(|it| it.bdf.to_string()).collect();
        assert_eq!(addresses, machine.gpus(), "{name}");
        assert_eq!(facts.kernel.kvm.ipa_bits, Some(48), "{name}");
    }
    // a chip with two GPUs on a superchip has nodes as GB200 NVL4 has
    let of = |chip| Machine::with(chip, 1, 1).unwrap().own_nodes;
    assert_eq!((of("gh200"), of("gb200")), (false, true));
}

#[test]
fn nodes_are_those_of_sockets_then_those_of_gpus() {
    let facts = facts(&machine::GB200_EGM);
    let nodes = &facts.host.nodes;
    assert_eq!(nodes.len(), 2 + 4 * 8);
    for (id, node) in nodes.iter().enumerate() {
        let of_cpus = id < 2;
        let memory = if of_cpus { 64 * GIB } else { 0 };
        assert_eq!((node.id.0 as usize, node.memory.0), (id, memory));
        assert_eq!(node.generic_initiator, !of_cpus, "{id}");
        let cpus = if of_cpus { 72 } else { 0 };
        assert_eq!(node.cpus.iter().count(), cpus, "{id}");
    }
    // two GPUs on each socket: nodes 2 to 17 are of socket 0, those from 18 on of socket 1
    for (from, to, distance) in [
        (0, 0, 10),
        (0, 1, 120),
        (0, 2, 80),
        (17, 0, 80),
        (0, 18, 120),
        (1, 18, 80),
        (1, 17, 120),
        (2, 3, 100),
        (2, 17, 100),
        (2, 18, 120),
        (33, 33, 10),
    ] {
        assert_eq!(nodes[from].distances[to], distance, "{from} to {to}");
    }
    let egm: Vec<_> = facts.host.egm.iter().map(|it| (it.pxm, it.size)).collect();
    assert_eq!(egm, [34, 35].map(|pxm| (pxm, Some(Bytes(416 * GIB)))));
    assert!(facts.host.egm.iter().all(|it| it.gpus.len() == 2));
}

#[test]
fn gpus_share_neither_memory_nor_addresses() {
    for (machine, nodes) in [
        (&machine::GH200_X4, [0, 1, 2, 3]),
        (&machine::GB200_NVL4, [2, 10, 18, 26]),
    ] {
        let facts = facts(machine);
        let gpus = gpus(&facts);
        let mut ranges = Vec::new();
        let first_nodes = machine.sockets;
        for (index, gpu) in (0..).zip(&gpus) {
            let memory = gpu.coherent_memory.as_ref().unwrap();
            let (start, count) = (memory.pxm_start.unwrap(), memory.pxm_count);
            assert_eq!((start, count), (first_nodes + 8 * index, Some(8)));
            let node = gpu.numa_node.unwrap();
            assert_eq!(node.0, nodes[index as usize], "{}", machine.name);
            ranges.push((memory.base.0, memory.size.0));
            let bars = gpu.bars.iter();
            ranges.extend(bars.map(|bar| (bar.address.unwrap().0, bar.size.0)));
        }
        let is_aligned = |bar: &PhysicalBar| {
            bar.address.unwrap().0.trailing_zeros() >= bar.size.0.trailing_zeros()
        };
        assert!(gpus.iter().all(|gpu| gpu.bars.iter().all(is_aligned)));
        ranges.sort_unstable();
        assert_eq!(ranges.len(), 4 * 4);
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }
}

#[test]
fn sysfs_shows_the_bars_with_their_flags() {
    let files = machine::GH200.files().unwrap();
    let facts = facts(&machine::GH200);
    let gpu = gpus(&facts)[0];
    let at = |path: &str| path.ends_with("/resource") && path.contains(&gpu.bdf.to_string());
    let (_, entry) = files.iter().find(|(path, _)| at(path)).unwrap();
    let Entry::File(text) = entry else {
        panic!("{entry:?}");
    };
    let text = String::from_utf8(text.clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for bar in &gpu.bars {
        let first = bar.address.unwrap().0;
        let last = first + bar.size.0 - 1;
        // memory, 64 bits, prefetchable, aligned to its size
        let line = format!("{first:#018x} {last:#018x} 0x000000000014220c");
        assert_eq!(lines[usize::from(bar.index)], line);
    }
    assert_eq!(
        lines[1],
        "0x0000000000000000 0x0000000000000000 0x0000000000000000"
    );
}

#[test]
fn every_file_is_written() {
    let folder = tempfile::tempdir().unwrap();
    machine::GH200.write(folder.path()).unwrap();
    for (path, entry) in machine::GH200.files().unwrap() {
        let written = folder.path().join(&path);
        match entry {
            Entry::File(bytes) => assert_eq!(std::fs::read(written).unwrap(), bytes, "{path}"),
            Entry::Link(target) => {
                let link = std::fs::read_link(written).unwrap();
                assert_eq!(link.to_string_lossy(), target, "{path}");
            }
            Entry::Folder => assert!(written.is_dir(), "{path}"),
        }
    }
}
