//! `varia node` as it is started, and the commands of docs/cluster.md.

use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use varia_silicon::machine::{self, GB200_NVL4};

use crate::process::{Folder, HANG, ended, varia};

/// A plugin that runs on a made-up host.
struct Plugin(Child);

impl Plugin {
    fn start(folder: &Folder) -> Self {
        let mut command = varia(["node", "run", "--sysfs", "host", "--plugins", "plugins"]);
        command.args(["--pods", "pods.sock", "--state", "state"]);
        command.current_dir(folder.root());
        let child = command.spawn().unwrap();
        Self(child)
    }

    /// Ends the plugin; returns its log.
    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let status = self.0.wait().unwrap();
        let mut log = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut log).unwrap();
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // the process may have ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn host() -> Folder {
    let folder = Folder::new();
    GB200_NVL4.write(&folder.root().join("host")).unwrap();
    fs::create_dir(folder.root().join("plugins")).unwrap();
    folder
}

#[test]
fn a_plugin_without_a_kubelet_waits_for_it_and_ends_with_sigterm() {
    let folder = host();
    let plugin = Plugin::start(&folder);
    let socket = folder.root().join("plugins/varia-varia.vfio-gb200.sock");
    let begin = Instant::now();
    while !socket.exists() {
        assert!(begin.elapsed() < HANG, "there is no socket");
        sleep(Duration::from_millis(20));
    }
    // two processes with one state, or before one kubelet, would hand a GPU out twice
    for (state, plugins, used) in [
        ("state", "plugins", "state"),
        ("state", "others", "state"),
        ("other", "plugins", "plugins"),
        ("other", "host/../plugins", "host/../plugins"),
    ] {
        let mut second = varia(["node", "run", "--sysfs", "host", "--state", state]);
        second.args(["--plugins", plugins, "--resource-domain", "other.vfio"]);
        second.current_dir(folder.root());
        let used = format!("another varia node uses {used}: stop it");
        ended(second).refused(&[&used, "all GPUs of a host"]);
    }
    let log = plugin.end();
    for part in [
        "event=unhealthy device=0009:01:00.0",
        "reason=driver",
        "event=unregistered resource=varia.vfio/gb200",
        "start the kubelet",
        "this host has 34 NUMA nodes",
    ] {
        assert!(log.contains(part), "{part:?} is not in\n{log}");
    }
    assert!(!socket.exists(), "it leaves no socket");
}

#[test]
fn what_can_not_be_used_is_refused_with_the_remedy() {
    let folder = host();
    fs::write(folder.root().join("file"), "").unwrap();
    for (args, parts) in [
        (
            vec!["--sysfs", "file"],
            ["file is not a directory", "unpack"],
        ),
        (
            vec!["--sysfs", "none"],
            ["none is not a directory", "unpack"],
        ),
        (
            vec!["--sysfs", "host", "--acpi", "none"],
            ["none is not a directory", "/sys/firmware/acpi/tables"],
        ),
        (
            vec!["--sysfs", "host", "--resource-domain", "A/b"],
            ["\"A/b\" can't be the domain", "gpus.example.com"],
        ),
        (
            vec!["--sysfs", "host", "--state", "file/x"],
            ["can't use file/x/node.lock", "--state"],
        ),
        (
            vec!["--sysfs", "host", "--state", "fresh", "--plugins", "file"],
            ["can't use file", "--plugins"],
        ),
        (
            vec!["--interval", "0"],
            ["\"0\" is not a time", "such as 5"],
        ),
    ] {
        let mut command = varia(["node", "run"]);
        command.args(args).current_dir(folder.root());
        ended(command).refused(&parts);
    }
    fs::create_dir(folder.root().join("state")).unwrap();
    fs::write(folder.root().join("state/node.json"), "{").unwrap();
    let mut command = varia(["node", "run", "--sysfs", "host", "--state", "state"]);
    command.args(["--plugins", "plugins"]);
    command.current_dir(folder.root());
    ended(command).refused(&["state/node.json is damaged", "remove the file"]);
}

#[test]
fn the_commands_of_the_page_print_what_the_page_shows() {
    let page = include_str!("../../../docs/cluster.md");
    let folder = Folder::new();
    for machine in [&machine::GH200, &GB200_NVL4] {
        machine.write(&folder.root().join(machine.name)).unwrap();
    }
    let mut typed = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let (command, shown) = block.split_once('\n').unwrap();
        let words = shell_words::split(command.strip_prefix("$ varia ").unwrap()).unwrap();
        let mut command = varia(words);
        command.current_dir(folder.root());
        assert_eq!(ended(command).success().stdout, shown);
        typed += 1;
    }
    assert_eq!(typed, 2);
}
