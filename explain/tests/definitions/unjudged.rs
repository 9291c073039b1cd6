//! Parts that change what a GPU gets and that no rule judges: each is listed with its line.

use crate::text::{command_line, examined, swap, two, two_with_egm, xml};

/// Change of a good command line, and the part that is then listed; none for a harmless change.
type Row = (fn(&str) -> String, Option<&'static str>);

fn with(text: &str, option: &str) -> String {
    format!("{} \\\n  {option}\n", text.trim_end())
}

const ROWS: &[Row] = &[
    (str::to_owned, None),
    (
        |text| text.replacen("vfio-pci,", "vfio-pci,x-pci-device-id=0x2342,", 1),
        Some("-device vfio-pci: x-pci-device-id"),
    ),
    (
        |text| text.replacen("vfio-pci,", "vfio-pci,x-pci-vendor-id=0x10de,", 1),
        Some("-device vfio-pci: x-pci-vendor-id"),
    ),
    (
        |text| text.replacen("vfio-pci,", "vfio-pci,x-pci-class-code=0x20000,", 1),
        Some("-device vfio-pci: x-pci-class-code"),
    ),
    (
        |text| text.replacen("vfio-pci,", "vfio-pci,x-msix-relocation=bar2,", 1),
        Some("-device vfio-pci: x-msix-relocation"),
    ),
    (
        |text| with(text, "-global vfio-pci.x-msix-relocation=bar2"),
        Some("-global vfio-pci.x-msix-relocation"),
    ),
    (
        |text| swap(text, "virt,gic-version=3", "virt,gic-version=3,its=off"),
        Some("-machine: its=off"),
    ),
    (
        |text| swap(text, "virt,gic-version=3", "virt,gic-version=3,its=on"),
        None,
    ),
    (
        |text| {
            swap(
                text,
                "virt,gic-version=3",
                "virt,gic-version=3,highmem-ecam=off",
            )
        },
        Some("-machine: highmem-ecam=off"),
    ),
    (
        |text| {
            swap(
                text,
                "virt,gic-version=3",
                "virt,gic-version=3,default-bus-bypass-iommu=on",
            )
        },
        Some("-machine: default-bus-bypass-iommu=on"),
    ),
    (
        |text| with(text, "-global PCIDevice.rombar=1"),
        Some("-global PCIDevice.rombar"),
    ),
    (
        |text| with(text, "-global driver=vfio-pci,property=x-new,value=on"),
        Some("-global vfio-pci.x-new"),
    ),
    (|text| with(text, "-global ICH9-LPC.disable_s3=1"), None),
    (
        |text| {
            let secure = "-global driver=cfi.pflash01,property=secure,value=on";
            with(text, secure)
        },
        None,
    ),
    (
        |text| with(text, "-mem-path /dev/egm4"),
        Some("-mem-path: /dev/egm4"),
    ),
    (|text| with(text, "-mem-path /dev/hugepages"), None),
    (
        |text| {
            let more = "-object memory-backend-file,id=more,mem-path=/dev/egm4,size=4G,share=on";
            with(text, more)
        },
        Some("-object: /dev/egm4"),
    ),
    (
        |text| swap(text, "mem-path=/dev/egm5", "mem-path=/dev/egm5,readonly=on"),
        Some("-object memory-backend-file: readonly=on"),
    ),
    (
        |text| {
            swap(
                text,
                "mem-path=/dev/egm5",
                "mem-path=/dev/egm5,readonly=off",
            )
        },
        None,
    ),
    (
        |text| swap(text, "mem-path=/dev/egm5", "mem-path=/dev/egm5,offset=4096"),
        Some("-object memory-backend-file: offset=4096"),
    ),
    (
        |text| swap(text, "mem-path=/dev/egm5", "mem-path=/dev/egm+5"),
        Some("-object memory-backend-file: mem-path=/dev/egm+5"),
    ),
    (
        |text| with(text, "-object acpi-egm-memory,id=more,pci-dev=gpu1,node=1"),
        Some("Extended GPU Memory of gpu1 (0029:01:00.0), in node 1"),
    ),
];

#[test]
fn what_no_rule_judges_is_listed_with_its_line() {
    let (facts, plan) = two_with_egm();
    let good = command_line(&plan);
    for (change, wanted) in ROWS {
        let text = change(&good);
        let found = examined(&text, &facts);
        let parts = found.unjudged.iter();
        let parts: Vec<_> = parts.map(|part| part.what.as_str()).collect();
        assert_eq!(parts, wanted.iter().copied().collect::<Vec<_>>(), "{text}");
        if let (Some(part), true) = (found.unjudged.first(), text != good) {
            let lines = text.lines().count();
            assert!((2..=lines).contains(&part.line), "{part:?}: {text}");
        }
    }
}

/// The same of a domain.
const DOMAIN_ROWS: &[Row] = &[
    (str::to_owned, None),
    (
        |text| {
            let limit = "<memtune>\n    <hard_limit unit='GiB'>8</hard_limit>\n  </memtune>";
            text.replacen("<os", &format!("{limit}\n  <os"), 1)
        },
        Some("<hard_limit> in <memtune>"),
    ),
    (
        |text| {
            let limit = "<memtune>\n    <hard_limit unit='GiB'>9</hard_limit>\n  </memtune>";
            text.replacen("<os", &format!("{limit}\n  <os"), 1)
        },
        None,
    ),
    (
        |text| with_argument(text, "-global", "vfio-pci.x-no-mmap=on"),
        Some("-global vfio-pci.x-no-mmap=on"),
    ),
    (
        |text| with_argument(text, "-set", "device.ua-gpu0.rombar=1"),
        Some("-set device.ua-gpu0.rombar=1"),
    ),
    (
        |text| with_argument(text, "-global", "ICH9-LPC.disable_s3=1"),
        None,
    ),
];

fn with_argument(text: &str, option: &str, value: &str) -> String {
    let namespace = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'";
    let end = format!(
        "  <qemu:commandline>\n    <qemu:arg value='{option}'/>\n    <qemu:arg value='{value}'/>\n  \
         </qemu:commandline>\n</domain>"
    );
    let text = swap(
        text,
        "<domain type='kvm'",
        &format!("<domain type='kvm' {namespace}"),
    );
    swap(&text, "</domain>", &end)
}

#[test]
fn what_may_be_a_gpu_is_listed() {
    let (facts, plan) = two();
    let device = "<hostdev mode='subsystem' type='mdev' model='vfio-pci'>\n</hostdev>";
    let text = format!("<domain type='kvm'>\n<devices>\n{device}\n</devices>\n</domain>\n");
    let found = examined(&text, &facts);
    assert_eq!(found.unjudged.len(), 1, "{:?}", found.unjudged);
    assert_eq!(found.unjudged[0].line, 3);
    let text = xml(&plan).replacen("name='vfio'", "name='xen'", 1);
    let found = examined(&text, &facts);
    assert_eq!(found.unjudged[0].what, "name=\"xen\" of <driver>");
}

#[test]
fn what_no_rule_judges_of_a_domain_is_listed_with_its_line() {
    let (facts, plan) = two();
    let good = xml(&plan);
    for (change, wanted) in DOMAIN_ROWS {
        let text = change(&good);
        let found = examined(&text, &facts);
        let parts = found.unjudged.iter();
        let parts: Vec<_> = parts.map(|part| part.what.as_str()).collect();
        assert_eq!(parts, wanted.iter().copied().collect::<Vec<_>>(), "{text}");
        if let Some(part) = found.unjudged.first() {
            let line = text.lines().nth(part.line - 1).unwrap_or_default();
            assert!(
                line.contains("limit") || line.contains("arg value"),
                "{part:?}: {line}"
            );
        }
    }
}
