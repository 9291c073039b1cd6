//! Help, and that its examples run.

use rustix::process::Signal;
use varia_silicon::machine;

use crate::process::{Folder, Serving, ended, varia};

const COMMANDS: [&str; 11] = [
    "serve", "inspect", "run", "list", "capture", "bind", "unbind", "plan", "explain", "tables",
    "doctor",
];

/// The examples in a command's help, as words.
fn examples(command: &str) -> Vec<Vec<String>> {
    let help = ended(varia([command, "--help"])).success().stdout;
    let (_, examples) = help.split_once("Example:\n").expect("there are examples");
    examples
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| shell_words::split(line).unwrap())
        .collect()
}

#[test]
fn every_command_has_an_example_that_runs() {
    for name in COMMANDS {
        let examples = examples(name);
        assert!(!examples.is_empty(), "{name}");
        for words in examples {
            assert_eq!(words[..2], ["varia", name], "{words:?}");
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
                let socket = words.iter().skip_while(|word| *word != "--socket").nth(1);
                let socket = own(socket.expect("a socket")).into();
                let serving = Serving::of(command, socket);
                serving.client().device_info().unwrap();
                assert!(serving.end(Signal::TERM).0.success());
            } else if name == "unbind" {
                // a machine with such a device runs it in the lab
                command.args(["--state", "state"]);
                ended(command).refused(&["there is no PCI function 0009:01:00.0"]);
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
    for name in COMMANDS {
        assert!(shown.stderr.contains(name), "{}", shown.stderr);
    }
}
