//! `./x demo`: an emulated GH200 in a virtual machine, shown from both sides.
//!
//! It runs the commands that a user would run, and fails when anything is not as it says.

mod online;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use varia_facts::Bytes;
use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::qemu::Qemu;
use varia_lab::vm::MEMORY_FOLDER;
use varia_lab::{Arch, HANG, Running, Set, VfioUser, Vm, packages};
use varia_plan::{Emulated, PlannedBar, initiators};

use crate::{Outcome, lab};

const GIB: u64 = 1 << 30;
/// Memory of `gh200` that is usable, of 96 GiB.
const USEMEM: u64 = 95 * GIB;
const BAR4: u64 = 128 * GIB;
const BAR2: u64 = GIB;
const NODES: u32 = 8;

/// The whole demo.
pub(crate) fn run(arch: Arch) -> Outcome {
    let started = Instant::now();
    step("fetching what the VM is made of");
    Qemu::find(arch)?;
    packages::ensure(Set::Guest(arch))?;
    lab::build_agent(arch)?;
    step("building varia");
    let varia = build()?;
    let folder = tempfile::Builder::new()
        .prefix("varia-demo-")
        .tempdir_in(MEMORY_FOLDER)?;
    let (socket, memory) = (
        folder.path().join("gh200.sock"),
        folder.path().join("memory"),
    );

    step("the device, and how a VM sees its memory");
    let svg = target_folder().join("gh200.svg");
    show(
        Command::new(&varia)
            .arg("inspect")
            .arg("gh200")
            .arg("--svg")
            .arg(&svg),
    )?;

    step("serving it");
    let server = Server::start(
        &varia,
        &socket,
        [OsStr::new("--backing"), memory.as_os_str()],
    )?;

    step(&format!(
        "booting a VM ({arch}) that has it (software emulation)"
    ));
    let bar = |index, size| PlannedBar {
        index,
        size: Bytes(size),
    };
    let plan = Emulated {
        arch,
        cpus: 1,
        memory: Bytes(GIB),
        gpus: vec![(socket.clone(), vec![bar(2, BAR2), bar(4, BAR4)])],
        nodes_per_gpu: NODES,
    }
    .plan()?;
    let mut vm = Vm::new(arch)
        .name(format!("demo-{arch}"))
        .memoryless_nodes(NODES)
        .device(VfioUser::new("gpu0", &socket));
    for initiator in plan.gpus.iter().flat_map(|gpu| initiators(&gpu.memory)) {
        vm = vm.qemu_args(["-object".to_owned(), initiator]);
    }
    let vm = vm.boot()?;
    println!("Linux {} is up", vm.release());

    step("what the guest sees");
    let bdf = function(&vm)?;
    bars(&vm, &bdf)?;
    nodes(&vm)?;

    step("words through the BARs, seen by the guest and in the device's memory");
    let memory = File::open(&memory)?;
    words(&vm, &bdf, &memory)?;
    vm.power_off()?;
    drop(server);
    online::run(arch, &varia, folder.path())?;

    println!(
        "\nAll of it as it should be, in {:.0} s.",
        started.elapsed().as_secs_f32()
    );
    println!("The layout, drawn to scale: {}", svg.display());
    println!(
        "Next: ./x lab shell --arch {arch}, or varia serve --help ({}).",
        varia.display()
    );
    Ok(())
}

fn step(what: &str) {
    println!("\n== {what}");
}

fn build() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["build", "--package", "varia", "--bin", "varia"]);
    cargo.env("CARGO_TARGET_DIR", target_folder());
    if !cargo.status()?.success() {
        return Err("varia does not build (see above)".into());
    }
    Ok(target_folder().join("debug/varia"))
}

fn show(command: &mut Command) -> Outcome {
    println!("$ {}", varia_lab::command::line(command));
    if command.status()?.success() {
        Ok(())
    } else {
        Err("that failed (see above)".into())
    }
}

/// `varia serve`, ended when this is dropped.
struct Server {
    child: Child,
    /// Kept open, so that what it prints goes somewhere.
    output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start<T: AsRef<OsStr>>(
        varia: &Path,
        socket: &Path,
        options: impl IntoIterator<Item = T>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = Command::new(varia);
        command
            .args(["serve", "gh200", "--socket"])
            .arg(socket)
            .args(options);
        println!("$ {}", varia_lab::command::line(&command));
        command.env("RUST_LOG", "warn").stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let mut server = Self {
            child,
            output: BufReader::new(output).lines(),
        };
        let first = server.output.next().ok_or("the server ended at once")??;
        println!("{first}");
        if !first.starts_with("serving gh200") {
            return Err(format!("unexpected: {first:?}").into());
        }
        let deadline = Instant::now() + HANG;
        while !socket.exists() {
            if Instant::now() > deadline {
                return Err(format!("{} did not appear", socket.display()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, or it ends now: there is nothing to lose in a demo.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn function(vm: &Running) -> Result<String, Box<dyn std::error::Error>> {
    let found = vm.pci_devices(0x10de, 0x2342)?;
    let [bdf] = found.as_slice() else {
        return Err(format!("the guest has {} functions 10de:2342, not one", found.len()).into());
    };
    println!("{bdf} is 10de:2342, a GH200");
    Ok(bdf.clone())
}

/// The function's BARs, as the guest's kernel assigned them.
fn bars(vm: &Running, bdf: &str) -> Outcome {
    /// `IORESOURCE_MEM_64` and `IORESOURCE_PREFETCH` (Linux 7.2 `include/linux/ioport.h`).
    const MEM_64: u64 = 0x0010_0000;
    const PREFETCH: u64 = 0x0000_2000;
    let text = vm.read_text(&format!("/sys/bus/pci/devices/{bdf}/resource"))?;
    let parse = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
    let expected = [(0, 16 << 20), (2, BAR2), (4, BAR4)];
    for (index, line) in text.lines().enumerate().take(6) {
        let numbers = line
            .split_whitespace()
            .map(parse)
            .collect::<Result<Vec<_>, _>>()?;
        let [start, end, flags] = numbers[..] else {
            return Err(format!("the guest's resource {index} is {line:?}").into());
        };
        let wanted = expected
            .iter()
            .find(|(bar, _)| *bar == index)
            .map(|(_, size)| *size);
        let size = if end == 0 {
            None
        } else {
            Some(end - start + 1)
        };
        if size != wanted {
            return Err(format!("BAR{index} is {size:x?} bytes, not {wanted:x?}").into());
        }
        let Some(size) = size else { continue };
        if flags & MEM_64 == 0 || flags & PREFETCH == 0 {
            return Err(format!("BAR{index} is not 64-bit and prefetchable: {flags:#x}").into());
        }
        let (size, unit) = if size >= GIB {
            (size >> 30, "GiB")
        } else {
            (size >> 20, "MiB")
        };
        println!("BAR{index} = {size} {unit} at {start:#x}, 64-bit, prefetchable");
    }
    Ok(())
}

/// The memory-less nodes and what the guest knows of them.
fn nodes(vm: &Running) -> Outcome {
    let initiators = vm.read_text("/sys/devices/system/node/has_generic_initiator")?;
    println!("nodes with a Generic Initiator: {}", initiators.trim());
    if initiators.trim() != format!("1-{NODES}") {
        return Err(format!("expected 1-{NODES}").into());
    }
    let online = vm.read_text("/sys/devices/system/node/has_memory")?;
    println!("nodes with memory: {}", online.trim());
    if online.trim() != "0" {
        return Err("expected 0 alone: the driver of the guest adds the GPU's memory".into());
    }
    Ok(())
}

/// Writes and reads through the BARs, and compares with the device's memory.
fn words(vm: &Running, bdf: &str, memory: &File) -> Outcome {
    let run = |bar: u32, script: &str| -> Result<String, Box<dyn std::error::Error>> {
        let output = vm.applet("pci-memory", &[bdf, &bar.to_string()], script.as_bytes())?;
        Ok(String::from_utf8(output)?.trim().to_owned())
    };
    // (BAR, offset in it, where that is in the device's memory)
    for (bar, offset, place) in [
        (4, 0, 0),
        (4, USEMEM - 8, USEMEM - 8),
        (2, 0x100, USEMEM + 0x100),
    ] {
        let word = format!("{:016x}", 0x5661_7269_6100_0000 + place % 0xff_fff1);
        let read = run(bar, &format!("w {offset:x} {word}\nr {offset:x} 8\n"))?;
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, place)?;
        let held = bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        println!("BAR{bar}+{offset:#x}: written {word}, guest reads {read}, device holds {held}");
        if read != word || held != word {
            return Err("they differ".into());
        }
    }
    let beyond = run(
        4,
        &format!("w {USEMEM:x} 0011223344556677\nr {USEMEM:x} 8\n"),
    )?;
    println!("BAR4+{USEMEM:#x}, beyond the memory: written, guest reads {beyond}");
    if beyond != "f".repeat(16) {
        return Err("it should read all ones".into());
    }
    Ok(())
}
