//! A guest inside a host machine: the host's own QEMU, with KVM, gives it a GPU.
//!
//! The guest (arm64 only, because software emulation of other machines has no KVM for it) has no
//! agent: its first process is a shell script, which reports through a port of its own, or else
//! on its first disk or the console, and switches the guest off. What it reports is text in
//! sections.

use std::collections::BTreeMap;
use std::fmt::Write;

use varia_lab::initramfs::Archive;
use varia_lab::{
    Arch, GuestCommand, Kernel, LabError, NO_CIPHER_TESTS, Set, Vm, agent_build, closure, packages,
};

use crate::error::{Error, Result};
use crate::host::Host;

const QEMU: &str = "/usr/bin/qemu-system-aarch64";
const LSPCI: &str = "/usr/bin/lspci";
const PCI_IDS: &str = "/usr/share/misc/pci.ids";
const FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
/// Path of the guest's kernel in the machine.
pub const KERNEL: &str = "/root/guest/vmlinuz";
/// Path of the guest's initramfs in the machine.
pub const INITRAMFS: &str = "/root/guest/initrd";
const REPORT: &str = "/tmp/nested.report";
const CONSOLE: &str = "/tmp/nested.console";
const MEMORY_MIB: u32 = 512;

/// Finds where to report to and the GPUs, then runs the test's script.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin:/usr/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name)" = report ] && report=/dev/${port##*/}
done
if [ -z "$report" ]; then
    for module in /modules/*; do insmod $module; done
    [ -b /dev/vda ] && report=/dev/vda
fi
[ -n "$report" ] && exec >$report 2>&1
for function in /sys/bus/pci/devices/*; do
    [ "$(cat $function/vendor)" = 0x10de ] && bdf=${function##*/} && gpus="$gpus $bdf"
done
. /script
echo "== end"
sync
poweroff -f
"#;

/// The sections of a guest's report, by name.
pub type Report = BTreeMap<String, String>;

/// Puts QEMU and a guest into the machine. In the guest, `script` is a shell script: `$gpus` are
/// the addresses of the GPUs, `$bdf` is the last of them, `/agent` the lab's agent with its applets, `lspci` is there, a line
/// `== NAME` begins a section of the report, and what [`run`] passes are variables.
///
/// # Errors
/// Errors of the lab.
pub fn equip(vm: Vm, script: &str) -> Result<Vm> {
    let arch = Arch::Aarch64;
    let userland = packages::ensure(Set::Userland(arch))?;
    let firmware = userland.path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd");
    let read = |path: &std::path::Path| std::fs::read(path).map_err(LabError::file("read", path));
    let kernel = Kernel::of(arch)?;
    let mut archive = Archive::new();
    archive
        .character_device("dev/console", 5, 1)
        .symlink("lib", "usr/lib")
        .symlink("lib64", "usr/lib64");
    for folder in ["proc", "sys", "tmp", "modules"] {
        archive.folder(folder);
    }
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("script", 0o644, script.as_bytes());
    archive.file("agent", 0o755, &read(&agent_build::agent(arch)?)?);
    archive.file(
        "bin/busybox",
        0o755,
        &read(&userland.path("/usr/bin/busybox"))?,
    );
    for (index, module) in kernel.module("virtio_blk")?.iter().enumerate() {
        archive.file(&format!("modules/{index}.ko"), 0o644, &module.bytes);
    }
    archive.file(
        PCI_IDS.trim_start_matches('/'),
        0o644,
        &read(&userland.path(PCI_IDS))?,
    );
    for (path, host) in closure::of(&userland, arch, &[LSPCI])? {
        archive.file(path.trim_start_matches('/'), 0o755, &read(&host)?);
    }
    Ok(vm
        .programs(&userland, &[QEMU])?
        .host_file(FIRMWARE, firmware)
        .host_file(KERNEL, &kernel.image)
        .file(INITRAMFS, archive.finish()))
}

/// Runs the guest with a GPU of the machine that is bound to a VFIO driver, with `initiators`
/// nodes without memory that belong to it, and gives its report. `properties` are more properties of
/// QEMU's device, each after a comma.
///
/// # Errors
/// If QEMU fails, or the guest does not come to its end; with its console.
pub fn run(
    host: &Host,
    gpu: usize,
    properties: &str,
    initiators: u32,
    variables: &[(&str, &str)],
) -> Result<Report> {
    let mut words = format!(
        "{QEMU} -M virt,gic-version=3,highmem-mmio-size=1T -accel kvm -cpu host -smp 1 \
         -m {MEMORY_MIB}M -object memory-backend-ram,id=ram,size={MEMORY_MIB}M \
         -numa node,nodeid=0,memdev=ram,cpus=0 \
         -bios {FIRMWARE} -kernel {KERNEL} -initrd {INITRAMFS} \
         -nodefaults -no-user-config -display none -no-reboot -serial file:{CONSOLE} \
         -device pcie-root-port,id=rp0,chassis=1 \
         -device vfio-pci-nohotplug,host={},bus=rp0,rombar=0,id=gpu{properties} \
         -chardev file,id=report,path={REPORT} -device virtio-serial-pci \
         -device virtserialport,chardev=report,name=report",
        host.address(gpu)
    );
    for node in 1..=initiators {
        // writing to a String can't fail
        let _ = write!(
            words,
            " -numa node,nodeid={node} \
             -object acpi-generic-initiator,id=initiator{node},pci-dev=gpu,node={node}"
        );
    }
    let mut argv: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    // Each character of the console is a trap through two machines: only what is wrong is said.
    let mut append = format!("console=ttyAMA0 panic=-1 quiet {NO_CIPHER_TESTS}");
    for (name, value) in variables {
        let _ = write!(append, " {name}={value}");
    }
    argv.extend(["-append".to_owned(), append]);
    let output = host.vm.run(&GuestCommand::new(argv))?;
    let report = host.vm.read_text(REPORT).unwrap_or_default();
    if !output.success() || !report.ends_with("== end") {
        return Err(Error::Unexpected(format!(
            "the guest did not come to its end: QEMU: {:?}, {}{}\nits report:\n{report}\n\
             its console:\n{}",
            output.ending,
            output.text(),
            String::from_utf8_lossy(&output.stderr),
            host.vm.read_text(CONSOLE).unwrap_or_default(),
        )));
    }
    Ok(sections(&report))
}

/// The sections of a report.
#[must_use]
pub fn sections(text: &str) -> Report {
    let mut sections = Report::new();
    for part in text.replace('\r', "").split("== ").skip(1) {
        let (name, body) = part.split_once('\n').unwrap_or((part, ""));
        sections.insert(name.to_owned(), body.trim_end().to_owned());
    }
    sections
}
