//! `varia doctor` on the models' machines, on plans for these machines, and on malformed files.

use std::fs;

use serde_json::Value;
use varia_silicon::machine::{self, Machine};

use crate::process::{Ended, Folder, ended, varia};

const GPU: &str = "0009:01:00.0";

/// A directory with a machine, captured as `host.tar`.
fn host(machine: &Machine) -> Folder {
    let folder = Folder::new();
    machine.write(&folder.root().join("host")).unwrap();
    let mut capture = varia(["capture", "--sysfs", "host", "host.tar"]);
    capture.current_dir(folder.root());
    ended(capture).success();
    folder
}

fn doctor(folder: &Folder, args: &[&str]) -> Ended {
    let mut command = varia(["doctor"]);
    command.args(args).current_dir(folder.root());
    ended(command)
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Findings of a check: subject, severity, text.
fn of<'a>(report: &'a Value, check: &str) -> Vec<(Option<&'a str>, &'a str, &'a str)> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["check"] == check)
        .map(|finding| {
            let text = |name: &str| finding[name].as_str();
            (
                text("subject"),
                text("severity").unwrap(),
                text("found").unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_module_that_takes_the_place_of_a_driver_with_egm_is_told() {
    let folder = Folder::new();
    let host = folder.root().join("host");
    machine::GH200.write(&host).unwrap();
    let release = fs::read_to_string(host.join("proc/sys/kernel/osrelease")).unwrap();
    let modules = host.join("lib/modules").join(release.trim());
    let list = fs::read_to_string(modules.join("modules.dep")).unwrap();
    let egm = "kernel/drivers/vfio/pci/nvgrace-gpu/nvgrace-egm.ko.zst:\n";
    let taint = host.join("sys/module/nvgrace_gpu_vfio_pci");
    fs::create_dir_all(&taint).unwrap();
    for (own, outside, told) in [(egm, "OE", true), (egm, "", false), ("", "OE", false)] {
        fs::write(modules.join("modules.dep"), format!("{list}\n{own}")).unwrap();
        fs::write(taint.join("taint"), outside).unwrap();
        let report = json(&doctor(&folder, &["--json", "--sysfs", "host"]));
        let found = of(&report, "variant-driver");
        let is_told = found.iter().any(|(subject, severity, _)| {
            *severity == "warning" && *subject == Some("nvgrace_egm")
        });
        assert_eq!(is_told, told, "{own:?} {outside:?}: {found:?}");
    }
}

#[test]
fn captured_machines_are_examined_without_failures() {
    for machine in machine::ALL {
        let folder = host(machine);
        let report = doctor(&folder, &["--json", "--sysfs", "host.tar"]).success();
        let report = json(&report);
        assert_eq!(report["schema"], "varia-doctor/1");
        let gpus = machine.gpus();
        assert_eq!(report["devices"].as_array().unwrap().len(), gpus.len());
        for (check, severity) in [
            ("files", "ok"),
            ("iommu", "ok"),
            ("smmu", "ok"),
            ("kernel-options", "ok"),
            ("kvm", "ok"),
            ("cacheable-pfnmap", "ok"),
            ("stage-2-write-back", "ok"),
            ("hugepages", "ok"),
            ("memlock", "ok"),
            ("qemu", "ok"),
            ("qemu-features", "ok"),
            ("libvirt", "ok"),
            ("plan-devices", "not-applicable"),
        ] {
            let found = of(&report, check);
            let all = found.iter().all(|(_, own, _)| *own == severity);
            assert!(
                all && !found.is_empty(),
                "{}: {check}: {found:?}",
                machine.name
            );
        }
        let without = if gpus.is_empty() {
            "not-applicable"
        } else {
            "ok"
        };
        for check in ["group", "firmware", "numa", "node-ids", "aperture"] {
            let found = of(&report, check);
            let all = found.iter().all(|(_, own, _)| *own == without);
            assert!(
                all && !found.is_empty(),
                "{}: {check}: {found:?}",
                machine.name
            );
        }
        // the models' GPUs are bound to the driver for bare metal
        let found = of(&report, "driver");
        let subjects: Vec<_> = found.iter().filter_map(|(subject, ..)| *subject).collect();
        assert_eq!(subjects, gpus, "{}", machine.name);
        let warned = found.iter().all(|(_, severity, _)| *severity == "warning");
        assert!(warned || gpus.is_empty(), "{found:?}");
        let pages = of(&report, "page-size")[0].1;
        assert_eq!(
            pages,
            if machine.page == 4096 {
                "warning"
            } else {
                "ok"
            }
        );
    }
}

#[test]
fn the_text_has_what_the_json_has_and_the_remedies() {
    let folder = host(&machine::GB200_NVL4);
    let text = doctor(&folder, &["--sysfs", "host.tar"]).success().stdout;
    for part in [
        "NVIDIA GB200 NVL4, Linux 6.17.9-64k: 0009:01:00.0, 0019:01:00.0",
        "warning        driver             0009:01:00.0: nvidia; the best for a VM is nvgrace_gpu_vfio_pci",
        "                 run  varia bind 0039:01:00.0",
        "node 2 without CPUs; the nearest node with CPUs is 0, CPUs 0-71",
        "not applicable readiness          0009:01:00.0: registers are read with --probe only",
        " warnings",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn one_device_is_asked_about_by_its_address() {
    let folder = host(&machine::GH200_X4);
    let report = doctor(&folder, &["0019:01:00.0", "--json", "--sysfs", "host.tar"]).success();
    let report = json(&report);
    assert_eq!(report["devices"], serde_json::json!(["0019:01:00.0"]));
    assert_eq!(of(&report, "driver").len(), 1);
    let gone = doctor(&folder, &["0000:77:00.0", "--sysfs", "host.tar"]);
    gone.refused(&["PCI function 0000:77:00.0 does not exist", GPU]);
}

/// Writes a plan for a machine's first GPU into a file of the directory.
fn planned(folder: &Folder, args: &[&str]) {
    let mut plan = varia(["plan", "--gpu", GPU, "--json", "--sysfs", "host"]);
    plan.args(args).current_dir(folder.root());
    let plan = ended(plan).success().stdout;
    fs::write(folder.root().join("plan.json"), plan).unwrap();
}

#[test]
fn a_plan_is_held_against_its_host() {
    let folder = host(&machine::GH200);
    planned(&folder, &["--hugepages", "512M", "--memory", "16G"]);
    let told = doctor(&folder, &["plan.json", "--json", "--sysfs", "host.tar"]);
    assert!(
        !told.status.success(),
        "the GPU is bound to the wrong driver"
    );
    let report = json(&told);
    assert_eq!(report["worst"], "failure");
    assert_eq!(of(&report, "driver")[0].1, "failure");
    assert_eq!(of(&report, "plan-devices")[0].1, "ok");
    assert_eq!(of(&report, "plan-cpus")[0].1, "ok");
    assert!(of(&report, "hugepages")[0].2.contains("the plan needs 32"));

    // bound, and with too few hugepages
    let at = |path: &str| folder.root().join("host").join(path);
    let link = at(&format!("sys/bus/pci/devices/{GPU}")).join("driver");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../../../../bus/pci/drivers/nvgrace_gpu_vfio_pci", &link).unwrap();
    let free = at("sys/devices/system/node/node0/hugepages/hugepages-524288kB/free_hugepages");
    fs::write(&free, "31\n").unwrap();
    let report = json(&doctor(
        &folder,
        &["plan.json", "--json", "--sysfs", "host"],
    ));
    assert_eq!(of(&report, "driver")[0].1, "ok");
    let (subject, severity, found) = of(&report, "hugepages")[0];
    assert_eq!(
        (subject, severity),
        (Some("RAM of the VM's node 0"), "failure")
    );
    assert!(
        found.contains("31 hugepages of 512 MiB") && found.contains("needs 32"),
        "{found}"
    );

    // enough of them
    fs::write(&free, "32\n").unwrap();
    doctor(&folder, &["plan.json", "--json", "--sysfs", "host"]).success();

    // on a host without the device
    let other = host(&machine::NONE);
    fs::copy(folder.path("plan.json"), other.path("plan.json")).unwrap();
    let report = json(&doctor(
        &other,
        &["plan.json", "--json", "--sysfs", "host.tar"],
    ));
    assert_eq!(of(&report, "plan-devices")[0].1, "failure");
}

#[test]
fn files_that_make_no_sense_are_named_and_what_they_tell_is_unknown() {
    let folder = host(&machine::GH200);
    let release = "6.17.9-64k";
    let broken = [
        ("proc/meminfo", "memory"),
        ("varia/asked.json", "page-size"),
        ("varia/asked.json", "kvm"),
        ("varia/asked.json", "memlock"),
        ("varia/programs.json", "qemu"),
        ("varia/programs.json", "libvirt"),
        (&format!("boot/config-{release}"), "kernel-options"),
    ];
    for (path, _) in broken {
        fs::write(
            folder.root().join("host").join(path),
            b"\x1b[31m\xff{\0garbage",
        )
        .unwrap();
    }
    let node = folder
        .root()
        .join("host/sys/devices/system/node/node0/cpulist");
    fs::write(node, "7-3\n").unwrap();
    let told = doctor(&folder, &["--json", "--sysfs", "host"]);
    let report = json(&told);
    for (path, check) in broken {
        let named = format!("/{path}");
        let files = of(&report, "files");
        let file = files.iter().find(|(subject, ..)| *subject == Some(&named));
        assert!(matches!(file, Some((_, "unknown", _))), "{path}: {files:?}");
        let found = of(&report, check);
        assert!(
            found.iter().any(|(_, severity, _)| *severity == "unknown"),
            "{check}: {found:?}"
        );
    }
    let files = of(&report, "files");
    assert!(
        files.iter().any(|(_, _, found)| found.contains("7-3")),
        "{files:?}"
    );
    let text = doctor(&folder, &["--sysfs", "host"]).stdout;
    assert!(!text.contains(['\u{1b}', '\0']), "{text:?}");
}

#[test]
fn what_is_neither_a_device_nor_a_plan_is_refused() {
    let folder = host(&machine::GH200);
    let refused = |args: &[&str], named: &[&str]| {
        let args = [args, &["--sysfs", "host"]].concat();
        doctor(&folder, &args).refused(named);
    };
    refused(
        &["gpu0"],
        &["gpu0", "neither a PCI address", "0009:01:00.0"],
    );
    refused(&["--probe"], &["captured host has no registers"]);
    for text in ["", "{}", "[1]", "{\"schema\": \"varia-plan/99\"}", "\u{0}"] {
        fs::write(folder.root().join("plan.json"), text).unwrap();
        refused(&["plan.json"], &["plan.json", "varia plan --json"]);
    }
    doctor(&folder, &["--facts", "host.tar"]).refused(&["host.tar", "facts"]);
    doctor(&folder, &["--facts", "f", "--probe"]).refused(&["--facts", "--probe"]);
}

#[test]
fn facts_alone_can_be_examined() {
    let folder = host(&machine::GH200);
    let mut list = varia(["list", "--facts", "--sysfs", "host.tar"]);
    list.current_dir(folder.root());
    fs::write(folder.path("facts.json"), ended(list).success().stdout).unwrap();
    let of_facts = doctor(&folder, &["--json", "--facts", "facts.json"]).success();
    let of_host = doctor(&folder, &["--json", "--sysfs", "host.tar"]).success();
    assert_eq!(json(&of_facts)["findings"], json(&of_host)["findings"]);
}

#[test]
fn the_documentation_has_the_checks_that_there_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<_> = rows.collect();
    let expected: Vec<_> = varia_doctor::CHECKS
        .iter()
        .map(|check| {
            let states = check.states.iter().skip(1).map(|state| state.name());
            let states: Vec<_> = states.collect();
            format!(
                "| `{}` | {} | {} |",
                check.name,
                check.about,
                states.join(", ")
            )
        })
        .collect();
    assert_eq!(
        rows,
        expected,
        "docs/doctor.md should have\n{}",
        expected.join("\n")
    );
}
