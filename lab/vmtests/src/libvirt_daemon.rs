//! libvirt in a machine that has no system around it: its programs, its users, and a daemon that
//! needs no other service.

use varia_lab::{Arch, GuestCommand, Running, Set, Vm, packages};

use crate::error::Result;

/// Programs that an arm64 machine gets; the driver for QEMU is a plug-in of the daemon, and `script` is for
/// `virsh console`, which insists on a terminal.
const PROGRAMS: [&str; 4] = [
    "/usr/sbin/libvirtd",
    "/usr/lib/aarch64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
    "/usr/bin/virsh",
    "/usr/bin/script",
];
const TAG: &str = "libvirt";
/// Folders that are too large to copy, or that have too many files.
const SHARED: [&str; 3] = [
    "/usr/share/libvirt",
    "/usr/share/AAVMF",
    "/usr/share/qemu/firmware",
];

/// Users as Debian's package makes them, and a configuration that asks for no other service.
const PREPARE: &str = r#"
set -e
rm -rf /var/run /var/lock
mkdir -p /var /run/lock /etc/libvirt
ln -s /run /var/run
ln -s /run/lock /var/lock
printf 'root:x:0:0:root:/root:/bin/sh\nlibvirt-qemu:x:64055:104::/:/bin/false\n' > /etc/passwd
printf 'root:x:0:\nkvm:x:104:\nlibvirt-qemu:x:64055:\n' > /etc/group
cat > /etc/libvirt/qemu.conf <<END
security_driver = "none"
stdio_handler = "file"
END
"#;
/// Log of the daemon, in the daemon's root.
pub const LOG: &str = "/tmp/daemon.log";
/// It listens once there is its socket.
const WAIT: &str = r#"
while ! [ -S /run/libvirt/libvirt-sock ]; do
    [ $((tries += 1)) -lt 15000 ] || { cat "$1" >&2; exit 1; }
    sleep 0.1
done
"#;

/// Puts libvirt into an arm64 machine that has QEMU.
///
/// # Errors
/// Errors of the lab.
pub fn equip(vm: Vm) -> Result<Vm> {
    let tree = packages::ensure(Set::Libvirt(Arch::Aarch64))?;
    Ok(vm.programs(&tree, &PROGRAMS)?.share(tree.root(), TAG))
}

/// Does the work of the machine's package manager and udev, in a running machine and before [`start`].
///
/// # Errors
/// Errors of the machine.
pub fn install(vm: &Running) -> Result<()> {
    for path in SHARED {
        vm.sh(&format!(
            "mkdir -p {path}; rmdir {path}; ln -s /share/{TAG}{path} {path}"
        ))?;
    }
    vm.mount("devpts", "/dev/pts", "devpts", "mode=620,ptmxmode=666")?;
    vm.sh("chgrp 104 /dev/kvm; chmod 660 /dev/kvm")?;
    Ok(())
}

/// Starts the daemon in a root of the machine and waits until it listens. It ends with the machine.
///
/// # Errors
/// Errors of the machine, or of the daemon.
pub fn start(vm: &Running, root: &str) -> Result<()> {
    let shell = |script: &str| {
        let command = GuestCommand::new(["/bin/sh", "-c", script, "libvirt", LOG]);
        command.in_root(root)
    };
    vm.run(&shell(PREPARE))?.checked()?;
    // A QEMU that libvirt starts has no parent, and libvirt waits 40 s for a QEMU that has ended until
    // a process collects it: here a shell, as the first process of a namespace.
    vm.spawn(&shell(
        "exec busybox unshare -fp --mount-proc sh -c 'libvirtd >$0 2>&1 & wait' $1",
    ))?;
    vm.run(&shell(WAIT))?.checked()?;
    Ok(())
}
