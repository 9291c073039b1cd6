//! `varia plan` and `varia tables`: the plans in the documentation, and refused requests.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use varia_silicon::machine;

use crate::process::{Ended, Folder, ended, varia};

/// Topologies that are kept as text, and their arguments.
const KEPT: [(&str, &[&str]); 5] = [
    ("gh200", &["--gpu", "gh200"]),
    (
        "gh200-x4",
        &[
            "--gpu", "gh200", "--gpu", "gh200", "--gpu", "gh200", "--gpu", "gh200",
        ],
    ),
    ("gb200", &["--gpu", "gb200"]),
    ("gb200-x2", &["--gpu", "gb200:2-of-one-superchip"]),
    ("gb300", &["--gpu", "gb300"]),
];

fn plan(args: &[&str]) -> Ended {
    ended(varia(["plan"].iter().chain(args)))
}

/// Compares with a kept file. `VARIA_WRITE_PLANS=1` rewrites the file.
fn kept(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/plans")
        .join(file);
    if std::env::var_os("VARIA_WRITE_PLANS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap();
    assert!(
        there == text,
        "{file} is not what varia plan prints: VARIA_WRITE_PLANS=1 cargo test writes it anew, if \
         the change is meant"
    );
}

#[test]
fn the_plans_that_are_kept_are_those_that_are_printed() {
    let folder = Folder::new();
    let host = folder.root().join("host");
    machine::GB200_NVL4.write(&host).unwrap();
    // what a kernel that serves SMMUs of VMs has besides
    let config = std::fs::read_dir(host.join("boot")).unwrap().next();
    let config = config.expect("the kernel's options").unwrap().path();
    let options = "\nCONFIG_VFIO_PCI_DMABUF=y\nCONFIG_ARM_SMMU_V3_IOMMUFD=y\n";
    let text = std::fs::read_to_string(&config).unwrap() + options;
    std::fs::write(&config, text).unwrap();
    let host = host.to_str().unwrap();
    let args = ["--sysfs", host, "--gpu", "2-of-one-superchip"];
    let with_smmus = [("gb200-x2-smmu", &args[..])];
    for (name, args) in KEPT.into_iter().chain(with_smmus) {
        let folder = Folder::new();
        let svg = folder.root().join("plan.svg");
        let mut args = args.to_vec();
        args.extend(["--cpus", "8", "--svg", svg.to_str().unwrap()]);
        kept(&format!("{name}.qemu"), &plan(&args).success().stdout);
        kept(
            &format!("{name}.svg"),
            &std::fs::read_to_string(&svg).unwrap(),
        );
        args.extend(["--vmm", "libvirt"]);
        kept(&format!("{name}.xml"), &plan(&args).success().stdout);
    }
}

#[test]
fn a_plan_for_a_captured_host_is_that_for_its_facts() {
    let folder = Folder::new();
    let host = folder.root().join("host");
    machine::GB200_NVL4.write(&host).unwrap();
    let host = host.to_str().unwrap();
    let facts = ended(varia(["list", "--sysfs", host, "--facts"])).success();
    let file = folder.root().join("facts.json");
    std::fs::write(&file, facts.stdout).unwrap();
    let gpus = machine::GB200_NVL4.gpus();
    let gpu = ["--gpu", &gpus[2], "--json"];
    let of_host = plan(&[&gpu[..], &["--sysfs", host]].concat()).success();
    let of_facts = plan(&[&gpu[..], &["--facts", file.to_str().unwrap()]].concat()).success();
    assert_eq!(of_host.stdout, of_facts.stdout);
    let json: serde_json::Value = serde_json::from_str(&of_facts.stdout).unwrap();
    assert_eq!(json["schema"], "varia-plan/1");
    assert_eq!(json["gpus"][0]["memory"]["source"]["function"], gpus[2]);
    // the third GPU is on the second socket
    assert_eq!(json["sockets"][0]["host_node"], 1);
}

#[test]
fn a_plan_goes_through_a_shell_as_it_is() {
    let disk = "/tmp/a b'c\"d$(e)`f`;g&h|i\\j,k.qcow2";
    let kernel = [
        "--kernel",
        "/boot/vm linuz",
        "--append",
        "root=/dev/vda $(x)",
    ];
    let args = ["--gpu", "gh200", "--disk", disk, "--qemu-arg=-nographic"];
    let text = plan(&[&args[..], &kernel].concat()).success().stdout;
    // the made-up host's CPUs: the first is everybody's
    assert!(
        text.starts_with("taskset -c 0-3 qemu-system-aarch64 "),
        "{text}"
    );
    let printed = text.replacen("qemu-system-aarch64", "printf '%s\\0'", 1);
    let mut shell = Command::new("sh");
    shell.args(["-c", &printed]);
    shell
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let words = ended(shell).success().stdout;
    let file = words
        .split('\0')
        .filter_map(|word| serde_json::from_str::<serde_json::Value>(word).ok())
        .find_map(|json| Some(json.get("filename")?.as_str()?.to_owned()));
    assert_eq!(file.as_deref(), Some(disk));
    let words: Vec<_> = words.split_terminator('\0').collect();
    let append = ["-append", "console=ttyAMA0 root=/dev/vda $(x)"];
    for words_of in [&["-kernel", "/boot/vm linuz"], &append] {
        assert!(words.windows(2).any(|two| two == words_of), "{words:?}");
    }
    assert_eq!(words.last(), Some(&"-nographic"));
}

#[test]
fn a_file_is_named_for_every_folder() {
    let folder = Folder::new();
    for vmm in ["qemu", "libvirt"] {
        let args = [
            "--disk",
            "a.img",
            "--firmware",
            "b.fd",
            "--kernel",
            "c",
            "--initrd",
            "d",
        ];
        let mut command = varia(["plan", "--gpu", "gh200", "--vmm", vmm].iter().chain(&args));
        command.current_dir(folder.root());
        let text = ended(command).success().stdout;
        for file in ["a.img", "b.fd", "c", "d"] {
            let path = folder.root().join(file);
            assert!(text.contains(path.to_str().unwrap()), "{file}: {text}");
        }
    }
}

#[test]
fn a_host_that_can_not_give_the_gpu_away() {
    let folder = Folder::new();
    let host = folder.root().join("host");
    machine::GH200.write(&host).unwrap();
    let gpu = &machine::GH200.gpus()[0];
    let refused = |parts: &[&str]| {
        let args = ["--gpu", gpu, "--sysfs", host.to_str().unwrap()];
        plan(&args).refused(parts);
        plan(&[&args[..], &["--json"]].concat()).refused(parts);
    };
    let devices = host.join("sys/bus/pci/devices");
    let group = std::fs::canonicalize(devices.join(gpu).join("iommu_group")).unwrap();
    // a drive of the host comes into its group
    let other = std::fs::read_dir(&devices)
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| {
            let driver = std::fs::read_link(entry.path().join("driver"));
            driver.is_ok_and(|link| link.ends_with("nvme"))
        })
        .expect("a drive");
    let name = other.file_name().into_string().unwrap();
    let link = other.path().join("iommu_group");
    let function = std::fs::canonicalize(other.path()).unwrap();
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&group, &link).unwrap();
    std::os::unix::fs::symlink(&function, group.join("devices").join(&name)).unwrap();
    refused(&[gpu, &format!("{name} (nvme)"), "varia doctor"]);
    std::fs::remove_file(devices.join(gpu).join("iommu_group")).unwrap();
    refused(&[gpu, "no IOMMU group", "varia doctor"]);
}

#[test]
fn tables_are_written_with_their_names() {
    let folder = Folder::new();
    let out = folder.root().join("tables");
    let args = ["tables", "--gpu", "gh200", "--out", out.to_str().unwrap()];
    let text = ended(varia(args)).success().stdout;
    for (file, signature) in [
        ("srat.aml", b"SRAT"),
        ("slit.aml", b"SLIT"),
        ("ssdt.aml", b"SSDT"),
    ] {
        let table = std::fs::read(out.join(file)).unwrap();
        assert_eq!(table[..4], signature[..]);
        assert_eq!(
            table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
            0
        );
        assert!(text.contains(file), "{text}");
    }
}

#[test]
fn tables_are_those_of_one_plan_or_none() {
    let folder = Folder::new();
    let out = folder.root().join("tables");
    let tables = |more: &[&str]| {
        let args = ["tables", "--gpu", "gh200", "--out", out.to_str().unwrap()];
        ended(varia(args.iter().chain(more)))
    };
    tables(&["--access", "1,0=500,400000"]).success();
    assert!(out.join("hmat.aml").exists());
    // one of them can't be written
    let before = std::fs::read(out.join("srat.aml")).unwrap();
    std::fs::remove_file(out.join("slit.aml")).unwrap();
    std::fs::create_dir(out.join("slit.aml")).unwrap();
    let failed = tables(&["--nodes-per-gpu", "2"]);
    assert!(!failed.status.success() && failed.stderr.contains("slit.aml"));
    let more = ["--nodes-per-gpu", "2", "--access", "1,0=500,400000"];
    tables(&more).refused(&["slit.aml"]);
    assert_eq!(std::fs::read(out.join("srat.aml")).unwrap(), before);
    assert!(out.join("hmat.aml").exists());
    std::fs::remove_dir(out.join("slit.aml")).unwrap();
    let text = tables(&[]).success().stdout;
    assert!(text.contains("HMAT of another plan removed"), "{text}");
    assert!(!out.join("hmat.aml").exists());
    // somebody else's
    std::fs::write(out.join("hmat.aml"), b"HMAT of another firmware's").unwrap();
    tables(&[]).success();
    assert!(out.join("hmat.aml").exists());
}

#[test]
fn what_has_no_end_is_refused() {
    for args in [
        ["plan", "--gpu", "0009:01:00.0", "--facts", "/dev/zero"].as_slice(),
        &["doctor", "/dev/zero"],
        &["explain", "/dev/zero"],
    ] {
        ended(varia(args)).refused(&["/dev/zero", "larger than"]);
    }
}

#[test]
fn hmat_says_what_the_host_does_or_what_is_asked_for() {
    let folder = Folder::new();
    let host = folder.root().join("host");
    machine::GH200_X4.write(&host).unwrap();
    // what Linux shows of a firmware's HMAT: of one node alone, and of another a part
    let speed =
        |node: &str| host.join(format!("sys/devices/system/node/{node}/access1/initiators"));
    for (node, values) in [
        ("node1", [110, 130, 450_000, 440_000]),
        ("node2", [1, 0, 1, 0]),
    ] {
        std::fs::create_dir_all(speed(node)).unwrap();
        std::os::unix::fs::symlink(format!("../../../{node}"), speed(node).join(node)).unwrap();
        let files = [
            "read_latency",
            "write_latency",
            "read_bandwidth",
            "write_bandwidth",
        ];
        for (file, value) in files.iter().zip(values) {
            std::fs::write(speed(node).join(file), format!("{value}\n")).unwrap();
        }
    }
    let capture = folder.root().join("host.tar");
    ended(varia([
        "capture",
        "--sysfs",
        host.to_str().unwrap(),
        capture.to_str().unwrap(),
    ]))
    .success();
    let out = folder.root().join("tables");
    let tables = |more: &[&str]| {
        let mut args = vec!["tables", "--sysfs", capture.to_str().unwrap()];
        let gpus = machine::GH200_X4.gpus();
        for gpu in &gpus {
            args.extend(["--gpu", gpu]);
        }
        args.extend(["--out", out.to_str().unwrap()]);
        args.extend(more);
        ended(varia(args))
    };
    let entries = |matrix: usize| {
        let table = std::fs::read(out.join("hmat.aml")).unwrap();
        let mut rest = &table[40..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
            if rest[0] == 1 {
                let unit = u64::from_le_bytes(rest[24..32].try_into().unwrap());
                let count = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
                let (from, to) = (count(12) as usize, count(16) as usize);
                let start = 32 + 4 * (from + to);
                let words = rest[start..length].chunks(2);
                let words = words.map(|two| u64::from(u16::from_le_bytes([two[0], two[1]])));
                found.push((unit, to, words.collect::<Vec<_>>()));
            }
            rest = &rest[length..];
        }
        found.swap_remove(matrix)
    };
    assert!(tables(&[]).success().stdout.contains("HMAT"));
    for (matrix, value) in [(0, 130_000), (1, 440_000)] {
        let (unit, targets, words) = entries(matrix);
        let known = words
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0xffff);
        let known: Vec<_> = known.map(|(at, word)| (at, word * unit)).collect();
        assert_eq!(
            (targets, known),
            (4, vec![(5, value)]),
            "from node 1 to itself"
        );
    }
    tables(&["--access", "2,3=200,50000"]).success();
    let (unit, _, words) = entries(0);
    assert_eq!(words[2 * 4 + 3] * unit, 200_000);
    assert_eq!(words.iter().filter(|word| **word != 0xffff).count(), 1);
    tables(&["--access", "0,9=1,1"]).refused(&["9"]);
    tables(&["--access", "0=110"]).refused(&["0=110", "0,0=110,450000"]);
    std::fs::remove_dir_all(&out).unwrap();
    let args = ["tables", "--gpu", "gh200", "--out", out.to_str().unwrap()];
    let said = ended(varia(args)).success();
    assert!(
        !out.join("hmat.aml").exists() && said.stderr.contains("no HMAT"),
        "{}",
        said.stderr
    );
}

#[test]
fn what_can_not_be_planned() {
    plan(&[]).refused(&["--gpu"]);
    plan(&["--gpu", "gh2000"]).refused(&["gh2000", "0009:01:00.0", "gh200"]);
    plan(&["--gpu", "gh200:2-of-one-superchip"]).refused(&["2-of-one-superchip", "has 1"]);
    plan(&["--gpu", "gb200:3-of-one-superchip"]).refused(&["3-of-one-superchip", "has 2"]);
    plan(&["--gpu", "gh200", "--gpu", "gb200"]).refused(&["two kinds"]);
    plan(&["--gpu", "gh200", "--gpu", "0009:01:00.0"]).refused(&["made-up", "alone"]);
    plan(&["--gpu", "gh200:0009:01:00.0"]).refused(&["0009:01:00.0"]);
    plan(&["--gpu", "gh200", "--name", "a;b"]).refused(&["a;b", "letters"]);
    plan(&["--gpu", "gh200", "--egm"]).refused(&["Extended GPU Memory", "without --egm"]);
    plan(&["--gpu", "gh200", "--hugepages", "2M"]).refused(&["0 free", "nr_hugepages"]);
    plan(&["--gpu", "gh200", "--cpus", "100"]).refused(&["100", "72", "--no-pin"]);
    plan(&["--gpu", "gh200", "--iommu", "iommufd"]).refused(&["iommufd", "type1"]);
    plan(&["--gpu", "nic"]).refused(&["nic"]);
    plan(&["--gpu", "gh200", "--append", "quiet"]).refused(&["--kernel"]);
    plan(&["--gpu", "gh200", "--vmm", "libvirt", "--qemu-arg=-S"]).refused(&["--qemu-arg"]);
    plan(&["--gpu", "gh200", "--vmm", "libvirt", "--json"]).refused(&["--json", "--vmm libvirt"]);
    plan(&["--gpu", "gh200", "--qemu-arg=-S", "--json"]).refused(&["--json", "--qemu-arg"]);
    plan(&["--gpu", "gh200", "--cpus", "4294967295", "--no-pin"]).refused(&["4294967295", "512"]);
    plan(&["--gpu", "gh200", "--disk", "/a\nb.img"]).refused(&["--disk", "\\n"]);
    for option in ["--disk", "--firmware", "--kernel"] {
        let name = std::ffi::OsStr::from_bytes(b"/guest\xff.img");
        let mut command = varia(["plan", "--gpu", "gh200", option]);
        command.arg(name);
        ended(command).refused(&["guest\\xFF.img", "UTF-8"]);
    }
    let folder = Folder::new();
    let file = folder.root().join("facts.json");
    let path = file.to_str().unwrap();
    plan(&["--gpu", "0009:01:00.0", "--facts", path]).refused(&["can't read", path]);
    for text in ["", "{}", "{\"schema\": \"varia-facts/99\"}"] {
        std::fs::write(&file, text).unwrap();
        plan(&["--gpu", "0009:01:00.0", "--facts", path])
            .refused(&[path, "is not a file of facts"]);
    }
}
