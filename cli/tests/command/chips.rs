//! Chips: one without coherent memory, one that is not known, one that no released kernel lists.

use std::fs;

use varia_silicon::machine;

use crate::process::{Folder, ended, varia};

const GPU: &str = "0009:01:00.0";

/// A host whose GPU has another device id, and firmware that gives it coherent memory or not.
fn host_with(device: &str, is_coherent: bool) -> Folder {
    let folder = Folder::new();
    let host = folder.root().join("host");
    machine::GH200.write(&host).unwrap();
    let gpu = host.join("sys/bus/pci/devices").join(GPU);
    let modalias = format!("pci:v000010DEd0000{device}sv000010DEsd00001809bc03sc02i00\n");
    fs::write(gpu.join("modalias"), modalias).unwrap();
    // as on a live host before --probe
    fs::remove_file(gpu.join("config")).unwrap();
    if !is_coherent {
        fs::remove_file(host.join("sys/firmware/acpi/tables/SSDT1")).unwrap();
    }
    folder
}

fn on(folder: &Folder, command: &[&str]) -> std::process::Command {
    let mut command = varia(command);
    command.args(["--sysfs", "host"]).current_dir(folder.root());
    command
}

#[test]
fn a_chip_without_coherent_memory_is_vfio_pcis_and_needs_a_window() {
    let host = host_with("2331", false);
    let text = ended(on(&host, &["list"])).success().stdout;
    for part in [
        "GH100 [H100 PCIe] [10de:2331]",
        "best driver      vfio-pci: H100 has no coherent memory",
        "chip             H100",
        "coherent memory  none",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let text = ended(on(&host, &["doctor"])).stdout;
    for part in ["H100, which has no coherent memory", "512 GiB for 1 GPU;"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let window = [
        "H100",
        "no coherent memory",
        "256 GiB",
        "pref64-reserve=256G",
    ];
    ended(on(&host, &["plan", "--gpu", GPU])).refused(&window);
    ended(varia(["plan", "--gpu", "h100"])).refused(&window);
    ended(varia(["inspect", "h100"])).refused(&window);
    ended(varia(["serve", "b200"])).refused(&["B200", "512 GiB"]);
}

/// A host with an x86-64 CPU and one GPU without coherent memory.
fn x86_host(device: &str, memory: u64, address_bits: u32) -> Folder {
    let folder = host_with(device, false);
    let host = folder.root().join("host");
    let asked = host.join("varia/asked.json");
    let mut facts: serde_json::Value = serde_json::from_slice(&fs::read(&asked).unwrap()).unwrap();
    facts["arch"] = "x86_64".into();
    facts["page_size"] = 4096.into();
    facts["kvm"] = serde_json::json!({ "present": true, "max_vcpus": 1024 });
    fs::write(&asked, facts.to_string()).unwrap();
    let cpuinfo = format!("address sizes\t: {address_bits} bits physical, 57 bits virtual\n");
    fs::write(host.join("proc/cpuinfo"), cpuinfo).unwrap();
    fs::remove_dir_all(host.join("sys/class/iommu")).unwrap();
    fs::create_dir_all(host.join("sys/class/iommu/dmar0")).unwrap();
    // 64-bit and prefetchable, as include/linux/ioport.h has the flags
    let bar = |base: u64, size: u64| format!("{base:#x} {:#x} 0x14220c\n", base + size - 1);
    let none = "0x0 0x0 0x0\n";
    let bars = [
        bar(1 << 45, 16 << 20),
        none.to_owned(),
        bar(1 << 44, memory),
        none.to_owned(),
        bar(1 << 43, 32 << 20),
        none.to_owned(),
    ];
    let gpu = host.join("sys/bus/pci/devices").join(GPU);
    fs::write(gpu.join("resource"), bars.concat()).unwrap();
    folder
}

/// One answer of all commands on x86-64: plain vfio-pci is right, and the BARs have to fit.
#[test]
fn x86_hosts_with_plain_gpus_get_vfio_pci_and_checks_of_bars_and_aperture() {
    let gib = 1 << 30;
    for (device, chip, memory, window, bits, aperture) in [
        ("2330", "H100", 128 * gib, "256G", 46, "ok "),
        ("2335", "H200", 256 * gib, "512G", 52, "ok "),
        ("2901", "B200", 256 * gib, "512G", 40, "failure "),
    ] {
        let host = x86_host(device, memory, bits);
        let right = format!("vfio-pci: {chip} has no coherent memory");
        let listed = ended(on(&host, &["list"])).success().stdout;
        assert!(listed.contains(&right), "{listed}");
        let bound = ended(on(&host, &["bind", GPU, "--dry-run"]))
            .success()
            .stdout;
        assert!(bound.contains(&format!("bound to {right}")), "{bound}");
        let checked = ended(on(&host, &["doctor"])).stdout;
        assert!(
            checked.contains(&format!("{chip}, which has no coherent memory: vfio-pci")),
            "{checked}"
        );
        let line = |check: &str| {
            let own = |line: &&str| line.split_whitespace().any(|word| word == check);
            checked.lines().find(own).unwrap_or_default().to_owned()
        };
        assert!(line("aperture").starts_with(aperture), "{checked}");
        assert!(
            line("aperture").contains(&format!("{bits} bits")),
            "{checked}"
        );
        assert!(
            line("variant-driver").starts_with("not applicable"),
            "{checked}"
        );
        assert!(!checked.contains("modprobe nvgrace"), "{checked}");
        ended(on(&host, &["plan", "--gpu", GPU])).refused(&[
            chip,
            &format!("pref64-reserve={window}"),
            "varia bind",
        ]);
        // a definition of such a VM is not judged, and the reason is said
        let command = format!(
            "qemu-system-x86_64 -M q35,accel=kvm -cpu host -m 16G -device vfio-pci,host={GPU}\n"
        );
        fs::write(host.path("vm.sh"), command).unwrap();
        let explained = ended(on(&host, &["explain", "vm.sh"]));
        assert_eq!(explained.status.code(), Some(3), "{}", explained.stdout);
        let said = explained.stdout.replace('\n', " ");
        assert!(said.contains("plain vfio-pci is right for it"), "{said}");
    }
    // firmware had no room for the large BAR
    let host = x86_host("2330", 128 * gib, 46);
    let gpu = host.root().join("host/sys/bus/pci/devices").join(GPU);
    let bars = fs::read_to_string(gpu.join("resource")).unwrap();
    let unset = bars.replacen("0x14220c", "0x2014220c", 3);
    fs::write(gpu.join("resource"), unset).unwrap();
    let checked = ended(on(&host, &["doctor"])).stdout;
    assert!(
        checked.contains("has no address") && checked.contains("Above 4G Decoding"),
        "{checked}"
    );
}

#[test]
fn a_chip_that_is_not_known_is_said_to_be_so_by_every_command() {
    let host = host_with("2343", true);
    let text = ended(on(&host, &["list"])).success().stdout;
    for part in [
        "chip             not known: probe it",
        "best driver      vfio-pci: no vfio_pci: alias",
        "layout           the chip 10de:2343 is not known",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(
        !text.contains("in a VM, BAR"),
        "no layout is guessed:\n{text}"
    );
    let text = ended(on(&host, &["doctor"])).stdout;
    assert!(text.contains("varia doctor --probe 0009:01:00.0"), "{text}");
    let parts = ["10de:2343", "not known", "varia list --probe"];
    ended(on(&host, &["plan", "--gpu", GPU])).refused(&parts);
}

#[test]
fn vera_rubin_takes_a_window_of_2_tib_and_a_module_that_is_built_for_it() {
    let folder = Folder::new();
    let plan = ended(varia(["plan", "--gpu", "vera-rubin", "--json"])).success();
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let gpu = &plan["gpus"][0];
    assert_eq!(gpu["window"], 2_u64 << 40);
    let bars = gpu["memory"]["device"]["bars"].as_array().unwrap();
    let sizes: Vec<_> = bars.iter().map(|bar| bar["size"].as_u64()).collect();
    assert_eq!(sizes, [Some(16 << 20), Some(512 << 30), Some(512 << 30)]);
    let two = ["plan", "--gpu", "vera-rubin:2-of-one-superchip"];
    ended(varia(two)).success();
    let three = ["plan", "--gpu", "vera-rubin:3-of-one-superchip"];
    ended(varia(three)).refused(&["has 2"]);
    let host = machine::Machine::with("vera-rubin", 1, 1).unwrap();
    host.write(&folder.root().join("host")).unwrap();
    let text = ended(on(&folder, &["list"])).success().stdout;
    for part in [
        "chip             Vera Rubin",
        "UNRELEASED_IDS=y",
        "in a VM, BAR4    512 GiB: usemem, 278 GiB",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
