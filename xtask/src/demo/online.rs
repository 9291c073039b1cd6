//! The end of the demo: a guest that uses the memory of its GPU.
//!
//! The GPU is a GH200 with little memory, because an emulated guest takes long to set up 95 GiB, and
//! with a copy engine, which no chip has (docs/guest.md).

use std::path::Path;

use varia_facts::Bytes;
use varia_lab::{Arch, Running, VfioUser, Vm, agent_build, kernel_modules};

use super::{NODES, Server, function, step};
use crate::Outcome;

/// Coherent memory of the GPU: 4 GiB of usemem.
const MEMORY: &str = "5G";
const MODULE: &str = "/lib/varia-coherent-memory.ko";
const PROGRAM: &str = "/bin/varia-gpu-test";
const DRIVER: &str = "varia_coherent_memory";
/// Bytes that one character of the drawing stands for.
const CELL: u64 = 128 << 20;

/// Serves the GPU in `folder`, boots a guest, and has the guest use the memory.
pub(super) fn run(arch: Arch, varia: &Path, folder: &Path) -> Outcome {
    step("building the guest driver and the test program");
    let module = kernel_modules::coherent_memory(arch)?;
    let program = agent_build::program(arch, "varia-gpu-test", "varia-gpu-test")?;

    step("a guest that uses the memory: a GH200 with 4 GiB of usemem and a copy engine");
    let socket = folder.join("guest.sock");
    let options = ["--memory", MEMORY, "--copy-engine"];
    let server = Server::start(varia, &socket, options)?;
    let objects = (1..=NODES).flat_map(|node| {
        let object = format!("acpi-generic-initiator,id=initiator{node},pci-dev=gpu0,node={node}");
        ["-object".to_owned(), object]
    });
    let vm = Vm::new(arch)
        .name(format!("demo-guest-{arch}"))
        .memoryless_nodes(NODES)
        .device(VfioUser::new("gpu0", &socket))
        .host_file(MODULE, module)
        .host_file(PROGRAM, program)
        .qemu_args(objects)
        .boot()?;
    let bdf = function(&vm)?;
    vm.sh(&format!("insmod {MODULE} split=even"))?;
    vm.bind(&bdf, DRIVER)?;
    for line in vm.sh("dmesg")?.lines() {
        if let Some((_, said)) = line.split_once(&format!("{DRIVER} {bdf}: ")) {
            println!("{said}");
        }
    }

    step("the nodes of the guest");
    draw(&vm)?;

    step("varia-gpu-test");
    println!("{}", vm.sh(PROGRAM)?);

    step("the guest gives the memory back");
    vm.write(&format!("/sys/bus/pci/drivers/{DRIVER}/unbind"), &bdf)?;
    let left = vm.read_text("/sys/devices/system/node/has_memory")?;
    println!("nodes with memory: {left}");
    if left != "0" {
        return Err("expected 0 alone".into());
    }
    vm.power_off()?;
    drop(server);
    Ok(())
}

/// Draws the memory of each node, and checks that each node of the GPU has some.
fn draw(vm: &Running) -> Outcome {
    for node in 0..=NODES {
        let folder = format!("/sys/devices/system/node/node{node}");
        let text = vm.read_text(&format!("{folder}/meminfo"))?;
        let total = text
            .lines()
            .find_map(|line| line.split_once("MemTotal:"))
            .and_then(|(_, rest)| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .ok_or_else(|| format!("{folder}/meminfo has no MemTotal: {text}"))?;
        let size = Bytes(total << 10);
        let owner = if node == 0 {
            "the guest's"
        } else {
            "the GPU's"
        };
        let cells = "#".repeat(usize::try_from(size.0.div_ceil(CELL))?);
        println!("node {node}  {cells:<8}  {} {owner}", size.rounded());
        if size.0 == 0 {
            return Err(format!("node {node} has no memory").into());
        }
    }
    Ok(())
}
