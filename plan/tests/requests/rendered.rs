//! Text that comes of plans.

use varia_plan::{Kernel, Part, affinity, arguments, domain, explain, make};

use crate::host::{GPUS, facts, facts_with_egm, facts_with_iommufd, request};

fn values(plan: &varia_plan::Plan, option: &str) -> Vec<String> {
    arguments(plan)
        .into_iter()
        .filter(|argument| argument.option == option)
        .map(|argument| argument.value)
        .collect()
}

#[test]
fn initiators_and_devices_come_from_the_same_binding() {
    let plan = make(&facts(), &request(&[GPUS[0], GPUS[2]])).expect("a plan");
    let objects = values(&plan, "-object");
    for (gpu, nodes) in [("gpu0", 2..10), ("gpu1", 10..18)] {
        for node in nodes {
            let initiator =
                format!("acpi-generic-initiator,id={gpu}.gi{node},pci-dev={gpu},node={node}");
            assert!(objects.contains(&initiator), "{initiator}: {objects:?}");
        }
    }
    let initiators = objects.iter().filter(|value| value.starts_with("acpi-"));
    assert_eq!(initiators.count(), 16);
    let xml = domain(&plan).expect("XML");
    for nodes in ["<acpi nodeset='2-9'/>", "<acpi nodeset='10-17'/>"] {
        assert!(xml.contains(nodes), "{nodes}: {xml}");
    }
}

#[test]
fn extended_gpu_memory_is_the_ram_of_its_own_socket() {
    let mut wanted = request(&[GPUS[2], GPUS[0]]);
    wanted.egm = true;
    let plan = make(&facts_with_egm(), &wanted).expect("a plan");
    let objects = values(&plan, "-object");
    // node 0 is the socket of the first GPU of the request
    for object in [
        "memory-backend-file,id=ram0,mem-path=/dev/egm5,size=4G,share=on,prealloc=on",
        "memory-backend-file,id=ram1,mem-path=/dev/egm4,size=4G,share=on,prealloc=on",
        "acpi-egm-memory,id=gpu0.egm,pci-dev=gpu0,node=0",
        "acpi-egm-memory,id=gpu1.egm,pci-dev=gpu1,node=1",
    ] {
        assert!(
            objects.iter().any(|own| own == object),
            "{object}: {objects:?}"
        );
    }
    assert!(plan.notes.iter().any(|note| note.contains("never ran")));
    assert!(explain(&plan).iter().any(|(part, _)| *part == Part::Egm));
    let xml = domain(&plan).expect("XML");
    for (path, node, device) in [("/dev/egm5", 0, "gpu0"), ("/dev/egm4", 1, "gpu1")] {
        let (path, device) = (format!("<path>{path}</path>"), format!("ua-{device}"));
        let target = format!("<node>{node}</node>\n        <pciDev>{device}</pciDev>");
        let memory = xml.split("<memory model='egm' access='shared'>").skip(1);
        let own = memory.filter(|one| one.contains(&path) && one.contains(&target));
        assert_eq!(own.count(), 1, "{path} {target}: {xml}");
    }
    let emulated = plan.without_hardware(|index| format!("/run/{index}").into());
    assert!(
        !values(&emulated, "-object")
            .iter()
            .any(|one| one.contains("egm"))
    );
    assert_eq!(
        varia_plan::Plan::from_json(&serde_json::to_string(&plan).expect("JSON")),
        Ok(plan)
    );
}

#[test]
fn the_shares_of_two_gpus_are_the_ram_of_their_socket() {
    let mut facts = facts_with_egm();
    facts.host.egm[0]
        .gpus
        .push(GPUS[1].parse().expect("an address"));
    let mut wanted = request(&[GPUS[0], GPUS[1]]);
    wanted.egm = true;
    wanted.memory = varia_facts::Bytes((8 << 30) + (1 << 20));
    let xml = domain(&make(&facts, &wanted).expect("a plan")).expect("XML");
    for size in ["<size unit='MiB'>4097</size>", "<size unit='GiB'>4</size>"] {
        assert_eq!(xml.matches(size).count(), 1, "{size}: {xml}");
    }
}

#[test]
fn a_machine_with_the_apertures_default_is_not_told_of_it() {
    let plan = make(&facts(), &request(&[GPUS[0]])).expect("a plan");
    assert_eq!(plan.aperture, varia_facts::Bytes(512 << 30));
    assert_eq!(values(&plan, "-machine"), ["virt,gic-version=3"]);
    assert!(!domain(&plan).expect("XML").contains("pcihole64"));
    let machine = explain(&plan).remove(0).1;
    assert!(
        machine.contains("512 GiB, which the machine has by default"),
        "{machine}"
    );
    let two = make(&facts(), &request(&[GPUS[0], GPUS[1]])).expect("a plan");
    assert_eq!(
        values(&two, "-machine"),
        ["virt,gic-version=3,highmem-mmio-size=1T"]
    );
    assert!(
        domain(&two)
            .expect("XML")
            .contains("<pcihole64 unit='TiB'>1</pcihole64>")
    );
}

#[test]
fn a_root_bus_is_on_the_node_of_its_gpus_cpus() {
    let plan = make(
        &facts_with_iommufd(),
        &request(&[GPUS[2], GPUS[0], GPUS[3]]),
    )
    .expect("a plan");
    let devices = values(&plan, "-device");
    for expected in [
        "pxb-pcie,id=gpu0.root,bus=pcie.0,bus_nr=8,numa_node=0",
        "pxb-pcie,id=gpu1.root,bus=pcie.0,bus_nr=16,numa_node=1",
        "pxb-pcie,id=gpu2.root,bus=pcie.0,bus_nr=24,numa_node=0",
        "arm-smmuv3,id=gpu2.smmu,primary-bus=gpu2.root,accel=on,ats=on,ssidsize=20",
        "pcie-root-port,id=gpu1.port,bus=gpu1.root,chassis=2,pref64-reserve=256G",
        "vfio-pci,id=gpu1,bus=gpu1.port,host=0009:01:00.0,rombar=0,iommufd=iommufd0",
    ] {
        assert!(
            devices.contains(&expected.to_owned()),
            "{expected}: {devices:?}"
        );
    }
}

#[test]
fn every_argument_belongs_to_a_part_that_is_explained() {
    for facts in [facts(), facts_with_iommufd()] {
        let mut wanted = request(&GPUS);
        wanted.disks = vec!["/a.qcow2".to_owned()];
        wanted.kernel = Some(Kernel {
            image: "/vmlinuz".to_owned(),
            initrd: Some("/initrd".to_owned()),
            append: String::new(),
        });
        let plan = make(&facts, &wanted).expect("a plan");
        let explained: Vec<_> = explain(&plan).into_iter().map(|(part, _)| part).collect();
        let mut used = Vec::new();
        for argument in arguments(&plan) {
            assert!(explained.contains(&argument.part), "{argument:?}");
            used.push(argument.part);
        }
        // type1 is what QEMU does without being told
        for part in explained {
            assert!(
                used.contains(&part) || part == varia_plan::Part::Iommu,
                "{part:?} has no argument"
            );
        }
    }
}

#[test]
fn tables_have_the_same_initiators() {
    let plan = make(&facts(), &request(&[GPUS[0], GPUS[2]])).expect("a plan");
    let numa = plan.numa().expect("tables");
    let initiators: Vec<_> = numa
        .domains()
        .filter_map(|(domain, content)| Some((domain.0, content.initiators.first()?.to_string())))
        .collect();
    let expected: Vec<_> = (2..10)
        .map(|node| (node, "0000:09:00.0".to_owned()))
        .chain((10..18).map(|node| (node, "0000:11:00.0".to_owned())))
        .collect();
    assert_eq!(initiators, expected);
}

#[test]
fn every_disk_has_a_name_of_its_own() {
    let mut wanted = request(&[GPUS[0]]);
    wanted.disks = (0..27).map(|disk| format!("/{disk}.img")).collect();
    let xml = domain(&make(&facts(), &wanted).expect("a plan")).expect("XML");
    let names: Vec<_> = xml
        .match_indices("<target dev='")
        .filter_map(|(at, start)| xml[at + start.len()..].split('\'').next())
        .collect();
    assert_eq!(names.len(), 27);
    assert_eq!((names[0], names[25], names[26]), ("vda", "vdz", "vdaa"));
}

#[test]
fn pins_are_said_as_each_vmm_has_them() {
    let mut wanted = request(&[GPUS[0], GPUS[2]]);
    let said = |plan: &varia_plan::Plan| {
        let parts = explain(plan);
        let cpus = parts.into_iter().find(|(part, _)| *part == Part::Cpus);
        cpus.expect("CPUs are explained").1
    };
    let plan = make(&facts(), &wanted).expect("a plan");
    assert_eq!(affinity(&plan).expect("pins").to_string(), "0-1,8-9");
    assert!(
        domain(&plan)
            .expect("XML")
            .contains("<vcpupin vcpu='2' cpuset='8'/>")
    );
    let text = said(&plan);
    for part in ["CPUs 8-9 of the host's node 1", "taskset", "0-1,8-9"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    wanted.pin = false;
    let plan = make(&facts(), &wanted).expect("a plan");
    assert_eq!(affinity(&plan), None);
    assert!(!domain(&plan).expect("XML").contains("vcpupin"));
    let text = said(&plan);
    assert!(
        text.contains("None is pinned") && !text.contains("taskset"),
        "{text}"
    );
}

#[test]
fn an_smmu_has_what_shared_virtual_addressing_takes() {
    let plan = make(&facts_with_iommufd(), &request(&[GPUS[0], GPUS[2]])).expect("a plan");
    let xml = domain(&plan).expect("XML");
    for bus in [1, 3] {
        let driver = format!("<driver pciBus='{bus}' accel='on' ats='on' ssidsize='20'/>");
        assert_eq!(xml.matches(&driver).count(), 1, "{driver}: {xml}");
    }
    let parts = explain(&plan);
    let (_, why) = parts
        .iter()
        .find(|(part, _)| *part == Part::Smmu)
        .expect("SMMUs are explained");
    for word in ["accel=on", "ATS", "PASID", "ssidsize=20", "SVA"] {
        assert!(why.contains(word), "{word}: {why}");
    }
}
