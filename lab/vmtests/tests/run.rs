//! `varia run` as a user calls it: a real QEMU boots a guest that has the device.

use std::error::Error;
use std::fs;
use std::process::Command;

use varia_lab::initramfs::Archive;
use varia_lab::slots::Slot;
use varia_lab::{Arch, Kernel, Set, packages};
use varia_vmtests::command::{qemu, varia};

/// Script of the guest: shows functions, their sizes and the nodes, and switches off.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t sysfs none /sys
cd /sys/bus/pci/devices
for f in *; do
    read vendor < $f/vendor; read device < $f/device
    if [ $vendor = 0x10de ]; then echo SEEN $f $vendor:$device; /bin/busybox cat $f/resource; fi
done
read nodes < /sys/devices/system/node/has_generic_initiator
echo INITIATORS $nodes
/bin/busybox poweroff -f
";

/// `expected` has the sizes of the six BARs in bytes.
fn guest_sees(
    profile: &str,
    id: &str,
    expected: [u64; 6],
    arch: Arch,
) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let guest = packages::ensure(Set::Guest(arch))?;
    let mut archive = Archive::new();
    archive
        .folder("sys")
        .folder("dev")
        .character_device("dev/console", 5, 1)
        .file(
            "bin/busybox",
            0o755,
            &fs::read(guest.path("/usr/bin/busybox"))?,
        )
        .file("init", 0o755, INIT.as_bytes());
    let initrd = folder.path().join("initrd");
    fs::write(&initrd, archive.finish())?;

    let mut run = Command::new(varia()?);
    run.args([
        "run",
        profile,
        "--arch",
        arch.name(),
        "--append",
        "panic=-1",
        "--qemu",
    ])
    .arg(qemu(folder.path(), arch)?)
    .arg("--kernel")
    .arg(Kernel::of(arch)?.image)
    .arg("--initrd")
    .arg(&initrd)
    .args(["--qemu-arg=-no-reboot", "--qemu-arg=-no-user-config"]);
    if arch == Arch::X86_64 {
        // As the lab does: see `machine` in lab/src/launch.rs.
        run.args(["--qemu-arg=-accel", "--qemu-arg=tcg,thread=single"]);
    }
    if arch == Arch::Aarch64 {
        run.arg("--bios")
            .arg(guest.path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"));
    }
    let slot = Slot::wait()?;
    let output = run.output()?;
    drop(slot);
    let console = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{console}\n{messages}");
    let seen = console.lines().skip_while(|line| !line.contains("SEEN"));
    let sizes: Vec<u64> = seen
        .clone()
        .skip(1)
        .take(6)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
            Some((number()?, number()?))
        })
        .map(|(start, end)| if end == 0 { 0 } else { end - start + 1 })
        .collect();
    assert_eq!(sizes, expected, "{console}");
    assert!(
        console.contains(id) && console.contains("INITIATORS 1-8"),
        "{console}"
    );
    Ok(())
}

const GIB: u64 = 1 << 30;
const GH200: [u64; 6] = [16 << 20, 0, GIB, 0, 128 * GIB, 0];
/// Without the MIG bug there is no resmem: BAR2 is the physical one.
const GB200: [u64; 6] = [16 << 20, 0, 256 * GIB, 0, 256 * GIB, 0];

#[test]
fn varia_run_boots_an_arm_guest_that_has_a_gh200() -> Result<(), Box<dyn Error>> {
    guest_sees("gh200", "0x10de:0x2342", GH200, Arch::Aarch64)
}

#[test]
fn varia_run_boots_an_x86_guest_that_has_a_gh200() -> Result<(), Box<dyn Error>> {
    guest_sees("gh200", "0x10de:0x2342", GH200, Arch::X86_64)
}

#[test]
fn varia_run_boots_an_arm_guest_that_has_a_gb200() -> Result<(), Box<dyn Error>> {
    guest_sees("gb200", "0x10de:0x2941", GB200, Arch::Aarch64)
}
