//! `varia explain`: kept plans have no findings, a broken definition is explained and corrected,
//! and a definition that can't be judged is refused.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use varia_explain::Code;
use varia_silicon::machine::{GB200_NVL4, GB300_NVL4, GH200, GH200_X4, Machine};

use crate::process::{Ended, Folder, ended, varia};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

fn explain(args: &[&str]) -> Ended {
    ended(varia(["explain"].iter().chain(args)))
}

/// Kept plans, each with its host.
fn kept() -> Vec<(&'static str, Machine)> {
    vec![
        ("gh200", GH200),
        ("gh200-x4", GH200_X4),
        ("gb200", GB200_NVL4),
        ("gb200-x2", GB200_NVL4),
        ("gb300", GB300_NVL4),
    ]
}

#[test]
fn kept_plans_are_not_faulted_on_their_host() {
    for (name, machine) in kept() {
        let folder = Folder::new();
        let host = folder.path("host");
        machine.write(&host).unwrap();
        for kind in ["qemu", "xml"] {
            let file = format!("{DOCS}/plans/{name}.{kind}");
            let shown = explain(&[&file, "--sysfs", host.to_str().unwrap()]).success();
            assert!(
                shown.stdout.contains("Nothing is missing or wrong"),
                "{}",
                shown.stdout
            );
            assert!(shown.stdout.contains("0009:01:00.0"), "{}", shown.stdout);
        }
    }
}

#[test]
fn a_broken_domain_is_explained_and_its_diff_applies() {
    let folder = Folder::new();
    let good = std::fs::read_to_string(format!("{DOCS}/plans/gb200.xml")).unwrap();
    let broken = good
        .replace("      <acpi nodeset='1-8'/>\n", "")
        .replace("'TiB'>2<", "'GiB'>512<");
    std::fs::write(folder.path("vm.xml"), &broken).unwrap();
    let run = |args: &[&str]| {
        let mut command = varia(["explain", "vm.xml", "--gpu", "0009:01:00.0=gb200"]);
        command.args(args).current_dir(folder.root());
        ended(command)
    };
    let shown = run(&["--output", "fixed.xml"]);
    assert_eq!(shown.status.code(), Some(1), "{}", shown.stderr);
    for word in [
        "initiator-missing (fault)",
        "aperture-too-small (fault)",
        "nodes 1 to 8",
        "2 TiB",
    ] {
        assert!(shown.stdout.contains(word), "{word}: {}", shown.stdout);
    }
    // what is said in front of the diff does not disturb what applies it
    std::fs::write(folder.path("said"), &shown.stdout).unwrap();
    let mut apply = Command::new("git");
    apply
        .args(["apply", "-p0", "said"])
        .current_dir(folder.root());
    apply
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    ended(apply).success();
    let applied = std::fs::read_to_string(folder.path("vm.xml")).unwrap();
    assert_eq!(
        applied,
        std::fs::read_to_string(folder.path("fixed.xml")).unwrap()
    );
    run(&[]).success();
}

#[test]
fn json_has_what_the_text_has() {
    let file = format!("{DOCS}/plans/gh200.qemu");
    let broken = std::fs::read_to_string(&file)
        .unwrap()
        .replace("-accel kvm", "-accel tcg");
    let mut command = varia(["explain", "-", "--json", "--gpu", "0009:01:00.0=gh200"]);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(broken.as_bytes())
        .unwrap();
    let shown = child.wait_with_output().unwrap();
    assert_eq!(shown.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(json["schema"], "varia-explain/1");
    assert_eq!(json["language"], "qemu");
    assert_eq!(json["findings"][0]["code"], "accelerator");
    assert_eq!(json["findings"][0]["weight"], "fault");
    assert_eq!(json["findings"][0]["corrected"], true);
    let diff = json["diff"].as_str().unwrap();
    assert!(
        diff.contains("--- definition\n") && diff.contains("+  -accel kvm"),
        "{diff}"
    );
}

#[test]
fn what_can_not_be_judged() {
    let folder = Folder::new();
    let refused = |text: &[u8], args: &[&str], named: &[&str]| {
        let file = folder.path("vm");
        std::fs::write(&file, text).unwrap();
        let ended = explain(&[&[file.to_str().unwrap()], args].concat());
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        ended.refused(named);
    };
    refused(b"", &[], &["vm: there is no definition"]);
    refused(&vec![b' '; 50 << 20], &[], &["larger than"]);
    refused(
        b"qemu-system-aarch64 \\\n -name 'x",
        &[],
        &["line 2", "never closed"],
    );
    refused(b"<domain>\n</os>", &[], &["line 2"]);
    let unknown = b"qemu-system-aarch64 -M virt -device vfio-pci,host=0123:01:00.0";
    refused(
        unknown,
        &[],
        &["0123:01:00.0", "--facts", "--gpu 0123:01:00.0=gh200"],
    );
    refused(
        unknown,
        &["--gpu", "gpu0=gh200"],
        &["gpu0", "its host functions: 0123:01:00.0"],
    );
    refused(unknown, &["--gpu", "0123:01:00.0=gh2000"], &["gh2000"]);
    refused(unknown, &["--gpu", "0123:01:00.0"], &["0009:01:00.0=gh200"]);
    explain(&["/nowhere/vm.xml"]).refused(&["can't read /nowhere/vm.xml"]);
    let none = b"qemu-system-aarch64 -M virt -device virtio-net-pci";
    std::fs::write(folder.path("vm"), none).unwrap();
    let shown = explain(&[folder.path("vm").to_str().unwrap()]).success();
    assert!(shown.stdout.contains("without a GPU"), "{}", shown.stdout);
}

/// The table of the documentation, as the code has it. `VARIA_WRITE_PLANS=1` writes it anew.
#[test]
fn the_documentation_has_every_code() {
    let cell = |alternatives: &[&str]| {
        let text = alternatives.join("; or: ");
        text.replace(['{', '}'], "*").replace('<', "\\<")
    };
    let mut table =
        "| finding | weight | found | reason | remedy |\n|---|---|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let texts = code.texts();
        table += &format!(
            "| {} | {} | {} | {} | {} |\n",
            texts.name,
            texts.weight.name(),
            cell(texts.found),
            cell(texts.why),
            cell(texts.remedy)
        );
    }
    let path = Path::new(DOCS).join("explain.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("| finding |").expect("the table");
    let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
    let wanted = format!("{before}{table}\n{after}");
    if std::env::var_os("VARIA_WRITE_PLANS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap();
    assert!(
        there == wanted,
        "VARIA_WRITE_PLANS=1 cargo test writes the table of {path:?} anew"
    );
}
