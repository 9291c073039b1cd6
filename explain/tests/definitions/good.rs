//! Good definitions are not faulted, however they are written.

use varia_explain::{Knowledge, Language, examine};
use varia_plan::Emulated;

use crate::host::{GIB, GPUS, MIB, facts, facts_with_iommufd, request};
use crate::text::{codes, command_line, examined, four, swap, two, two_with_smmu, without, xml};

#[test]
fn every_rendered_plan() {
    for (facts, plan) in [two(), two_with_smmu(), four()] {
        for (text, language) in [
            (command_line(&plan), Language::Qemu),
            (xml(&plan), Language::Libvirt),
        ] {
            let found = examined(&text, &facts);
            assert_eq!(codes(&found), [""; 0], "{:?}: {text}", found.findings);
            assert_eq!(found.language, language);
            assert_eq!(found.gpus.len(), plan.gpus.len());
            assert_eq!(found.diff("vm"), "");
        }
    }
}

#[test]
fn plans_of_other_sizes() {
    for facts in [facts(), facts_with_iommufd()] {
        for nodes in [1, 8] {
            for gpus in [&GPUS[..1], &GPUS[2..], &GPUS] {
                let mut wanted = request(gpus);
                wanted.nodes_per_gpu = nodes;
                wanted.disks = vec!["/a b.qcow2".to_owned()];
                wanted.kernel = (nodes == 1).then(|| varia_plan::Kernel {
                    image: "/boot/Image".to_owned(),
                    initrd: Some("/boot/initrd".to_owned()),
                    append: "console=ttyAMA0 -- 'x'".to_owned(),
                });
                let plan = varia_plan::make(&facts, &wanted).expect("a plan");
                for text in [command_line(&plan), xml(&plan)] {
                    let found = examined(&text, &facts);
                    assert_eq!(codes(&found), [""; 0], "{:?}: {text}", found.findings);
                }
            }
        }
    }
}

#[test]
fn a_vm_whose_gpus_are_servers() {
    let bar = |index, size| varia_plan::PlannedBar {
        index,
        size: varia_facts::Bytes(size),
    };
    for arch in [varia_facts::Arch::Aarch64, varia_facts::Arch::X86_64] {
        let plan = Emulated {
            arch,
            cpus: 2,
            memory: varia_facts::Bytes(2 * GIB),
            gpus: vec![("/run/gpu".into(), vec![bar(0, 16 * MIB), bar(4, 128 * GIB)])],
            nodes_per_gpu: 8,
        };
        let text = command_line(&plan.plan().expect("a plan"));
        let found = examined(&text, &facts());
        assert_eq!(codes(&found), [""; 0], "{:?}: {text}", found.findings);
        assert_eq!(found.gpus, ["gpu0"]);
    }
}

/// What a person writes: other ids, another order, JSON, a comment, other devices, one option a
/// line or several, options that the plan does not use.
const BY_HAND: &str = r#"#!/bin/bash
# the inference VM; ask before changing
set -e
modprobe nvgrace-gpu-vfio-pci
exec sudo numactl -N 0 /usr/local/bin/qemu-system-aarch64 \
    -nodefaults -no-user-config -display none -serial mon:stdio \
    -M virt-9.2,accel=kvm,gic-version=host,highmem-mmio-size=549755813888 -cpu host,sve=off \
    -m size=4G -smp cpus=4 \
    -device '{"driver": "pxb-pcie", "id": "numa0", "bus": "pcie.0", "bus_nr": 32, "numa_node": 0}' \
    -device pcie-root-port,bus=numa0,id=slot0,chassis=7,slot=3,pref64-reserve=512G \
    -device "{\"driver\": \"vfio-pci-nohotplug\", \"host\": \"0009:01:00.0\", \"id\": \"hopper\", \"bus\": \"slot0\", \"rombar\": 0}" \
    -object '{"qom-type": "memory-backend-file", "id": "mem", "mem-path": "/dev/hugepages", "size": 4294967296, "host-nodes": [0], "policy": "bind"}' \
    -numa node,memdev=mem,cpus=0-1,cpus=2-3,nodeid=0 -numa node,nodeid=1 -numa node,nodeid=2 \
    -numa node,nodeid=4 -numa node,nodeid=3 -numa node,nodeid=5 -numa node,nodeid=6 -numa node,nodeid=7 -numa node,nodeid=8 \
DISTANCES    -object acpi-generic-initiator,node=1,pci-dev=hopper,id=a \
    -object acpi-generic-initiator,node=2,pci-dev=hopper,id=b \
    -object acpi-generic-initiator,node=8,pci-dev=hopper,id=c \
    --object acpi-generic-initiator,node=4,pci-dev=hopper,id=d \
    -object acpi-generic-initiator,node=5,pci-dev=hopper,id=e \
    -object '{"qom-type": "acpi-generic-initiator", "node": 6, "pci-dev": "hopper", "id": "f"}' \
    -object acpi-generic-initiator,node=7,pci-dev=hopper,id=g \
    -object acpi-generic-initiator,node=3,pci-dev=hopper,id=h \
    -drive if=pflash,format=raw,readonly=on,file="$FIRMWARE" \
    -netdev user,id=n0 -device virtio-net-pci,netdev=n0,bus=pcie.0 \
    -device nvme,drive=d0,serial=1 -drive if=none,id=d0,file=/vm/disk.img \
    "$@" >>/var/log/vm.log 2>&1 &
echo started
"#;

fn by_hand() -> String {
    let mut distances = String::new();
    for from in 0..9 {
        for to in (0..9).filter(|to| *to != from) {
            let value = if from == 0 || to == 0 { 60 } else { 25 };
            distances += &format!("    -numa dist,src={from},dst={to},val={value} \\\n");
        }
    }
    BY_HAND.replace("DISTANCES", &distances)
}

#[test]
fn a_script_by_hand() {
    let found = examined(&by_hand(), &facts());
    assert_eq!(codes(&found), [""; 0], "{:?}", found.findings);
    assert_eq!(found.gpus, ["hopper (0009:01:00.0)"]);
}

#[test]
fn the_arguments_of_a_process() {
    for text in [command_line(&two().1), by_hand()] {
        let words = shell_words::split(&text.replace("\"$FIRMWARE\"", "/a")).expect("words");
        let begin = words.iter().position(|word| word.contains("qemu-system-"));
        let end = words
            .iter()
            .position(|word| word == "$@")
            .unwrap_or(words.len());
        let process = words[begin.expect("a program")..end].join("\0") + "\0";
        let found = examined(&process, &facts());
        assert_eq!(codes(&found), [""; 0], "{:?}", found.findings);
        assert!(found.text.contains(" \\\n"), "{}", found.text);
    }
}

#[test]
fn arguments_in_an_array_of_a_shell() {
    let text = command_line(&two().1);
    let arguments = text
        .replacen("qemu-system-aarch64 \\\n", "", 1)
        .replace(" \\\n", "\n");
    let text = format!(
        "#!/bin/bash\nargs=(\n  # the GPUs\n{arguments})\nexec qemu-system-aarch64 \"${{args[@]}}\"\n"
    );
    let found = examined(&text, &facts());
    assert_eq!(codes(&found), [""; 0], "{:?}", found.findings);
    assert_eq!(found.gpus.len(), 2);
}

/// A domain as virsh prints a running one: libvirt's own attributes, other devices, no `ua-`.
const DOMAIN: &str = r#"<?xml version="1.0"?>
<!-- do not edit: managed by the fleet's tools -->
<domain type="kvm" id="3" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>inference</name>
  <memory unit="GiB">4</memory>
  <currentMemory unit="GiB">4</currentMemory>
  <memoryBacking><hugepages/></memoryBacking>
  <vcpu placement="static">4</vcpu>
  <cputune>
    <vcpupin vcpu="0" cpuset="0-7"/><vcpupin vcpu="1" cpuset="0-7"/>
    <vcpupin vcpu="2" cpuset="4"/><vcpupin vcpu="3" cpuset="5"/>
    <emulatorpin cpuset="6-7"/>
  </cputune>
  <numatune><memory mode="strict" nodeset="0"/></numatune>
  <os>
    <type arch="aarch64" machine="virt-9.2">hvm</type>
    <loader readonly="yes" type="pflash">/usr/share/AAVMF/AAVMF_CODE.fd</loader>
    <nvram>/var/lib/libvirt/qemu/nvram/inference.fd</nvram>
  </os>
  <features><acpi/><gic version="3"/></features>
  <cpu mode="host-passthrough" check="none">
    <numa>
      <cell id="0" cpus="0-3" memory="4" unit="GiB">CELL0</cell>
CELLS    </numa>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-aarch64</emulator>
    <disk type="block" device="disk">
      <source dev="/dev/vg/inference"/>
      <target dev="vda" bus="virtio"/>
    </disk>
    <hostdev mode="subsystem" type="usb"><source><address bus="1" device="2"/></source></hostdev>
    <hostdev mode="subsystem" type="pci" managed="yes">
      <driver name="vfio"/>
      <source><address domain="9" bus="1" slot="0" function="0"/></source>
      ACPI
      <rom bar="off"/>
      <address type="pci" domain="0" bus="10" slot="0" function="0"/>
    </hostdev>
    <controller type="usb" index="0" model="qemu-xhci"/>
    <controller type="pci" index="10" model="pcie-root-port">
      <target chassis="10" port="0x8"/>
      <address type="pci" domain="0x0000" bus="0x09" slot="0x00" function="0x0"/>
    </controller>
    <controller type="pci" index="9" model="pcie-expander-bus">
      <target busNr="200"><node>0</node></target>
    </controller>
    <controller type="pci" index="0" model="pcie-root"/>
    <iommu model="smmuv3"><driver pciBus="9" accel="on" ssidsize="20"/></iommu>
  </devices>
  <iommufd enabled="yes"/>
QEMU</domain>
"#;

fn domain_by_hand(acpi: &str, arguments: &str) -> String {
    let siblings = |from: u32, all: bool| {
        let siblings = (0..9_u32).filter(|to| all || *to >= from).map(|to| {
            let value = match (from, to) {
                _ if from == to => 10,
                (0, _) | (_, 0) => 90,
                _ => 20,
            };
            format!("<sibling id=\"{to}\" value=\"{value}\"/>")
        });
        format!("<distances>{}</distances>", siblings.collect::<String>())
    };
    let cells: String = (1..9)
        .map(|id| {
            format!(
                "      <cell id=\"{id}\" memory=\"0\">{}</cell>\n",
                siblings(id, false)
            )
        })
        .collect();
    DOMAIN
        .replace("CELL0", &siblings(0, true))
        .replace("CELLS", &cells)
        .replace("ACPI", acpi)
        .replace("QEMU</domain>", &format!("{arguments}</domain>"))
}

#[test]
fn a_domain_by_hand() {
    let text = domain_by_hand("<acpi nodeset=\"1-4,5,6-8\"/>", "");
    let found = examined(&text, &facts_with_iommufd());
    assert_eq!(codes(&found), [""; 0], "{:?}", found.findings);
    assert_eq!(found.gpus, ["hostdev1 (0009:01:00.0)"]);
}

#[test]
fn a_domain_that_passes_arguments_to_qemu() {
    let mut arguments = "  <qemu:commandline>\n".to_owned();
    for node in 1..9 {
        arguments += &format!(
            "    <qemu:arg value='-object'/>\n    <qemu:arg \
             value='acpi-generic-initiator,id=gi{node},pci-dev=hostdev1,node={node}'/>\n"
        );
    }
    let text = domain_by_hand("", &format!("{arguments}  </qemu:commandline>\n"));
    let found = examined(&text, &facts_with_iommufd());
    assert_eq!(codes(&found), [""; 0], "{:?}", found.findings);
}

#[test]
fn vms_without_such_gpus_have_none() {
    for text in [
        "qemu-system-x86_64 -m 2G -machine q35 -device virtio-net-pci",
        "<domain type='kvm'><name>a</name><devices/></domain>",
        "<domain type='kvm'/>",
        "-machine virt",
    ] {
        let found = examined(text, &facts());
        assert_eq!(
            (codes(&found).len(), found.gpus.len(), found.unknown.len()),
            (0, 0, 0)
        );
    }
}

#[test]
fn a_function_that_nobody_knows_is_said_to_be_unknown() {
    let text = "qemu-system-aarch64 -machine virt -device vfio-pci,host=0123:01:00.0,id=a";
    let found = examined(text, &facts());
    assert_eq!(
        (found.gpus.len(), &found.unknown[..]),
        (0, &["0123:01:00.0".to_owned()][..])
    );
    // the definition itself treats this one as a GPU
    let text = format!("{text} -object acpi-generic-initiator,id=b,pci-dev=a,node=1");
    let found = examined(&text, &facts());
    assert_eq!((found.gpus.len(), found.unknown.len()), (1, 0));
    assert!(
        found.notes[0].contains("taken for a GPU"),
        "{:?}",
        found.notes
    );
    let remedy = |part: &varia_explain::Unjudged| part.why.contains("--gpu 0123:01:00.0=gh200");
    assert!(found.unjudged.iter().any(remedy), "{:?}", found.unjudged);
    // and of these somebody says what they are
    let knowledge = Knowledge {
        named: vec![("0009:01:00.0".to_owned(), facts().functions[0].clone())],
        ..Knowledge::default()
    };
    let text =
        "-machine virt -device vfio-pci,host=0001:00:00.0 -device vfio-pci,host=0009:01:00.0";
    let found = examine(text.as_bytes(), &knowledge).expect("a definition");
    assert_eq!((found.gpus.len(), found.unknown.len()), (1, 0));
}

/// GPUs behind one SMMU of the host share a root bus and an SMMU, on one socket.
#[test]
fn gpus_of_one_smmu_of_the_host_share_a_root_bus() {
    for (smmus, iommu, roots) in [
        (["a", "a", "b", "b"], "smmu3.", 2),
        (["a", "a", "a", "a"], "smmu3.", 2),
        (["a", "b", "c", "d"], "smmu3.", 4),
        (["a", "a", "a", "a"], "virtio-iommu.", 4),
    ] {
        let mut facts = facts_with_iommufd();
        for (gpu, smmu) in GPUS.iter().zip(smmus) {
            let bdf = gpu.parse().expect("an address");
            let mut functions = facts.functions.iter_mut();
            let function = functions.find(|one| one.bdf == bdf).expect("a GPU");
            function.iommu = Some(format!("{iommu}{smmu}"));
        }
        let plan = varia_plan::make(&facts, &request(&GPUS)).expect("a plan");
        let text = command_line(&plan);
        assert_eq!(
            text.matches("pxb-pcie,").count(),
            roots,
            "{smmus:?}: {text}"
        );
        assert_eq!(
            text.matches("arm-smmuv3,").count(),
            roots,
            "{smmus:?}: {text}"
        );
        let domain = xml(&plan);
        assert_eq!(
            domain.matches("pcie-expander-bus").count(),
            roots,
            "{domain}"
        );
        assert_eq!(domain.matches("<iommu model").count(), roots, "{domain}");
        for text in [text, domain] {
            let found = examined(&text, &facts);
            assert_eq!(codes(&found), [""; 0], "{:?}: {text}", found.findings);
        }
    }
}

/// A root bus for two GPUs of one node is enough where no SMMU is.
#[test]
fn gpus_of_one_node_share_a_root_bus() {
    let (facts, plan) = four();
    let shared = swap(
        &command_line(&plan),
        "id=gpu1.port,bus=gpu1.root",
        "id=gpu1.port,bus=gpu0.root",
    );
    let found = examined(&without(&shared, &["id=gpu1.root"]), &facts);
    assert_eq!(codes(&found), [""; 0], "{:?}", found.findings);
}

#[test]
fn other_drivers_make_root_ports_and_root_buses() {
    let (facts, plan) = two();
    let text = command_line(&plan);
    let (before, after) = text
        .split_once("pcie-root-port,id=gpu0.port")
        .expect("a port");
    let (port, rest) = after.split_once(",pref64-reserve=").expect("a window");
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    // it reserves nothing, and has no property for it
    let ioh3420 = format!("{before}ioh3420,id=gpu0.port{port}{rest}");
    for text in [
        ioh3420,
        text.replace("pcie-root-port,", "cxl-rp,")
            .replace("pxb-pcie,", "pxb-cxl,"),
        text.replace("pxb-pcie,", "pxb,"),
    ] {
        let found = examined(&text, &facts);
        assert_eq!(codes(&found), [""; 0], "{:?}: {text}", found.findings);
    }
}

/// A program's short name is a program's only where a program is.
#[test]
fn programs_of_scripts() {
    let (facts, plan) = two();
    let text = command_line(&plan);
    for before in [
        "usermod -G kvm -a me\n",
        "modprobe kvm -v\nls /dev/kvm -l\n",
        "sudo -u kvm ",
        "chown -R qemu -v /run/vm && ",
    ] {
        let found = examined(&format!("{before}{text}"), &facts);
        assert_eq!(codes(&found), [""; 0], "{before:?}: {:?}", found.findings);
    }
    for program in ["kvm", "qemu-kvm", "sudo -u me /usr/libexec/qemu-kvm"] {
        let found = examined(&swap(&text, "qemu-system-aarch64", program), &facts);
        assert_eq!(codes(&found), [""; 0], "{program}: {:?}", found.findings);
    }
    // the program's name says the architecture where no machine does
    let of = |program: &str| {
        let text = format!("{program} -device vfio-pci,host=0009:01:00.0,id=a -m 8G\n");
        codes(&examined(&text, &facts))
    };
    let x86 = of("qemu-system-x86_64");
    assert_eq!(of("sudo -u kvm qemu-system-x86_64"), x86);
    assert_ne!(of("kvm"), x86);
}
