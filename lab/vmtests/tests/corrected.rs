//! Corrected definitions start: firmware numbers their buses, and the guest finds the GPUs and the
//! disks.

use std::fmt::Write as _;
use std::path::Path;

use varia_explain::{Finding, Knowledge, examine};
use varia_facts::Facts;
use varia_linux::Tree;
use varia_linux::inventory::{Extent, Inventory};
use varia_serve::View;
use varia_silicon::machine::{GB200_NVL4, GH200, Machine};
use varia_silicon::{Options, profile};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::{Result, definition};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cli/tests/cases");

fn facts_of(machine: &Machine) -> Facts {
    let folder = tempfile::tempdir().expect("a temporary folder");
    machine.write(folder.path()).expect("its files");
    let tree = Tree::open(folder.path()).expect("a host");
    Inventory::of(&tree, Extent::Served)
        .expect("an inventory")
        .facts
}

/// A command whose GPU is one of thirty devices, each behind a root port, as libvirt writes it.
fn thirty_devices() -> String {
    let mut text = "qemu-system-aarch64 -machine virt,gic-version=3 -accel kvm -cpu host -m 2G \
                    -smp 2 -bios /usr/share/AAVMF/AAVMF_CODE.fd -nodefaults \\\n"
        .to_owned();
    for port in 0..30 {
        let (slot, function) = (1 + port / 8, port % 8);
        let many = if function == 0 {
            ",\"multifunction\":true"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "-device '{{\"driver\":\"pcie-root-port\",\"chassis\":{},\"id\":\"pci.{}\",\"bus\":\
             \"pcie.0\"{many},\"addr\":\"{slot:#x}.{function:#x}\"}}' \\",
            port + 1,
            port + 1,
        );
    }
    for disk in 0..29 {
        let _ = writeln!(
            text,
            "-blockdev driver=null-co,node-name=disk{disk},size=1048576 \\\n-device \
             '{{\"driver\":\"virtio-blk-pci\",\"drive\":\"disk{disk}\",\"bus\":\"pci.{}\"}}' \\",
            disk + 2
        );
    }
    text + "-device '{\"driver\":\"vfio-pci\",\"host\":\"0009:01:00.0\",\"id\":\"gpu\",\"bus\":\"pci.1\",\
            \"addr\":\"0x0\",\"rombar\":0}'\n"
}

/// A command of q35, whose GPU shares the first root bus with the ports of others.
fn q35() -> String {
    let mut text =
        "qemu-system-x86_64 -M q35 -accel kvm -cpu host -m 2G -smp 2 -nodefaults \\\n".to_owned();
    for port in 0..6 {
        let _ = writeln!(
            text,
            "-device pcie-root-port,id=rp{port},bus=pcie.0,chassis={} \\",
            port + 1
        );
    }
    for disk in 1..6 {
        let _ = writeln!(
            text,
            "-blockdev driver=null-co,node-name=disk{disk},size=1048576 \\\n-device \
             virtio-blk-pci,drive=disk{disk},bus=rp{disk} \\",
        );
    }
    text + "-device vfio-pci,host=0009:01:00.0,id=gpu,bus=rp0\n"
}

/// Corrects a definition, starts it, and checks what the guest finds.
fn boots(
    name: &str,
    text: &str,
    knowledge: &Knowledge<'_>,
    chip: &str,
    disks: usize,
) -> Result<()> {
    let examined = examine(text.as_bytes(), knowledge).expect("a definition");
    assert!(
        !examined.findings.is_empty(),
        "{name} has nothing to correct"
    );
    let again = examine(examined.corrected.as_bytes(), knowledge).expect("a definition");
    let is_new = |(finding, _): &&(Finding, bool)| {
        let known = examined.findings.iter();
        !known.clone().any(|(other, _)| other.what == finding.what)
    };
    let new: Vec<_> = again.findings.iter().filter(is_new).collect();
    assert!(new.is_empty(), "{name}: {new:?}: {}", examined.corrected);
    let profile = profile::find(chip).expect("a profile of the catalogue");
    let gpus = examined.gpus.iter();
    let gpus: Result<Vec<Gpu>> = gpus
        .map(|_| Gpu::serve(profile, View::Virtual, Options::default()))
        .collect();
    let gpus = gpus?;
    let found = definition::started(name, &examined.corrected, &gpus)?;
    definition::check(name, &found, gpus.len(), disks);
    Ok(())
}

/// The definition's host is this machine.
fn on<'a>(facts: &'a Facts) -> Knowledge<'a> {
    Knowledge {
        facts: Some(facts),
        ..Knowledge::default()
    }
}

fn case(file: &str) -> String {
    std::fs::read_to_string(Path::new(CASES).join(file)).expect("a definition")
}

#[test]
fn a_line_with_ten_ports() -> Result<()> {
    let text = case("ten-ports.txt");
    boots("ten ports", &text, &on(&facts_of(&GH200)), "gh200", 0)
}

#[test]
fn a_line_with_thirty_devices() -> Result<()> {
    let (text, facts) = (thirty_devices(), facts_of(&GH200));
    boots("thirty devices", &text, &on(&facts), "gh200", 29)
}

#[test]
fn a_line_with_four_gpus() -> Result<()> {
    let text = case("two-gpus-on-one-smmu.sh");
    boots("four GPUs", &text, &on(&facts_of(&GB200_NVL4)), "gb200", 0)
}

/// No x86-64 host has such a GPU: its chip is named.
#[test]
fn a_line_of_q35() -> Result<()> {
    let facts = facts_of(&GH200);
    let function = facts.functions.iter().find(|one| one.variant.is_some());
    let function = function.expect("a GPU").clone();
    let knowledge = Knowledge {
        named: [("0009:01:00.0".to_owned(), function)].into(),
        ..Knowledge::default()
    };
    boots("q35", &q35(), &knowledge, "gh200", 5)
}
