//! `varia run`: the plan that a dry run prints, and a simulated QEMU.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Ended, Folder, HANG, ended, varia};

fn dry_run(args: &[&str]) -> Ended {
    let mut command = varia(["run", "--dry-run"]);
    command.args(args).env("XDG_RUNTIME_DIR", "/run/user/1");
    ended(command)
}

/// The two commands that a dry run prints, as words.
fn plan(args: &[&str]) -> (Vec<String>, Vec<String>) {
    let text = dry_run(args).success().stdout;
    let (serve, qemu) = text.split_once(" &\n").expect("two commands");
    let words = |line| shell_words::split(line).unwrap();
    (words(serve), words(qemu))
}

fn has(words: &[String], option: &str, value: &str) -> bool {
    words
        .windows(2)
        .any(|pair| pair[0] == option && pair[1].contains(value))
}

#[test]
fn a_dry_run_plans_a_guest_of_either_architecture() {
    for (arch, program, machine) in [
        ("aarch64", "qemu-system-aarch64", "virt,"),
        ("x86_64", "qemu-system-x86_64", "q35"),
    ] {
        let (serve, qemu) = plan(&["gh200", "--arch", arch]);
        let socket = "/run/user/1/varia-gh200.sock";
        assert_eq!(serve, ["varia", "serve", "gh200", "--socket", socket]);
        assert_eq!(qemu[0], program);
        assert!(has(&qemu, "-machine", machine), "{qemu:?}");
        assert!(has(&qemu, "-device", socket), "{qemu:?}");
        assert!(has(&qemu, "-device", "vfio-user-pci"), "{qemu:?}");
        assert!(has(&qemu, "-object", "share=on"), "{qemu:?}");
        for node in 1..=8 {
            let initiator = format!("acpi-generic-initiator,id=gpu0.gi{node},");
            assert!(has(&qemu, "-object", &initiator), "{qemu:?}");
            let node = format!("node,nodeid={node}");
            assert!(qemu.contains(&node), "{qemu:?}");
        }
        assert_eq!(has(&qemu, "-bios", ""), arch == "aarch64");
    }
}

#[test]
fn a_dry_run_hands_on_what_it_is_told() {
    let (serve, qemu) = plan(&[
        "gb200",
        "--memory",
        "184G+300M",
        "--base",
        "0x80000000",
        "--ready-after",
        "0",
        "--fault",
        "no-properties",
        "--arch",
        "x86_64",
        "--kernel",
        "my kernel",
        "--initrd",
        "initrd",
        "--append",
        "quiet",
        "--disk",
        "a,b.qcow2",
        "--ram",
        "3G",
        "--cpus",
        "5",
        "--nodes",
        "2",
        "--qemu",
        "/opt/qemu",
        "--qemu-arg",
        "-S",
    ]);
    for (option, value) in [
        ("--memory", "184G+300M"),
        ("--base", "0x80000000"),
        ("--ready-after", "0"),
        ("--fault", "no-properties"),
    ] {
        assert!(has(&serve, option, value), "{serve:?}");
    }
    for (option, value) in [
        ("-kernel", "my kernel"),
        ("-initrd", "initrd"),
        ("-append", "console=ttyS0 quiet"),
        ("-drive", "file=a,,b.qcow2"),
        ("-m", "3G"),
        ("-smp", "5,sockets=1"),
    ] {
        assert!(has(&qemu, option, value), "{option}: {qemu:?}");
    }
    assert_eq!(qemu[0], "/opt/qemu");
    assert_eq!(qemu.last().map(String::as_str), Some("-S"));
    assert!(qemu.contains(&"node,nodeid=2".into()) && !qemu.contains(&"node,nodeid=3".into()));
}

#[test]
fn what_no_guest_can_have() {
    dry_run(&["gh200", "--arch", "sparc"])
        .refused(&["sparc", "use aarch64 (arm64) or x86_64 (amd64)"]);
    dry_run(&["gh200", "--cpus", "0"]).refused(&["'0'", "--cpus", "1.."]);
    dry_run(&["gh200", "--ram", "0"]).refused(&["0 bytes of RAM", "--ram 2G"]);
    dry_run(&["gh200", "--nodes", "500"]).refused(&["501", "128", "fewer nodes"]);
    for (profile, what) in [("v100-nvlink", "GPU memory"), ("v100-bridge", "ATSD")] {
        let reason = format!("a {profile} presents its {what} as such: use varia serve");
        dry_run(&[profile]).refused(&["QEMU maps no device-specific region", &reason]);
    }
    dry_run(&["gh200", "--initrd", "i"]).refused(&["--kernel"]);
}

/// A simulated QEMU, which prints its version and then runs `script`.
fn play(folder: &Folder, script: &str) -> String {
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version 11.1.0' && exit\n{script}\n"
    );
    folder.script("qemu", &text)
}

fn run(folder: &Folder, qemu: &str) -> std::process::Command {
    let mut command = varia(["run", "gb200", "--memory", "1G", "--arch", "x86_64"]);
    command.args(["--qemu", qemu]);
    command.env("TMPDIR", folder.root());
    command
}

#[test]
fn a_qemu_that_is_missing_or_too_old() {
    let folder = Folder::new();
    let none = folder.argument("none");
    ended(run(&folder, &none)).refused(&[&none, "10.1", "--qemu"]);
    let old = folder.script("old", "#!/bin/sh\necho QEMU emulator version 7.2.22\n");
    ended(run(&folder, &old)).refused(&[&old, "7.2.22", "10.1", "--qemu"]);
    assert_eq!(folder.names(), ["old"]);
}

#[test]
fn qemu_finds_the_device_and_its_end_is_the_commands() {
    let folder = Folder::new();
    let socket = "$(printf '%s\\n' \"$@\" | sed -n 's/.*\"path\":\"\\([^\"]*\\)\".*/\\1/p')";
    for (code, ends_well) in [(0, true), (3, false)] {
        let script = format!("[ -S \"{socket}\" ] || exit 9\nexit {code}");
        let qemu = play(&folder, &script);
        let ended = ended(run(&folder, &qemu));
        assert_eq!(ended.status.success(), ends_well, "{}", ended.stderr);
        assert_eq!(folder.names(), ["qemu"], "the socket's directory is gone");
    }
}

/// True if a process has a handler for SIGTERM.
fn catches_term(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & 1 << (Signal::TERM.as_raw() - 1) != 0
}

#[test]
fn a_run_that_is_told_to_stop_stops_qemu_and_leaves_nothing() {
    let folder = Folder::new();
    let pid_file = folder.argument("pid");
    let qemu = play(
        &folder,
        &format!("echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 100000"),
    );
    let child = run(&folder, &qemu).spawn().unwrap();
    let begin = Instant::now();
    while !folder.path("pid").exists() {
        assert!(begin.elapsed() < HANG);
        std::thread::sleep(Duration::from_millis(5));
    }
    // the handler is set right after QEMU was started
    while !catches_term(child.id()) {
        assert!(begin.elapsed() < HANG);
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    let pid: i32 = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let gone = rustix::process::test_kill_process(Pid::from_raw(pid).unwrap());
    assert!(gone.is_err(), "QEMU is gone");
    assert_eq!(folder.names(), ["pid", "qemu"]);
}
