//! A guest uses the memory of its GPU: the guest driver adds usemem to the GPU's nodes, a program
//! allocates there and drives the copy engine, and the memory goes away again.

#[path = "guest_memory/at_work.rs"]
mod at_work;
#[path = "guest_memory/copies.rs"]
mod copies;
#[path = "guest_memory/survivors.rs"]
mod survivors;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use varia_lab::vm::MEMORY_FOLDER;
use varia_lab::{
    Arch, Ending, Flavour, GuestCommand, HANG, Output, Running, Task, VfioUser, Vm, agent_build,
    kernel_modules,
};
use varia_serve::View;
use varia_silicon::{Backing, ManualClock, Options, Readiness, profile};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::{Error, Result};

use survivors::Process;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// 1 GiB and 512 MiB of usemem behind 2 GiB, 1 GiB and 64 KiB of resmem.
const MEMORY: u64 = 2 * GIB + 512 * MIB + 64 * 1024;
const USEMEM: u64 = GIB + 512 * MIB;
const NODES: u32 = 2;
const DRIVER: &str = "/sys/bus/pci/drivers/varia_coherent_memory";
const MODULE: &str = "/lib/varia-coherent-memory.ko";
const PROGRAM: &str = "/bin/varia-gpu-test";

/// The node of the GPU that a process of its own serves.
const OTHERS_NODE: u32 = 3;
/// Time that the first GPU's memory needs after each reset, on a clock that the test moves.
const WARM_UP: Duration = Duration::from_secs(1);

/// GPUs of the guest: one with [`NODES`], one without a node, and one with [`OTHERS_NODE`] that a
/// process serves.
struct Gpus {
    folder: TempDir,
    clock: Arc<ManualClock>,
    first: Gpu,
    alone: Gpu,
    other: Process,
}

impl Gpus {
    fn serve() -> Result<Self> {
        let gh200 = profile::find("gh200").expect("a profile of the catalogue");
        let folder = tempfile::tempdir_in(MEMORY_FOLDER).expect("a folder");
        let clock = Arc::new(ManualClock::default());
        let options = Options {
            memory: Some(MEMORY),
            copy_engine: true,
            ..Options::default()
        };
        let first = Options {
            backing: Backing::File(folder.path().join("memory")),
            readiness: Readiness::After(WARM_UP),
            clock: Arc::clone(&clock) as Arc<_>,
            ..options.clone()
        };
        // its probe waits for its memory
        let first = std::thread::scope(|scope| {
            let serving = scope.spawn(|| Gpu::serve(gh200, View::Virtual, first));
            while !serving.is_finished() {
                clock.advance(WARM_UP);
                std::thread::sleep(Duration::from_millis(1));
            }
            serving.join().expect("no panic")
        })?;
        Ok(Self {
            first,
            alone: Gpu::serve(gh200, View::Virtual, options)?,
            other: Process::serve(folder.path())?,
            clock,
            folder,
        })
    }

    /// Lets the time pass that the first GPU's memory needs.
    fn warm_up(&self) {
        self.clock.advance(WARM_UP);
    }
}

/// Socket of the guest's monitor.
fn monitor(folder: &TempDir) -> impl AsRef<Path> {
    folder.path().join("monitor")
}

/// Boots the guest. Its firmware can tell it of memory that has failed.
fn guest(arch: Arch, gpus: &Gpus) -> Result<Running> {
    let nodes = 1..=NODES.max(OTHERS_NODE);
    let objects = nodes.clone().flat_map(|node| {
        // Linux numbers nodes in the order of the SRAT, and QEMU's order is that of a hash of the
        // names: this name of the other GPU's comes last.
        let (name, gpu) = if node == OTHERS_NODE {
            ("third", 2)
        } else {
            ("initiator", 0)
        };
        let object = format!("acpi-generic-initiator,id={name}{node},pci-dev=gpu{gpu},node={node}");
        ["-object".to_owned(), object]
    });
    let qmp = format!(
        "unix:{},server=on,wait=off",
        monitor(&gpus.folder).as_ref().display()
    );
    let vm = Vm::new(arch)
        .name(format!(
            "guest with a GPU's memory on {}",
            Flavour::Debian(arch)
        ))
        .machine("ras=on")
        .memoryless_nodes(*nodes.end())
        .device(VfioUser::new("gpu0", gpus.first.socket()))
        .device(VfioUser::new("gpu1", gpus.alone.socket()))
        .device(VfioUser::new("gpu2", gpus.other.socket()))
        .host_file(MODULE, kernel_modules::coherent_memory(arch)?)
        .host_file(
            PROGRAM,
            agent_build::program(arch, "varia-gpu-test", "varia-gpu-test")?,
        )
        .qemu_args(["-qmp", &qmp])
        .qemu_args(objects);
    let vm = vm.boot()?;
    gpus.warm_up();
    Ok(vm)
}

/// Binds the GPU with a split; the lines of the log.
fn bind(vm: &Running, bdf: &str, split: &str) -> Result<String> {
    vm.write("/sys/module/varia_coherent_memory/parameters/split", split)?;
    vm.sh("dmesg -c > /dev/null")?;
    vm.sh(&format!("echo {bdf} > {DRIVER}/bind || true"))?;
    Ok(vm.sh("dmesg | grep varia_coherent_memory || true")?)
}

/// Nodes with memory, in sysfs's form.
fn with_memory(vm: &Running) -> Result<String> {
    Ok(vm.read_text("/sys/devices/system/node/has_memory")?)
}

/// Address of BAR4 in the guest.
fn bar4(vm: &Running, bdf: &str) -> Result<u64> {
    let text = vm.read_text(&format!("/sys/bus/pci/devices/{bdf}/resource"))?;
    let line = text.lines().nth(4).expect("a line for each BAR");
    let digits = line
        .split(' ')
        .next()
        .and_then(|word| word.strip_prefix("0x"));
    let address = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    Ok(address.unwrap_or_else(|| panic!("{text}")))
}

#[test]
fn a_guest_allocates_on_the_gpus_nodes_drives_its_engine_and_gives_the_memory_back() -> Result<()> {
    let arch = Arch::Aarch64;
    let gpus = Gpus::serve()?;
    let vm = guest(arch, &gpus)?;
    let functions = vm.pci_devices(0x10de, 0x2342)?;
    let [bdf, alone, other] = functions.as_slice() else {
        panic!("three GPUs, not {functions:?}");
    };
    vm.sh(&format!("insmod {MODULE}"))?;
    let driver = format!("/sys/bus/pci/devices/{bdf}/driver");
    assert!(
        vm.link_name(&driver).is_err(),
        "the driver takes no device that does not name it"
    );
    // The first id stays until the end: it does not keep a device away that names the driver.
    for id in ["10de 2342", "ffffffff ffffffff"] {
        vm.write(&format!("{DRIVER}/new_id"), id)?;
        assert!(
            vm.link_name(&driver).is_err(),
            "{id}: an id is no permission"
        );
    }
    vm.write(&format!("{DRIVER}/remove_id"), "ffffffff ffffffff")?;
    let name = format!("/sys/bus/pci/devices/{bdf}/driver_override");
    vm.write(&name, "varia_coherent_memory")?;

    // What can't be placed is refused with its value, and nothing changes.
    for (split, words) in [
        ("all", "split= can't be read at character 1"),
        (
            "1:1G,2:1G",
            "adds up to 2 GiB: write sizes with the sum 1 GiB + 512 MiB",
        ),
        (
            "1:1G,3:512M",
            "names node 3, and the device's nodes are 1 to 2",
        ),
        (
            "1:1500M,2:36M",
            "which is not a multiple of a memory block: write multiples of 128 MiB",
        ),
    ] {
        let log = bind(&vm, bdf, split)?;
        assert!(log.contains(words), "{split}: {log}");
        assert!(vm.link_name(&driver).is_err(), "{split} is refused");
        assert_eq!(with_memory(&vm)?, "0");
    }

    vm.write(
        &format!("/sys/bus/pci/devices/{alone}/driver_override"),
        "varia_coherent_memory",
    )?;
    let log = bind(&vm, alone, "first")?;
    assert!(
        log.contains(
            "no Generic Initiator of the SRAT names bus 2 device 0 (3 name other functions)"
        ),
        "{log}"
    );

    let policy = "/sys/devices/system/memory/auto_online_blocks";
    let before = vm.read_text(policy)?;
    for (split, nodes) in [("even", "0-2"), ("2:1536M", "0,2")] {
        let log = bind(&vm, bdf, split)?;
        assert_eq!(with_memory(&vm)?, nodes, "{split}: {log}");
        assert!(log.contains("usemem: 1 GiB + 512 MiB at "), "{log}");
        assert_eq!(vm.read_text(policy)?, before, "the policy is as before");
        let table = vm.sh(PROGRAM)?;
        println!("split={split}\n{table}");
        assert!(table.contains("128 KiB both ways"), "{table}");
        assert!(
            table.contains("DMA to 0x400000000000, which is not mapped: an error"),
            "{table}"
        );
        // A process that uses the memory does not keep it: its pages move.
        let user = User::start(&vm, "hold")?;
        vm.write(&format!("{DRIVER}/unbind"), bdf)?;
        assert_eq!(with_memory(&vm)?, "0", "{}", vm.sh("dmesg | tail")?);
        let said = user.end()?;
        assert!(said.ends_with("as before, on node 0"), "{said}");
    }
    pinned(&vm, bdf)?;
    lock_held_elsewhere(&vm, bdf, other)?;
    at_work::faults(&vm, &gpus, bdf)?;
    let Gpus {
        folder,
        first,
        alone: _alone,
        other: process,
        ..
    } = gpus;
    survivors::guest_whose_server_is_killed(&vm, process, other)?;
    survivors::bytes_of_a_guest_that_is_killed(vm, &first, bdf)?;
    drop(folder);
    Ok(())
}

/// A process with memory of the GPU's first node.
struct User<'a> {
    vm: &'a Running,
    task: Task,
}

impl<'a> User<'a> {
    /// Starts one that holds its memory, pins it, or has a page that fails, and waits until it has the
    /// memory.
    fn start(vm: &'a Running, manner: &str) -> Result<Self> {
        vm.sh("rm -f /tmp/end /tmp/user")?;
        let command = format!("exec {PROGRAM} {manner} /tmp/end > /tmp/user 2>&1");
        let task = vm.spawn(&GuestCommand::sh(&command))?;
        let said = vm.sh("until grep . /tmp/user; do sleep 0.1; done")?;
        assert!(said.contains(" are "), "{said}");
        Ok(Self { vm, task })
    }

    /// Physical address of its first page.
    fn address(&self) -> Result<u64> {
        let said = self.vm.sh("head -n 1 /tmp/user")?;
        let word = said
            .split_whitespace()
            .find_map(|word| word.strip_prefix("0x"));
        let address = word.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        address.ok_or_else(|| Error::Unexpected(format!("no address in {said:?}")))
    }

    /// Lets it use its memory and end; what it said, and how it ended.
    fn outcome(self) -> Result<(String, Output)> {
        self.vm.sh("touch /tmp/end")?;
        let output = self.vm.wait(&self.task, HANG)?;
        let said = self.vm.sh("cat /tmp/user")?;
        Ok((said.trim_end().to_owned(), output))
    }

    /// Ends it; what it said last.
    fn end(self) -> Result<String> {
        let (said, output) = self.outcome()?;
        assert_eq!(output.ending, Ending::Exit(0), "{said}");
        Ok(said)
    }
}

/// Memory with a page that can't be moved stays, with the module, and goes once the page is free.
fn pinned(vm: &Running, bdf: &str) -> Result<()> {
    let seconds = "/sys/module/varia_coherent_memory/parameters/offline_seconds";
    let before = vm.read_text(seconds)?;
    let log = bind(vm, bdf, "even")?;
    assert_eq!(with_memory(vm)?, "0-2", "{log}");
    vm.sh("! rmmod varia_coherent_memory")?;
    vm.write(seconds, "1")?;
    let user = User::start(vm, "pin")?;
    vm.write(&format!("{DRIVER}/unbind"), bdf)?;
    vm.sh("until dmesg | grep 'node 1 keeps'; do sleep 0.1; done")?;
    // whether the other node's memory went in the second depends on the machine
    let nodes = with_memory(vm)?;
    assert!(["0-1", "0-2"].contains(&nodes.as_str()), "{nodes}");
    vm.sh("! rmmod varia_coherent_memory")?;
    let said = user.end()?;
    assert!(said.ends_with("as before, on node 1"), "{said}");
    vm.write(seconds, "3600")?;
    vm.sh(&format!(
        "until echo {bdf} > {DRIVER}/bind; do sleep 0.1; done"
    ))?;
    assert_eq!(with_memory(vm)?, nodes, "what was kept is used again");
    vm.write(&format!("{DRIVER}/unbind"), bdf)?;
    assert_eq!(with_memory(vm)?, "0", "{}", vm.sh("dmesg | tail")?);
    vm.write(seconds, &before)?;
    Ok(())
}

/// Binding waits for the kernel's lock of memory hotplug for a limited time only, because ACPI may hold
/// the lock while it removes the same device, and then wait for who binds it. The addition ends
/// without memory once the lock is free.
fn lock_held_elsewhere(vm: &Running, bdf: &str, other: &str) -> Result<()> {
    let seconds = "/sys/module/varia_coherent_memory/parameters/offline_seconds";
    let policy = "/sys/devices/system/memory/auto_online_blocks";
    let before = [vm.read_text(seconds)?, vm.read_text(policy)?];
    let log = bind(vm, bdf, "even")?;
    assert_eq!(with_memory(vm)?, "0-2", "{log}");
    // who takes a block with a pinned page away holds the lock until a signal comes
    let user = User::start(vm, "pin")?;
    let size = vm.read_text("/sys/devices/system/memory/block_size_bytes")?;
    let size = u64::from_str_radix(&size, 16).expect("a size");
    let block = user.address()? / size;
    let state = format!("/sys/devices/system/memory/memory{block}/state");
    let holder = vm.spawn(&GuestCommand::sh(&format!("echo offline > {state}")))?;
    vm.sh(&format!(
        "until grep going-offline {state}; do sleep 0.1; done"
    ))?;

    vm.write(seconds, "1")?;
    let name = format!("/sys/bus/pci/devices/{other}/driver_override");
    vm.write(&name, "varia_coherent_memory")?;
    let log = bind(vm, other, "first")?;
    assert!(
        log.contains("added or taken away elsewhere for 1 s: bind again later"),
        "{log}"
    );
    let log = bind(vm, other, "first")?;
    assert!(
        log.contains("its memory is still being taken away: bind again later"),
        "{log}"
    );
    assert_eq!(with_memory(vm)?, "0-2");
    vm.kill_task(&holder)?;
    vm.wait(&holder, HANG)?;
    vm.write(seconds, &before[0])?;
    vm.sh(&format!(
        "until echo {other} > {DRIVER}/bind; do sleep 0.1; done"
    ))?;
    assert_eq!(with_memory(vm)?, "0-3", "{}", vm.sh("dmesg | tail")?);
    assert_eq!(vm.read_text(policy)?, before[1], "the policy is as before");
    user.end()?;
    for function in [other, bdf] {
        vm.write(&format!("{DRIVER}/unbind"), function)?;
    }
    assert_eq!(with_memory(vm)?, "0", "{}", vm.sh("dmesg | tail")?);
    Ok(())
}
