//! Texts that are not definitions: refused with the line, without a panic.

use varia_explain::{Knowledge, MOST_BYTES, ReadError, examine};

use crate::exercise::{self, exercise};

fn refused(text: impl AsRef<[u8]>) -> ReadError {
    let text = text.as_ref();
    examine(text, &Knowledge::default()).expect_err("no definition")
}

#[test]
fn what_is_no_definition() {
    for text in ["", "  \n\t\n", "\0", "\u{feff}"] {
        assert_eq!(refused(text), ReadError::Empty, "{text:?}");
    }
    assert_eq!(refused(vec![b' '; 50 << 20]), ReadError::TooLarge);
    assert_eq!(refused(vec![b'a'; MOST_BYTES + 1]), ReadError::TooLarge);
    assert_eq!(refused(b"a\nb\n\xff"), ReadError::NotText { line: 3 });
    assert_eq!(refused("\n\nhello world"), ReadError::Neither { line: 3 });
    assert_eq!(
        refused("qemu-system-aarch64 \\\n -m 1 \\\n -name 'vm"),
        ReadError::Quote {
            line: 3,
            quote: '\''
        }
    );
    assert!(matches!(
        refused("-device {\"driver\":"),
        ReadError::Json { line: 1, .. }
    ));
    assert!(matches!(
        refused(format!("qemu-system-aarch64{}", " -a".repeat(30_000))),
        ReadError::Options { .. }
    ));
}

#[test]
fn files_and_commands_of_other_programs() {
    for (text, name) in [
        ("apiVersion: v1\nkind: Pod\n", "Kubernetes"),
        ("services:\n  vm:\n    image: qemu\n", "docker compose"),
        (
            "virt-install --name a --hostdev 0009:01:00.0\n",
            "virt-install",
        ),
        ("qm start 100\n", "qm"),
        ("pvesh set /nodes/a/qemu/100/config\n", "pvesh"),
        ("args: -device a\nhostpci1: 0000:41:00\n", "Proxmox"),
        ("config:\n  raw.qemu: -device a\nname: a\n", "Incus"),
        ("devices:\n  gpu0:\n    gputype: physical\n", "Incus"),
        ("incus launch images:ubuntu/24.04 a --vm\n", "Incus"),
        ("lxc config device add a gpu gpu\n", "LXD"),
        ("openstack server create --flavor gh200 a\n", "OpenStack"),
        ("[pci]\nalias = { \"name\": \"gh200\" }\n", "Nova"),
        ("services:\n  vm:\n    build: .\n", "docker compose"),
        (
            "FROM debian\nENTRYPOINT [\"qemu-system-aarch64\"]\n",
            "Dockerfile",
        ),
        ("Vagrant.configure('2') do |config|\nend\n", "Vagrantfile"),
        (
            "{ config, ... }: {\n  virtualisation.qemu.options = [];\n}\n",
            "NixOS",
        ),
        ("source \"qemu\" \"a\" {\n}\n", "Packer"),
        ("- hosts: all\n  tasks: []\n", "Ansible"),
        ("#cloud-config\nruncmd: []\n", "cloud-init"),
        ("guest_os=\"linux\"\n", "quickemu"),
        ("vmType: qemu\n", "Lima"),
        ("[Container]\nImage=qemu\n", "Quadlet"),
        ("device_add vfio-pci,host=0009:01:00.0\n", "monitor"),
        (
            "import subprocess\nsubprocess.run(['qemu-system-aarch64'])\n",
            "program",
        ),
        (
            "cat <<EOF >a.xml\n<domain type='kvm'>\n</domain>\nEOF\nvirsh define a.xml\n",
            "XML",
        ),
        ("virsh start vm\n", "libvirt"),
        ("virtctl start vm\n", "Kubernetes"),
        ("multipass launch\n", "its own"),
        (
            "[machine]\n  type = \"virt\"\n[device \"a\"]\n",
            "-readconfig",
        ),
        (
            "arch: aarch64\nname: a's\nhostpci0: 0009:01:00.0\n",
            "Proxmox",
        ),
        (
            "resource \"libvirt_domain\" \"a\" {\n  vcpu = 8\n}\n",
            "Terraform",
        ),
        (
            "cloud-hypervisor --cpus boot=8 --memory size=16G\n",
            "another VMM",
        ),
    ] {
        let error = refused(text);
        assert!(matches!(error, ReadError::Form { .. }), "{text}: {error}");
        assert!(error.to_string().contains(name), "{text}: {error}");
    }
    // a script that writes the file is a script
    let script =
        "cat >a.cfg <<E\n[device \"a\"]\nE\nqemu-system-aarch64 -M virt -readconfig a.cfg\n";
    let found = examine(script.as_bytes(), &Knowledge::default()).expect("a command");
    assert_eq!(found.unjudged.len(), 1, "{:?}", found.unjudged);
}

#[test]
fn what_is_no_domain() {
    assert_eq!(
        refused("\n<network/>"),
        ReadError::Element {
            line: 2,
            element: "network".to_owned()
        }
    );
    assert!(matches!(
        refused("<domain>\n<os>\n</domain>"),
        ReadError::Xml { line: 3, .. }
    ));
    let bomb = "<?xml version='1.0'?>\n<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>\n<domain>&b;</domain>";
    let error = refused(bomb);
    assert!(matches!(error, ReadError::Xml { .. }), "{error}");
    assert!(error.to_string().contains("DTD"), "{error}");
    let deep = "<domain>".repeat(100_000);
    assert!(matches!(refused(&deep), ReadError::Xml { line: 1, .. }));
    let wide = format!("<domain>{}</domain>", "<a/>".repeat(300_000));
    assert!(matches!(refused(&wide), ReadError::Xml { .. }));
}

/// The fuzz target's corpus.
fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/definition");
    let files = std::fs::read_dir(folder).expect("the corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let read = |path| std::fs::read(path).expect("a file");
    paths.into_iter().map(read).collect()
}

#[test]
fn the_corpus_is_read() {
    let facts = exercise::facts();
    let read = corpus()
        .iter()
        .filter(|bytes| exercise(bytes, &facts))
        .count();
    assert!(read >= 4, "{read}");
}

/// Definitions whose bytes are changed at random are read or refused.
#[test]
fn damaged_definitions_do_no_harm() {
    let facts = exercise::facts();
    let texts = corpus();
    let pieces = [
        "<",
        ">",
        "'",
        "\"",
        "\\",
        "\n",
        ",",
        "=",
        "{",
        "}",
        "$(",
        "`",
        "\0",
        "0",
        "999999999999",
        "-numa",
        "-1",
        "<acpi/>",
        "nodeset='0-4294967295'",
        "é",
        " ",
        "bus='0x02'",
        "id='0'",
        "nodeid=",
        "pci-dev=",
        "node=7",
        "numa_node=0",
        "for i in {1..9}; do ",
        "; done\n",
        "for ((i=0; i<9; i++)); do ",
        "A+=(",
        ")\n",
        "\"${A[@]}\"",
        "$((i+1))",
        "`seq 1 9`",
        "${X:-y}",
        "<<E\n",
        "eval ",
        "if a; then ",
        "set -- ",
        "starting up libvirt version\n",
        "bus=pcie.0",
        "8",
        "9",
    ];
    let mut random = fastrand::Rng::with_seed(1);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..1000 {
        let mut text = random.choice(&texts).expect("a text").clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..text.len());
            let piece = random.choice(&pieces).expect("a piece").bytes();
            let end = match random.u8(..8) {
                0 => text.len(),
                1..4 => at,
                _ => (at + random.usize(1..60)).min(text.len()),
            };
            text.splice(at..end, piece);
        }
        match exercise(&text, &facts) {
            true => read += 1,
            false => refused += 1,
        }
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
}

#[test]
fn templates_are_refused_with_the_part_that_is_filled_in() {
    let domain = |inner: &str| {
        format!(
            "<domain type='kvm'>\n <name>{{{{ name }}}}</name>\n <devices>\n{inner}\n </devices>\n</domain>\n"
        )
    };
    for (text, line, part) in [
        (
            domain("<hostdev managed='{{ managed }}'/>"),
            4,
            "{{ managed }}",
        ),
        (
            domain("{% for gpu in gpus %}\n<hostdev/>\n{% endfor %}"),
            4,
            "{% for",
        ),
        (domain("\n%{ for gpu in gpus }"), 5, "%{ for gpu"),
        (domain("<controller index='${index}'/>"), 4, "${index}"),
        (
            "qemu-system-aarch64 -M virt \\\n -device vfio-pci,host={{ gpu }}\n".to_owned(),
            2,
            "{{",
        ),
    ] {
        match refused(&text) {
            ReadError::Template {
                line: own,
                part: found,
            } => {
                assert_eq!(own, line, "{text}");
                assert!(found.starts_with(part), "{found}: {text}");
            }
            other => panic!("{other}: {text}"),
        }
    }
    // what can't concern a GPU may be filled in
    let disk = domain("<disk><source file='{{ disk }}'/></disk><!-- {{ note }} -->");
    assert!(examine(disk.as_bytes(), &Knowledge::default()).is_ok());
}
