//! Each check in each of its states, from made-up facts: a host where all is well, and one change.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use varia_facts::{
    Arch, Bdf, Bytes, CoherentMemory, CoherentSource, Facts, Feature, GroupId, Host, HostPhys,
    HugePages, IommuGroup, Kernel, Kvm, Libvirt, Limit, Module, NodeId, NumaNode, PciFunction,
    Qemu, VirtualBar, Vmm,
};
use varia_plan::{Iommu, Plan, Request, What, make};

mod definition_rows;
mod edges;
mod rows;

use definition_rows::DEFINITION_ROWS;
use rows::{ROWS, Row};

use crate::{CHECKS, Finding, Remedy, Scene, Severity, examine, worst};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const GPU: &str = "0009:01:00.0";
const NEIGHBOUR: &str = "0009:01:00.1";
const VARIANT: &str = "nvgrace_gpu_vfio_pci";

fn bdf(text: &str) -> Bdf {
    text.parse().expect(text)
}

/// A Grace host with one GPU that is ready to be given to a VM.
fn good() -> Facts {
    let node = |id: u32, cpus: &str, memory: u64| NumaNode {
        id: NodeId(id),
        cpus: cpus.parse().expect("CPUs"),
        memory: Bytes(memory),
        memory_free: Bytes(memory),
        generic_initiator: id > 0,
        distances: (0..9)
            .map(|other| if other == id { 10 } else { 80 })
            .collect(),
        hugepages: if id == 0 {
            vec![HugePages {
                size: Bytes(512 * MIB),
                total: 64,
                free: 64,
            }]
        } else {
            Vec::new()
        },
        speed: None,
    };
    let mut nodes = vec![node(0, "0-71", 480 * GIB)];
    nodes.extend((1..9).map(|id| node(id, "", 0)));
    let mut host = Host {
        arch: Some(Arch::Aarch64),
        cpus: "0-71".parse().expect("CPUs"),
        midr: Some(0x410f_d4f0),
        memory: Some(Bytes(480 * GIB)),
        memory_available: Some(Bytes(400 * GIB)),
        memlock: Some(Limit::Unlimited),
        nodes,
        ..Host::default()
    };
    host.iommu.instances = vec!["smmu3.0x0000000011000000".to_owned()];
    host.iommu.groups = vec![IommuGroup {
        id: GroupId(1),
        members: vec![bdf(GPU)],
        kind: None,
    }];
    let options = [
        "VFIO",
        "VFIO_PCI",
        "KVM",
        "VFIO_IOMMU_TYPE1",
        "IOMMUFD",
        "VFIO_DEVICE_CDEV",
        "VFIO_PCI_DMABUF",
        "HUGETLBFS",
        "ARM_SMMU_V3",
        "ARM_SMMU_V3_IOMMUFD",
    ];
    let mut config: BTreeMap<_, _> = options.map(|name| (name.to_owned(), "y".to_owned())).into();
    config.insert("NODES_SHIFT".to_owned(), "6".to_owned());
    let module = Module {
        installed: true,
        loaded: true,
        ..Module::default()
    };
    let kernel = Kernel {
        release: Some("6.17.9-64k".to_owned()),
        page_size: Some(Bytes(64 << 10)),
        config: Some(config),
        config_source: Some("boot/config-6.17.9-64k".to_owned()),
        modules: ["vfio", "vfio_pci_core", VARIANT]
            .map(|name| (name.to_owned(), module.clone()))
            .into(),
        vfio_container: Some(true),
        iommufd: Some(true),
        kvm: Kvm {
            present: Some(true),
            cacheable_pfnmap: Some(true),
            ipa_bits: Some(48),
            max_vcpus: Some(512),
            ..Kvm::default()
        },
        ..Kernel::default()
    };
    let features = [
        "vfio-pci",
        "vfio-user-pci",
        "acpi-generic-initiator",
        "iommufd",
        "arm-smmuv3.accel",
        "arm-smmuv3.ats",
        "arm-smmuv3.ssidsize",
        "virt.highmem-mmio-size",
    ];
    let vmm = Vmm {
        qemu: Some(Qemu {
            path: "/usr/bin/qemu-system-aarch64".to_owned(),
            version: "11.1.2".to_owned(),
            features: features
                .map(|name| Feature {
                    name: name.to_owned(),
                    present: true,
                    ..Feature::default()
                })
                .into(),
            ..Qemu::default()
        }),
        libvirt: Some(Libvirt {
            features: Vec::new(),
            version: "12.8.0".to_owned(),
            source: "libvirtd --version".to_owned(),
        }),
        ..Vmm::default()
    };
    let mut facts = Facts::new(host, kernel, vmm);
    facts.functions = vec![gpu()];
    facts
}

fn function(at: &str) -> PciFunction {
    serde_json::from_value(serde_json::json!({
        "bdf": at, "vendor": 0x10de, "device": 0x2342,
        "subsystem_vendor": 0, "subsystem_device": 0, "class": 0x30200,
    }))
    .expect("a function")
}

fn gpu() -> PciFunction {
    let bar = |index, size, memory: Option<&str>| VirtualBar {
        index,
        size: Bytes(size),
        length: Bytes(size),
        prefetchable: true,
        memory: memory.map(str::to_owned),
    };
    PciFunction {
        driver: Some(VARIANT.to_owned()),
        best_driver: Some(VARIANT.to_owned()),
        variant: Some("nvgrace-gpu".to_owned()),
        iommu_group: Some(GroupId(1)),
        numa_node: Some(NodeId(0)),
        cpu_node: Some(NodeId(0)),
        acpi_path: Some("\\_SB_.PC00.RP00.GPU0".to_owned()),
        coherent_memory: Some(CoherentMemory {
            base: HostPhys(0x4_0000_0000),
            size: Bytes(96 * GIB),
            pxm_start: Some(1),
            pxm_count: Some(8),
            source: CoherentSource::AcpiDsd("SSDT1".to_owned()),
        }),
        virtual_bars: vec![
            bar(0, 16 * MIB, None),
            bar(2, GIB, Some("resmem")),
            bar(4, 128 * GIB, Some("usemem")),
        ],
        ready: Some(true),
        ..function(GPU)
    }
}

/// A plan for that host's GPU, on hugepages.
pub(crate) fn plan() -> Plan {
    let request = Request {
        hugepages: Some(Bytes(512 * MIB)),
        firmware: Some("/firmware.fd".to_owned()),
        disks: vec!["/disk.qcow2".to_owned()],
        ..Request::new([What::Function(bdf(GPU))])
    };
    let mut plan = make(&good(), &request).expect("a plan");
    plan.iommu = Iommu::Type1;
    plan
}

/// Scene of a row, for the row to change.
struct Case {
    facts: Facts,
    plan: Option<Plan>,
    definition: Option<crate::Definition>,
    files: BTreeMap<String, bool>,
}

impl Case {
    fn new(plan: Option<Plan>) -> Self {
        Self {
            facts: good(),
            plan,
            definition: None,
            files: [("/firmware.fd", true), ("/disk.qcow2", true)]
                .map(|(name, there)| (name.to_owned(), there))
                .into(),
        }
    }

    fn gpu(&mut self) -> &mut PciFunction {
        &mut self.facts.functions[0]
    }

    fn config(&mut self) -> &mut BTreeMap<String, String> {
        self.facts.kernel.config.as_mut().expect("a configuration")
    }

    fn qemu(&mut self) -> &mut Qemu {
        self.facts.vmm.qemu.as_mut().expect("a QEMU")
    }

    fn without_feature(&mut self, name: &str) {
        for feature in self
            .qemu()
            .features
            .iter_mut()
            .filter(|feature| feature.name == name)
        {
            feature.present = false;
        }
    }

    fn plan(&mut self) -> &mut Plan {
        self.plan.as_mut().expect("a plan")
    }

    /// The host of another architecture, without the GPU.
    fn x86(&mut self) {
        self.facts.host.arch = Some(Arch::X86_64);
        self.facts.functions.clear();
    }

    fn examine(&self) -> Vec<Finding> {
        let devices: Vec<_> = self
            .facts
            .functions
            .iter()
            .filter(|function| function.variant.is_some() || function.best_driver.is_some())
            .map(|one| one.bdf)
            .collect();
        examine(&Scene {
            facts: &self.facts,
            devices: &devices,
            plan: self.plan.as_ref(),
            definition: self.definition.as_ref(),
            files: &self.files,
        })
    }
}

use Severity::{NotApplicable, Warning};

fn text(finding: &Finding) -> String {
    let subject = finding.subject.iter().map(String::as_str);
    let remedies = finding.remedies.iter().map(Remedy::text);
    let parts = subject.chain([finding.found.as_str()]).chain(remedies);
    parts.collect::<Vec<_>>().join("\n")
}

fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(DEFINITION_ROWS)
}

#[test]
fn each_state_of_each_check_is_found_and_says_why() {
    for (row, (name, has_plan, change, severity, part)) in rows().enumerate() {
        let mut case = Case::new(has_plan.then(plan));
        change(&mut case);
        let findings = case.examine();
        let own = || findings.iter().filter(|finding| finding.check == *name);
        let worst = own().map(|finding| finding.severity).max();
        assert_eq!(
            worst,
            Some(*severity),
            "row {row}, {name}: {:#?}",
            own().collect::<Vec<_>>()
        );
        let mut said = own().filter(|finding| finding.severity == *severity);
        assert!(
            said.any(|finding| text(finding).contains(part)),
            "row {row}, {name}: {part:?} is not in {:#?}",
            own().collect::<Vec<_>>()
        );
    }
}

#[test]
fn the_states_that_a_check_names_are_those_that_it_has() {
    for check in CHECKS {
        let rows = rows().filter(|row| row.0 == check.name);
        let seen: BTreeSet<_> = rows.map(|row| row.3).collect();
        assert_eq!(
            seen,
            check.states.iter().copied().collect(),
            "{}",
            check.name
        );
    }
    for (name, ..) in rows() {
        assert!(
            CHECKS.iter().any(|check| check.name == *name),
            "{name} is no check"
        );
    }
}

#[test]
fn a_good_host_and_a_good_plan_have_neither_warnings_nor_failures() {
    for case in [Case::new(None), Case::new(Some(plan()))] {
        let findings = case.examine();
        let worst = worst(&findings);
        assert!(worst <= NotApplicable, "{findings:#?}");
    }
}

#[test]
fn every_check_speaks_whatever_is_known_and_every_failure_says_what_to_do() {
    let cases = rows().map(|(_, has_plan, change, ..)| {
        let mut case = Case::new(has_plan.then(plan));
        change(&mut case);
        case
    });
    let nothing = Case {
        facts: Facts::new(Host::default(), Kernel::default(), Vmm::default()),
        ..Case::new(None)
    };
    for case in cases.chain([nothing]) {
        let findings = case.examine();
        for check in CHECKS {
            let own = findings
                .iter()
                .filter(|finding| finding.check == check.name);
            assert!(own.count() > 0, "{} says nothing", check.name);
        }
        for finding in findings {
            let helps = finding.severity < Warning || !finding.remedies.is_empty();
            assert!(helps, "{finding:#?}");
            assert!(!finding.found.is_empty(), "{finding:#?}");
        }
    }
}

#[test]
fn no_command_takes_what_may_be_the_hosts_disk_or_network() {
    for (class, open, has_command) in [
        (0x04_03_00, None, true),
        (0x04_03_00, Some(false), true),
        (0x04_03_00, Some(true), false),
        (0x01_08_02, None, false),
        (0x02_00_00, Some(false), false),
    ] {
        let mut case = Case::new(None);
        case.facts.functions.push(PciFunction {
            driver: Some("some".to_owned()),
            iommu_group: Some(GroupId(1)),
            class,
            open,
            ..function(NEIGHBOUR)
        });
        let members = &mut case.facts.host.iommu.groups[0].members;
        members.push(bdf(NEIGHBOUR));
        let findings = case.examine();
        let group = findings.iter().find(|one| one.check == "group");
        let remedies = &group.expect("a finding").remedies;
        let runs = |one: &Remedy| matches!(one, Remedy::Command(_));
        assert_eq!(
            remedies.iter().any(runs),
            has_command,
            "{class:#x} {open:?}"
        );
    }
}

#[test]
fn the_hosts_nodes_are_compared_with_those_of_all_its_gpus() {
    let mut case = Case::new(None);
    let second = "0019:01:00.0";
    case.facts.functions.push(PciFunction {
        bdf: bdf(second),
        ..gpu()
    });
    let examined = |facts: &Facts| {
        let findings = examine(&Scene {
            facts,
            devices: &[bdf(second)],
            plan: None,
            definition: None,
            files: &case.files,
        });
        let mut own = findings.into_iter();
        own.find(|finding| finding.check == "node-ids")
            .expect("a finding")
    };
    // the nodes of one GPU of two
    let finding = examined(&case.facts);
    assert_eq!(finding.severity, Warning, "{finding:#?}");
    // there is room for all
    assert!(!text(&finding).contains("NODES_SHIFT"), "{finding:#?}");
    let mut whole = case.facts.clone();
    let node = whole.host.nodes[8].clone();
    whole.host.nodes.extend((9..17).map(|id| NumaNode {
        id: NodeId(id),
        ..node.clone()
    }));
    assert_eq!(examined(&whole).severity, Severity::Ok);
}

/// Changes one value of a JSON document to one that is as far out as can be.
fn spoil(json: &mut Value, random: &mut fastrand::Rng) {
    let children = match json {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => 0,
    };
    if children > 0 && random.u8(..8) > 0 {
        let nth = random.usize(..children);
        let child = match json {
            Value::Object(map) => map.values_mut().nth(nth),
            Value::Array(list) => list.get_mut(nth),
            _ => None,
        };
        return child.into_iter().for_each(|child| spoil(child, random));
    }
    const NUMBERS: [u64; 6] = [0, 1, 5, 63, 0xffff_ffff, u64::MAX];
    const TEXTS: [&str; 3] = ["", "0-4294967295", "11.1"];
    // mostly of its own kind: others are refused when it is read
    *json = match json {
        Value::Number(_) => NUMBERS[random.usize(..NUMBERS.len())].into(),
        Value::Bool(is) => (!*is).into(),
        Value::String(_) if random.bool() => TEXTS[random.usize(..TEXTS.len())].into(),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    };
}

#[test]
fn whatever_facts_and_plans_say_no_check_panics() {
    let mut random = fastrand::Rng::with_seed(243);
    let mut examined = 0;
    let whole = serde_json::to_value(good()).expect("JSON");
    let planned = serde_json::to_value(plan()).expect("JSON");
    let case = Case::new(None);
    for _ in 0..3000 {
        let (mut facts, mut spoilt) = (whole.clone(), planned.clone());
        for _ in 0..random.u8(1..3) {
            spoil(&mut facts, &mut random);
            if random.bool() {
                spoil(&mut spoilt, &mut random);
            }
        }
        let plan = Plan::from_json(&spoilt.to_string());
        let (Result::Ok(facts), Result::Ok(plan)) = (serde_json::from_value(facts), plan) else {
            continue;
        };
        examined += 1;
        let case = Case {
            facts,
            plan: Some(plan),
            definition: None,
            files: case.files.clone(),
        };
        assert!(case.examine().len() >= CHECKS.len());
    }
    assert!(examined > 500, "only {examined} could be read");
}
