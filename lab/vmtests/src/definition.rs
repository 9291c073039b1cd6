//! Definitions that start in a VM of the lab: firmware numbers their buses, and the guest says which
//! functions it finds.
//!
//! A definition is of another host. What can't be had here is replaced, and printed: the function of
//! the host by a vfio-user device with the same id, bus and address; accelerated SMMUs by none; KVM
//! and the host's CPU by software; RAM of the host's by a shared file; disks' files, networks and
//! consoles by empty ones; firmware and kernel by the lab's. Nothing of the topology changes.

use std::process::Command;

use serde_json::{Value, json};
use varia_lab::initramfs::Archive;
use varia_lab::slots::Slot;
use varia_lab::{Arch, HANG, Kernel, Set, packages};

use crate::Result;
use crate::command::qemu;
use crate::gpu::Gpu;

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

/// RAM of a node of this guest, in MiB.
const NODE: u32 = 2048;
/// Options of firmware, console, kernel and start, for which the lab has its own.
const REPLACED: [&str; 25] = [
    "-m",
    "-accel",
    "-enable-kvm",
    "-bios",
    "-drive",
    "-mon",
    "-monitor",
    "-qmp",
    "-sandbox",
    "-display",
    "-nographic",
    "-vnc",
    "-serial",
    "-boot",
    "-kernel",
    "-initrd",
    "-append",
    "-msg",
    "-uuid",
    "-D",
    "-pidfile",
    "-runas",
    "-S",
    "-no-shutdown",
    "-daemonize",
];

/// A property of `driver,key=value,…` or of JSON.
fn property(value: &str, key: &str) -> Option<String> {
    if let Ok(json) = serde_json::from_str::<Value>(value) {
        return Some(match json.get(key)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
    }
    let mut parts = value.split(',').filter_map(|part| part.split_once('='));
    let found = parts.find(|(name, _)| *name == key);
    found.map(|(_, value)| value.to_owned())
}

/// Type of a device, object, backend or block driver.
fn driver(value: &str) -> String {
    let named = ["driver", "qom-type", "type"].into_iter();
    named
        .filter_map(|key| property(value, key))
        .next()
        .unwrap_or_else(|| value.split(',').next().unwrap_or_default().to_owned())
}

/// `virt,…` without properties that begin with one of these names.
fn without(value: &str, names: &[&str]) -> String {
    let keep = |part: &&str| !names.iter().any(|name| part.starts_with(name));
    value.split(',').filter(keep).collect::<Vec<_>>().join(",")
}

/// A command that starts here.
struct Bootable {
    arch: Arch,
    arguments: Vec<String>,
    /// Each replaced option, with the new one.
    replaced: Vec<String>,
}

/// Value of an option here.
enum Here {
    /// The definition's.
    Same,
    /// Another value.
    Other(String),
    /// The option is left out.
    Absent,
}

fn here(option: &str, value: &str, arch: Arch, sockets: &mut impl Iterator<Item = String>) -> Here {
    let kind = driver(value);
    let get = |key: &str| property(value, key);
    let id = || get("id").expect("an id");
    match (option, kind.as_str()) {
        ("-device", "vfio-pci" | "vfio-pci-nohotplug") => {
            let socket = sockets.next().expect("a server for each function");
            let mut device = json!({
                "driver": "vfio-user-pci",
                "socket": { "type": "unix", "path": socket },
            });
            for key in ["id", "bus", "addr"] {
                if let Some(own) = get(key) {
                    device[key] = own.into();
                }
            }
            Here::Other(device.to_string())
        }
        ("-device", "arm-smmuv3") | ("-object", "iommufd" | "secret" | "thread-context") => {
            Here::Absent
        }
        // the file of its ROM is not here
        ("-device", kind) if kind.starts_with("virtio-net-") => {
            Here::Other(match serde_json::from_str(value) {
                Ok(Value::Object(mut device)) => {
                    device.insert("romfile".to_owned(), "".into());
                    Value::Object(device).to_string()
                }
                _ => format!("{value},romfile="),
            })
        }
        ("-object", kind) if kind.starts_with("memory-backend-") => Here::Other(format!(
            "memory-backend-memfd,id={},size={NODE}M,share=on",
            id()
        )),
        ("-machine" | "-M", _) => {
            let kind = value.split(',').next().unwrap_or_default();
            let kind = kind.split('-').next().unwrap_or_default();
            let names = [kind, "accel=", "pflash", "memory-backend=", "type="];
            let rest = without(value, &names);
            let comma = if rest.is_empty() { "" } else { "," };
            Here::Other(format!("{kind}{comma}{rest}"))
        }
        ("-cpu", _) if arch == Arch::Aarch64 => Here::Other("max,pauth-impdef=on".to_owned()),
        ("-cpu", _) => Here::Other("max".to_owned()),
        ("-blockdev", "null-co") => Here::Same,
        ("-blockdev", _) if value.contains("pflash") => Here::Absent,
        ("-blockdev", _) => {
            let read_only = get("read-only").unwrap_or_default();
            let is_read_only = ["on", "true"].contains(&read_only.as_str());
            let device = json!({
                "driver": "null-co",
                "node-name": get("node-name").expect("a name"),
                "size": 1 << 20,
                "read-only": is_read_only,
            });
            Here::Other(device.to_string())
        }
        ("-netdev", _) => Here::Other(format!("hubport,hubid=0,id={}", id())),
        ("-chardev", _) => Here::Other(format!("null,id={}", id())),
        _ if REPLACED.contains(&option) => Here::Absent,
        _ => Here::Same,
    }
}

/// Arguments that start a command here, and what was replaced in the command.
fn bootable(command: &str, gpus: &[Gpu]) -> Bootable {
    let words = shell_words::split(command).expect("a command");
    let mut words = words
        .into_iter()
        .skip_while(|word| !word.contains("qemu-system-"));
    let program = words.next().expect("a program");
    let arch = match program.ends_with("x86_64") {
        true => Arch::X86_64,
        false => Arch::Aarch64,
    };
    let mut sockets = gpus
        .iter()
        .map(|gpu| gpu.socket().to_string_lossy().into_owned());
    let (mut arguments, mut replaced) = (Vec::new(), Vec::new());
    let mut rest = words.peekable();
    let mut nodes = 0;
    while let Some(option) = rest.next() {
        let value = rest.next_if(|next| !next.starts_with('-'));
        let value = value.unwrap_or_default();
        let here = here(&option, &value, arch, &mut sockets);
        nodes += u32::from(option == "-object" && driver(&value).starts_with("memory-backend-"));
        match &here {
            Here::Same => {}
            Here::Other(other) => replaced.push(format!("{option} {value} -> {other}")),
            Here::Absent => replaced.push(format!("{option} {value} -> ")),
        }
        let value = match here {
            Here::Same => value,
            Here::Other(other) => other,
            Here::Absent => continue,
        };
        arguments.push(option);
        arguments.extend(Some(value).filter(|value| !value.is_empty()));
    }
    assert!(
        sockets.next().is_none(),
        "{command}: each GPU has a function"
    );
    assert!(
        nodes > 0,
        "a definition with GPUs has nodes with RAM: {command}"
    );
    arguments.extend(["-m".to_owned(), format!("{}M", NODE * nodes)]);
    arguments.extend(["-accel".to_owned(), "tcg".to_owned()]);
    Bootable {
        arch,
        arguments,
        replaced,
    }
}

/// A function that the guest finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Address in the guest.
    pub address: String,
    /// Vendor and device, as `10de:2342`.
    pub ids: String,
    /// Begin of BAR4, 0 if firmware gave it none.
    pub bar4: u64,
}

impl Found {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("FOUND ")?.split(' ');
        let address = words.next()?.to_owned();
        let ids = words.next()?.replace("0x", "");
        let bar4 = u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
        Some(Self { address, ids, bar4 })
    }
}

/// Functions that the guest of a command finds, with a server for each function of the host.
///
/// # Errors
/// Errors of the lab.
///
/// # Panics
/// If the VM does not start, or if the guest does not end.
pub fn started(name: &str, command: &str, gpus: &[Gpu]) -> Result<Vec<Found>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Bootable {
        arch,
        arguments,
        replaced,
    } = bootable(command, gpus);
    println!("{name}: replaced:\n{}", replaced.join("\n"));
    let guest = packages::ensure(Set::Guest(arch))?;
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
    let console = match arch {
        Arch::Aarch64 => "ttyAMA0",
        Arch::X86_64 => "ttyS0",
    };
    // a guest that hangs does not hold its slot
    let mut run = Command::new("timeout");
    run.arg(HANG.as_secs().to_string())
        .arg(qemu(folder.path(), arch)?)
        .args(&arguments)
        .args(["-display", "none", "-serial", "stdio"])
        .args(["-monitor", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(Kernel::of(arch)?.image)
        .arg("-initrd")
        .arg(&initrd)
        .arg("-append")
        .arg(format!(
            "console={console} panic=-1 maxcpus=1 quiet pcie_ports=compat"
        ));
    if arch == Arch::Aarch64 {
        let firmware = guest.path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd");
        run.arg("-bios").arg(firmware);
    }
    let slot = Slot::wait()?;
    let output = run.output().expect("QEMU runs");
    drop(slot);
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && console.contains("END"),
        "{name}: {messages}\n{console}"
    );
    Ok(console.lines().filter_map(Found::read).collect())
}

/// Checks that a guest finds each GPU behind a root bus of its own, with a place for its memory, and
/// its virtio disks.
///
/// # Panics
/// If it does not.
pub fn check(name: &str, found: &[Found], gpus: usize, disks: usize) {
    let seen: Vec<_> = found
        .iter()
        .filter(|one| one.ids.starts_with("10de:"))
        .collect();
    assert_eq!(seen.len(), gpus, "{name}: {found:#?}");
    for gpu in seen {
        assert_ne!(gpu.bar4, 0, "{name}: {gpu:?} has no address");
        // behind a root port of a root bus of its own
        assert!(!gpu.address.starts_with("0000:00:"), "{name}: {gpu:?}");
    }
    let is_disk = |one: &&Found| ["1af4:1001", "1af4:1042"].contains(&one.ids.as_str());
    let seen = found.iter().filter(is_disk).count();
    assert_eq!(seen, disks, "{name}: {found:#?}");
}
