//! Corrected definitions start: firmware numbers their buses, and the guest finds the GPUs and the
//! disks.
//!
//! A definition is of another host. What can't be had here is replaced, and printed: the function of
//! the host by a vfio-user device with the same id, bus and address; KVM and the host's CPU by
//! software; RAM of the host's by a shared file; firmware, kernel and console by the lab's. Nothing
//! of the topology changes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use varia_explain::{Knowledge, examine};
use varia_facts::Facts;
use varia_lab::initramfs::Archive;
use varia_lab::slots::Slot;
use varia_lab::{Arch, HANG, Kernel, Set, packages};
use varia_linux::Tree;
use varia_linux::inventory::{Extent, Inventory};
use varia_serve::View;
use varia_silicon::machine::{GB200_NVL4, GH200, Machine};
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::command::qemu;
use varia_vmtests::gpu::Gpu;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cli/tests/cases");

/// Script of the guest: shows functions with their ids and their first memory addresses.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t sysfs none /sys
cd /sys/bus/pci/devices
for f in *; do
    read vendor < $f/vendor; read device < $f/device
    n=0
    while read first last flags; do
        case $n in 4) bar4=$first;; esac
        n=$((n+1))
    done < $f/resource
    echo FOUND $f $vendor:$device $bar4
done
echo END
/bin/busybox poweroff -f
";

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

/// A property of `driver,key=value,…` or of JSON.
fn property(value: &str, key: &str) -> Option<String> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(value) {
        return Some(match json.get(key)? {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
    }
    let mut parts = value.split(',').filter_map(|part| part.split_once('='));
    let found = parts.find(|(name, _)| *name == key);
    found.map(|(_, value)| value.to_owned())
}

fn driver(value: &str) -> String {
    property(value, "driver")
        .or_else(|| property(value, "qom-type"))
        .unwrap_or_else(|| value.split(',').next().unwrap_or_default().to_owned())
}

/// `virt,…` without properties that begin with one of these names.
fn without(value: &str, names: &[&str]) -> String {
    let keep = |part: &&str| !names.iter().any(|name| part.starts_with(name));
    value.split(',').filter(keep).collect::<Vec<_>>().join(",")
}

/// RAM of a node of this guest, in MiB.
const NODE: u32 = 2048;

/// Arguments that start a command here, and what was replaced in it.
fn bootable(command: &str, gpus: &[Gpu]) -> (Vec<String>, Vec<String>) {
    let words = shell_words::split(command).expect("a command");
    let mut words = words
        .into_iter()
        .skip_while(|word| !word.contains("qemu-system-"));
    words.next();
    let (mut out, mut replaced) = (Vec::new(), Vec::new());
    let mut gpus = gpus.iter();
    let mut rest = words.peekable();
    let mut nodes = 0;
    while let Some(option) = rest.next() {
        let value = rest
            .next_if(|next| !next.starts_with('-'))
            .unwrap_or_default();
        let kind = driver(&value);
        let new: Option<(&str, String)> = match (option.as_str(), kind.as_str()) {
            ("-device", "vfio-pci" | "vfio-pci-nohotplug") => {
                let gpu = gpus.next().expect("a server for each function");
                let mut device = serde_json::json!({
                    "driver": "vfio-user-pci",
                    "socket": { "type": "unix", "path": gpu.socket().to_string_lossy() },
                });
                for key in ["id", "bus", "addr"] {
                    if let Some(own) = property(&value, key) {
                        device[key] = own.into();
                    }
                }
                Some(("-device", device.to_string()))
            }
            ("-device", "arm-smmuv3") => None,
            ("-object", "iommufd" | "secret") => None,
            ("-object", kind) if kind.starts_with("memory-backend-") => {
                nodes += 1;
                let id = property(&value, "id").expect("an id");
                let backend = format!("memory-backend-memfd,id={id},size={NODE}M,share=on");
                Some(("-object", backend))
            }
            ("-machine" | "-M", _) => {
                let kind = value.split(',').next().unwrap_or_default();
                let kind = kind.split('-').next().unwrap_or_default().to_owned();
                let names = [
                    kind.as_str(),
                    "accel=",
                    "pflash",
                    "memory-backend=",
                    "type=",
                ];
                Some(("-machine", format!("{kind},{}", without(&value, &names))))
            }
            ("-cpu", _) => Some(("-cpu", "max,pauth-impdef=on".to_owned())),
            (
                "-m" | "-accel" | "-enable-kvm" | "-bios" | "-drive" | "-S" | "-chardev" | "-mon",
                _,
            )
            | ("-blockdev", "file" | "raw")
            | ("-sandbox" | "-nographic" | "-display" | "-serial" | "-boot" | "-no-shutdown", _) => {
                None
            }
            ("-blockdev", _) if value.contains("pflash") => None,
            _ => {
                out.push(option);
                out.extend(Some(value).filter(|value| !value.is_empty()));
                continue;
            }
        };
        let text = new
            .as_ref()
            .map(|(option, value)| format!("{option} {value}"));
        replaced.push(format!("{option} {value} -> {}", text.unwrap_or_default()));
        if let Some((option, value)) = new {
            out.extend([option.to_owned(), value]);
        }
    }
    if nodes == 0 {
        panic!("a definition with GPUs has nodes with RAM: {command}");
    }
    let more = [
        "-m".to_owned(),
        format!("{}M", NODE * nodes),
        "-accel".to_owned(),
        "tcg".to_owned(),
    ];
    out.extend(more);
    (out, replaced)
}

/// What the guest of a command finds: lines with address, ids and the address of BAR4.
fn found(name: &str, command: &str, gpus: &[Gpu]) -> Result<Vec<String>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let guest = packages::ensure(Set::Guest(Arch::Aarch64))?;
    let busybox = std::fs::read(guest.path("/usr/bin/busybox")).expect("busybox");
    let mut archive = Archive::new();
    archive
        .folder("sys")
        .folder("dev")
        .character_device("dev/console", 5, 1)
        .file("bin/busybox", 0o755, &busybox)
        .file("init", 0o755, INIT.as_bytes());
    let initrd = folder.path().join("initrd");
    std::fs::write(&initrd, archive.finish()).expect("a file");
    let (arguments, replaced) = bootable(command, gpus);
    println!("{name}: replaced:\n{}", replaced.join("\n"));
    // a guest that hangs does not hold its slot
    let mut run = Command::new("timeout");
    run.arg(HANG.as_secs().to_string())
        .arg(qemu(folder.path(), Arch::Aarch64)?)
        .args(&arguments)
        .args([
            "-display",
            "none",
            "-serial",
            "stdio",
            "-monitor",
            "none",
            "-no-reboot",
        ])
        .arg("-bios")
        .arg(guest.path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"))
        .arg("-kernel")
        .arg(Kernel::of(Arch::Aarch64)?.image)
        .arg("-initrd")
        .arg(&initrd)
        .args([
            "-append",
            "console=ttyAMA0 panic=-1 maxcpus=1 quiet pcie_ports=compat",
        ]);
    let slot = Slot::wait()?;
    let output = run.output().expect("QEMU runs");
    drop(slot);
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && console.contains("END"),
        "{name}: {messages}\n{console}"
    );
    let lines = console
        .lines()
        .filter_map(|line| line.strip_prefix("FOUND "));
    Ok(lines.map(str::to_owned).collect())
}

/// Corrects a definition, starts it, and checks what the guest finds.
fn boots(name: &str, text: &str, machine: &Machine, chip: &str, disks: usize) -> Result<()> {
    let facts = facts_of(machine);
    let knowledge = Knowledge {
        facts: Some(&facts),
        ..Knowledge::default()
    };
    let examined = examine(text.as_bytes(), &knowledge).expect("a definition");
    assert!(
        !examined.findings.is_empty(),
        "{name} has nothing to correct"
    );
    let profile = profile::find(chip).expect("a profile of the catalogue");
    let gpus = examined.gpus.iter();
    let gpus: Result<Vec<Gpu>> = gpus
        .map(|_| Gpu::serve(profile, View::Virtual, Options::default()))
        .collect();
    let gpus = gpus?;
    let found = found(name, &examined.corrected, &gpus)?;
    let seen: Vec<_> = found
        .iter()
        .filter(|line| line.contains(" 0x10de:"))
        .collect();
    assert_eq!(seen.len(), gpus.len(), "{name}: {found:#?}");
    for line in seen {
        let address = line.rsplit(' ').next().unwrap_or_default();
        let address = address.trim_start_matches("0x").trim_start_matches('0');
        assert!(!address.is_empty(), "{name}: {line} has no address");
        // behind a root port of a root bus of its own
        assert!(!line.starts_with("0000:00:"), "{name}: {line}");
    }
    let is_disk = |line: &&String| {
        let ids = [" 0x1af4:0x1001", " 0x1af4:0x1042"];
        ids.iter().any(|id| line.contains(id))
    };
    assert_eq!(
        found.iter().filter(is_disk).count(),
        disks,
        "{name}: {found:#?}"
    );
    Ok(())
}

fn case(file: &str) -> String {
    std::fs::read_to_string(Path::new(CASES).join(file)).expect("a definition")
}

#[test]
fn a_line_with_ten_ports() -> Result<()> {
    boots("ten ports", &case("ten-ports.txt"), &GH200, "gh200", 0)
}

#[test]
fn a_line_with_thirty_devices() -> Result<()> {
    boots("thirty devices", &thirty_devices(), &GH200, "gh200", 29)
}

#[test]
fn a_line_with_four_gpus() -> Result<()> {
    let text = case("two-gpus-on-one-smmu.sh");
    boots("four GPUs", &text, &GB200_NVL4, "gb200", 0)
}
