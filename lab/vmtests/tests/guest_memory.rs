//! A guest uses the memory of its GPU: the guest driver adds usemem to the GPU's nodes, a program
//! allocates there and drives the copy engine, and the memory goes away again.

use varia_lab::{
    Arch, Flavour, GuestCommand, HANG, Running, VfioUser, Vm, agent_build, kernel_modules,
};
use varia_serve::View;
use varia_silicon::{Options, profile};
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

/// A guest with a GPU; `nodes` belong to the GPU.
fn guest(arch: Arch, gpu: &Gpu, nodes: u32) -> Result<Running> {
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
    let gpu = Gpu::serve(gh200, View::Virtual, options)?;
    let vm = guest(arch, &gpu, NODES)?;
    let bdf = vm.pci_devices(0x10de, 0x2342)?.remove(0);
    vm.sh(&format!("insmod {MODULE}"))?;
    let driver = format!("/sys/bus/pci/devices/{bdf}/driver");
    assert!(
        vm.link_name(&driver).is_err(),
        "the driver takes no device that does not name it"
    );
    vm.write(&format!("{DRIVER}/new_id"), "10de 2342")?;
    assert!(vm.link_name(&driver).is_err(), "an id is no permission");
    vm.write(&format!("{DRIVER}/remove_id"), "10de 2342")?;
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
        let log = bind(&vm, &bdf, split)?;
        assert!(log.contains(words), "{split}: {log}");
        assert!(vm.link_name(&driver).is_err(), "{split} is refused");
        assert_eq!(with_memory(&vm)?, "0");
    }

    let policy = "/sys/devices/system/memory/auto_online_blocks";
    let before = vm.read_text(policy)?;
    for (split, nodes) in [("even", "0-2"), ("2:1536M", "0,2")] {
        let log = bind(&vm, &bdf, split)?;
        assert_eq!(with_memory(&vm)?, nodes, "{split}: {log}");
        assert!(log.contains("usemem: 1 GiB + 512 MiB at "), "{log}");
        assert_eq!(vm.read_text(policy)?, before, "the policy is as before");
        let table = vm.sh(PROGRAM)?;
        println!("split={split}\n{table}");
        assert!(
            table.contains("64 KiB both ways") || table.contains("128 KiB both ways"),
            "{table}"
        );
        assert!(
            table.contains("DMA to 0x400000000000, which is not mapped: an error"),
            "{table}"
        );
        // A process that uses the memory does not keep it: its pages move.
        let task = vm.spawn(&GuestCommand::sh(&format!("{PROGRAM} 64 > /tmp/beside")))?;
        vm.sh("until grep -q node /tmp/beside; do sleep 0.1; done")?;
        vm.write(&format!("{DRIVER}/unbind"), &bdf)?;
        assert_eq!(with_memory(&vm)?, "0", "{}", vm.sh("dmesg | tail")?);
        vm.wait(&task, HANG)?;
        vm.sh("rm /tmp/beside")?;
    }
    vm.sh("rmmod varia_coherent_memory")?;
    vm.power_off()?;
    Ok(())
}
