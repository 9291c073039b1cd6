//! Help, and the examples in the help.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use varia_silicon::machine;

use crate::process::{Folder, Serving, ended, varia};

/// Every command, as the help lists them.
fn commands() -> Vec<String> {
    let help = ended(varia(["--help"])).success().stdout;
    let (_, list) = help.split_once("Commands:\n").expect("there are commands");
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    lines
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The examples in a command's help, as words.
fn examples(command: &str) -> Vec<Vec<String>> {
    let help = ended(varia([command, "--help"])).success().stdout;
    let (_, examples) = help
        .split_once("Example:\n")
        .unwrap_or_else(|| panic!("varia {command} --help has no example: {help}"));
    examples
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| shell_words::split(line).unwrap())
        .collect()
}

#[test]
fn every_command_has_an_example_that_runs() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for name in &commands {
        let examples = examples(name);
        assert!(!examples.is_empty(), "{name}");
        for words in examples {
            assert_eq!(words[..2], ["varia", name], "{words:?}");
            // what follows is the shell's business
            let words: Vec<_> = words.into_iter().take_while(|word| word != ">").collect();
            let folder = Folder::new();
            // what an example writes goes to this test's folder
            let own = |word: &String| word.replace("/tmp", folder.root().to_str().unwrap());
            let mut command = varia(words[1..].iter().map(own));
            command.current_dir(folder.root());
            if words.iter().any(|word| word == "host.tar") && name != "capture" {
                // the host that the example lists
                machine::GH200.write(&folder.root().join("host")).unwrap();
                let mut capture = varia(["capture", "--sysfs", "host", "host.tar"]);
                capture.current_dir(folder.root());
                ended(capture).success();
            }
            if name == "explain" {
                // the definitions that the examples are about
                for (file, vmm) in [("vm.xml", "libvirt"), ("vm.sh", "qemu")] {
                    let planned = ended(varia(["plan", "--gpu", "gh200", "--vmm", vmm]));
                    std::fs::write(folder.root().join(file), planned.success().stdout).unwrap();
                }
            }
            if name == "serve" {
                let value = |option| words.iter().skip_while(|word| *word != option).nth(1);
                let socket = match (value("--socket"), value("--directory")) {
                    (Some(socket), _) => own(socket).into(),
                    (None, directory) => folder
                        .path(&own(directory.expect("a directory")))
                        .join("gb200-0.sock"),
                };
                let serving = Serving::of(command, socket);
                serving.client().device_info().unwrap();
                assert!(serving.end(Signal::TERM).0.success());
            } else if name == "ctl" {
                // the server that the examples administer
                let directory = folder.argument("run");
                let serve = varia(["serve", "virtio-net", "--directory", &directory]);
                let serving = Serving::of(serve, folder.path("run/virtio-net.sock"));
                assert_ne!(ended(command).success().stdout, "", "{words:?}");
                assert!(serving.end(Signal::TERM).0.success());
            } else if name == "host" {
                // a boot sector without partitions: what the example boots from
                let mut sector = vec![0; 512];
                sector[510..].copy_from_slice(b"\x55\xaa");
                std::fs::write(folder.root().join("debian.img"), sector).unwrap();
                assert_ne!(ended(command).success().stdout, "", "{words:?}");
            } else if name == "host-fault" {
                // the lab has hosts that run
                command.env("XDG_RUNTIME_DIR", folder.root());
                ended(command).refused(&["no host runs", "--directory"]);
            } else if name == "unbind" {
                // a machine with such a device runs it in the lab
                command.args(["--state", "state"]);
                ended(command).refused(&["PCI function 0009:01:00.0 does not exist"]);
            } else {
                assert_ne!(ended(command).success().stdout, "", "{words:?}");
            }
        }
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for args in [&["--help"][..], &["-h"], &["help", "run"]] {
        let text = ended(varia(args)).success().stdout;
        assert!(text.contains("Usage: varia"), "{text}");
    }
    let version = ended(varia(["--version"])).success().stdout;
    assert_eq!(version, format!("varia {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_a_command_the_commands_are_shown() {
    let shown = ended(varia([""; 0]));
    assert!(!shown.status.success());
    for name in commands() {
        assert!(shown.stderr.contains(&name), "{}", shown.stderr);
    }
}

#[test]
fn every_command_has_a_page_in_the_manual_with_its_examples() {
    let folder = Folder::new();
    let pages = folder.root().join("man1");
    ended(varia(["man", "--out", pages.to_str().unwrap()])).success();
    let mut commands = commands();
    assert_eq!(fs::read_dir(&pages).unwrap().count(), commands.len() + 1);
    commands.push(String::new());
    for command in commands {
        let name = format!("varia-{command}");
        let name = name.trim_end_matches('-');
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        let mut sections = vec!["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"];
        if !command.is_empty() {
            sections.push("EXAMPLES");
            for example in examples(&command) {
                let first = format!("\nvaria {command} ");
                let of_page = page.replace("\\-", "-");
                assert!(of_page.contains(&first), "{example:?} is not in {page}");
            }
        }
        for section in sections {
            let title = format!("\n.SH {section}\n");
            assert!(page.contains(&title), "{name} has no {section}: {page}");
        }
    }
}

#[test]
fn bash_takes_the_completions_and_completes() {
    let script = ended(varia(["completions", "bash"])).success().stdout;
    let ask = "COMP_WORDS=(varia un) COMP_CWORD=1 COMPREPLY=()\n_varia varia un varia\n\
               printf '%s ' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &format!("{script}\n{ask}")]);
    bash.stdin(Stdio::null());
    bash.stdout(Stdio::piped()).stderr(Stdio::piped());
    let completed = ended(bash).success();
    assert_eq!(
        (completed.stdout.trim(), &*completed.stderr),
        ("unbind", "")
    );
}
