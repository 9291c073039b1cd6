//! A guest uses the memory of its GPU: the guest driver adds usemem to the GPU's nodes, a program
//! allocates there and drives the copy engine, and the memory goes away again.

use varia_core::Device;
use varia_lab::{
    Arch, Ending, Flavour, GuestCommand, HANG, Running, Task, VfioUser, Vm, agent_build,
    kernel_modules,
};
use varia_serve::View;
use varia_silicon::{Faults, Options, profile};
use varia_spec::copy_engine::{OFFSET, command, register, status};
use varia_vmtests::Result;
use varia_vmtests::gpu::Gpu;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// 1 GiB and 512 MiB of usemem behind 2 GiB, 1 GiB and 64 KiB of resmem.
const MEMORY: u64 = 2 * GIB + 512 * MIB + 64 * 1024;
const NODES: u32 = 2;
const DRIVER: &str = "/sys/bus/pci/drivers/varia_coherent_memory";
const MODULE: &str = "/lib/varia-coherent-memory.ko";
const PROGRAM: &str = "/bin/varia-gpu-test";

/// A guest with a GPU, to which `nodes` belong, and another one without a node.
fn guest(arch: Arch, gpu: &Gpu, other: &Gpu, nodes: u32) -> Result<Running> {
    let objects = (1..=nodes).flat_map(|node| {
        let object = format!("acpi-generic-initiator,id=initiator{node},pci-dev=gpu0,node={node}");
        ["-object".to_owned(), object]
    });
    let vm = Vm::new(arch)
        .name(format!(
            "guest with a GPU's memory on {}",
            Flavour::Debian(arch)
        ))
        .memoryless_nodes(nodes)
        .device(VfioUser::new("gpu0", gpu.socket()))
        .device(VfioUser::new("gpu1", other.socket()))
        .host_file(MODULE, kernel_modules::coherent_memory(arch)?)
        .host_file(
            PROGRAM,
            agent_build::program(arch, "varia-gpu-test", "varia-gpu-test")?,
        )
        .qemu_args(objects);
    Ok(vm.boot()?)
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

#[test]
fn a_guest_allocates_on_the_gpus_nodes_drives_its_engine_and_gives_the_memory_back() -> Result<()> {
    let arch = Arch::Aarch64;
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(MEMORY),
        copy_engine: true,
        ..Options::default()
    };
    let gpu = Gpu::serve(gh200, View::Virtual, options.clone())?;
    let other = Gpu::serve(gh200, View::Virtual, options)?;
    let vm = guest(arch, &gpu, &other, NODES)?;
    let functions = vm.pci_devices(0x10de, 0x2342)?;
    let [bdf, alone] = functions.as_slice() else {
        panic!("two GPUs, not {functions:?}");
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
            "no Generic Initiator of the SRAT names bus 2 device 0 (2 name other functions)"
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
    faults(&vm, &gpu, bdf)?;
    vm.sh("rmmod varia_coherent_memory")?;
    gone(&vm, gpu, bdf)?;
    vm.power_off()?;
    Ok(())
}

/// A process with memory of the GPU's first node.
struct User<'a> {
    vm: &'a Running,
    task: Task,
}

impl<'a> User<'a> {
    /// Starts one that holds its memory, or pins it, and waits until it has the memory.
    fn start(vm: &'a Running, manner: &str) -> Result<Self> {
        vm.sh("rm -f /tmp/end /tmp/user")?;
        let command = format!("exec {PROGRAM} {manner} /tmp/end > /tmp/user 2>&1");
        let task = vm.spawn(&GuestCommand::sh(&command))?;
        let said = vm.sh("until grep . /tmp/user; do sleep 0.1; done")?;
        assert!(said.contains(" are "), "{said}");
        Ok(Self { vm, task })
    }

    /// Ends it; what it said last.
    fn end(self) -> Result<String> {
        self.vm.sh("touch /tmp/end")?;
        let output = self.vm.wait(&self.task, HANG)?;
        let said = self.vm.sh("cat /tmp/user")?;
        assert_eq!(output.ending, Ending::Exit(0), "{said}");
        Ok(said.trim_end().to_owned())
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

/// Registers of the copy engine, as the guest reads and writes them in BAR0.
struct Engine<'a> {
    vm: &'a Running,
    bdf: &'a str,
}

impl Engine<'_> {
    fn run(&self, script: &str) -> Result<String> {
        let output = self
            .vm
            .applet("pci-memory", &[self.bdf, "0"], script.as_bytes())?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// Has the engine compute a checksum of a page of the coherent memory: status and address of the
    /// fault.
    fn checksum(&self, offset: u64) -> Result<(u32, u64)> {
        let place = |register: u64| OFFSET + register;
        let digits = |value: u64| {
            let bytes = value.to_le_bytes();
            bytes.map(|byte| format!("{byte:02x}")).concat()
        };
        let text = self.run(&format!(
            "w {:x} {}\nw {:x} {}\nw {:x} {:02x}000000\nr {:x} 4\nr {:x} 8\n",
            place(register::SOURCE),
            digits(offset),
            place(register::LENGTH),
            digits(4096),
            place(register::COMMAND),
            command::CHECKSUM,
            place(register::STATUS),
            place(register::FAULT),
        ))?;
        let number = |line: Option<&str>| {
            let digits = line.unwrap_or_default();
            let number = u64::from_str_radix(digits, 16).map(u64::swap_bytes);
            number.unwrap_or_else(|error| panic!("{text}: {error}")) >> (64 - 4 * digits.len())
        };
        let mut lines = text.lines();
        Ok((number(lines.next()) as u32, number(lines.next())))
    }
}

/// Faults in the middle of the guest's work: the device fails for the page concerned, or starts anew,
/// and the memory and the rest of the work stay as they are.
fn faults(vm: &Running, gpu: &Gpu, bdf: &str) -> Result<()> {
    let engine = Engine { vm, bdf };
    let log = bind(vm, bdf, "even")?;
    assert_eq!(with_memory(vm)?, "0-2", "{log}");

    // A page that has failed: the engine names it, its neighbours are as before.
    let page = 5 * 4096;
    let faults = Faults {
        poisoned_page: Some(page),
        ..Faults::NONE
    };
    gpu.silicon().set_faults(faults)?;
    assert_eq!(engine.checksum(page - 4096)?, (status::DONE, 0));
    assert_eq!(engine.checksum(page)?, (status::MEMORY_FAILED, page));
    gpu.silicon().set_faults(Faults::NONE)?;
    assert_eq!(engine.checksum(page)?, (status::DONE, 0));

    // A function-level reset by the guest: the engine's registers are lost, the bytes are not, and
    // the guest works on.
    let memory = &gpu.silicon().coherent_memory().expect("a GH200").bytes;
    let place = GIB + 300 * MIB;
    memory
        .write(place, b"before the reset")
        .expect("inside the memory");
    let resets = gpu.silicon().reset_count();
    vm.write(&format!("/sys/bus/pci/devices/{bdf}/reset"), "1")?;
    assert!(
        gpu.silicon().reset_count() > resets,
        "a reset came to the device"
    );
    let registers = format!(
        "r {:x} 4\nr {:x} 4\n",
        OFFSET + register::COUNT,
        OFFSET + register::VECTOR
    );
    assert_eq!(engine.run(&registers)?, "00000000\nffffffff");
    let mut bytes = [0; 16];
    memory.read(place, &mut bytes).expect("inside the memory");
    assert_eq!(&bytes, b"before the reset");
    assert_eq!(with_memory(vm)?, "0-2");
    let table = vm.sh(PROGRAM)?;
    assert!(table.contains("66 commands, 66 interrupts"), "{table}");

    vm.write(&format!("{DRIVER}/unbind"), bdf)?;
    assert_eq!(with_memory(vm)?, "0");
    Ok(())
}

/// The server ends while the guest runs: the device reads as all ones, and the guest lives on.
fn gone(vm: &Running, gpu: Gpu, bdf: &str) -> Result<()> {
    let engine = Engine { vm, bdf };
    let id = format!("r {OFFSET:x} 4\n");
    assert_eq!(engine.run(&id)?, "56434531", "VCE1");
    drop(gpu);
    assert_eq!(engine.run(&id)?, "ffffffff");
    Ok(())
}
