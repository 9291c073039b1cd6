//! Plans, started: QEMU takes what is rendered for each topology, and its monitor says that it
//! made of it what the plan says. So it does of a plan that was broken and put right again.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::json;
use varia_explain::{Knowledge, examine};
use varia_facts::{Bytes, Facts};
use varia_lab::qemu::Qemu;
use varia_lab::{Arch, Set, packages};
use varia_linux::Tree;
use varia_linux::inventory::{Extent, Inventory};
use varia_plan::{Iommu, Part, Plan, Request, What, arguments, make};
use varia_serve::View;
use varia_silicon::machine::{GB200_NVL4, GB300_NVL4, GH200, GH200_X4, Machine};
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::gpu::Gpu;
use varia_vmtests::qmp::Monitor;

/// Bytes of a table's header.
const HEADER: usize = 36;

/// Facts of a machine, from its files.
fn facts(machine: &Machine) -> Facts {
    let folder = tempfile::tempdir().expect("a temporary folder");
    machine.write(folder.path()).expect("its files");
    let tree = Tree::open(folder.path()).expect("a host");
    let found = Inventory::of(&tree, Extent::Served).expect("an inventory");
    found.facts
}

/// The same of a machine whose kernel serves SMMUs of VMs.
fn facts_with_smmus(machine: &Machine) -> Facts {
    let mut facts = facts(machine);
    let config = facts.kernel.config.as_mut().expect("options");
    for option in ["VFIO_PCI_DMABUF", "ARM_SMMU_V3_IOMMUFD"] {
        config.insert(option.to_owned(), "y".to_owned());
    }
    facts
}

/// The plan for `gpus` of a machine, with firmware that is here.
fn plan(facts: &Facts, gpus: &[What]) -> Plan {
    let firmware = packages::ensure(Set::Guest(Arch::Aarch64))
        .expect("the lab's packages")
        .path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd");
    let request = Request {
        cpus: 8,
        memory: Bytes(8 << 30),
        firmware: Some(firmware.to_string_lossy().into_owned()),
        ..Request::new(gpus.iter().copied())
    };
    make(facts, &request).expect("a plan")
}

fn functions(machine: &Machine) -> Vec<What> {
    let gpus = machine.gpus().into_iter();
    gpus.map(|text| text.parse().expect("an address")).collect()
}

fn starts(machine: &Machine, gpus: &[What]) -> Result<()> {
    starts_as(machine, &plan(&facts(machine), gpus))
}

/// Starts a plan without the hardware and compares what QEMU says with it.
fn starts_as(machine: &Machine, plan: &Plan) -> Result<()> {
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
    tables(&qemu, &plan);
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
    assert_eq!(get("/machine", "highmem-mmio-size"), plan.aperture.0);
}

/// The ties of nodes to functions and the distances, which the monitor does not show: they are in
/// the tables that QEMU makes for the guest's firmware.
fn tables(qemu: &Monitor, plan: &Plan) {
    let mut machine = qemu.fw_cfg();
    let mut expected = BTreeSet::new();
    for gpu in &plan.gpus {
        let root = gpu.bus.expect("a root bus");
        machine.number_bus_behind(root);
        expected.extend(gpu.memory.nodes.clone().map(|node| (node, root + 1, 0)));
    }
    assert_eq!(initiators(&machine.table("SRAT")), expected);
    let slit = machine.table("SLIT");
    let (count, distances) = slit[HEADER..].split_at(8);
    let nodes = plan.distances.len();
    assert_eq!(count, (nodes as u64).to_le_bytes());
    let rows: Vec<_> = distances.chunks(nodes).collect();
    assert_eq!(rows, plan.distances);
}

/// Proximity domain, bus and function of each Generic Initiator. Source: ACPI 6.5, 5.2.16.6.
fn initiators(srat: &[u8]) -> BTreeSet<(u32, u8, u8)> {
    // the header is followed by 12 reserved bytes
    let mut rest = &srat[HEADER + 12..];
    let mut found = BTreeSet::new();
    while let [kind, length, ..] = *rest {
        let (entry, behind) = rest.split_at(usize::from(length));
        rest = behind;
        if kind != 5 {
            continue;
        }
        let domain = u32::from_le_bytes(entry[4..8].try_into().expect("4 bytes"));
        assert_eq!((entry[3], &entry[8..10]), (1, &[0, 0][..]), "a PCI handle");
        assert_eq!(entry[24..28], [1, 0, 0, 0], "enabled");
        assert!(
            found.insert((domain, entry[10], entry[11])),
            "twice: {entry:?}"
        );
    }
    found
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

#[test]
fn two_gpus_with_an_smmu_each() -> Result<()> {
    let plan = plan(&facts_with_smmus(&GB200_NVL4), &[What::OneSuperchip(2)]);
    assert_eq!(plan.iommu, Iommu::Iommufd { smmu: true });
    starts_as(&GB200_NVL4, &plan)
}

/// The SMMUs are what is not there without hardware: QEMU takes all of their options, and then
/// wants KVM.
#[test]
fn smmus_come_as_far_as_software_goes() -> Result<()> {
    let real = plan(&facts_with_smmus(&GB200_NVL4), &[What::OneSuperchip(2)]);
    let smmus: Vec<_> = arguments(&real)
        .into_iter()
        .filter(|argument| argument.part == Part::Smmu)
        .map(|argument| argument.value)
        .collect();
    assert_eq!(smmus.len(), 2);
    let said = |smmu: &str| {
        let plan = real.without_hardware(|_| "/nowhere".into());
        let before = arguments(&plan)
            .into_iter()
            .take_while(|argument| argument.part != Part::RootPort)
            .flat_map(|argument| [argument.option.to_owned(), argument.value]);
        let mut qemu = Qemu::find(Arch::Aarch64).expect("a QEMU").command();
        qemu.args(before).args(["-device", smmu]);
        qemu.args(["-S", "-display", "none", "-nodefaults"]);
        // it ends by itself, unless it takes the device
        let output = Command::new("timeout")
            .arg("60")
            .arg(qemu.get_program())
            .args(qemu.get_args())
            .envs(
                qemu.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .output()
            .expect("QEMU starts");
        assert!(!output.status.success(), "{smmu}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let wants_kvm = "requires KVM";
    let text = said(&smmus[0]);
    assert!(text.contains(wants_kvm), "{text}");
    for (option, wrong) in [("ssidsize=20", "ssidsize=21"), ("ats=on", "ats=20")] {
        let text = said(&smmus[0].replace(option, wrong));
        let (name, _) = option.split_once('=').expect("a name");
        assert!(text.contains(name) && !text.contains(wants_kvm), "{text}");
    }
    Ok(())
}

/// `varia explain` mends a broken plan to one that QEMU takes for the original.
#[test]
fn a_broken_plan_that_was_put_right() -> Result<()> {
    let machine = GB200_NVL4;
    let plan = plan(&facts(&machine), &[What::OneSuperchip(2)]);
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
    tables(&qemu, &plan);
    assert_eq!(qemu.messages(), "", "QEMU has nothing to say");
    Ok(())
}
