//! Values that only a shell knows: no rule judges such a value, a part that it may hold, or an option
//! that may come from it, and nothing is changed. Each is listed.

use varia_plan::Plan;

use crate::text::{codes, command_line, examined, swap, two, two_with_smmu};

/// A part of the good command line, and the part with a variable.
const VALUES: &[(&str, &str)] = &[
    ("bus_nr=8", "bus_nr=$BUS"),
    ("bus_nr=8", "bus_nr=$((BUS+1))"),
    ("bus_nr=8", "bus_nr=${1}"),
    ("numa_node=1", "numa_node=$NODE"),
    ("chassis=2", "chassis=$CHASSIS"),
    ("bus=gpu1.root,chassis", "bus=$ROOT,chassis"),
    ("bus=gpu1.port,host", "bus=$PORT,host"),
    ("bus=pcie.0,bus_nr=8,numa_node=0", "bus=pcie.0$MORE"),
    ("chassis=2,pref64-reserve=256G", "chassis=2$MORE"),
    ("gic-version=3", "gic-version=$GIC"),
    (
        "-machine virt,gic-version=3,highmem-mmio-size=1T",
        "-machine $MACHINE",
    ),
    ("highmem-mmio-size=1T", "highmem-mmio-size=${SIZE}"),
    (",highmem-mmio-size=1T", "$SIZE"),
    ("-accel kvm", "-accel $ACCEL"),
    ("-accel kvm", "$ACCEL"),
    ("-cpu host", "-cpu $CPU"),
    ("-cpu host", "$(cat cpu.args)"),
    ("-bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "$FIRMWARE"),
    (
        "-bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
        "-drive $FLASH",
    ),
    ("vfio-pci,id=gpu1", "vfio-pci,id=$ID"),
    (
        "host=0029:01:00.0,rombar=0",
        "host=0029:01:00.0,rombar=$ROM",
    ),
    ("host=0029:01:00.0,rombar=0", "host=0029:01:00.0$MORE"),
    ("-m 8G", "-m $RAM"),
];

/// The same of a command line with iommufd and SMMUs.
const VALUES_WITH_SMMU: &[(&str, &str)] = &[
    (
        "host=0029:01:00.0,rombar=0,iommufd=iommufd0",
        "host=0029:01:00.0,rombar=0$IOMMUFD",
    ),
    (
        "host=0029:01:00.0,rombar=0,iommufd=iommufd0",
        "host=0029:01:00.0,rombar=0,iommufd=$FD",
    ),
    ("-object iommufd,id=iommufd0", "$IOMMUFD"),
    ("primary-bus=gpu1.root", "primary-bus=$ROOT"),
    (
        "primary-bus=gpu1.root,accel=on",
        "primary-bus=gpu1.root,accel=$ACCEL",
    ),
];

#[test]
fn a_value_that_only_a_shell_knows_is_no_fault() {
    for ((facts, plan), rows) in [(two(), VALUES), (two_with_smmu(), VALUES_WITH_SMMU)] {
        let good = expanded(&plan);
        for (known, unknown) in rows {
            let known = match good.contains(known) {
                true => (*known).to_owned(),
                // a value of several words is quoted
                false => quoted(known),
            };
            let text = swap(&good, &known, unknown);
            let found = examined(&text, &facts);
            assert_eq!(codes(&found), [""; 0], "{unknown}: {:?}", found.findings);
            assert_eq!(found.corrected, found.text, "{unknown}");
            let line = 1 + text
                .lines()
                .position(|line| line.contains(unknown))
                .unwrap();
            let mut parts = found.unjudged.iter();
            assert!(
                parts.any(|part| part.line == line),
                "{unknown}: {:?}",
                found.unjudged
            );
        }
    }
}

/// A command line in whose quotes a shell expands variables.
fn expanded(plan: &Plan) -> String {
    command_line(plan).replace('\'', "\"")
}

fn quoted(text: &str) -> String {
    match text.split_once(' ') {
        Some((option, value)) => format!("{option} \"{value}\""),
        None => text.to_owned(),
    }
}

#[test]
fn the_output_of_a_command_is_one_value() {
    let (facts, plan) = two();
    let good = expanded(&plan);
    let text = swap(&good, "host=0029:01:00.0", "host=$GPU");
    let text = format!("GPU=$(lspci -Dnn | grep 10de:2342 | cut -c-12)\n{text}");
    let found = examined(&text, &facts);
    assert_eq!(codes(&found), [""; 0], "{:?}", found.findings);
    assert_eq!(found.gpus.len(), 2, "{:?}", found.gpus);
}

#[test]
fn a_known_fault_beside_an_unknown_value_is_found() {
    let (facts, plan) = two();
    let good = expanded(&plan);
    for (from, to, code) in [
        (
            "vfio-pci,id=gpu1,bus=gpu1.port,",
            "vfio-pci,id=gpu1,bus=nowhere,x-req=$X,",
            "bus-missing",
        ),
        (
            "virt,gic-version=3,",
            "virt,gic-version=2,ras=$RAS,",
            "gic-version",
        ),
        ("-cpu host", "-cpu cortex-a72 $MORE", "cpu-model"),
        ("chassis=2,", "chassis=1,hotplug=$HOTPLUG,", "chassis-twice"),
    ] {
        let text = swap(&good, from, to);
        let found = examined(&text, &facts);
        assert_eq!(codes(&found), [code], "{to}: {:?}", found.findings);
        assert!(!found.unjudged.is_empty(), "{to}");
    }
}
