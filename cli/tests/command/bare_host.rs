//! `varia host`: plans that a dry run prints, refusals before anything starts, and a simulated QEMU.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Ended, Folder, HANG, ended, varia};

const SECTOR: usize = 512;
/// Start of the system partition of an image, in sectors.
const PARTITION: usize = 64;

/// An image with a GPT and a system partition that has this loader in a directory.
fn image(loader: &[u8; 11]) -> Vec<u8> {
    let mut bytes = vec![0; 128 * SECTOR];
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    let header = SECTOR;
    bytes[header..header + 8].copy_from_slice(b"EFI PART");
    bytes[header + 72] = 2; // the table's sector
    bytes[header + 80] = 2; // entries
    bytes[header + 84] = 128; // bytes of an entry
    let entry = 2 * SECTOR + 128;
    let system = b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
    bytes[entry..entry + 16].copy_from_slice(system);
    bytes[entry + 32] = PARTITION as u8;
    bytes[entry + 40] = 127;
    let at = PARTITION * SECTOR + 5 * 32;
    bytes[at..at + 11].copy_from_slice(loader);
    bytes
}

/// A folder with an image for arm64, `disk.img`.
fn with_image() -> Folder {
    let folder = Folder::new();
    fs::write(folder.path("disk.img"), image(b"BOOTAA64EFI")).unwrap();
    folder
}

fn host(folder: &Folder, args: &[&str]) -> Command {
    let mut command = varia(["host"]);
    command
        .args(args)
        .args(["--directory", &folder.argument("run")]);
    command.current_dir(folder.root());
    command
}

fn dry_run(folder: &Folder, args: &[&str]) -> Ended {
    ended(host(
        folder,
        &[args, &["--disk", "disk.img", "--dry-run"]].concat(),
    ))
}

fn words(folder: &Folder, args: &[&str]) -> Vec<String> {
    let text = dry_run(folder, args).success().stdout;
    shell_words::split(&text).unwrap()
}

/// Values of an option.
fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    let pairs = words.windows(2).filter(|pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str()).collect()
}

#[test]
fn each_topology_has_its_sockets_gpus_and_nodes() {
    let folder = with_image();
    for (topology, sockets, gpus, nodes_each, file) in [
        ("gh200", 1, 1, 8, "128G"),
        ("gh200-x4", 4, 4, 3, "128G"),
        ("gb200-x2", 1, 2, 7, "256G"),
        ("gb300", 1, 1, 8, "512G"),
    ] {
        let words = words(&folder, &[topology]);
        assert_eq!(words[0], "qemu-system-aarch64");
        let count = |option, part: &str| {
            let all = values(&words, option);
            all.iter().filter(|value| value.contains(part)).count()
        };
        assert_eq!(count("-device", "vfio-user-pci"), gpus, "{topology}");
        assert_eq!(count("-device", "pxb-pcie,"), gpus, "{topology}");
        assert_eq!(count("-numa", "cpus="), sockets, "{topology}");
        let nodes = sockets + gpus * nodes_each;
        assert_eq!(count("-numa", "node,nodeid="), nodes, "{topology}");
        let initiators = count("-object", "acpi-generic-initiator,");
        assert_eq!(initiators, gpus * nodes_each, "{topology}");
        assert_eq!(
            count("-object", &format!("size={file},share=on,mem-path=")),
            gpus
        );
        for function in 1..=gpus {
            let hidden = format!("addr=0x1e.{function}");
            assert_eq!(count("-device", &hidden), 1, "{topology}: {hidden}");
        }
        // the IOMMU serves the devices that come after it, and not those of the machine's own bus
        let devices = values(&words, "-device");
        assert!(devices[0].starts_with("virtio-iommu-pci,"), "{devices:?}");
        assert_eq!(count("-machine", "default-bus-bypass-iommu=on"), 1);
        for own in ["virtio-blk-pci", "virtio-net-pci"] {
            assert_eq!(count("-device", &format!("{own},")), 1);
            let at = devices.iter().find(|device| device.starts_with(own));
            assert!(at.unwrap().contains("bus=pcie.0"), "{at:?}");
        }
        assert!(
            values(&words, "-append").is_empty(),
            "the command line is the image's own"
        );
    }
}

#[test]
fn the_documented_picture_is_drawn() {
    let folder = with_image();
    dry_run(&folder, &["gb200-x2", "--svg", "host.svg"]).success();
    let drawn = fs::read_to_string(folder.path("host.svg")).unwrap();
    let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/host.svg");
    assert!(
        drawn == fs::read_to_string(documented).unwrap(),
        "docs/host.svg is out of date: varia host gb200-x2 --disk IMAGE --dry-run --svg docs/host.svg"
    );
}

#[test]
fn options_reach_qemu() {
    let folder = with_image();
    let args = [
        "gb200-x2", "--memory", "1G", "--ram", "2G", "--cpus", "4", "--ssh", "2222",
    ];
    let more = ["--snapshot", "--nodes-per-gpu", "1", "--qemu-arg=-S"];
    let words = words(&folder, &[&args[..], &more].concat());
    let has = |option, part: &str| values(&words, option).iter().any(|v| v.contains(part));
    assert!(
        has("-drive", "file=./disk.img,format=raw,snapshot=on"),
        "{words:?}"
    );
    assert!(
        has("-netdev", "hostfwd=tcp:127.0.0.1:2222-:22"),
        "{words:?}"
    );
    assert!(has("-smp", "4,sockets=1") && has("-m", "2G"), "{words:?}");
    assert!(has("-object", "size=1G"), "{words:?}");
    assert!(
        has("-numa", "nodeid=2") && !has("-numa", "nodeid=3"),
        "{words:?}"
    );
    assert_eq!(words.last().unwrap(), "-S");
}

#[test]
fn a_topology_that_no_machine_can_have() {
    let folder = with_image();
    dry_run(&folder, &["gb400"]).refused(&["gb400", "gh200-x4", "gb300"]);
    dry_run(&folder, &["gh200-x4", "--cpus", "6"]).refused(&["6 CPUs", "4 sockets", "multiple"]);
    dry_run(&folder, &["gh200", "--ram", "0"]).refused(&["RAM", "whole MiB"]);
    dry_run(&folder, &["gh200", "--ram", "100T"]).refused(&["100 TiB", "available", "--ram 2G"]);
    dry_run(&folder, &["gh200", "--memory", "256T"]).refused(&["48"]);
    for size in ["0", "4097"] {
        dry_run(&folder, &["gh200", "--memory", size])
            .refused(&["multiple of 4 KiB", "--memory 1G"]);
    }
    dry_run(&folder, &["gb200-x2", "--nodes-per-gpu", "64"]).refused(&[
        "129",
        "128",
        "fewer nodes",
    ]);
    let none = ["gh200", "--bios", "none.fd"];
    dry_run(&folder, &none).refused(&["none.fd", "--bios"]);
}

#[test]
fn an_image_that_nothing_boots_from() {
    let folder = with_image();
    let refused = |name: &str, bytes: &[u8], named: &[&str]| {
        fs::write(folder.path(name), bytes).unwrap();
        ended(host(&folder, &["gh200", "--disk", name])).refused(named);
    };
    ended(host(&folder, &["gh200", "--disk", "none.img"])).refused(&["none.img", "No such file"]);
    ended(host(&folder, &["gh200", "--disk", "."])).refused(&["a directory", "disk image"]);
    refused(
        "empty.img",
        b"",
        &["empty.img", "0 bytes", "partition table"],
    );
    refused(
        "zeros.img",
        &[0; 4096],
        &["zeros.img", "4 KiB", "partition table"],
    );
    refused("disk.img.xz", b"\xfd7zXZ\0\0", &["xz", "unxz"]);
    refused("disk.vmdk", b"KDMV\x01\0", &["VMDK", "qemu-img convert"]);
    let x86 = image(b"BOOTX64 EFI");
    refused(
        "x86.img",
        &x86,
        &["x86.img", "BOOTX64.EFI", "x86_64", "aarch64"],
    );
    // nothing was left of any of them
    assert!(!folder.path("run").exists());
    // a damaged table says nothing
    let damaged = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = image(b"BOOTX64 EFI");
        change(&mut bytes);
        fs::write(folder.path("damaged.img"), bytes).unwrap();
        let args = ["gh200", "--disk", "damaged.img", "--dry-run"];
        let said = ended(host(&folder, &args)).success().stderr;
        assert!(said.contains("was not judged"), "{said}");
    };
    damaged(&|bytes| bytes[SECTOR + 84] = 0);
    damaged(&|bytes| bytes[SECTOR + 72..SECTOR + 80].fill(0xff));
    damaged(&|bytes| bytes[2 * SECTOR + 128 + 32..][..16].fill(0xff));
}

#[test]
fn an_image_that_is_read_only_or_in_use() {
    let folder = with_image();
    let disk = folder.path("disk.img");
    // a lock of this process, which the command does not inherit
    let file = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    ended(host(&folder, &["gh200", "--disk", "disk.img"])).refused(&["used by another process"]);
    let mut permissions = file.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&disk, permissions).unwrap();
    drop(file);
    let disk = folder.argument("disk.img");
    let user = folder.ordinary_user(&["host", "gh200", "--disk", &disk]);
    ended(user).refused(&["read-only", "--snapshot"]);
}

#[test]
fn what_another_process_has() {
    let folder = with_image();
    let qemu = play(&folder, "exit 0");
    let run = |more: &[&str]| {
        let args = [
            "gh200", "--disk", "disk.img", "--bios", "disk.img", "--qemu", &qemu,
        ];
        host(&folder, &[&args[..], more].concat())
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    ended(run(&["--ssh", &port])).refused(&[&port, "127.0.0.1", "--ssh"]);
    fs::create_dir(folder.path("run")).unwrap();
    let lock = fs::File::create(folder.path("run/lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    ended(run(&[])).refused(&["another host", "run", "--directory"]);
    drop(lock);
    let directory = folder.argument("run");
    let fault = varia(["host-fault", "0", "gone", "--directory", &directory]);
    ended(fault).refused(&["no host runs", "run"]);
    let old = folder.script("old", "#!/bin/sh\necho QEMU emulator version 7.2.22\n");
    ended(host(
        &folder,
        &[
            "gh200", "--disk", "disk.img", "--bios", "disk.img", "--qemu", &old,
        ],
    ))
    .refused(&["7.2.22", "10.1"]);
}

/// A simulated QEMU, which prints its version and then runs `script`.
fn play(folder: &Folder, script: &str) -> String {
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version 11.1.0' && exit\n{script}\n"
    );
    folder.script("qemu", &text)
}

#[test]
fn a_host_says_when_it_is_ready_takes_faults_and_leaves_nothing() {
    let folder = with_image();
    // the memory's file is there, and its server listens
    let script = "
        memory=$(printf '%s\\n' \"$@\" | sed -n 's/.*size=1G,share=on,mem-path=//p' | head -n 1)
        [ \"$(stat -L -c %s $memory)\" = 1073741824 ] && [ -S run/gpu1.sock ] || exit 9
        echo 'starting cloud-init' >> run/console.log
        echo 'debian login: ' >> run/console.log
        exec sleep 100000";
    let qemu = play(&folder, script);
    let args = [
        "gb200-x2", "--disk", "disk.img", "--bios", "disk.img", "--memory", "1G",
    ];
    let more = ["--wait-ready", "--qemu", &qemu];
    let mut child = host(&folder, &[&args[..], &more].concat()).spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let report: serde_json::Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(
        (&report["ready"], &report["topology"]),
        (&true.into(), &"gb200-x2".into())
    );
    assert_eq!(report["ssh"], serde_json::Value::Null);
    let gpus = report["gpus"].as_array().unwrap();
    let pci: Vec<_> = gpus
        .iter()
        .map(|gpu| gpu["pci"].as_str().unwrap())
        .collect();
    assert_eq!(pci, ["0000:09:00.0", "0000:11:00.0"]);
    assert_ne!(gpus[0]["memory-base"], gpus[1]["memory-base"]);

    let directory = folder.argument("run");
    let faults = || {
        let inspect = varia(["ctl", "--directory", &directory, "inspect", "gpu1"]);
        let text = ended(inspect).success().stdout;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["faults"].to_string()
    };
    for (fault, expected) in [
        ("link-down", r#"["c2c-down"]"#),
        ("readiness-lost", r#"["lost-after-resets=0"]"#),
        ("poisoned-page", r#"["poisoned-page=0"]"#),
        ("gone", r#"["gone-after=0"]"#),
        ("none", "[]"),
    ] {
        let inject = varia(["host-fault", "1", fault, "--directory", &directory]);
        ended(inject).success();
        assert_eq!(faults(), expected, "{fault}");
    }
    let none = varia(["host-fault", "2", "gone", "--directory", &directory]);
    ended(none).refused(&["gpu2", "gpu0, gpu1"]);

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "QEMU was ended by a signal");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("TCG") && said.contains("NoCloud"), "{said}");
    assert_eq!(folder.names(), ["disk.img", "qemu"]);
}

/// The process has not ended. One that nobody has waited for may be left as a zombie.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

#[test]
fn a_host_that_is_killed_takes_qemu_with_it_and_another_can_start() {
    let folder = with_image();
    let qemu = play(
        &folder,
        "echo $$ > run/pid; echo 'login: ' >> run/console.log; exec sleep 100000",
    );
    let args = [
        "gh200", "--disk", "disk.img", "--bios", "disk.img", "--memory", "1G",
    ];
    let start = || {
        let mut command = host(
            &folder,
            &[&args[..], &["--wait-ready", "--qemu", &qemu]].concat(),
        );
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "{line}");
        child
    };
    let mut first = start();
    let pid = fs::read_to_string(folder.path("run/pid")).unwrap();
    let pid = pid.trim();
    assert!(runs(pid));
    first.kill().unwrap();
    first.wait().unwrap();
    let begin = Instant::now();
    while runs(pid) {
        assert!(begin.elapsed() < HANG, "QEMU outlives its parent");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = start();
    kill_process(Pid::from_child(&second), Signal::TERM).unwrap();
    second.wait_with_output().unwrap();
}

#[test]
fn a_host_that_ends_before_it_is_ready_shows_its_console() {
    let folder = with_image();
    let qemu = play(&folder, "echo 'Kernel panic' >> run/console.log; exit 0");
    let args = [
        "gh200", "--disk", "disk.img", "--bios", "disk.img", "--memory", "1G",
    ];
    let ended = ended(host(
        &folder,
        &[&args[..], &["--wait-ready", "--qemu", &qemu]].concat(),
    ));
    assert!(!ended.status.success());
    assert!(
        ended.stderr.contains("before it was ready"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("Kernel panic"), "{}", ended.stderr);
    assert!(!folder.path("run").exists());
}
