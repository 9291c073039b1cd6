//! Plans for valid requests.

use varia_facts::{Bytes, Facts, NodeId};
use varia_plan::{Iommu, IommuChoice, Plan, Source, make};

use crate::host::{GIB, GPUS, facts, facts_with_iommufd, request};

fn functions(plan: &Plan) -> Vec<String> {
    plan.gpus
        .iter()
        .map(|gpu| match &gpu.memory.source {
            Source::Function(bdf) => bdf.to_string(),
            Source::VfioUser(socket) => panic!("{}", socket.display()),
        })
        .collect()
}

#[test]
fn each_gpu_has_nodes_of_its_own_after_those_of_the_sockets() {
    let plan = make(&facts(), &request(&[GPUS[0], GPUS[2]])).expect("a plan");
    assert_eq!(plan.sockets.len(), 2);
    let nodes: Vec<_> = plan
        .gpus
        .iter()
        .map(|gpu| gpu.memory.nodes.clone())
        .collect();
    assert_eq!(nodes, [2..10, 10..18]);
    assert_eq!(plan.nodes(), 18);
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("CONFIG_NODES_SHIFT=5")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_socket_of_the_vm_stands_for_each_socket_of_the_host_that_is_used() {
    let mut wanted = request(&[GPUS[3], GPUS[0]]);
    wanted.cpus = 6;
    wanted.memory = Bytes(6 * GIB);
    let plan = make(&facts(), &wanted).expect("a plan");
    let [first, second] = plan.sockets.as_slice() else {
        panic!("{:?}", plan.sockets)
    };
    // the first GPU is on the host's node 1
    assert_eq!(first.host_node, Some(NodeId(1)));
    assert_eq!((first.vcpus.clone(), second.vcpus.clone()), (0..3, 3..6));
    assert_eq!(
        (&first.pins[..], &second.pins[..]),
        (&[8, 9, 10][..], &[0, 1, 2][..])
    );
    assert_eq!(first.memory, Bytes(3 * GIB));
    assert_eq!(plan.gpus[0].socket, first.node);
    assert_eq!(plan.gpus[1].socket, second.node);
}

#[test]
fn gpus_of_one_superchip_share_a_socket_and_are_not_taken_twice() {
    let plan = make(&facts(), &request(&["2-of-one-superchip"])).expect("a plan");
    assert_eq!(functions(&plan), [GPUS[0], GPUS[1]]);
    // one of the first superchip is somebody else's
    let plan = make(&facts(), &request(&["2-of-one-superchip", GPUS[1]])).expect("a plan");
    assert_eq!(functions(&plan), [GPUS[2], GPUS[3], GPUS[1]]);
    // and one that is open is not free
    let mut facts = facts();
    facts.functions[0].open = Some(true);
    let plan = make(&facts, &request(&["2-of-one-superchip"])).expect("a plan");
    assert_eq!(functions(&plan), [GPUS[2], GPUS[3]]);
}

#[test]
fn what_the_host_says_of_distances_is_taken_over() {
    let mut facts = facts();
    let mut wanted = request(&[GPUS[0], GPUS[2]]);
    wanted.nodes_per_gpu = 2;
    let plan = make(&facts, &wanted).expect("a plan");
    // sockets 37 apart as on the host; its own nodes 80 from a CPU, another's 120; GPUs 160
    assert_eq!(plan.distances[0], [10, 37, 80, 80, 120, 120]);
    assert_eq!(plan.distances[2], [80, 120, 10, 20, 160, 160]);
    // now the GPUs have nodes of their own on the host
    for (id, far) in [(2, vec![71, 99, 10, 150]), (3, vec![99, 71, 150, 10])] {
        facts.host.nodes.push(varia_facts::NumaNode {
            id: NodeId(id),
            distances: far,
            ..Default::default()
        });
    }
    facts.host.nodes[0].distances = vec![10, 37, 72, 98];
    facts.host.nodes[1].distances = vec![37, 10, 98, 72];
    facts.functions[0].numa_node = Some(NodeId(2));
    facts.functions[2].numa_node = Some(NodeId(3));
    let plan = make(&facts, &wanted).expect("a plan");
    assert_eq!(plan.distances[0], [10, 37, 72, 72, 98, 98]);
    assert_eq!(plan.distances[2], [71, 99, 10, 20, 150, 150]);
}

#[test]
fn the_iommu_is_what_can_map_the_gpus_memory() {
    let of = |facts: &Facts, choice| {
        let mut wanted = request(&[GPUS[0]]);
        wanted.iommu = choice;
        make(facts, &wanted).map(|plan| plan.iommu)
    };
    let (plain, mut full) = (facts(), facts_with_iommufd());
    assert_eq!(of(&plain, IommuChoice::Auto), Ok(Iommu::Type1));
    assert_eq!(
        of(&full, IommuChoice::Auto),
        Ok(Iommu::Iommufd { smmu: true })
    );
    assert_eq!(of(&full, IommuChoice::Type1), Ok(Iommu::Type1));
    // an SMMU needs the kernel's part and QEMU's, all of it
    let without_smmu = Ok(Iommu::Iommufd { smmu: false });
    let mut some = full.clone();
    let config = some.kernel.config.as_mut().expect("options");
    config.remove("ARM_SMMU_V3_IOMMUFD");
    assert_eq!(of(&some, IommuChoice::Auto), without_smmu);
    for lost in ["arm-smmuv3.accel", "arm-smmuv3.ats", "arm-smmuv3.ssidsize"] {
        let mut some = full.clone();
        let qemu = some.vmm.qemu.as_mut().expect("QEMU");
        qemu.features.retain(|feature| feature.name != lost);
        assert_eq!(of(&some, IommuChoice::Auto), without_smmu, "{lost}");
    }
    // without dma-bufs of BARs iommufd refuses the memory of the GPUs
    if let Some(config) = &mut full.kernel.config {
        config.remove("VFIO_PCI_DMABUF");
    }
    assert_eq!(of(&full, IommuChoice::Auto), Ok(Iommu::Type1));
    let error = of(&full, IommuChoice::Iommufd).expect_err("no dma-bufs");
    assert!(error.to_string().contains("VFIO_PCI_DMABUF"), "{error}");
}

#[test]
fn without_hardware_only_the_hardware_is_gone() {
    let mut wanted = request(&[GPUS[0], GPUS[2]]);
    wanted.hugepages = Some(Bytes(2 << 20));
    wanted.memory = Bytes(2 * GIB);
    let plan = make(&facts_with_iommufd(), &wanted).expect("a plan");
    let emulated = plan.without_hardware(|index| format!("/run/{index}").into());
    let lines = |plan: &Plan| -> Vec<String> {
        varia_plan::arguments(plan)
            .into_iter()
            .map(|argument| format!("{} {}", argument.option, argument.value))
            .collect()
    };
    let (real, emulated) = (lines(&plan), lines(&emulated));
    let expected: Vec<_> = real.iter().filter_map(|line| substituted(line)).collect();
    assert_eq!(expected, emulated);
    // and all that is substituted was there
    for hardware in [
        "-accel kvm",
        "-cpu host",
        "hugetlb=on,",
        "host-nodes=1,",
        "-object iommufd,",
        "-device arm-smmuv3,",
        "-device vfio-pci,",
    ] {
        assert!(
            real.iter().any(|line| line.contains(hardware)),
            "{hardware}"
        );
    }
}

/// What an argument is without the hardware: itself, but for these.
fn substituted(line: &str) -> Option<String> {
    let words: Vec<_> = line.split(',').collect();
    match words[0] {
        "-accel kvm" => Some("-accel tcg".to_owned()),
        "-cpu host" => Some("-cpu max,pauth-impdef=on".to_owned()),
        "-object iommufd" | "-device arm-smmuv3" => None,
        "-object memory-backend-memfd" => {
            // where the RAM is, and what it is made of
            let gone = [
                "hugetlb=",
                "hugetlbsize=",
                "host-nodes=",
                "policy=",
                "prealloc=",
            ];
            let rest = words
                .into_iter()
                .filter(|word| !gone.iter().any(|name| word.starts_with(name)));
            Some(rest.collect::<Vec<_>>().join(","))
        }
        "-device vfio-pci" => {
            let [_, id, bus, host, "rombar=0", "iommufd=iommufd0"] = words[..] else {
                panic!("{line}");
            };
            assert!(host.starts_with("host="), "{line}");
            let id = id.strip_prefix("id=").expect(line);
            let server = serde_json::json!({
                "driver": "vfio-user-pci",
                "id": id,
                "bus": bus.strip_prefix("bus=").expect(line),
                "socket": {
                    "type": "unix",
                    "path": format!("/run/{}", id.trim_start_matches("gpu")),
                },
            });
            Some(format!("-device {server}"))
        }
        _ => Some(line.to_owned()),
    }
}
