//! Refusals with the constraint and a request that would satisfy the constraint.

use varia_facts::{Bytes, EgmMemory, Facts, Feature, HostPhys, Libvirt};
use varia_plan::{Error, Kernel, Request, features, make};

use crate::host::{GIB, GPUS, facts, facts_with_egm, facts_with_iommufd, request};

fn refused(facts: &Facts, request: &Request, words: &[&str]) -> Error {
    let error = make(facts, request).expect_err("refused");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    error
}

#[test]
fn gpus_that_are_not_there() {
    let facts = facts();
    refused(&facts, &request(&[]), &["no GPU", "--gpu"]);
    refused(
        &facts,
        &request(&["0000:01:00.0"]),
        &["0000:01:00.0", "varia list"],
    );
    refused(
        &facts,
        &request(&[GPUS[0], GPUS[1], GPUS[0]]),
        &[GPUS[0], "twice"],
    );
    refused(
        &facts,
        &request(&["3-of-one-superchip"]),
        &["3-of-one-superchip", "has 2"],
    );
    refused(
        &facts,
        &request(&[GPUS[0], GPUS[2], "2-of-one-superchip"]),
        &["2-of-one-superchip", "has 1"],
    );
}

#[test]
fn devices_without_coherent_memory() {
    let mut facts = facts();
    facts.functions[0].variant = None;
    refused(&facts, &request(&[GPUS[0]]), &["10de:2941", "varia list"]);
    facts.functions[1].virtual_bars.clear();
    facts.functions[1].layout_note = Some("no property nvidia,gpu-mem-size".to_owned());
    refused(
        &facts,
        &request(&[GPUS[1]]),
        &[GPUS[1], "nvidia,gpu-mem-size", "--probe"],
    );
}

#[test]
fn cpus_and_ram_that_the_sockets_do_not_have() {
    let facts = facts();
    let mut wanted = request(&[GPUS[0], GPUS[2]]);
    wanted.cpus = 1;
    refused(&facts, &wanted, &["1 virtual CPUs", "multiple of 2"]);
    wanted.cpus = 18;
    refused(&facts, &wanted, &["9 virtual CPUs", "8 CPUs", "--no-pin"]);
    wanted.pin = false;
    make(&facts, &wanted).expect("not pinned");
    wanted.memory = Bytes(3 << 20);
    refused(&facts, &wanted, &["3 MiB", "2 MiB"]);
    wanted.memory = Bytes(0);
    refused(&facts, &wanted, &["0 bytes"]);
    wanted.memory = Bytes(130 * GIB);
    refused(&facts, &wanted, &["64 GiB of RAM", "node 0"]);
}

#[test]
fn hugepages_that_are_not_free() {
    let facts = facts();
    let mut wanted = request(&[GPUS[0]]);
    wanted.hugepages = Some(Bytes(2 << 20));
    wanted.memory = Bytes(2 * GIB);
    make(&facts, &wanted).expect("1024 of 1024 free pages");
    wanted.memory = Bytes(3 * GIB);
    refused(
        &facts,
        &wanted,
        &[
            "1024 free",
            "1536 are wanted",
            "echo 2560 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        ],
    );
    wanted.hugepages = Some(Bytes(GIB));
    refused(&facts, &wanted, &["no hugepages of 1 GiB", "(2 MiB)"]);
}

#[test]
fn nodes_apertures_and_names_beyond_what_there_is() {
    let mut facts = facts();
    let mut wanted = request(&GPUS);
    wanted.nodes_per_gpu = 0;
    refused(&facts, &wanted, &["1 node for each GPU"]);
    wanted.nodes_per_gpu = 32;
    refused(&facts, &wanted, &["130 NUMA nodes", "128", "fewer"]);
    wanted.nodes_per_gpu = 8;
    facts.kernel.kvm.ipa_bits = Some(40);
    refused(&facts, &wanted, &["40 bits", "128 GiB", "fewer GPUs"]);
    facts.kernel.kvm.ipa_bits = Some(42);
    make(&facts, &wanted).expect("2 TiB at 2 TiB");
    for name in ["", "-vm", "a b", "a;b", "$(x)", "a'b", "ä"] {
        wanted.name = name.to_owned();
        refused(&facts, &wanted, &["can't name a VM"]);
    }
}

#[test]
fn extended_gpu_memory() {
    let mut wanted = request(&[GPUS[0]]);
    wanted.egm = true;
    refused(
        &facts(),
        &wanted,
        &["Extended GPU Memory", "no device of this host", "--egm"],
    );
    let memory = Bytes(416 * GIB);
    let mut host = facts();
    host.functions[0].egm = Some(EgmMemory {
        base: HostPhys(1 << 40),
        size: memory,
        pxm: 4,
        retired_pages: None,
    });
    refused(
        &host,
        &wanted,
        &["416 GiB", "/sys/class/egm", "nvgrace-egm"],
    );
    let mut host = facts_with_egm();
    host.host.egm[0].has_node = Some(false);
    refused(&host, &wanted, &["/dev/egm4 does not exist"]);
    let mut host = facts_with_egm();
    host.host.egm[0]
        .gpus
        .push(GPUS[1].parse().expect("an address"));
    refused(&host, &wanted, &["/dev/egm4", "--gpu 0019:01:00.0"]);
    let both = Request {
        egm: true,
        ..request(&[GPUS[0], GPUS[1]])
    };
    make(&host, &both).expect("all GPUs of the memory");
    host.host.egm[0].gpus.pop();
    host.host.egm[1]
        .gpus
        .push(GPUS[1].parse().expect("an address"));
    refused(&host, &both, &[GPUS[0], GPUS[1], "not the same"]);
    let mut host = facts_with_egm();
    host.host.egm[0].size = Some(Bytes(GIB));
    refused(&host, &wanted, &["/dev/egm4 has 1 GiB", "8 GiB"]);
    let mut host = facts_with_egm();
    host.vmm.qemu.as_mut().expect("a QEMU").features.clear();
    refused(&host, &wanted, &["QEMU 10.1.0nvidia1", "--assume"]);
    wanted.hugepages = Some(Bytes(2 << 20));
    refused(&facts_with_egm(), &wanted, &["--hugepages"]);
}

#[test]
fn what_the_host_can_not_give_away() {
    let wanted = request(&[GPUS[1]]);
    let mut host = facts();
    host.functions[1].iommu_group = None;
    refused(&host, &wanted, &[GPUS[1], "IOMMU", "varia doctor"]);
    let mut host = facts();
    host.functions[1].open = Some(true);
    let notes = |host: &Facts| make(host, &wanted).expect("for later").notes.join("\n");
    let in_use = |user: &str| format!("{} is in use by {user}: end the process before", GPUS[1]);
    assert!(notes(&host).contains(&in_use("an unknown process")));
    host.functions[1].user = Some("process 7 (qemu)".to_owned());
    assert!(notes(&host).contains(&in_use("process 7 (qemu)")));
    host.functions[1].open = Some(false);
    assert!(!notes(&host).contains("in use"));
    // others in its group
    let beside = |driver: Option<&str>, best: Option<&str>, class: u32| {
        let mut host = facts();
        let mut other = host.functions[1].clone();
        other.bdf = "0019:02:00.0".parse().expect("an address");
        other.class = class;
        other.driver = driver.map(str::to_owned);
        other.best_driver = best.map(str::to_owned);
        host.host.iommu.groups[1].members.push(other.bdf);
        host.functions.push(other);
        host
    };
    let drive = 0x1_0802;
    refused(
        &beside(Some("nvme"), None, drive),
        &wanted,
        &[GPUS[1], "group 1", "0019:02:00.0 (nvme)", "ACS"],
    );
    for (driver, best, class) in [
        (None, None, drive),
        (Some("vfio-pci"), None, drive),
        (
            Some("nvgrace_gpu_vfio_pci"),
            Some("nvgrace-gpu-vfio-pci"),
            0x3_0200,
        ),
        (Some("shpchp"), None, 0x6_0400),
    ] {
        make(&beside(driver, best, class), &wanted).expect("a group that is left to it");
    }
    // and where both are asked for
    let host = beside(Some("nvidia"), None, 0x3_0200);
    refused(&host, &wanted, &["0019:02:00.0 (nvidia)"]);
    make(&host, &request(&[GPUS[1], "0019:02:00.0"])).expect("the whole group");
}

#[test]
fn files_and_words_that_a_vmm_does_not_take() {
    type Change = fn(&mut Request, &str);
    let places: [(&str, Change); 4] = [
        ("--firmware", |request, file| {
            request.firmware = Some(file.to_owned())
        }),
        ("--disk", |request, file| {
            request.disks.push(file.to_owned())
        }),
        ("--kernel", |request, file| {
            request.kernel = Some(Kernel {
                image: file.to_owned(),
                initrd: None,
                append: String::new(),
            });
        }),
        ("--initrd", |request, file| {
            request.kernel = Some(Kernel {
                image: "/vmlinuz".to_owned(),
                initrd: Some(file.to_owned()),
                append: String::new(),
            });
        }),
    ];
    for (option, change) in places {
        for (file, why) in [
            ("guest.img", "absolute"),
            ("", "absolute"),
            ("/a\nb", "'\\n'"),
            ("/a\u{1}", "'\\u{1}'"),
            ("/a\u{85}b", "'\\u{85}'"),
            ("/\u{ffff}", "'\\u{ffff}'"),
        ] {
            let mut wanted = request(&[GPUS[0]]);
            change(&mut wanted, file);
            refused(&facts(), &wanted, &[option, why]);
        }
        let mut wanted = request(&[GPUS[0]]);
        change(&mut wanted, "/a b'c\"<&>ä,d");
        make(&facts(), &wanted).expect("a name that is only unusual");
    }
    let mut wanted = request(&[GPUS[0]]);
    wanted.kernel = Some(Kernel {
        image: "/vmlinuz".to_owned(),
        initrd: None,
        append: "a\u{7}".to_owned(),
    });
    refused(&facts(), &wanted, &["--append", "'\\u{7}'"]);
}

#[test]
fn more_than_the_machine_has_places_for() {
    let mut facts = facts();
    let mut wanted = request(&[GPUS[0]]);
    wanted.pin = false;
    wanted.cpus = u32::MAX;
    refused(&facts, &wanted, &["4294967295", "at most 512"]);
    wanted.cpus = 513;
    refused(&facts, &wanted, &["513", "at most 512"]);
    wanted.cpus = 512;
    make(&facts, &wanted).expect("as many as there can be");
    facts.kernel.kvm.max_vcpus = Some(256);
    refused(&facts, &wanted, &["512", "at most 256"]);
    wanted.cpus = 4;
    wanted.disks = vec!["/a.img".to_owned(); 28];
    refused(&facts, &wanted, &["28 disks", "at most 27"]);
    wanted.disks.pop();
    make(&facts, &wanted).expect("a place for each");
}

/// The plan is made for any VMM; then its programs are asked.
#[test]
fn features_that_qemu_or_libvirt_lacks() {
    let facts = facts_with_iommufd();
    let plan = make(&facts, &request(&[GPUS[0]])).expect("a plan");
    let aperture = "virt.highmem-mmio-size";
    assert!(
        !features::of_qemu(&plan).contains(aperture),
        "the default will do"
    );
    let plan = make(&facts, &request(&[GPUS[0], GPUS[1]])).expect("a plan");
    let used = features::of_qemu(&plan);
    for name in [
        "vfio-pci",
        "vfio-pci.host",
        "acpi-generic-initiator",
        aperture,
        "arm-smmuv3.ats",
    ] {
        assert!(used.contains(name), "{name} is not in {used:?}");
    }
    let feature = |name: &str, present| Feature {
        name: name.to_owned(),
        present,
        ..Feature::default()
    };
    let said = |qemu: &[&str], libvirt: &str, is_domain: bool| {
        let mut vmm = facts.vmm.clone();
        let own = vmm.qemu.as_mut().expect("a QEMU");
        own.features
            .extend(qemu.iter().map(|name| feature(name, false)));
        vmm.libvirt = Some(Libvirt {
            version: libvirt.to_owned(),
            ..Libvirt::default()
        });
        let checked = features::check(&vmm, &plan, is_domain);
        checked.map_err(|error| error.to_string())
    };
    assert_eq!(said(&[], "12.8.0", true), Ok(()));
    assert_eq!(said(&[], "9.0.0", false), Ok(()), "QEMU is started alone");
    // a vendor's build may have it
    assert_eq!(said(&[], "11.9.0", true), Ok(()));
    for (qemu, libvirt, words) in [
        (
            &["acpi-generic-initiator"][..],
            "12.8.0",
            [
                "QEMU 11.1.0 does not have acpi-generic-initiator",
                "QEMU 9.0 or newer",
            ],
        ),
        (
            &["pxb-pcie"],
            "12.8.0",
            ["does not have pxb-pcie", "a build of QEMU"],
        ),
        (
            &[],
            "9.0.0",
            ["libvirt 9.0.0 does not have <acpi nodeset>", "--vmm qemu"],
        ),
    ] {
        let error = said(qemu, libvirt, true).expect_err("refused");
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
    }
}
