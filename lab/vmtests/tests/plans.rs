//! Plans, started: QEMU takes what is rendered for each topology, and its monitor says that it
//! made of it what the plan says. So it does of a plan that was broken and put right again.

use serde_json::json;
use varia_facts::{Bytes, Facts};
use varia_lab::{Arch, Set, packages};
use varia_linux::Tree;
use varia_linux::inventory::{Extent, Inventory};
use varia_plan::definition::{Knowledge, examine};
use varia_plan::{Plan, Request, What, arguments, make};
use varia_serve::View;
use varia_silicon::machine::{GB200_NVL4, GB300_NVL4, GH200, GH200_X4, Machine};
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::gpu::Gpu;
use varia_vmtests::qmp::Monitor;

/// What is known of a machine, from its files.
fn facts(machine: &Machine) -> Facts {
    let folder = tempfile::tempdir().expect("a temporary folder");
    machine.write(folder.path()).expect("its files");
    let tree = Tree::open(folder.path()).expect("a host");
    let found = Inventory::of(&tree, Extent::Served).expect("an inventory");
    found.facts
}

/// The plan for `gpus` of a machine, with firmware that is here.
fn plan(machine: &Machine, gpus: &[What]) -> Plan {
    let firmware = packages::ensure(Set::Guest(Arch::Aarch64))
        .expect("the lab's packages")
        .path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd");
    let request = Request {
        cpus: 8,
        memory: Bytes(8 << 30),
        firmware: Some(firmware.to_string_lossy().into_owned()),
        ..Request::new(gpus.iter().copied())
    };
    make(&facts(machine), &request).expect("a plan")
}

fn functions(machine: &Machine) -> Vec<What> {
    let gpus = machine.gpus().into_iter();
    gpus.map(|text| text.parse().expect("an address")).collect()
}

/// Starts a plan without the hardware and compares what QEMU says with it.
fn starts(machine: &Machine, gpus: &[What]) -> Result<()> {
    let plan = plan(machine, gpus);
    let chip = profile::find(machine.chip.expect("a chip")).expect("a profile");
    let served = plan
        .gpus
        .iter()
        .map(|_| Gpu::serve(chip, View::Virtual, Options::default()))
        .collect::<Result<Vec<_>>>()?;
    let plan = plan.without_hardware(|index| served[index].socket());
    let words: Vec<_> = arguments(&plan)
        .into_iter()
        .flat_map(|argument| [argument.option.to_owned(), argument.value])
        .collect();
    let mut qemu = Monitor::start(Arch::Aarch64, &words);
    nodes(&mut qemu, &plan);
    devices(&mut qemu, &plan);
    assert_eq!(qemu.messages(), "", "QEMU has nothing to say");
    Ok(())
}

/// CPUs and RAM of each node; the GPUs' have neither.
fn nodes(qemu: &mut Monitor, plan: &Plan) {
    let text = qemu.human("info numa");
    assert!(
        text.starts_with(&format!("{} nodes", plan.nodes())),
        "{text}"
    );
    for node in 0..plan.nodes() {
        let socket = plan.sockets.iter().find(|socket| socket.node.0 == node);
        let ram = socket.map_or(0, |socket| socket.memory.0 >> 20);
        let line = format!("node {node} size: {ram} MB");
        assert!(text.contains(&line), "{line}: {text}");
        let cpus: String = socket
            .map(|socket| socket.vcpus.clone().map(|cpu| format!(" {cpu}")).collect())
            .unwrap_or_default();
        let line = format!("node {node} cpus:{cpus}\r\n");
        assert!(text.contains(&line), "{line:?}: {text:?}");
    }
}

/// Each GPU, its port, its root bus, and the initiators that tie its nodes to it.
fn devices(qemu: &mut Monitor, plan: &Plan) {
    let mut get = |path: &str, property: &str| {
        qemu.ask("qom-get", &json!({ "path": path, "property": property }))
    };
    for gpu in &plan.gpus {
        let id = &gpu.memory.device.id;
        let name = |what: &str| format!("/machine/peripheral/{id}{what}");
        assert_eq!(get(&name(""), "type"), "vfio-user-pci");
        let port = format!("{}/{id}.port", name(".port"));
        assert_eq!(get(&name(""), "parent_bus"), port);
        // its name has two forms
        let bus = get(&name(".port"), "parent_bus");
        let bus = bus.as_str().expect("a path");
        assert!(bus.ends_with(&format!("/{id}.root")), "{bus}");
        assert_eq!(get(&name(".root"), "numa_node"), gpu.socket.0);
        assert_eq!(get(&name(".root"), "bus_nr"), gpu.bus.expect("a root bus"));
        assert_eq!(get(&name(".port"), "pref64-reserve"), gpu.window.0);
    }
    let objects = qemu.ask("qom-list", &json!({ "path": "/objects" }));
    let initiators = objects
        .as_array()
        .expect("a list")
        .iter()
        .filter(|object| object["type"] == "child<acpi-generic-initiator>")
        .count();
    let wanted: usize = plan.gpus.iter().map(|gpu| gpu.memory.nodes.len()).sum();
    assert_eq!(initiators, wanted, "{objects}");
}

#[test]
fn one_gh200() -> Result<()> {
    starts(&GH200, &functions(&GH200))
}

#[test]
fn four_gh200() -> Result<()> {
    starts(&GH200_X4, &functions(&GH200_X4))
}

#[test]
fn two_gpus_of_one_superchip() -> Result<()> {
    starts(&GB200_NVL4, &[What::OneSuperchip(2)])
}

#[test]
fn one_gb200() -> Result<()> {
    starts(&GB200_NVL4, &functions(&GB200_NVL4)[..1])
}

#[test]
fn one_gb300() -> Result<()> {
    starts(&GB300_NVL4, &functions(&GB300_NVL4)[..1])
}

/// What `varia explain` puts right is what the plan was, for QEMU.
#[test]
fn a_broken_plan_that_was_put_right() -> Result<()> {
    let machine = GB200_NVL4;
    let plan = plan(&machine, &[What::OneSuperchip(2)]);
    let chip = profile::find(machine.chip.expect("a chip")).expect("a profile");
    let served = [0, 1]
        .map(|_| Gpu::serve(chip, View::Virtual, Options::default()))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let plan = plan.without_hardware(|index| served[index].socket());
    let mut text = "qemu-system-aarch64".to_owned();
    let gone = [
        "id=gpu0.gi3",
        "pci-dev=gpu1",
        "nodeid=9",
        "dst=9,",
        "src=9,",
        "id=gpu1.root,",
    ];
    for one in arguments(&plan) {
        if gone.iter().any(|part| one.value.contains(part)) {
            continue;
        }
        let (value, _) = one
            .value
            .split_once(",pref64-reserve")
            .unwrap_or((&one.value, ""));
        let value = match one.option {
            "-machine" => "virt",
            _ => value,
        };
        text += &format!(" \\\n  {} {}", one.option, shell_words::quote(value));
    }
    let gpu = facts(&machine)
        .functions
        .into_iter()
        .find(|one| one.coherent_memory.is_some());
    let gpu = gpu.expect("a GPU");
    let knowledge = Knowledge {
        named: ["gpu0", "gpu1"]
            .map(|id| (id.to_owned(), gpu.clone()))
            .into(),
        ..Knowledge::default()
    };
    let found = examine(text.as_bytes(), &knowledge).expect("a definition");
    let mut codes: Vec<_> = found
        .findings
        .iter()
        .map(|(one, _)| one.code.name())
        .collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(
        codes,
        [
            "aperture-too-small",
            "bus-missing",
            "gic-version",
            "initiator-missing",
            "node-gap",
            "root-port-window",
        ],
        "{text}"
    );
    let words = shell_words::split(&found.corrected).expect("words");
    let mut qemu = Monitor::start(Arch::Aarch64, &words[1..]);
    nodes(&mut qemu, &plan);
    devices(&mut qemu, &plan);
    assert_eq!(qemu.messages(), "", "QEMU has nothing to say");
    Ok(())
}
