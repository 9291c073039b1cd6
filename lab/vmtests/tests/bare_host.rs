//! `varia host` as a user calls it: a disk image that boots by itself, with its own boot loader,
//! command line and address space randomisation, sees two GB200 and their memory, binds them, maps
//! the memory for DMA, and restarts.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use varia_differential::op::Protection;
use varia_differential::{Answer, Op};
use varia_lab::initramfs::Archive;
use varia_lab::slots::Slot;
use varia_lab::{Arch, HANG, Kernel, NO_CIPHER_TESTS, Set, agent_build, kernel_modules, packages};
use varia_vmtests::boot_disk;
use varia_vmtests::command::{qemu, varia};
use varia_vmtests::{Error, Result};

const GIB: u64 = 1 << 30;
/// Place of a word in the coherent memory.
const WORD: u64 = 0x20_0000;
/// What the host's CPU writes there.
const FROM_CPU: &[u8; 8] = b"from-cpu";
const BAR4: u32 = 4;
/// Address of the GPUs, as `varia host` says.
const GPUS: [&str; 2] = ["0000:09:00.0", "0000:11:00.0"];

/// The host's first process: sections on the console, and an answer from there where it waits.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
stty -echo
for module in /modules/*; do insmod $module; done
section() { echo "== $1"; }
section cmdline; cat /proc/cmdline
section iomem; grep -v '^ ' /proc/iomem
section functions; for f in /sys/bus/pci/devices/*; do echo ${f##*/} $(cat $f/vendor $f/device $f/numa_node); done
section nodes; cd /sys/devices/system/node; cat online has_memory has_generic_initiator; cat node0/distance
section tables; ls /sys/firmware/acpi/tables; dmesg | grep 'KASLR enabled'
section groups; for f in $gpus; do ls /sys/bus/pci/devices/$f/iommu_group/devices; done
section bind
for f in $gpus; do
    echo nvgrace_gpu_vfio_pci > /sys/bus/pci/devices/$f/driver_override
    echo $f > /sys/bus/pci/drivers_probe
    readlink /sys/bus/pci/devices/$f/driver
done
section use
/agent differential ${gpus%% *} listed < /operations > /answers 2> /said || cat /said
od -An -v -tx1 /answers | tr -d ' \n'; echo
section fault
read answer
hexdump -n 4 -C /sys/bus/pci/devices/${gpus##* }/config
section end
read answer
[ $answer = restart ] && reboot -f
poweroff -f
"#;

/// A host that runs, and the text of its console so far.
struct Running {
    child: Child,
    folder: PathBuf,
    /// Number of the console's bytes that have been looked at.
    seen: usize,
    _slot: Slot,
}

impl Running {
    fn console(&self) -> String {
        let bytes = fs::read(self.folder.join("run/console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Waits for the section of this name, and returns the text since the last wait.
    fn wait_for(&mut self, section: &str) -> String {
        let mark = format!("== {section}\n");
        let begin = Instant::now();
        loop {
            let text = self.console();
            let new = text.get(self.seen..).unwrap_or_default();
            if let Some(at) = new.find(&mark) {
                let new = new[..at].to_owned();
                self.seen += at + mark.len();
                return new;
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(
                ended.is_none() && begin.elapsed() < HANG,
                "no {mark:?} on the console ({ended:?}):\n{text}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answer(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{text}").expect("a host that reads");
    }

    /// The files of the GPUs' coherent memory, which have no names.
    fn memories(&self) -> Vec<File> {
        let folder = format!("/proc/{}/fd", self.child.id());
        let entries = fs::read_dir(folder).expect("a process");
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.expect("an entry").path();
            let target = fs::read_link(&path).unwrap_or_default();
            if target.to_string_lossy().contains("coherent memory") {
                let mut options = File::options();
                found.push(options.read(true).write(true).open(path).expect("a memfd"));
            }
        }
        found
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // the host may have ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Operations on a GPU: usemem is written and read through a mapping, and mapped for DMA.
fn operations() -> Vec<Op> {
    let slot = 0;
    vec![
        Op::Keep {
            slot,
            region: BAR4,
            offset: 0,
            len: WORD * 2,
            protection: Protection {
                read: true,
                write: true,
                execute: false,
            },
            populate: true,
        },
        Op::Touch {
            slot,
            at: WORD,
            data: FROM_CPU.to_vec(),
            directly: true,
        },
        Op::Dma { slot, map: true },
        Op::Dma { slot, map: false },
    ]
}

/// An image whose first process expects these GPUs.
fn image(path: &Path, gpus: &[&str]) -> Result<()> {
    let guest = packages::ensure(Set::Guest(Arch::Aarch64))?;
    let kernel = Kernel::of(Arch::Aarch64)?;
    let read = |path: &Path| fs::read(path).expect("a file of the lab");
    let mut archive = Archive::new();
    archive.character_device("dev/console", 5, 1);
    for folder in ["proc", "sys", "modules", "tmp"] {
        archive.folder(folder);
    }
    let busybox = read(&guest.path("/usr/bin/busybox"));
    archive.file("bin/busybox", 0o755, &busybox);
    archive.file("agent", 0o755, &read(&agent_build::agent(Arch::Aarch64)?));
    let operations = serde_json::to_vec(&operations()).expect("operations");
    archive.file("operations", 0o644, &operations);
    let mut modules = kernel.module("virtio_iommu")?;
    modules.extend(kernel.module("vfio_iommu_type1")?);
    for file in [
        kernel_modules::ours(Arch::Aarch64)?,
        kernel_modules::position(Arch::Aarch64)?,
    ] {
        modules.extend(kernel.module_file(&file)?);
    }
    let mut names = Vec::new();
    for module in modules {
        if !names.contains(&module.name) {
            let path = format!("modules/{:02}-{}.ko", names.len(), module.name);
            archive.file(&path, 0o644, &module.bytes);
            names.push(module.name);
        }
    }
    let init = INIT.replace(
        "export PATH",
        &format!("gpus='{}'\nexport PATH", gpus.join(" ")),
    );
    archive.file("init", 0o755, init.as_bytes());
    let line = format!("console=ttyAMA0 quiet {NO_CIPHER_TESTS}");
    boot_disk::write(path, &archive.finish(), &line)
}

fn start(folder: &Path, topology: &str, options: &[&str]) -> Result<Running> {
    let guest = packages::ensure(Set::Guest(Arch::Aarch64))?;
    let mut command = Command::new(varia()?);
    command
        .args(["host", topology, "--disk", "disk.img", "--snapshot"])
        .args(options)
        .args(["--accel", "tcg", "--directory", "run", "--qemu"])
        .arg(qemu(folder, Arch::Aarch64)?)
        .arg("--bios")
        .arg(guest.path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("said")).expect("a file"));
    let slot = Slot::wait()?;
    let child = command.spawn().expect("varia");
    Ok(Running {
        child,
        folder: folder.to_owned(),
        seen: 0,
        _slot: slot,
    })
}

/// First and last address of the lines of `/proc/iomem` with this name.
fn ranges(iomem: &str, name: &str) -> Vec<(u64, u64)> {
    let lines = iomem.lines().filter_map(|line| line.split_once(" : "));
    let named = lines.filter(|(_, what)| what.contains(name));
    let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let ends = named.map(|(range, _)| range.split_once('-').expect("a range"));
    ends.map(|(first, last)| (number(first), number(last)))
        .collect()
}

/// True in `./x soak`.
fn soaks() -> bool {
    std::env::var_os("VARIA_COUNT").is_some()
}

#[test]
fn an_unchanged_image_sees_two_gb200_and_uses_their_memory() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    image(&folder.path().join("disk.img"), &GPUS)?;
    let before = fs::read(folder.path().join("disk.img")).expect("an image");
    let begin = Instant::now();
    let options = ["--memory", "1G", "--ram", "1G"];
    let mut host = start(folder.path(), "gb200-x2", &options)?;
    for restart in [false, true].into_iter().take(1 + usize::from(soaks())) {
        check_boot(&mut host, restart);
        println!("the host is up after {:?}", begin.elapsed());
        check_messages(folder.path())?;
        break_gpu(folder.path(), "gone")?;
        host.answer("go");
        let config = host.wait_for("end");
        assert!(
            config.contains("ff ff ff ff"),
            "registers of a GPU that is gone: {config}"
        );
        break_gpu(folder.path(), "none")?;
        if soaks() && !restart {
            host.answer("restart");
        }
    }
    host.answer("off");
    let status = host.child.wait().expect("a child");
    let said = fs::read_to_string(folder.path().join("said")).expect("a file");
    assert!(status.success(), "{said}");
    assert!(
        !said.contains("non memory"),
        "QEMU refused a mapping of the IOMMU: {said}"
    );
    assert!(!folder.path().join("run").exists(), "the directory is gone");
    let after = fs::read(folder.path().join("disk.img")).expect("an image");
    assert!(before == after, "the image is as it was");
    Ok(())
}

fn break_gpu(folder: &Path, fault: &str) -> Result<()> {
    let mut command = Command::new(varia()?);
    command.args(["host-fault", "1", fault, "--directory", "run"]);
    let output = command.current_dir(folder).output().expect("varia");
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Unexpected(said));
    }
    Ok(())
}

/// The servers refused no request of QEMU's, and were told of mappings for DMA.
fn check_messages(folder: &Path) -> Result<()> {
    for gpu in ["gpu0", "gpu1"] {
        let mut command = Command::new(varia()?);
        command.args(["ctl", "--directory", "run", "inspect", gpu]);
        let output = command.current_dir(folder).output().expect("varia");
        let text = String::from_utf8_lossy(&output.stdout);
        let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
        let messages = value["messages"].as_array().expect("messages");
        let refused: Vec<_> = messages.iter().filter(|one| one["errors"] != 0).collect();
        assert!(refused.is_empty(), "{gpu}: {refused:?}");
        assert!(text.contains("DMA_MAP"), "{gpu}: {messages:?}");
    }
    Ok(())
}

/// Checks what the host has shown up to the section `fault`.
fn check_boot(host: &mut Running, was_restarted: bool) {
    host.wait_for("cmdline");
    let line = host.wait_for("iomem");
    assert!(
        !line.contains("mem=") && !line.contains("nokaslr"),
        "{line}"
    );
    let iomem = host.wait_for("functions");
    // the window of 64-bit BARs ends with the memory of both GPUs
    let windows = ranges(&iomem, "PCI Bus");
    let end = windows
        .iter()
        .map(|(_, last)| last + 1)
        .max()
        .expect("windows");
    for (first, last) in ranges(&iomem, "System RAM") {
        assert!(
            last < end - 2 * GIB || first >= end,
            "RAM where memory of a GPU is:\n{iomem}"
        );
    }
    let functions = host.wait_for("nodes");
    for gpu in GPUS {
        assert!(
            functions.contains(&format!("{gpu} 0x10de 0x2941 0")),
            "{functions}"
        );
    }
    assert!(
        !functions.contains("0x1110"),
        "ivshmem is in sight: {functions}"
    );
    let nodes = host.wait_for("tables");
    let distances = [vec!["10"], vec!["80"; 14]].concat().join(" ");
    let expected = ["0-14", "0", "1-14", &distances].join("\n");
    assert_eq!(nodes.trim(), expected);
    let tables = host.wait_for("groups");
    for table in ["SRAT", "SLIT", "SSDT", "VIOT", "KASLR enabled"] {
        assert!(tables.contains(table), "{table}: {tables}");
    }
    let groups = host.wait_for("bind");
    assert_eq!(
        groups.trim(),
        GPUS.join("\n"),
        "each GPU is alone in its group"
    );
    let bound = host.wait_for("use");
    assert_eq!(
        bound.matches("drivers/nvgrace_gpu_vfio_pci").count(),
        2,
        "{bound}"
    );
    let used = host.wait_for("fault");
    check_use(host, &used, was_restarted);
}

/// Checks the answers to [`operations`], in hexadecimal digits, and that the memory has the word.
fn check_use(host: &Running, digits: &str, was_restarted: bool) {
    let is_hex = |line: &&str| !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
    let line = digits.lines().find(is_hex);
    let digits = line.unwrap_or_else(|| panic!("no answers: {digits}"));
    let bytes = (0..digits.len()).step_by(2);
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
    let bytes: Vec<_> = bytes.map(byte).collect();
    let mut rest = bytes.as_slice();
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let (answer, more) = postcard::take_from_bytes::<Answer>(rest).expect("an answer");
        assert!(
            answer.result.is_ok(),
            "operation {}: {answer:?}",
            answers.len()
        );
        answers.push(answer);
        rest = more;
    }
    assert_eq!(answers.len(), operations().len());
    let expected: &[u8; 8] = if was_restarted { FROM_CPU } else { &[0; 8] };
    assert_eq!(
        answers[1].data, expected,
        "a restart leaves the memory as it is"
    );
    let holds = |file: &File| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, WORD).expect("a memory");
        word == *FROM_CPU
    };
    assert!(
        host.memories().iter().any(holds),
        "what the CPU wrote is in the memory"
    );
}

/// Topology, GPUs with their device and node, and nodes with CPUs and without memory.
type Topology = (
    &'static str,
    &'static [(&'static str, &'static str, u32)],
    &'static str,
    &'static str,
);

const TOPOLOGIES: [Topology; 4] = [
    ("gh200", &[("0000:09:00.0", "0x2342", 0)], "0", "1-8"),
    (
        "gh200-x4",
        &[
            ("0000:09:00.0", "0x2342", 0),
            ("0000:11:00.0", "0x2342", 1),
            ("0000:19:00.0", "0x2342", 2),
            ("0000:21:00.0", "0x2342", 3),
        ],
        "0-3",
        "4-15",
    ),
    (
        "gb200-x2",
        &[("0000:09:00.0", "0x2941", 0), ("0000:11:00.0", "0x2941", 0)],
        "0",
        "1-14",
    ),
    ("gb300", &[("0000:09:00.0", "0x31c2", 0)], "0", "1-8"),
];

#[test]
#[ignore = "for ./x soak: a boot for each topology, with the chip's own memory"]
fn each_topology_has_its_gpus_and_nodes() -> Result<()> {
    for (topology, gpus, sockets, nodes) in TOPOLOGIES {
        let folder = tempfile::tempdir().expect("a folder");
        let addresses: Vec<_> = gpus.iter().map(|(address, ..)| *address).collect();
        image(&folder.path().join("disk.img"), &addresses)?;
        let mut host = start(folder.path(), topology, &["--ram", "2G"])?;
        host.wait_for("functions");
        let functions = host.wait_for("nodes");
        for (address, device, node) in gpus {
            let line = format!("{address} 0x10de {device} {node}");
            assert!(functions.contains(&line), "{topology}: {line}: {functions}");
        }
        let seen = host.wait_for("tables");
        let lines: Vec<_> = seen.lines().collect();
        assert_eq!(lines[1..3], [sockets, nodes], "{topology}: {seen}");
        host.wait_for("bind");
        let bound = host.wait_for("use");
        let count = bound.matches("drivers/nvgrace_gpu_vfio_pci").count();
        assert_eq!(count, gpus.len(), "{topology}: {bound}");
        println!("{topology}: every GPU is bound");
    }
    Ok(())
}
