//! docs/ci: the jobs are YAML and agree, and their script runs what it is given on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use saphyr::{LoadableYamlNode, Yaml};

use crate::process::{Ended, Folder, ended};

fn documented(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/ci")
        .join(name)
}

fn job(name: &str) -> String {
    fs::read_to_string(documented(name)).unwrap()
}

/// Texts of a YAML document that are values.
fn values(node: &Yaml<'_>, found: &mut Vec<String>) {
    match node {
        Yaml::Sequence(list) => list.iter().for_each(|one| values(one, found)),
        Yaml::Mapping(map) => map.iter().for_each(|(_, value)| values(value, found)),
        other => found.extend(other.as_str().map(str::to_owned)),
    }
}

/// Command lines of a job.
fn commands(text: &str) -> Vec<String> {
    let documents = Yaml::load_from_str(text).unwrap();
    let mut found = Vec::new();
    documents
        .iter()
        .for_each(|document| values(document, &mut found));
    let lines = found.iter().flat_map(|value| value.lines());
    lines.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn both_jobs_install_and_run_the_same() {
    let (github, gitlab) = (job("github.yml"), job("gitlab.yml"));
    let (github, gitlab) = (commands(&github), commands(&gitlab));
    for command in [
        "apt-get install ",
        "cargo build ",
        "install ",
        "./make-image.sh ",
        "varia/docs/ci/run-on-host.sh ",
    ] {
        let of = |lines: &[String]| -> Vec<String> {
            let found = lines.iter().filter(|line| line.starts_with(command));
            found.cloned().collect()
        };
        assert_eq!(of(&github).len(), 1, "{command}: {github:?}");
        assert_eq!(of(&github), of(&gitlab));
    }
}

/// Runs the script with a simulated `varia` and `ssh` that the folder has.
fn run(folder: &Folder, varia: &str, ssh: &str) -> Ended {
    folder.script("varia", &format!("#!/bin/sh\n{varia}\n"));
    folder.script("ssh", &format!("#!/bin/sh\n{ssh}\n"));
    fs::write(folder.path("script"), "lspci\n").unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command: Command = crate::process::command(documented("run-on-host.sh"));
    command
        .args(["gb200-x2", "disk.img", "script", "--memory", "1G"])
        .env("PATH", format!("{}:{path}", folder.root().display()))
        .env("TMPDIR", folder.root())
        .current_dir(folder.root());
    ended(command)
}

/// A simulated host, which leaves a file when it is told to end.
const HOST: &str = r#"
[ "$1 $2 $3 $4" = "host gb200-x2 --disk disk.img" ] || exit 9
echo "$*" > said
trap 'touch ended; exit' TERM
echo '{"ready":true,"ssh":{"address":"127.0.0.1","port":2345},"gpus":[]}'
while :; do sleep 0.1; done"#;

#[test]
fn a_script_runs_on_the_host_which_is_ended_after_it() {
    for (code, succeeds) in [(0, true), (7, false)] {
        let folder = Folder::new();
        let ssh = format!("echo \"$*\" > ssh-said; cat > script-said; exit {code}");
        let ended = run(&folder, HOST, &ssh);
        assert_eq!(ended.status.success(), succeeds, "{}", ended.stderr);
        let said = fs::read_to_string(folder.path("said")).unwrap();
        for option in ["--snapshot", "--wait-ready", "--ssh 0", "--memory 1G"] {
            assert!(said.contains(option), "{option}: {said}");
        }
        let ssh = fs::read_to_string(folder.path("ssh-said")).unwrap();
        assert!(
            ssh.starts_with("-p 2345 ") && ssh.contains("root@127.0.0.1 sh -s"),
            "{ssh}"
        );
        let script = fs::read_to_string(folder.path("script-said")).unwrap();
        assert_eq!(script, "lspci\n");
        let names = [
            "ended",
            "said",
            "script",
            "script-said",
            "ssh",
            "ssh-said",
            "varia",
        ];
        assert_eq!(
            folder.names(),
            names,
            "the host has ended and nothing is left"
        );
    }
}

#[test]
fn a_host_that_does_not_start_fails_the_job() {
    let folder = Folder::new();
    let ended = run(
        &folder,
        "echo 'varia: no such image' >&2; exit 2",
        "touch called",
    );
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("no such image"), "{}", ended.stderr);
    assert!(!folder.path("called").exists());
}
