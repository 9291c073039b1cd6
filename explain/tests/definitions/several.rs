//! Several faults at once, definitions with next to nothing in them, and what only one of the
//! other tests' definitions could show.

use varia_explain::{Examination, Knowledge, examine};
use varia_facts::{Arch, Bytes};
use varia_plan::{Emulated, PlannedBar};

use crate::host::{GIB, GPUS, MIB, facts, facts_with_iommufd, request};
use crate::text::{codes, command_line, examined, swap, two, two_with_egm, without, xml};

/// Everything that was found has a correction, and with all of them nothing is found.
fn is_put_right(found: &Examination, again: &Examination) {
    for (finding, is_corrected) in &found.findings {
        assert!(is_corrected, "{finding:?}: {}", found.corrected);
    }
    assert_eq!(
        codes(again),
        [""; 0],
        "{:?}: {}",
        again.findings,
        found.corrected
    );
}

#[test]
fn many_faults_of_a_command_line() {
    let (facts, plan) = two();
    let mut text = command_line(&plan);
    for (from, to) in [
        (
            "gic-version=3,highmem-mmio-size=1T",
            "highmem-mmio-size=512G",
        ),
        ("-cpu host", "-cpu max,pauth-impdef=on -no-acpi"),
        ("-accel kvm", "-accel tcg,thread=multi"),
        ("vfio-pci,id=gpu0,", "vfio-pci,id=gpu0,x-no-mmap=on,"),
        ("id=gpu0.gi3,pci-dev=gpu0", "id=gpu0.gi3,pci-dev=gpu9"),
        ("pci-dev=gpu1,node=12", "pci-dev=gpu1,node=1"),
        ("bus_nr=16,numa_node=1", "bus_nr=8,numa_node=0"),
        ("host-nodes=1,", "host-nodes=0,"),
    ] {
        text = swap(&text, from, to);
    }
    text = without(&text, &["-bios", "dist,src=3,dst=12,"]);
    let found = examined(&text, &facts);
    let mut named = codes(&found);
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "accelerator",
            "acpi-off",
            "aperture-too-small",
            "bars-not-mapped",
            "distances-incomplete",
            "firmware-missing",
            "gic-version",
            "initiator-device",
            "initiator-node",
            "memory-elsewhere",
            "root-bus-node",
            "root-bus-number",
        ]
    );
    is_put_right(&found, &examined(&found.corrected, &facts));
    assert!(
        found.corrected.contains("-cpu max,pauth-impdef=on"),
        "{}",
        found.corrected
    );
}

#[test]
fn a_command_line_with_next_to_nothing() {
    for text in [
        "qemu-system-aarch64 -M virt -m 8G -smp 4 -device vfio-pci,host=0009:01:00.0\n",
        "\n\nqemu-system-aarch64 -device vfio-pci,host=0009:01:00.0 -m 8G -accel tcg",
        "#!/bin/sh\nqemu-system-aarch64 \\\n\t-machine virt \\\n\t-m 4096 \\\n\t-device \
         vfio-pci,host=0009:01:00.0,id=a,bus=pcie.0 \\\n\t-device vfio-pci,host=0029:01:00.0\n",
    ] {
        let found = examined(text, &facts());
        assert!(found.findings.len() > 4, "{:?}", found.findings);
        assert!(
            found.findings.iter().all(|(finding, _)| finding.line > 0),
            "{:?}",
            found.findings
        );
        is_put_right(&found, &examined(&found.corrected, &facts()));
    }
}

#[test]
fn a_domain_with_next_to_nothing() {
    let hostdev = |domain: &str| {
        format!(
            "    <hostdev mode='subsystem' type='pci' managed='yes'>\n      <source>\n        <address \
             domain='{domain}' bus='0x01' slot='0x00' function='0x0'/>\n      </source>\n    </hostdev>\n"
        )
    };
    let text = format!(
        "<domain type='qemu'>\n  <name>a</name>\n  <memory unit='GiB'>8</memory>\n  \
         <vcpu>4</vcpu>\n  <os>\n    <type arch='aarch64' machine='virt'>hvm</type>\n  </os>\n  \
         <devices>\n{}{}  </devices>\n</domain>\n",
        hostdev("0x0009"),
        hostdev("0x0029")
    );
    for facts in [facts(), facts_with_iommufd()] {
        let found = examined(&text, &facts);
        assert!(found.findings.len() > 4, "{:?}", found.findings);
        is_put_right(&found, &examined(&found.corrected, &facts));
    }
}

/// A device that is a GPU by its initiators alone: its BARs are not known.
#[test]
fn an_aperture_for_what_nobody_knows() {
    let text = command_line(&two().1);
    let unknown = Knowledge::default();
    let judged = |text: &str| examine(text.as_bytes(), &unknown).expect("a definition");
    let found = judged(&text);
    assert_eq!(
        (codes(&found).len(), found.notes.len()),
        (0, 3),
        "{:?}",
        found.notes
    );
    for machine in [
        "virt,highmem=off,",
        "virt,highmem-mmio=off,",
        "virt,highmem-mmio-size=1G,",
    ] {
        let found = judged(&swap(&text, "virt,", machine).replace("highmem-mmio-size=1T", "x=y"));
        assert_eq!(codes(&found), ["aperture-too-small"]);
        assert!(
            found.findings[0].0.what.contains("512 GiB"),
            "{:?}",
            found.findings
        );
        is_put_right(&found, &judged(&found.corrected));
    }
}

#[test]
fn arguments_of_a_process_are_put_right_as_a_script() {
    let process = "/usr/bin/qemu-system-aarch64\0-machine\0virt,gic-version=3\0-m\08G\0-device\0\
                   vfio-pci,host=0009:01:00.0,id=a\0";
    let found = examined(process, &facts());
    assert!(
        found
            .text
            .starts_with("/usr/bin/qemu-system-aarch64 \\\n  -machine"),
        "{}",
        found.text
    );
    is_put_right(&found, &examined(&found.corrected, &facts()));
}

#[test]
fn what_a_shell_expands_is_not_judged_and_stays() {
    let (facts, plan) = two();
    let text = command_line(&plan);
    let aperture = "'virt,gic-version=3,highmem-mmio-size=1T'";
    let text = swap(&text, "-m 8G", "-m \"$RAM\"");
    for machine in [
        "\"virt,gic-version=2,highmem-mmio-size=$MMIO\"",
        "\"virt,gic-version=2,highmem-mmio-size=`cat mmio`\"",
        "virt,gic-version=2,highmem-mmio-size=`cat mmio`",
    ] {
        let found = examined(&swap(&text, aperture, machine), &facts);
        assert_eq!(codes(&found), ["gic-version"]);
        let wanted = format!(
            "-machine {} ",
            machine.replace("gic-version=2", "gic-version=3")
        );
        assert!(found.corrected.contains(&wanted), "{}", found.corrected);
    }
}

#[test]
fn how_many_nodes_a_gpu_needs_may_be_told() {
    let facts = facts();
    let mut wanted = request(&GPUS[..1]);
    for (nodes, told, named) in [
        (8, None, &[][..]),
        (1, None, &[]),
        (4, None, &["nodes-too-few"]),
        (4, Some(4), &[]),
        (1, Some(4), &["nodes-too-few"]),
        (8, Some(4), &["nodes-too-many"]),
    ] {
        wanted.nodes_per_gpu = nodes;
        let plan = varia_plan::make(&facts, &wanted).expect("a plan");
        let knowledge = Knowledge {
            facts: Some(&facts),
            nodes_per_gpu: told,
            ..Knowledge::default()
        };
        for text in [command_line(&plan), xml(&plan)] {
            let found = examine(text.as_bytes(), &knowledge).expect("a definition");
            assert_eq!(codes(&found), named, "{nodes} {told:?}");
            let again = examine(found.corrected.as_bytes(), &knowledge).expect("a definition");
            is_put_right(&found, &again);
            assert_eq!(
                found.notes.iter().any(|note| note.contains("MIG")),
                nodes == 1 && told.is_none()
            );
        }
    }
}

#[test]
fn more_nodes_than_there_can_be() {
    let mut text = command_line(&two().1).trim_end().to_owned();
    for node in 18..129 {
        text += &format!(" \\\n  -numa node,nodeid={node}");
    }
    let found = examined(&text, &facts());
    assert_eq!(codes(&found), ["nodes-over-limit"]);
    assert!(!found.findings[0].1 && found.findings[0].0.what.contains("129"));
}

/// Numbers at the end of their range are read, and corrections keep below it.
#[test]
fn the_largest_numbers() {
    let (facts, plan) = two();
    let text = command_line(&plan);
    for (from, to) in [
        ("node,nodeid=17'", "node,nodeid=4294967295'"),
        ("pci-dev=gpu1,node=17'", "pci-dev=gpu1,node=4294967295'"),
        ("bus_nr=16,", "bus_nr=4294967295,"),
        ("chassis=2,", "chassis=4294967295,"),
    ] {
        let found = examined(&swap(&text, from, to), &facts);
        examined(&found.corrected, &facts);
    }
    let text = xml(&plan);
    for (from, to) in [
        ("<cell id='17'", "<cell id='4294967295'"),
        ("index='4'", "index='4294967295'"),
        ("chassis='2'", "chassis='4294967295'"),
    ] {
        let broken = swap(&text, from, to);
        let found = examined(&broken, &facts);
        examined(&found.corrected, &facts);
    }
}

/// What a server offers, as a made-up host's function has it.
fn served(arch: Arch) -> (String, Knowledge<'static>) {
    let bars = [(0, 16 * MIB), (2, GIB), (4, 128 * GIB)].map(|(index, size)| PlannedBar {
        index,
        size: Bytes(size),
    });
    let plan = Emulated {
        arch,
        cpus: 2,
        memory: Bytes(2 * GIB),
        gpus: vec![("/run/gpu".into(), bars.to_vec())],
        nodes_per_gpu: 8,
    };
    let knowledge = Knowledge {
        named: vec![("gpu0".to_owned(), facts().functions[0].clone())],
        ..Knowledge::default()
    };
    (command_line(&plan.plan().expect("a plan")), knowledge)
}

#[test]
fn servers_need_shared_memory() {
    for arch in [Arch::Aarch64, Arch::X86_64] {
        let (text, knowledge) = served(arch);
        let judged = |text: &str| examine(text.as_bytes(), &knowledge).expect("a definition");
        assert_eq!(codes(&judged(&text)), [""; 0]);
        let found = judged(&swap(&text, ",share=on", ""));
        assert_eq!(codes(&found), ["memory-not-shared"]);
        is_put_right(&found, &judged(&found.corrected));
    }
}

#[test]
fn x86_addresses_are_as_wide_as_the_aperture_needs() {
    let (text, knowledge) = served(Arch::X86_64);
    let judged = |text: &str| examine(text.as_bytes(), &knowledge).expect("a definition");
    assert_eq!(
        codes(&judged(&swap(&text, "-cpu max", "-cpu max,phys-bits=46"))),
        [""; 0]
    );
    let found = judged(&swap(&text, "-cpu max", "-cpu max,phys-bits=38"));
    assert_eq!(codes(&found), ["address-width"]);
    is_put_right(&found, &judged(&found.corrected));
    assert!(
        found.corrected.contains("phys-bits=40"),
        "{}",
        found.corrected
    );
}

/// A machine of another architecture than the host's can't run on KVM.
#[test]
fn a_machine_of_another_architecture_is_a_fault() {
    let text = format!(
        "qemu-system-x86_64 -machine q35,accel=kvm -cpu host -m 8G -device vfio-pci,id=gpu0,host={}",
        GPUS[0]
    );
    let found = examined(&text, &facts());
    assert!(
        codes(&found).contains(&"machine-arch"),
        "{:?}",
        codes(&found)
    );
    let mut facts = facts();
    facts.host.arch = Some(Arch::X86_64);
    let found = examined(&text, &facts);
    assert!(
        !codes(&found).contains(&"machine-arch"),
        "{:?}",
        codes(&found)
    );
}

/// Loops that repeat ties make thousands of findings with the same correction, which can't be
/// written in a loop.
#[test]
fn a_correction_that_can_not_be_written_is_tried_once() {
    let text = format!(
        "A=(-machine virt,accel=kvm,gic-version=3 -device vfio-pci,host={},id=dev0)\n\
         for i in {{1..8}}; do for j in {{1..8}}; do A+=(-object \
         acpi-generic-initiator,id=g$i$j,pci-dev=dev0,node=$i)\nB+=(\"${{A[@]}}\")\ndone; done\n\
         qemu-system-aarch64 \"${{B[@]}}\"\n",
        GPUS[0]
    );
    let found = examined(&text, &facts());
    assert!(found.findings.len() > 100, "{}", found.findings.len());
    assert!(codes(&found).contains(&"initiator-twice"));
}

/// A GPU without MIG uses one node.
const ONE_NODE_EACH: &str = "qemu-system-aarch64 -M virt,gic-version=3 -accel kvm -cpu host -m 8G \
    -object memory-backend-ram,id=m0,size=8G -numa node,nodeid=0,cpus=0-3,memdev=m0 \
    -numa node,nodeid=1 -numa node,nodeid=2 -numa node,nodeid=3 -bios UEFI.fd \
    -device pcie-root-port,id=p0,chassis=1 -device vfio-pci,id=g0,host=0009:01:00.0,bus=p0 \
    -device pcie-root-port,id=p1,chassis=2 -device vfio-pci,id=g1,host=0019:01:00.0,bus=p1 \
    -object acpi-generic-initiator,id=i0,pci-dev=g0,node=1 \
    -object acpi-generic-initiator,id=i1,pci-dev=g1,node=2 \
    -object acpi-generic-initiator,id=i2,pci-dev=nic,node=3";

#[test]
fn a_gpu_with_one_node_lacks_none_unless_more_are_asked_for() {
    let found = |nodes_per_gpu| {
        let named = ["g0", "g1"].map(|id| (id.to_owned(), facts().functions[0].clone()));
        let knowledge = Knowledge {
            named: named.into(),
            nodes_per_gpu,
            ..Knowledge::default()
        };
        let found = examine(ONE_NODE_EACH.as_bytes(), &knowledge).expect("a definition");
        let findings = found.findings.into_iter().map(|(finding, _)| finding);
        let own = findings.filter(|one| one.code.name().contains("initiator"));
        own.map(|one| (one.code.name(), one.remedy))
            .collect::<Vec<_>>()
    };
    let remedy = |text: &str| vec![("initiator-device", text.to_owned())];
    assert_eq!(
        found(None),
        remedy("remove the Generic Initiator: every GPU has its nodes")
    );
    assert_eq!(
        found(Some(2)),
        remedy("tie node 3 to g1 (0019:01:00.0), which lacks nodes")
    );
}

/// Only the GPU of the device's socket has Extended GPU Memory.
#[test]
fn a_gpu_of_another_socket_needs_no_tie_to_extended_memory() {
    let (mut facts, plan) = two_with_egm();
    facts.host.egm.retain(|device| device.pxm == 4);
    let text = without(&command_line(&plan), &["acpi-egm-memory,id=gpu1.egm"]);
    let text = swap(&text, "mem-path=/dev/egm5", "mem-path=/dev/shm");
    // the RAM of the other socket is ordinary, and not bound
    assert_eq!(codes(&examined(&text, &facts)), ["memory-anywhere"]);
    // nor without the host's facts, by the node of its root bus
    let found = examine(text.as_bytes(), &Knowledge::default()).expect("a definition");
    assert!(!codes(&found).contains(&"egm-missing"), "{found:#?}");
    let text = without(&text, &["acpi-egm-memory,id=gpu0.egm"]);
    let found = examine(text.as_bytes(), &Knowledge::default()).expect("a definition");
    let missing = codes(&found)
        .iter()
        .filter(|code| **code == "egm-missing")
        .count();
    assert_eq!(missing, 1, "{found:#?}");
}

#[test]
fn extended_memory_of_libvirt_that_can_not_be_read_is_not_judged() {
    let (facts, plan) = two();
    let memory = "    <memory model='egm'>\n      <target>\n        <node>0</node>\n      </target>\n    \
                  </memory>\n  </devices>\n";
    let found = examined(&swap(&xml(&plan), "  </devices>\n", memory), &facts);
    let parts: Vec<_> = found
        .unjudged
        .iter()
        .map(|part| part.what.as_str())
        .collect();
    assert_eq!(parts, ["<memory model='egm'>"]);
}

/// Nodes that a loop makes in a way that is not followed are not given distances.
#[test]
fn nodes_that_are_not_all_known_get_no_distances() {
    let (facts, _) = two();
    let text = "i=1\nwhile [ $i -le 8 ]; do\n  NODES+=\" -numa node,nodeid=$i -object \
                acpi-generic-initiator,id=gi$i,pci-dev=gpu,node=$i\"\n  i=$((i+1))\ndone\n\
                qemu-system-aarch64 -M virt,gic-version=3 -accel kvm -cpu host -smp 4 -m 8G \
                -bios a.fd -object memory-backend-ram,id=m0,size=4G -numa \
                node,nodeid=0,cpus=0-3,memdev=m0 -device \
                vfio-pci,id=gpu,host=0009:01:00.0,rombar=0 $NODES\n";
    let found = examined(text, &facts);
    let of_nodes = ["distances-missing", "memory-sum", "nodes-missing"];
    let named = codes(&found);
    assert!(
        !named.iter().any(|code| of_nodes.contains(code)),
        "{named:?}"
    );
    assert!(!found.corrected.contains("dist,"), "{}", found.corrected);
    assert!(found.notes.iter().all(|note| !note.contains("1 node")));
    assert!(!found.unjudged.is_empty());
}

/// An option that a loop makes last has no place behind it but the end of the command.
#[test]
fn a_correction_behind_a_loop_is_part_of_the_command() {
    let (facts, _) = two();
    for end in ["", "\n", "\n\n# done\n", " # start\n", " \"$@\"\n"] {
        let text = format!(
            "args=(-M virt,gic-version=3 -accel kvm -cpu host -smp 4 -m 8G)\nargs+=(-device \
             vfio-pci,id=gpu,host=0009:01:00.0,rombar=0)\nfor n in $(seq 1 8); do \
             args+=(-object acpi-generic-initiator,id=gi$n,pci-dev=gpu,node=$n); \
             done\n[ -n \"${{D:-}}\" ] && args+=(-S)\nqemu-system-aarch64 \"${{args[@]}}\"{end}"
        );
        let corrected = examined(&text, &facts).corrected;
        assert_eq!(corrected.matches("-bios").count(), 1, "{corrected}");
        let lines = |text: &str| text.lines().count();
        assert_eq!(lines(&corrected), lines(&text), "{corrected}");
        let again = examined(&corrected, &facts);
        assert!(!codes(&again).contains(&"firmware-missing"), "{corrected}");
    }
}

/// QEMU wants `-m` to be the sum of the nodes' RAM: without a node's, another size would be needed,
/// which the author alone knows.
#[test]
fn the_ram_of_a_gpus_node_is_removed_where_the_rest_is_the_machines() {
    let (facts, plan) = two();
    let backed = swap(
        &command_line(&plan),
        "node,nodeid=2'",
        "node,nodeid=2,memdev=more' -object memory-backend-ram,id=more,size=1G",
    );
    let found = examined(&backed, &facts);
    assert_eq!(codes(&found), ["node-has-memory"]);
    assert!(found.findings.iter().all(|(_, is_corrected)| *is_corrected));
    let whole = swap(&backed, "-m 8G", "-m 9G");
    let found = examined(&whole, &facts);
    assert_eq!(codes(&found), ["node-has-memory"]);
    assert_eq!(found.corrected, whole);
}

/// Two GPUs in one slot: as functions of it if function 0 says that it has more.
#[test]
fn gpus_share_a_slot_as_its_functions() {
    let (facts, plan) = two();
    let good = command_line(&plan);
    for (first, second, wanted) in [
        ("", ",addr=0.1", &["port-shared"][..]),
        (",addr=0", ",addr=0.0", &["port-shared"]),
        ("", ",addr=0x0", &["port-shared"]),
        (",multifunction=on", ",addr=0.1", &[]),
        ("", ",addr=$SLOT", &[]),
    ] {
        let text = swap(&good, "bus=gpu0.port,", &format!("bus=gpu0.port{first},"));
        let text = swap(&text, "bus=gpu1.port,", &format!("bus=gpu0.port{second},"));
        let found = examined(&text, &facts);
        let port = codes(&found)
            .into_iter()
            .filter(|code| code.starts_with("port-"));
        assert_eq!(
            port.collect::<Vec<_>>(),
            wanted,
            "{first} {second}: {:?}",
            found.findings
        );
        let again = codes(&examined(&found.corrected, &facts));
        assert!(
            !again.iter().any(|code| code.starts_with("port-")),
            "{again:?}: {}",
            found.corrected
        );
    }
}
