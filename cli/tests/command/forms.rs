//! Other forms of good definitions, and the options of `varia explain`.

use std::path::Path;

use serde_json::Value;

use crate::cases::{CASES, codes, explain, host};
use crate::process::Folder;

/// A good command in other forms: judged, or what is not judged is said.
#[test]
fn the_forms_of_a_command_are_judged_or_named() {
    let folder = Folder::new();
    let host = host("gh200", &folder);
    let host = ["--sysfs".to_owned(), host.to_str().unwrap().to_owned()];
    let good = std::fs::read_to_string(format!("{CASES}/qemu-kvm-binary.sh")).unwrap();
    let line = good.replace("\\\n", " ").trim().to_owned();
    let forms: &[(&str, String, Option<&str>)] = &[
        ("as it is", line.clone(), None),
        ("systemd", format!("[Service]\nExecStart={line}\n"), None),
        (
            "systemd with more",
            format!(
                "[Unit]\nDescription=x\n[Service]\nEnvironment=GPU=0009:01:00.0 \"X=y\"\nExecStart={}\n\
                 Restart=always\n",
                line.replace("0009:01:00.0", "${GPU}").replace(
                    " -numa node,nodeid=8",
                    " \\\n# a comment\n -numa node,nodeid=8"
                )
            ),
            None,
        ),
        (
            "ps",
            format!(
                "root 4711 1 99 Sep01 ? 12-00:10 {}\n",
                line.replace(
                    "-device vfio-pci,host=0009:01:00.0,bus=port1,rombar=0,id=dev0",
                    "-device {\"driver\":\"vfio-pci\",\"host\":\"0009:01:00.0\",\"bus\":\"port1\",\
                     \"rombar\":0,\"id\":\"dev0\"}"
                )
            ),
            None,
        ),
        (
            "hexadecimal",
            line.replace("bus_nr=32", "bus_nr=0x20")
                .replace("nodeid=8", "nodeid=0x8")
                .replace("numa_node=0", "numa_node=0x0"),
            None,
        ),
        (
            "sizes",
            line.replace("-m 16G", "-m size=0.015625T,slots=2,maxmem=32G")
                .replace("size=16G,id=m0", "size=17179869184,id=m0"),
            None,
        ),
        (
            "no backslash",
            line.replace(" -name", "\n-name") + "\n-device nvme,id=n",
            Some("-device, which no command begins with"),
        ),
        (
            "braces",
            format!(
                "{line} -device nvme,id=n{{1..2}},addr={{3,4}} -device vfio-pci,host=0000:0{{1..2}}:00.0"
            ),
            Some("{1..2}"),
        ),
        (
            "tie without a device",
            format!("{line} -object acpi-egm-memory,id=e"),
            Some("it lacks a pci-dev"),
        ),
        ("docker", format!("docker run --rm image {line}\n"), None),
        ("eval", format!("eval \"{line}\"\n"), None),
        ("in a variable", format!("C=\"{line}\"\n$C\n"), None),
        ("document", format!("cat >vm.sh <<EOF\n{line}\nEOF\n"), None),
        (
            "default",
            line.replace("0009:01:00.0", "${GPU:-0009:01:00.0}"),
            None,
        ),
        (
            "loop",
            format!("for i in `seq 1 2`; do D=\"$D -device nvme,id=n$i\"; done\n{line} $D"),
            None,
        ),
        ("file", format!("{line} @options"), Some("@options")),
        ("rest", format!("{line} \"$@\""), Some("$@")),
        (
            "other file",
            format!(". /etc/vm.conf\n{line} $MORE"),
            Some("$MORE"),
        ),
        (
            "condition",
            format!("if a; then D=x; fi\n{line} -name $D $D"),
            Some("line 1 sets"),
        ),
        (
            "function",
            format!("f() {{ D=\"$D x\"; }}\nf\n{line} $D"),
            Some("line 1 sets"),
        ),
        (
            "element",
            format!("D=(-name x)\nD[1]=y\n{line} \"${{D[@]}}\""),
            Some("line 2 sets"),
        ),
        (
            "variable",
            line.replace("rombar=0", "rombar=0,$MORE"),
            Some("$MORE"),
        ),
        (
            "unknown option",
            format!("{line} -frobnicate 1"),
            Some("-frobnicate"),
        ),
        (
            "unknown device",
            format!("{line} -device frobnicator"),
            Some("frobnicator"),
        ),
        (
            "unknown object",
            format!("{line} -object acpi-egm-memory,id=e"),
            Some("acpi-egm-memory"),
        ),
        (
            "unknown property",
            line.replace("rombar=0", "rombar=0,x-frob=1"),
            Some("x-frob"),
        ),
        (
            "property of all",
            format!("{line} -global pxb-pcie.frob=1"),
            Some("pxb-pcie.frob"),
        ),
        (
            "other IOMMU",
            format!("{line} -device virtio-iommu-pci"),
            Some("virtio-iommu-pci"),
        ),
        (
            "more RAM",
            format!("{line} -device nvdimm,memdev=n"),
            Some("nvdimm"),
        ),
        (
            "latencies",
            format!("{line} -numa hmat-lb,initiator=0"),
            Some("hmat-lb"),
        ),
        (
            "machine",
            line.replace("-machine virt,", "-machine sbsa-ref,"),
            Some("sbsa-ref"),
        ),
        (
            "apart",
            format!("{line} -netdev user,id=n -device e1000,netdev=n -vnc :1"),
            None,
        ),
    ];
    for (name, text, unjudged) in forms {
        let path = folder.path("vm");
        std::fs::write(&path, text).unwrap();
        let shown = explain(&path, &host, &["--json"]);
        let report: Value = serde_json::from_str(&shown.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {}", shown.stderr));
        assert_eq!(codes(&report, "fault"), [""; 0], "{name}: {report:#}");
        let status = if unjudged.is_some() { 3 } else { 0 };
        assert_eq!(shown.status.code(), Some(status), "{name}: {report:#}");
        let parts = report["not_judged"].to_string();
        assert!(parts.contains(unjudged.unwrap_or("[]")), "{name}: {parts}");
        assert_eq!(report["gpus"].as_array().unwrap().len(), 1, "{name}");
    }
}

#[test]
fn a_correction_adds_nothing_in_a_loop() {
    let folder = Folder::new();
    let host = host("gh200", &folder);
    let shown = explain(
        &Path::new(CASES).join("shell-loop.sh"),
        &["--sysfs".to_owned(), host.to_str().unwrap().to_owned()],
        &["--output", folder.path("fixed").to_str().unwrap()],
    );
    assert_eq!(shown.status.code(), Some(0));
    let fixed = std::fs::read_to_string(folder.path("fixed")).unwrap();
    for part in fixed.split("do\n").skip(1) {
        let (body, _) = part.split_once("\ndone").expect("the end of the loop");
        assert_eq!(body.lines().count(), 1, "{body}");
    }
}

#[test]
fn faults_alone_and_strictness() {
    let folder = Folder::new();
    let host = host("gh200", &folder);
    let host = ["--sysfs".to_owned(), host.to_str().unwrap().to_owned()];
    let path = Path::new(CASES).join("gpu-on-pcie0.sh");
    let strict = explain(&path, &host, &["--strict"]);
    assert_eq!(strict.status.code(), Some(1));
    let shown = explain(&path, &host, &["--faults-only", "--json"]);
    let report: Value = serde_json::from_str(&shown.success().stdout).unwrap();
    assert_eq!(report["findings"], serde_json::json!([]));
    assert_eq!(report["diff"], "");
}

/// Neither clean nor refused: the address may be that of a GPU.
#[test]
fn an_address_that_only_a_shell_knows_is_not_judged() {
    let folder = Folder::new();
    let host = host("gh200", &folder);
    let host = ["--sysfs".to_owned(), host.to_str().unwrap().to_owned()];
    let command = "qemu-system-aarch64 -machine virt,gic-version=3 -accel kvm -cpu host -m 4G \
                   -bios QEMU_EFI.fd -device pcie-root-port,id=port \
                   -device vfio-pci,host=$GPU,bus=port,id=gpu0\n";
    for (before, line) in [
        ("GPU=$1\n", 2),
        ("", 1),
        // an address of another host, and the GPU's own
        (
            "case $1 in\n a) GPU=0009:01:00.0 ;;\n b) GPU=0019:01:00.0 ;;\nesac\n",
            5,
        ),
        ("if [ -n \"$1\" ]; then\n GPU=0000:02:00.0\nfi\n", 4),
    ] {
        let path = folder.path("vm.sh");
        std::fs::write(&path, format!("{before}{command}")).unwrap();
        for known in [
            &host[..],
            &["--gpu".to_owned(), "0009:01:00.0=gh200".to_owned()],
        ] {
            let shown = explain(&path, known, &["--json"]);
            assert_eq!(shown.status.code(), Some(3), "{before}: {}", shown.stderr);
            let report: Value = serde_json::from_str(&shown.stdout).unwrap();
            assert_eq!(report["gpus"], serde_json::json!([]), "{before}");
            assert_eq!(report["diff"], "", "{before}");
            assert_eq!(report["not_judged"][0]["line"], line, "{before}");
        }
        let text = explain(&path, &host, &[]).stdout;
        assert!(text.contains("a shell alone knows"), "{text}");
    }
}
