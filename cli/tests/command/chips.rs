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
