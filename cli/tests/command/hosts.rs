//! `varia list` and `varia capture` on the models' machines.

use std::fs;

use serde_json::Value;
use varia_silicon::machine::{self, Machine};

use crate::process::{Folder, ended, varia};

/// A directory with a machine.
fn host(machine: &Machine) -> Folder {
    let folder = Folder::new();
    machine.write(&folder.root().join("host")).unwrap();
    folder
}

fn list(folder: &Folder, args: &[&str]) -> String {
    let mut command = varia(["list", "--sysfs", "host"]);
    command.args(args).current_dir(folder.root());
    ended(command).success().stdout
}

#[test]
fn a_gb200_is_shown_with_what_an_operator_needs() {
    let text = list(&host(&machine::GB200_NVL4), &[]);
    for part in [
        "0009:01:00.0 NVIDIA Corporation GB100 [HGX GB200] [10de:2941]",
        "driver           nvidia",
        "best driver      nvgrace_gpu_vfio_pci: vfio_pci:v000010DEd00002941sv*sd*bc*sc*i* matches",
        "variant          nvgrace-gpu, selected by ids 10de:2941",
        "IOMMU group      1, alone",
        "NUMA node        2, without CPUs; the nearest node with CPUs is 0, CPUs 0-71",
        "coherent memory  184 GiB at 0x420000000000, 8 proximity domains from 2 (_DSD in SSDT1)",
        "in a VM, BAR4    256 GiB: usemem, 184 GiB",
        "0039:01:00.0",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(
        !text.contains("NVMe"),
        "drives are no business of ours:\n{text}"
    );
}

#[test]
fn json_has_a_schema_and_the_same_facts() {
    let listing = list(&host(&machine::GH200), &["--json"]);
    let listing: Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(listing["schema"], "varia-list/1");
    let gpu = &listing["devices"][0];
    assert_eq!(gpu["bdf"], "0009:01:00.0");
    assert_eq!(gpu["best_driver"]["module"], "nvgrace_gpu_vfio_pci");
    assert_eq!(gpu["coherent_memory"]["source"]["acpi-dsd"], "SSDT1");
    let facts = list(&host(&machine::GH200), &["--facts"]);
    let facts: varia_facts::Facts = serde_json::from_str(&facts).unwrap();
    assert_eq!(facts.functions.len(), 4, "all of them");
}

#[test]
fn a_capture_lists_as_its_host_does() {
    let folder = host(&machine::GH200_X4);
    let mut command = varia(["capture", "--config", "--sysfs", "host", "host.tar"]);
    command.current_dir(folder.root());
    let told = ended(command).success().stdout;
    assert!(
        told.contains("10 PCI functions") && told.contains("serve 4"),
        "{told}"
    );
    let mut command = varia(["list", "--json", "--sysfs", "host.tar"]);
    command.current_dir(folder.root());
    let listed = ended(command).success().stdout;
    assert!(listed == list(&folder, &["--json"]), "{listed}");
}

#[test]
fn a_host_without_such_a_device_is_listed_as_empty() {
    let text = list(&host(&machine::NONE), &[]);
    assert!(
        text.starts_with("no variant driver serves a PCI device of this host"),
        "{text}"
    );
}

#[test]
fn a_capture_has_no_registers_to_probe() {
    let folder = host(&machine::GH200);
    let mut command = varia(["list", "--probe", "--sysfs", "host"]);
    command.current_dir(folder.root());
    ended(command).refused(&["captured host has no registers"]);
}

#[test]
fn a_capture_that_can_not_be_written_leaves_nothing() {
    let folder = host(&machine::GH200);
    let mut command = varia(["capture", "--sysfs", "host", "absent/host.tar"]);
    command.current_dir(folder.root());
    ended(command).refused(&["absent/host.tar"]);
    let left: Vec<_> = fs::read_dir(folder.root()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_capture_follows_links_and_replaces_ordinary_files_alone() {
    let folder = host(&machine::GH200);
    let capture = |to: &str| {
        let mut command = varia(["capture", "--sysfs", "host", to]);
        command.current_dir(folder.root());
        ended(command)
    };
    let (real, link) = (folder.root().join("real.tar"), folder.root().join("link"));
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("real.tar", &link).unwrap();
    capture("link").success();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::metadata(&real).unwrap().len() > 1000);
    let pipe = folder.root().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    capture("pipe").refused(&["pipe", "is not a regular file"]);
    capture("host").refused(&["host", "is not a regular file"]);
    std::os::unix::fs::symlink("nowhere", folder.root().join("dangling")).unwrap();
    capture("dangling").refused(&["dangling", "is not a regular file"]);
    // a pipe, which this test reads
    capture("/dev/stdout").refused(&["/dev/stdout", "is not a regular file"]);
    assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 5);
}

#[test]
fn a_list_shows_a_group_and_obeys_no_name_in_it() {
    let folder = host(&machine::GH200);
    let sys = folder.root().join("host/sys");
    let (gpu, drive) = ("0009:01:00.0", "1000:00:00.0");
    let functions = sys.join("bus/pci/devices");
    let link = |from: &std::path::Path| fs::read_link(from).unwrap();
    let group = link(&functions.join(gpu).join("iommu_group"));
    let group = group.file_name().unwrap().to_str().unwrap();
    let members = sys.join("kernel/iommu_groups").join(group).join("devices");
    let to = format!("../../../../bus/pci/devices/{drive}");
    std::os::unix::fs::symlink(to, members.join(drive)).unwrap();
    let driver = functions.join(gpu).join("driver");
    fs::remove_file(&driver).unwrap();
    std::os::unix::fs::symlink("../../drivers/ev\u{1b}[31mil", driver).unwrap();
    let text = list(&folder, &[]);
    let group = format!("IOMMU group      {group}, with {drive} (nvme)");
    assert!(text.contains(&group), "{group:?} is not in\n{text}");
    assert!(text.contains("ev\\u{1b}[31mil"), "{text:?}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn a_list_opens_no_bar() {
    let folder = host(&machine::GH200);
    let whole = list(&folder, &[]);
    let gpu = folder.root().join("host/sys/bus/pci/devices/0009:01:00.0");
    // a captured configuration space is a file as any other
    for name in ["resource0", "resource2", "resource4", "rom"] {
        let file = gpu.join(name);
        let _ = fs::remove_file(&file);
        // opened, it would never answer
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
    }
    assert_eq!(list(&folder, &[]), whole);
}

#[test]
fn a_dry_run_of_bind_tells_driver_reason_and_group_of_any_host() {
    let folder = host(&machine::GB200_NVL4);
    let mut command = varia(["bind", "--dry-run", "--sysfs", "host", "0019:01:00.0"]);
    command.current_dir(folder.root());
    let text = ended(command).success().stdout;
    for part in [
        "0019:01:00.0 would be bound to nvgrace_gpu_vfio_pci",
        "with 5 wildcards",
        "bound to nvidia now, in IOMMU group 3",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// The files of `bind --persist` are read of any host, and a capture has them.
#[test]
fn saved_bindings_are_shown_with_their_faults() {
    let folder = host(&machine::GB200_NVL4);
    let on = |args: &[&str]| {
        let mut command = varia(args);
        command
            .args(["--dry-run", "--sysfs", "host"])
            .current_dir(folder.root());
        ended(command).success().stdout
    };
    let (own, gone) = ("0019:01:00.0.json", "00ff:01:00.0.json");
    let text = on(&["bind", "0019:01:00.0", "--persist"]);
    assert!(
        text.contains(&format!("/etc/varia/bind.d/{own} would be written")),
        "{text}"
    );
    let modalias = folder.path("host/sys/bus/pci/devices/0019:01:00.0/modalias");
    let modalias = fs::read_to_string(modalias).unwrap();
    let saved = |device: &str| {
        serde_json::json!({
            "schema": "varia-bind/1", "device": device, "modalias": modalias.trim(),
            "driver": "vfio-pci", "strict": false,
        })
        .to_string()
    };
    let files = folder.path("host/etc/varia/bind.d");
    fs::create_dir_all(&files).unwrap();
    for (file, text) in [
        (own, saved("0019:01:00.0")),
        (gone, saved("00ff:01:00.0")),
        ("0029:01:00.0.json", "{".to_owned()),
    ] {
        fs::write(files.join(file), text).unwrap();
    }
    let text = list(&folder, &[]);
    for part in [
        format!("at each start    bound to vfio-pci (/etc/varia/bind.d/{own})"),
        "at each start    not bound: /etc/varia/bind.d/0029:01:00.0.json is damaged".to_owned(),
        format!("note: /etc/varia/bind.d/{gone} is of the PCI function 00ff:01:00.0"),
    ] {
        assert!(text.contains(&part), "{part:?} is not in\n{text}");
    }
    let json: Value = serde_json::from_str(&list(&folder, &["--json"])).unwrap();
    let devices = json["devices"].as_array().unwrap();
    let driver = |bdf: &str| {
        let device = devices.iter().find(|device| device["bdf"] == bdf).unwrap();
        device["persistent"]["driver"].clone()
    };
    assert_eq!(driver("0019:01:00.0"), "vfio-pci");
    assert!(driver("0029:01:00.0").is_null() && driver("0009:01:00.0").is_null());
    let text = on(&["unbind", "0029:01:00.0", "00ff:01:00.0"]);
    assert_eq!(
        text,
        format!(
            "/etc/varia/bind.d/0029:01:00.0.json would be removed\n\
             /etc/varia/bind.d/{gone} would be removed\n"
        )
    );
    let mut command = varia(["capture", "--sysfs", "host", "host.tar"]);
    command.current_dir(folder.root());
    ended(command).success();
    let mut captured = varia(["list", "--sysfs", "host.tar"]);
    captured.current_dir(folder.root());
    let saved = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("bind.d"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let captured = saved(&ended(captured).success().stdout);
    assert_eq!(captured, saved(&list(&folder, &[])));
    assert_eq!(captured.len(), 3);
}

#[test]
fn only_this_machine_can_be_changed() {
    let folder = host(&machine::GH200);
    for args in [["bind", "0009:01:00.0"], ["unbind", "0009:01:00.0"]] {
        let mut command = varia(args);
        command
            .args(["--sysfs", "host", "--state", "state"])
            .current_dir(folder.root());
        ended(command).refused(&["host can be read", "--dry-run"]);
    }
}

#[test]
fn what_is_no_address_is_refused_with_an_example() {
    ended(varia(["bind", "gpu0"])).refused(&["gpu0", "0000:01:00.0"]);
}
