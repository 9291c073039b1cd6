//! From a description of a machine to QEMU's command line and an initial RAM file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use varia_agent::wire::{AGENT_PATH, BOOT_PLAN_PATH, BootPlan, ModuleFile, PORT_NAME, Share};
use varia_debian::packages::{self, Set};
use varia_units::Arch;

use crate::agent_build;
use crate::error::{LabError, Result};
use crate::initramfs::{self, Archive};
use crate::kernel::{Kernel, Module};
use crate::qemu::Qemu;
use crate::unpacked;
use crate::vm::{Contents, ModuleSource, RootBus, Vm};

/// The longest path of a Unix socket, without its terminating zero.
const SOCKET_PATH_LIMIT: usize = 107;

/// Purpose of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The agent talks to the lab; the console goes to a file.
    Agent,
    /// A person talks to a shell on the console.
    Shell,
}

/// For every module in the machine, what loading it takes, itself last.
pub(crate) type ModuleOrders = BTreeMap<String, Vec<ModuleFile>>;

/// A machine ready to be started.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) command: Command,
    pub(crate) folder: TempDir,
    pub(crate) modules: ModuleOrders,
}

impl Launch {
    /// The socket on which the lab waits for QEMU.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Log of the serial console.
    pub(crate) fn console(&self) -> PathBuf {
        self.folder.path().join("console.log")
    }
}

/// Makes everything that the machine needs in a folder of its own.
pub(crate) fn prepare(vm: &Vm, mode: Mode) -> Result<Launch> {
    check(vm)?;
    let qemu = Qemu::find(vm.arch)?;
    let guest = packages::ensure(Set::Guest(vm.arch))?;
    let kernel = match &vm.kernel {
        Some(kernel) => kernel.clone(),
        None => Kernel::of(vm.flavour)?,
    };
    let folder = tempfile::Builder::new()
        .prefix("varia-lab-")
        .tempdir()
        .map_err(LabError::io("create a temporary folder"))?;
    let agent = agent_build::agent(vm.arch)?;
    let (initramfs, modules) = make_initramfs(vm, mode, &kernel, &agent, &guest)?;
    let initramfs_path = folder.path().join("initramfs");
    fs::write(&initramfs_path, initramfs).map_err(LabError::file("write", &initramfs_path))?;

    let mut launch = Launch {
        command: qemu.command(),
        folder,
        modules,
    };
    let socket = launch.socket();
    if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
        return Err(LabError::Description(format!(
            "the socket path {} is longer than {SOCKET_PATH_LIMIT} bytes; set TMPDIR to a shorter one",
            socket.display()
        )));
    }
    let mut arguments = Arguments::default();
    machine(vm, &guest, &mut arguments);
    memory(vm, &mut arguments);
    let image = match vm.arch {
        Arch::Aarch64 => kernel.image,
        Arch::X86_64 => unpacked::kernel(&kernel.image)?,
    };
    arguments.pair("-kernel", image.display().to_string());
    arguments.pair("-initrd", initramfs_path.display().to_string());
    arguments.pair("-append", command_line(vm, mode));
    arguments.words("-nodefaults -no-user-config -display none -no-reboot");
    match mode {
        Mode::Shell => arguments.pair("-serial", "mon:stdio"),
        Mode::Agent => channel(&launch, &mut arguments),
    }
    devices(vm, &mut arguments);
    arguments.0.extend(vm.qemu_args.iter().cloned());
    launch.command.args(arguments.0);
    Ok(launch)
}

/// QEMU's arguments.
#[derive(Debug, Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }

    fn words(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(str::to_owned));
    }
}

fn check(vm: &Vm) -> Result<()> {
    let refuse = |why: String| Err(LabError::Description(why));
    if vm.memory.is_empty() || vm.memory.iter().any(|node| node.mib == 0) {
        return refuse("every memory node needs memory, and there has to be one".to_owned());
    }
    let nodes = vm.memory.len();
    if vm.sockets == 0 || !vm.cpus.is_multiple_of(vm.sockets) || vm.cpus == 0 {
        let (cpus, sockets) = (vm.cpus, vm.sockets);
        return refuse(format!(
            "{cpus} processors are not shared by {sockets} sockets"
        ));
    }
    if vm.sockets as usize > nodes {
        return refuse(format!(
            "{} sockets on {nodes} nodes with memory",
            vm.sockets
        ));
    }
    if let Some(kernel) = vm.kernel.as_ref().filter(|kernel| kernel.arch != vm.arch) {
        return refuse(format!(
            "a kernel for {} can't run on {}",
            kernel.arch, vm.arch
        ));
    }
    if let Some(file) = vm.files.iter().find(|file| !file.path.starts_with('/')) {
        return refuse(format!("the file path {:?} is not absolute", file.path));
    }
    // Slots 0 and 31 are the host bridge's and the chipset's; the lab uses 28 and up.
    if vm.devices.len() > 20 {
        return refuse(format!(
            "{} devices do not fit on the root bus",
            vm.devices.len()
        ));
    }
    Ok(())
}

fn machine(vm: &Vm, guest: &packages::Tree, arguments: &mut Arguments) {
    arguments.pair("-name", vm.name.replace(',', ",,"));
    arguments.pair("-machine", vm.machine_options.join(","));
    // An x86 kernel patches its own code at boot while other processors run it. With a thread for
    // each processor one was seen to die in a half-patched instruction.
    let threads = match vm.arch {
        Arch::Aarch64 if !vm.counts => "multi",
        Arch::Aarch64 | Arch::X86_64 => "single",
    };
    arguments.pair("-accel", format!("tcg,thread={threads}"));
    if vm.counts {
        arguments.pair("-icount", "shift=0");
    }
    arguments.pair("-cpu", &*vm.cpu);
    arguments.pair("-smp", format!("{},sockets={}", vm.cpus, vm.sockets));
    if vm.arch == Arch::Aarch64 {
        let firmware = guest.path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd");
        arguments.pair("-bios", firmware.display().to_string());
    }
    if vm.iommu {
        // Before every other device: it has to be there when they are plugged in.
        arguments.pair(
            "-device",
            match vm.arch {
                Arch::Aarch64 => "virtio-iommu-pci,addr=0x1d",
                Arch::X86_64 => "intel-iommu,caching-mode=on",
            },
        );
    }
}

fn memory(vm: &Vm, arguments: &mut Arguments) {
    let total: u64 = vm.memory.iter().map(|node| node.mib).sum();
    arguments.pair("-m", format!("{total}M"));
    let each = vm.cpus / vm.sockets;
    for (index, node) in (0_u32..).zip(&vm.memory) {
        let size = format!("id=ram{index},size={}M,share=on", node.mib);
        arguments.pair(
            "-object",
            match &node.file {
                None => format!("memory-backend-memfd,{size}"),
                Some(file) => format!("memory-backend-file,{size},mem-path={}", comma(file)),
            },
        );
        let cpus = if index < vm.sockets {
            format!(",cpus={}-{}", index * each, (index + 1) * each - 1)
        } else {
            String::new()
        };
        arguments.pair(
            "-numa",
            format!("node,nodeid={index},memdev=ram{index}{cpus}"),
        );
    }
    for extra in 0..vm.memoryless_nodes {
        arguments.pair(
            "-numa",
            format!("node,nodeid={}", vm.memory.len() as u64 + u64::from(extra)),
        );
    }
}

/// Longest limits of the kernel's watchdogs (Linux 7.2 `kernel/rcu/update.c`, `kernel/watchdog.c`,
/// `kernel/hung_task.c`): on a busy machine the processors of a VM may stand still for a minute.
const WATCHDOGS: &str = "rcupdate.rcu_cpu_stall_timeout=300 watchdog_thresh=60 \
    sysctl.kernel.hung_task_timeout_secs=1800";

/// Leaves out the kernel's tests of its own ciphers, which are half of what it executes until its
/// first process starts (Linux 7.2 `crypto/testmgr.c:notests`).
pub const NO_CIPHER_TESTS: &str = "cryptomgr.notests";

fn command_line(vm: &Vm, mode: Mode) -> String {
    let mut words = vec![format!("console={} panic=-1", vm.arch.console())];
    words.extend([WATCHDOGS, NO_CIPHER_TESTS].map(str::to_owned));
    if mode == Mode::Shell {
        words.push("quiet".to_owned());
    }
    if vm.arch == Arch::X86_64 {
        // The kernel counts timer interrupts against a delay loop, and on a busy host it once
        // counted too few and panicked.
        words.push("no_timer_check".to_owned());
        if vm.iommu {
            words.push("intel_iommu=on".to_owned());
        }
    }
    words.extend(vm.cmdline.iter().cloned());
    words.join(" ")
}

fn channel(launch: &Launch, arguments: &mut Arguments) {
    let (console, socket) = (comma(&launch.console()), comma(&launch.socket()));
    arguments.pair("-chardev", format!("file,id=console,path={console}"));
    arguments.pair("-serial", "chardev:console");
    arguments.pair("-chardev", format!("socket,id=agent,path={socket}"));
    arguments.pair("-device", "virtio-serial-pci,id=agent-bus,addr=0x1c");
    arguments.pair(
        "-device",
        format!("virtserialport,bus=agent-bus.0,chardev=agent,name={PORT_NAME}"),
    );
}

fn devices(vm: &Vm, arguments: &mut Arguments) {
    for (device, slot) in vm.devices.iter().zip(1_u32..) {
        let id = &device.id;
        let mut port = format!("pcie-root-port,id=rp-{id},chassis={slot}");
        match device.root_bus {
            None => port.push_str(&format!(",addr={slot:#x}")),
            Some(RootBus { number, node }) => {
                arguments.pair(
                    "-device",
                    format!(
                        "pxb-pcie,id=root-{id},bus=pcie.0,addr={slot:#x},bus_nr={number},\
                         numa_node={node}"
                    ),
                );
                port.push_str(&format!(",bus=root-{id},addr=0"));
            }
        }
        for option in &device.port_options {
            port.push(',');
            port.push_str(option);
        }
        arguments.pair("-device", port);
        let mut properties = serde_json::json!({
            "driver": "vfio-user-pci",
            "id": id,
            "bus": format!("rp-{id}"),
            "socket": { "type": "unix", "path": device.socket },
        });
        if let Some(limit) = device.message_timeout {
            properties["x-msg-timeout"] =
                u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).into();
        }
        arguments.pair("-device", properties.to_string());
    }
    // After the ports, which have slots of their own: QEMU gives these the first free ones.
    for (index, (folder, tag)) in vm.shares.iter().enumerate() {
        arguments.pair(
            "-fsdev",
            format!(
                "local,id=share{index},path={},security_model=none,readonly=on,multidevs=remap",
                comma(folder)
            ),
        );
        arguments.pair(
            "-device",
            format!("virtio-9p-pci,fsdev=share{index},mount_tag={tag}"),
        );
    }
}

/// A path in a QEMU option, where a comma is written twice.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The initial RAM file system, and how to load each module in it.
fn make_initramfs(
    vm: &Vm,
    mode: Mode,
    kernel: &Kernel,
    agent: &Path,
    guest: &packages::Tree,
) -> Result<(Vec<u8>, ModuleOrders)> {
    let mut plan = BootPlan {
        shell: mode == Mode::Shell,
        ..BootPlan::default()
    };
    let mut archive = Archive::new();
    archive.character_device("dev/console", 5, 1);
    for folder in ["proc", "sys", "tmp", "run", "root", "share", "lab"] {
        archive.folder(folder);
    }
    // Debian's merged layout: programs name their loader as /lib/ld-linux-...
    archive
        .symlink("lib", "usr/lib")
        .symlink("lib64", "usr/lib64");
    for folder in ["usr/lib", "usr/lib64"] {
        archive.folder(folder);
    }
    archive.file(AGENT_PATH.trim_start_matches('/'), 0o755, &read(agent)?);
    archive.file(
        "bin/busybox",
        0o755,
        &read(&guest.path("/usr/bin/busybox"))?,
    );

    let mut known = BTreeMap::new();
    let mut placed = BTreeSet::new();
    for (modules, parameters, loads_at_boot) in wanted_modules(vm, kernel)? {
        let count = modules.len();
        let mut order = Vec::new();
        for (index, module) in modules.into_iter().enumerate() {
            let path = format!("/lab/modules/{}.ko", module.name);
            let parameters = if index + 1 == count {
                parameters.clone()
            } else {
                String::new()
            };
            order.push(ModuleFile {
                path: path.clone(),
                parameters,
            });
            if placed.insert(module.name.clone()) {
                archive.file(path.trim_start_matches('/'), 0o644, &module.bytes);
            }
            known.insert(module.name, order.clone());
        }
        if loads_at_boot {
            plan.modules.extend(order);
        }
    }
    for (_, tag) in &vm.shares {
        plan.shares.push(Share {
            tag: tag.clone(),
            path: format!("/share/{tag}"),
        });
    }
    for file in &vm.files {
        let path = file.path.trim_start_matches('/');
        match &file.contents {
            Contents::Bytes(bytes) => archive.file(path, file.mode, bytes),
            Contents::Host(host) => {
                let facts = fs::metadata(host).map_err(LabError::file("read", host))?;
                archive.file(path, facts.permissions().mode(), &read(host)?)
            }
        };
    }
    let text = serde_json::to_vec(&plan)
        .map_err(|error| LabError::io("describe the boot plan")(error.into()))?;
    archive.file(BOOT_PLAN_PATH.trim_start_matches('/'), 0o644, &text);
    let mut bytes = Vec::new();
    if !vm.tables.is_empty() {
        bytes = initramfs::acpi_tables(&vm.tables);
    }
    bytes.extend_from_slice(&archive.finish());
    Ok((bytes, known))
}

/// The modules in the order of loading: the IOMMU's driver, the file systems of shares,
/// then what was asked for.
fn wanted_modules(vm: &Vm, kernel: &Kernel) -> Result<Vec<(Vec<Module>, String, bool)>> {
    let mut wanted = Vec::new();
    if vm.iommu && vm.arch == Arch::Aarch64 {
        wanted.push((kernel.module("virtio_iommu")?, String::new(), true));
    }
    if !vm.shares.is_empty() {
        for name in ["9pnet_virtio", "9p"] {
            wanted.push((kernel.module(name)?, String::new(), true));
        }
    }
    for wish in &vm.modules {
        let modules = match &wish.source {
            ModuleSource::Named(name) => kernel.module(name)?,
            ModuleSource::File(path) => kernel.module_file(path)?,
        };
        wanted.push((modules, wish.parameters.clone(), wish.loads_at_boot));
    }
    Ok(wanted)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(LabError::file("read", path))?;
    if u32::try_from(bytes.len()).is_err() {
        let why = format!(
            "{} is larger than the 4 GiB that fit into an archive",
            path.display()
        );
        return Err(LabError::Description(why));
    }
    Ok(bytes)
}
