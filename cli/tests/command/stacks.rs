//! Extended GPU Memory, and stacks that can't be asked (`--assume`).

use serde_json::Value;
use varia_silicon::machine::{self, Machine};

use crate::process::{Ended, Folder, ended, varia};

const EGM: &[&str] = &["--assume", "QEMU=10.1+acpi-egm-memory,arm-smmuv3"];

fn host(machine: &Machine) -> Folder {
    let folder = Folder::new();
    machine.write(&folder.root().join("host")).unwrap();
    folder
}

fn on(folder: &Folder, args: &[&str]) -> Ended {
    let mut command = varia(args.iter().copied());
    command.args(["--sysfs", "host"]).current_dir(folder.root());
    ended(command)
}

/// A plan of GPUs with their sockets' EGM, its check and its explanation.
#[test]
fn extended_gpu_memory_is_planned_checked_and_explained() {
    let folder = host(&machine::GB200_EGM);
    let listed = on(&folder, &["list"]).success().stdout;
    assert!(
        listed.contains("EGM              416 GiB, /dev/egm34"),
        "{listed}"
    );
    let two = ["--gpu", "2-of-one-superchip", "--egm", "--memory", "400G"];
    let plan = |more: &[&str]| {
        let args: Vec<&str> = ["plan"].iter().chain(&two).chain(more).copied().collect();
        on(&folder, &args)
    };
    // QEMU of qemu.org has no object for it
    plan(&[]).refused(&["QEMU 11.1.2", "acpi-egm-memory", "--assume"]);
    let planned = plan(EGM).success();
    assert!(
        planned
            .stderr
            .contains("never ran a VM with Extended GPU Memory"),
        "{}",
        planned.stderr
    );
    for text in [
        "mem-path=/dev/egm34,size=400G,share=on",
        "acpi-egm-memory,id=gpu0.egm,pci-dev=gpu0,node=0",
        "acpi-egm-memory,id=gpu1.egm,pci-dev=gpu1,node=0",
    ] {
        assert!(planned.stdout.contains(text), "{text}: {}", planned.stdout);
    }
    plan(&[EGM[0], EGM[1], "--svg", "plan.svg"]).success();
    let drawn = std::fs::read_to_string(folder.path("plan.svg")).unwrap();
    assert!(drawn.contains("400 GiB of RAM, from /dev/egm34"), "{drawn}");
    // another GPU would reach the VM's memory
    let one = ["plan", "--gpu", "0009:01:00.0", "--egm", EGM[0], EGM[1]];
    on(&folder, &one).refused(&["/dev/egm34", "--gpu 0019:01:00.0"]);
    extended_memory_of_libvirt(&folder, &two);

    std::fs::write(folder.path("vm.sh"), &planned.stdout).unwrap();
    let explained = on(&folder, &["explain", "vm.sh", EGM[0], EGM[1], "--json"]);
    let report: Value = serde_json::from_str(&explained.stdout).unwrap();
    assert_eq!(explained.status.code(), Some(0), "{report:#}");
    assert_eq!(
        report["findings"].as_array().unwrap().len(),
        0,
        "{report:#}"
    );
    // the host's own QEMU lacks the object
    let explained = on(&folder, &["explain", "vm.sh"]);
    assert_eq!(explained.status.code(), Some(1));
    let said = explained.stdout.replace('\n', " ");
    assert!(
        said.contains("uses acpi-egm-memory, and QEMU 11.1.2 does not have it"),
        "{said}"
    );
    let wrong = planned.stdout.replace("/dev/egm34", "/dev/egm35");
    std::fs::write(folder.path("wrong.sh"), wrong).unwrap();
    let explained = on(&folder, &["explain", "wrong.sh", EGM[0], EGM[1]]);
    assert!(
        explained.stdout.contains("egm-socket"),
        "{}",
        explained.stdout
    );

    let checked = on(&folder, &["doctor", "vm.sh", EGM[0], EGM[1]]).stdout;
    assert!(
        checked.contains("/dev/egm34: 416 GiB of EGM for 0009:01:00.0, 0019:01:00.0"),
        "{checked}"
    );
    assert!(checked.contains("RAM is Extended GPU Memory"), "{checked}");
    let json = plan(&[EGM[0], EGM[1], "--json"]).success().stdout;
    std::fs::write(folder.path("plan.json"), json).unwrap();
    let checked = on(&folder, &["doctor", "plan.json", EGM[0], EGM[1]]).stdout;
    assert!(checked.contains("/dev/egm34: 416 GiB of EGM"), "{checked}");
    // a chip's made-up host has it, too
    let made_up = ended(varia(["plan", "--gpu", "gh200", "--egm", EGM[0], EGM[1]])).success();
    assert!(
        made_up.stdout.contains("mem-path=/dev/egm9"),
        "{}",
        made_up.stdout
    );
}

/// The domain of a libvirt that is said to have the element; its own explanation finds nothing.
fn extended_memory_of_libvirt(folder: &Folder, two: &[&str]) {
    let plan = |assumed: &[&str]| {
        let domain = ["plan", "--vmm", "libvirt", EGM[0], EGM[1]];
        let args: Vec<&str> = domain.iter().chain(two).chain(assumed).copied().collect();
        on(folder, &args)
    };
    plan(&[]).refused(&[
        "<memory model='egm'>",
        "not known to have",
        "LIBVIRT=VERSION+egm",
    ]);
    plan(&["--assume", "LIBVIRT=12.8"]).refused(&["libvirt 12.8 is not known to have"]);
    plan(&["--assume", "LIBVIRT=9.0"]).refused(&["libvirt 9.0"]);
    let assumed = ["--assume", "LIBVIRT=11.9+egm,acpi-nodeset"];
    let planned = plan(&assumed).success();
    for text in ["never gave libvirt a domain", "RFC v3"] {
        assert!(planned.stderr.contains(text), "{text}: {}", planned.stderr);
    }
    for text in [
        "<source type='file'/>",
        "<path>/dev/egm34</path>",
        "<size unit='GiB'>200</size>",
        "<pciDev>ua-gpu0</pciDev>",
        "<pciDev>ua-gpu1</pciDev>",
    ] {
        assert!(planned.stdout.contains(text), "{text}: {}", planned.stdout);
    }
    assert!(!planned.stdout.contains("<memnode"), "{}", planned.stdout);
    std::fs::write(folder.path("vm.xml"), &planned.stdout).unwrap();
    let args = [
        "explain", "vm.xml", "--json", EGM[0], EGM[1], assumed[0], assumed[1],
    ];
    let explained = on(folder, &args);
    let report: Value = serde_json::from_str(&explained.stdout).unwrap();
    assert_eq!(explained.status.code(), Some(0), "{report:#}");
    assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
}

#[test]
fn a_plan_for_a_chip_says_what_is_assumed() {
    let said = ended(varia(["plan", "--gpu", "gb300"])).success().stderr;
    for text in [
        "the host of gb300 is made up",
        "memory address",
        "varia inspect gb300",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

/// Versions decide what is planned where nobody can ask the host.
#[test]
fn assumed_versions_stand_for_a_host_that_can_not_be_asked() {
    const KERNEL: &str = "KERNEL=7.0+VFIO_DEVICE_CDEV,VFIO_PCI_DMABUF,ARM_SMMU_V3_IOMMUFD";
    let plan = |assumed: &[&str]| {
        let mut command = varia(["plan", "--gpu", "gh200"]);
        command.args(assumed.iter().flat_map(|one| ["--assume", one]));
        ended(command).success().stdout
    };
    assert!(!plan(&[]).contains("iommufd"));
    let modern = plan(&[KERNEL, "QEMU=11.1"]);
    assert!(
        modern.contains("arm-smmuv3,") && modern.contains("iommufd=iommufd0"),
        "{modern}"
    );
    let older = plan(&[KERNEL, "QEMU=10.1"]);
    assert!(
        older.contains("iommufd=iommufd0") && !older.contains("arm-smmuv3,"),
        "{older}"
    );
    let refused = ["plan", "--gpu", "gh200", "--assume", "QEMU=8.2"];
    ended(varia(refused)).refused(&["QEMU 8.2", "acpi-generic-initiator", "QEMU 9.0"]);
    let mut refused = varia(["plan", "--gpu", "gh200", "--vmm", "libvirt"]);
    refused.args(["--assume", "LIBVIRT=9.0"]);
    ended(refused).refused(&["libvirt 9.0", "<acpi nodeset>", "--vmm qemu"]);
    let refused = ["plan", "--gpu", "gh200", "--assume", "QEMU=ten"];
    ended(varia(refused)).refused(&["QEMU=ten", "QEMU=11.1"]);
    let refused = ["plan", "--gpu", "gh200", "--assume", "QEMU=11.1+smmu"];
    ended(varia(refused)).refused(&["\"smmu\"", "arm-smmuv3.accel"]);

    // a definition that is too new for the assumed stack, and a vendor's build of it
    let folder = Folder::new();
    std::fs::write(folder.path("vm.sh"), &modern).unwrap();
    let explain = |assumed: &str| {
        let chip = "0009:01:00.0=gh200";
        let mut command = varia(["explain", "vm.sh", "--gpu", chip, "--assume", assumed]);
        command.arg("--json").current_dir(folder.root());
        let shown = ended(command);
        let report: Value = serde_json::from_str(&shown.stdout).unwrap();
        (shown.status.code(), crate::cases::codes(&report, "fault"))
    };
    let lacks = vec!["vmm-feature".to_owned(); 4];
    assert_eq!(explain("QEMU=10.1"), (Some(1), lacks));
    let options = "arm-smmuv3.accel,arm-smmuv3.ats,arm-smmuv3.ssidsize";
    assert_eq!(
        explain(&format!("QEMU=10.1+arm-smmuv3,{options}")),
        (Some(0), Vec::new())
    );
    let lacks = |codes: &[&str]| {
        let codes = codes.iter().map(|code| (*code).to_owned());
        (Some(1), codes.collect::<Vec<_>>())
    };
    let (kernel, memory) = ("kernel-feature", "kernel-memory");
    assert_eq!(explain(KERNEL), (Some(0), Vec::new()));
    assert_eq!(explain("KERNEL=6.17"), (Some(0), Vec::new()));
    assert_eq!(explain("KERNEL=6.12"), lacks(&[kernel, memory]));
    assert_eq!(explain("KERNEL=6.5"), lacks(&[kernel, kernel, memory]));
    assert_eq!(explain("KERNEL=5.15"), lacks(&[kernel, memory]));
}
