//! Definitions and hosts of other people's forms, each with its right answer.
//!
//! The definitions are rewritten from forms that users have: certified stacks, vendors' guides,
//! reports of faults. The hosts are trees that `--sysfs` reads.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::{Ended, Folder, ended, varia};

/// Folder of the definitions and hosts.
pub(crate) const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");

/// A definition, its host and the right answer.
struct Case {
    file: &'static str,
    /// A host of the folder `hosts`, or an argument for `--gpu`.
    host: &'static str,
    status: i32,
    /// Codes of faults.
    faults: &'static [&'static str],
    /// Codes of advice.
    advice: &'static [&'static str],
    /// Texts among what is not judged.
    unjudged: &'static [&'static str],
    /// Texts of added lines of the diff.
    added: &'static [&'static str],
}

const CLEAN: Case = Case {
    file: "",
    host: "gb200",
    status: 0,
    faults: &[],
    advice: &[],
    unjudged: &[],
    added: &[],
};

/// Advice for a GPU on the machine's own root bus, as libvirt puts it.
const OWN_ROOT: &[&str] = &[
    "root-bus-missing",
    "root-port-window",
    "rom-shown",
    "memory-anywhere",
    "distances-missing",
];

const ALL: &[Case] = &[
    Case {
        file: "certified-stack.xml",
        advice: &["root-bus-node"],
        ..CLEAN
    },
    Case {
        file: "two-gpus-on-one-smmu.sh",
        host: "gb200-shared-smmu",
        advice: &[
            "root-port-window",
            "root-port-window",
            "root-port-window",
            "root-port-window",
            "memory-anywhere",
            "distances-missing",
        ],
        ..CLEAN
    },
    Case {
        file: "kubevirt-style.xml",
        ..CLEAN
    },
    Case {
        file: "gpu-iommufd-no.xml",
        status: 1,
        faults: &["iommufd-missing"],
        added: &["<driver iommufd='yes'/>"],
        ..CLEAN
    },
    Case {
        file: "libvirt-log.log",
        host: "gh200",
        advice: OWN_ROOT,
        ..CLEAN
    },
    Case {
        file: "libvirt-command.txt",
        host: "gh200",
        advice: OWN_ROOT,
        added: &["\"addr\":\"0x1e\",\"bus_nr\":8,\"numa_node\":0}"],
        ..CLEAN
    },
    Case {
        file: "ten-ports.txt",
        host: "gh200",
        advice: OWN_ROOT,
        added: &["\"addr\":\"0x1e\",\"bus_nr\":24,\"numa_node\":0}"],
        ..CLEAN
    },
    Case {
        file: "fourteen-default-ports.xml",
        host: "gh200",
        advice: &[
            "root-bus-missing",
            "rom-shown",
            "memory-anywhere",
            "cpus-anywhere",
            "distances-missing",
        ],
        added: &["busNr='40'", "slot='0x1e'"],
        ..CLEAN
    },
    Case {
        file: "gpu-on-pcie0.sh",
        host: "gh200",
        advice: &["root-port-missing", "memory-anywhere", "distances-missing"],
        added: &["host=0009:01:00.0,bus=dev0.port,rombar=0,id=dev0"],
        ..CLEAN
    },
    Case {
        file: "early-initiator-syntax.sh",
        host: "gh200",
        status: 3,
        advice: &["root-port-missing", "memory-anywhere", "distances-missing"],
        unjudged: &["host-nodes: acpi-generic-initiator has no such property"],
        ..CLEAN
    },
    Case {
        file: "id-given-twice.sh",
        host: "gh200",
        status: 1,
        faults: &["nodes-missing"],
        advice: &["root-bus-node", "root-bus-node", "memory-anywhere"],
        unjudged: &["BARs of dev0"],
        ..CLEAN
    },
    Case {
        file: "readconfig-ports.txt",
        host: "0000:18:00.0=gb300",
        status: 1,
        faults: &["bars-not-mapped"],
        advice: &["rom-shown"],
        unjudged: &["-readconfig /usr/share/qemu-server/pve-q35-4.0.cfg: root buses, root ports"],
        ..CLEAN
    },
    Case {
        file: "set-option.sh",
        host: "gh200",
        status: 3,
        unjudged: &["-set device.dev0.x-no-mmap=on", "-set device.port1"],
        ..CLEAN
    },
    Case {
        file: "qemu-kvm-binary.sh",
        host: "gh200",
        ..CLEAN
    },
    Case {
        file: "shell-loop.sh",
        host: "gh200",
        advice: &["distances-missing"],
        added: &["-numa dist,src=7,dst=8,val=20"],
        ..CLEAN
    },
    Case {
        file: "options-in-variable.sh",
        host: "gh200",
        ..CLEAN
    },
    Case {
        file: "managed-no.xml",
        ..CLEAN
    },
];

/// A host of the folder `hosts`, unpacked.
pub(crate) fn host(name: &str, folder: &Folder) -> PathBuf {
    let host = folder.path(name);
    std::fs::create_dir(&host).unwrap();
    let mut unpack = Command::new("tar");
    unpack
        .args(["xzf", &format!("{CASES}/hosts/{name}.tar.gz")])
        .current_dir(&host);
    ended(piped(unpack)).success();
    host
}

fn piped(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Explains a file in its folder.
pub(crate) fn explain(file: &Path, host: &[String], args: &[&str]) -> Ended {
    let mut command = varia(["explain"]);
    command
        .arg(file.file_name().unwrap())
        .args(host)
        .args(args)
        .current_dir(file.parent().unwrap());
    ended(command)
}

pub(crate) fn codes(report: &Value, severity: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let own = findings.filter(|finding| finding["severity"] == severity);
    own.map(|finding| finding["code"].as_str().unwrap().to_owned())
        .collect()
}

fn is_applied(folder: &Folder, diff: &str) -> bool {
    std::fs::write(folder.path("diff"), diff).unwrap();
    let mut apply = Command::new("git");
    apply
        .args(["apply", "-p0", "diff"])
        .current_dir(folder.root());
    ended(piped(apply)).status.success()
}

/// Checks one case: status, findings, what is not judged, and the diff.
fn judge(case: &Case) {
    let Case { file, host, .. } = case;
    let folder = Folder::new();
    let of_host = match host.contains('=') {
        true => vec!["--gpu".to_owned(), (*host).to_owned()],
        false => {
            let host = self::host(host, &folder);
            vec!["--sysfs".to_owned(), host.to_str().unwrap().to_owned()]
        }
    };
    let path = folder.path(file);
    std::fs::copy(format!("{CASES}/{file}"), &path).unwrap();
    let shown = explain(&path, &of_host, &["--json", "--output", "fixed"]);
    let report: Value = serde_json::from_str(&shown.stdout)
        .unwrap_or_else(|error| panic!("{file}: {error}: {}", shown.stderr));
    assert_eq!(shown.status.code(), Some(case.status), "{file}: {report:#}");
    assert_eq!(codes(&report, "fault"), case.faults, "{file}");
    assert_eq!(codes(&report, "advice"), case.advice, "{file}");
    let parts = report["not_judged"].as_array().unwrap();
    assert_eq!(parts.len(), case.unjudged.len(), "{file}: {parts:#?}");
    for (part, wanted) in parts.iter().zip(case.unjudged) {
        let text = format!(
            "{}: {}",
            part["what"].as_str().unwrap(),
            part["why"].as_str().unwrap()
        );
        assert!(text.contains(wanted), "{file}: {text}");
        assert!(part["line"].as_u64() > Some(0), "{file}: {part}");
    }
    let diff = report["diff"].as_str().unwrap();
    let added: Vec<&str> = diff.lines().filter(|line| line.starts_with('+')).collect();
    for wanted in case.added {
        assert!(
            added.iter().any(|line| line.contains(wanted)),
            "{file}: {diff}"
        );
    }
    let plain = explain(&path, &of_host, &[]);
    assert_eq!(plain.status.code(), Some(case.status), "{file}");
    let is_clean = plain.stdout.contains("Nothing is missing or wrong");
    let is_all = case.faults.is_empty() && case.advice.is_empty() && case.unjudged.is_empty();
    assert_eq!(is_clean, is_all, "{file}: {}", plain.stdout);
    edits(case, &report, diff);
    corrected(case, &folder, &of_host, &report, diff);
}

/// Every changed line is an edit with a finding of the report.
fn edits(case: &Case, report: &Value, diff: &str) {
    let file = case.file;
    let edits = report["edits"].as_array().unwrap();
    let lines = |key: &str| -> usize {
        let lists = edits.iter().map(|edit| edit[key].as_array().unwrap().len());
        lists.sum()
    };
    let body = || diff.lines().skip(2);
    let added = body().filter(|line| line.starts_with('+')).count();
    let removed = body().filter(|line| line.starts_with('-')).count();
    assert_eq!(
        (lines("added"), lines("removed")),
        (added, removed),
        "{file}"
    );
    for edit in edits {
        let findings = edit["findings"].as_array().unwrap();
        assert!(!findings.is_empty(), "{file}: {edit}");
        for code in findings.iter().map(|code| code.as_str().unwrap()) {
            let is_announced = case.faults.contains(&code) || case.advice.contains(&code);
            assert!(is_announced, "{file}: {code} is changed and not found");
        }
    }
    for hunk in diff.lines().filter(|line| line.starts_with("@@")) {
        let (_, names) = hunk.rsplit_once("@@ ").expect("a header");
        assert!(!names.is_empty(), "{file}: {hunk}");
    }
}

/// The corrected definition has no finding that has a correction, and the diff applies once.
fn corrected(case: &Case, folder: &Folder, of_host: &[String], report: &Value, diff: &str) {
    let file = case.file;
    if diff.is_empty() {
        return;
    }
    let fixed = std::fs::read_to_string(folder.path("fixed")).unwrap();
    let again = explain(&folder.path("fixed"), of_host, &["--json"]);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    let left = |report: &Value| {
        let findings = report["findings"].as_array().unwrap().clone();
        let left = findings
            .into_iter()
            .filter(|finding| finding["corrected"] == false);
        left.map(|finding| finding["code"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        again["findings"].as_array().unwrap().len(),
        left(report).len(),
        "{file}: {again:#}"
    );
    assert_eq!(again["diff"], "", "{file}");
    assert!(is_applied(folder, diff), "{file}: {diff}");
    assert_eq!(
        std::fs::read_to_string(folder.path(file)).unwrap(),
        fixed,
        "{file}"
    );
    assert!(!is_applied(folder, diff), "{file}: applied twice");
    let places: Vec<&str> = fixed.lines().collect();
    for hunk in diff.split("\n@@ ").skip(1) {
        let old = without_fuzz(hunk);
        let mut windows = places.windows(old.len().max(1));
        assert!(
            !windows.any(|window| window == old),
            "{file}: applied twice by patch: {hunk}"
        );
    }
}

/// Lines that `patch` looks for, which leaves out two of the unchanged ones on each side.
fn without_fuzz(hunk: &str) -> Vec<&str> {
    let lines = hunk.lines().skip(1).filter(|line| !line.starts_with('+'));
    let mut lines: Vec<&str> = lines.filter(|line| !line.starts_with('\\')).collect();
    for _ in 0..2 {
        for _ in 0..2 {
            if lines.last().is_some_and(|line| line.starts_with(' ')) {
                lines.pop();
            }
        }
        lines.reverse();
    }
    let lines = lines.into_iter();
    lines
        .map(|line| line.get(1..).unwrap_or_default())
        .collect()
}

#[test]
fn definitions_have_their_right_answers() {
    ALL.iter().for_each(judge);
}

/// What `doctor` says of QEMU and libvirt for a definition on a host: severity and text.
fn of_programs(file: &str, host: &Path, args: &[&str]) -> Vec<(String, String)> {
    let path = format!("{CASES}/{file}");
    let args: Vec<&str> = ["doctor", &path, "--json"]
        .iter()
        .chain(args)
        .copied()
        .collect();
    let report: Value = serde_json::from_str(&on(host, &args).stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let own = findings.filter(|one| {
        ["definition-qemu", "definition-libvirt"].contains(&one["check"].as_str().unwrap())
    });
    own.map(|one| {
        (
            one["severity"].as_str().unwrap().to_owned(),
            one.to_string(),
        )
    })
    .collect()
}

/// No case has a fault of its host's programs, so that the doctor finds none either, nor anything
/// that is not known.
#[test]
fn the_doctor_and_the_explanation_agree_on_programs() {
    for case in ALL.iter().filter(|case| !case.host.contains('=')) {
        let folder = Folder::new();
        let host = host(case.host, &folder);
        // an assumption without the SMMU's device: its property implies it
        let options = ["accel", "ats", "cmdqv", "oas", "ril", "ssidsize"];
        let options = options.map(|option| format!("arm-smmuv3.{option}"));
        let assumed = format!("QEMU=10.1+{}", options.join(","));
        let assumed = ["--assume", &assumed];
        for args in [&[][..], &assumed] {
            let found = of_programs(case.file, &host, args);
            assert!(!found.is_empty(), "{}", case.file);
            let amiss: Vec<_> = found
                .iter()
                .filter(|(severity, _)| ["failure", "unknown"].contains(&severity.as_str()))
                .collect();
            assert!(amiss.is_empty(), "{} {args:?}: {amiss:#?}", case.file);
            let path = folder.path(case.file);
            std::fs::copy(format!("{CASES}/{}", case.file), &path).unwrap();
            let of_host = ["--sysfs".to_owned(), host.to_str().unwrap().to_owned()];
            let shown = explain(&path, &of_host, &[&["--json"], args].concat());
            let report: Value = serde_json::from_str(&shown.stdout).unwrap();
            assert_eq!(
                codes(&report, "fault"),
                case.faults,
                "{} {args:?}",
                case.file
            );
        }
    }
}

#[test]
fn every_definition_is_a_case() {
    let refused = REFUSED.iter().map(|(file, _)| *file);
    let mut known: Vec<&str> = ALL.iter().map(|case| case.file).chain(refused).collect();
    known.sort_unstable();
    let files = std::fs::read_dir(CASES).unwrap().map(|file| file.unwrap());
    let files = files.filter(|file| file.path().is_file());
    let mut there: Vec<String> = files
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    there.sort_unstable();
    assert_eq!(there, known);
}

/// Forms that are not read, and what is said of each.
const REFUSED: &[(&str, &str)] = &[
    ("pod.yaml", "this is a Kubernetes object (YAML)"),
    ("virt-install.sh", "--print-xml --dry-run"),
];

#[test]
fn other_forms_are_refused_by_name() {
    for (file, named) in REFUSED {
        let shown = explain(
            &Path::new(CASES).join(file),
            &[],
            &["--gpu", "0009:01:00.0=gh200"],
        );
        assert_eq!(shown.status.code(), Some(2), "{file}");
        shown.refused(&[file, named]);
    }
}

/// What a command says of a host.
fn on(host: &Path, args: &[&str]) -> Ended {
    ended(varia(
        args.iter()
            .copied()
            .chain(["--sysfs", host.to_str().unwrap()]),
    ))
}

/// A kernel whose aliases lack the id of a GPU in the chip table: all commands name the same driver.
#[test]
fn a_known_gpu_never_gets_plain_vfio_pci_in_silence() {
    const VARIANT: &str = "nvgrace_gpu_vfio_pci";
    let folder = Folder::new();
    let host = host("gb200-old-aliases", &folder);
    let listed = on(&host, &["list"]).success().stdout;
    assert!(
        listed.contains(&format!("best driver      {VARIANT}: GB200 needs it")),
        "{listed}"
    );
    let checked = on(&host, &["doctor"]).stdout;
    assert!(
        checked.contains(&format!("the best for a VM is {VARIANT}")),
        "{checked}"
    );
    let bind = ["bind", "0008:01:00.0", "--dry-run"];
    let bound = on(&host, &bind).success().stdout;
    assert!(
        bound.contains(&format!("would be bound to {VARIANT}: GB200 needs it")),
        "{bound}"
    );
    assert!(bound.contains("driver_override"), "{bound}");
    // without the module it is refused
    let modules = host.join("lib/modules/6.17.0-1014-nvidia-64k/modules.dep");
    let without = std::fs::read_to_string(&modules).unwrap();
    let without: Vec<&str> = without
        .lines()
        .filter(|line| !line.contains("nvgrace"))
        .collect();
    std::fs::write(&modules, without.join("\n")).unwrap();
    on(&host, &bind).refused(&[VARIANT, "is not installed", "--driver vfio-pci"]);
    let asked = ["bind", "0008:01:00.0", "--dry-run", "--driver", "vfio-pci"];
    on(&host, &asked).success();
    let asked = [
        "bind",
        "0008:01:00.0",
        "--dry-run",
        "--driver",
        "no-such-driver",
    ];
    on(&host, &asked).refused(&["no-such-driver does not exist", "modules.dep"]);
}

/// GPU memory that the host uses as RAM: its node, its size and what to do.
#[test]
fn memory_that_is_online_is_named() {
    let folder = Folder::new();
    let host = host("gb200-memory-online", &folder);
    let checked = on(&host, &["doctor"]).stdout;
    for text in [
        "0008:01:00.0: 184 GiB of its memory are online as RAM of the host, on node 2",
        "echo offline > $state",
        " of 960 GiB can be used",
    ] {
        assert!(checked.contains(text), "{text:?} is not in {checked}");
    }
    on(&host, &["bind", "0008:01:00.0", "--dry-run"]).refused(&[
        "184 GiB of the memory of 0008:01:00.0",
        "node 2",
        "offline",
    ]);
}

/// A definition against its host: the bound driver, and the versions of libvirt and QEMU.
#[test]
fn the_doctor_checks_a_definition_against_its_host() {
    let folder = Folder::new();
    let file = format!("{CASES}/managed-no.xml");
    let host = |name: &str| self::host(name, &folder);
    let checked = on(&host("gb200"), &["doctor", &file]);
    assert_eq!(checked.status.code(), Some(1), "{}", checked.stderr);
    for text in [
        "0008:01:00.0: nvidia is bound, which is no VFIO driver",
        "run  varia bind 0008:01:00.0",
        "QEMU 10.1.0 has acpi-generic-initiator, arm-smmuv3",
        "libvirt 11.9.0 has <acpi nodeset>, <driver pciBus> of an SMMU, iommufd in builds of some",
        "node 0: 100 GiB of hugepages of 512 MiB are free, and the definition needs 447 GiB",
    ] {
        assert!(
            checked.stdout.contains(text),
            "{text:?} is not in {}",
            checked.stdout
        );
    }
    let checked = on(&host("gb200-libvirt9"), &["doctor", &file]).stdout;
    for text in [
        "libvirt 9.0.0 does not have <acpi nodeset>",
        "arm-smmuv3.accel: QEMU 8.2.2 does not have it, and the definition uses it",
        "acpi-generic-initiator: QEMU 8.2.2 does not have it",
    ] {
        assert!(checked.contains(text), "{text:?} is not in {checked}");
    }
    // a managed function is bound by libvirt
    let file = format!("{CASES}/certified-stack.xml");
    let checked = on(&folder.path("gb200"), &["doctor", &file]).stdout;
    assert!(checked.contains("libvirt binds a VFIO driver"), "{checked}");
}

/// Without arguments the doctor leaves the host's own network cards alone.
#[test]
fn the_doctor_names_no_remedy_for_what_the_host_needs() {
    let folder = Folder::new();
    let host = host("gb200", &folder);
    let checked = on(&host, &["doctor"]).stdout;
    assert!(!checked.contains("0000:03:00.0"), "{checked}");
    let mut lines = checked.lines().peekable();
    while let Some(line) = lines.next() {
        let remedy = lines.peek().is_some_and(|next| next.starts_with("    "));
        assert!(!line.starts_with("not applicable") || !remedy, "{line}");
    }
    assert!(!checked.contains("11.9.0 ()"), "{checked}");
}
