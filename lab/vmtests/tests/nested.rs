//! The whole way: a machine that owns a GPU gives it to a guest, with QEMU, KVM and vfio-pci,
//! once bound to the kernel's own driver and once to ours. The guest can't tell which.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use varia_lab::{Arch, Flavour, agent_build};
use varia_serve::Endpoint;
use varia_silicon::{Options, Silicon, profile};
use varia_spec::vfio::RegionIndex;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::inner_guest::{self, Report};
use varia_vmtests::{Error, Result};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Both BARs have a part behind which there is no memory.
const RESMEM: u64 = GIB + 100 * MIB;
const USEMEM: u64 = 512 * MIB;

/// Number of nodes that an NVIDIA GPU with MIG wants.
const INITIATORS: u32 = 8;

/// The GPUDirect clique that QEMU gives the GPU.
const CLIQUE: u8 = 9;

/// Where the host leaves a word for the guest, and where the guest leaves one for the host.
const FROM_HOST: u64 = 0x1000;
const FROM_GUEST: u64 = 0x20_0000;
/// The last word of a region's memory.
const LAST: u64 = 8;

/// `$word` is what the guest writes.
fn script() -> String {
    let mut script = "echo '== lspci'\n lspci -nn -vvv -s $bdf\n\
                      echo '== initiators'\n cat /sys/devices/system/node/has_generic_initiator\n\
                      echo '== memory'\n cat /sys/devices/system/node/has_memory\n\
                      echo '== resource'\n cat /sys/bus/pci/devices/$bdf/resource\n\
                      echo '== config'\n hexdump -v -e '1/1 \"%02x\"' -n 256 \
                      /sys/bus/pci/devices/$bdf/config\n echo\n"
        .to_owned();
    for (bar, length) in [(2, RESMEM), (4, USEMEM)] {
        let last = length - LAST;
        script.push_str(&format!(
            "echo '== bar{bar}'\n /agent pci-memory $bdf {bar} <<EOF\n\
             r {FROM_HOST:x} 8\nw {FROM_GUEST:x} $word\nr {FROM_GUEST:x} 8\n\
             w {last:x} $word\nr {last:x} 8\nEOF\n\
             echo '== beyond{bar}'\n /agent pci-memory $bdf {bar} <<EOF\n\
             w {length:x} $word\nr {length:x} 8\nEOF\n"
        ));
    }
    script
}

fn section<'a>(report: &'a Report, name: &str) -> Result<&'a str> {
    let missing = || Error::Unexpected(format!("no section {name:?} in the report {report:#?}"));
    report.get(name).map(String::as_str).ok_or_else(missing)
}

fn digits(word: [u8; 8]) -> String {
    word.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The size of a BAR as the guest's kernel assigned it.
fn bar_size(resources: &str, bar: usize) -> u64 {
    let number = |word: &str| {
        u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number in hexadecimal")
    };
    let line = resources.lines().nth(bar).expect("a line for each BAR");
    let numbers: Vec<_> = line.split_whitespace().map(number).collect();
    numbers[1] - numbers[0] + 1
}

#[test]
fn a_guest_uses_the_gpu_and_sees_the_same_with_the_original_and_with_ours() -> Result<()> {
    a_guest_sees_the_same(Flavour::Debian(Arch::Aarch64))
}

#[test]
#[ignore = "for ./x soak: the same on a kernel with pages of 16 KiB"]
fn a_guest_uses_the_gpu_of_a_host_with_pages_of_16_kib() -> Result<()> {
    a_guest_sees_the_same(Flavour::Debian16k)
}

#[test]
#[ignore = "for ./x soak: the same with the next series"]
fn a_guest_uses_the_gpu_of_a_host_with_linux_7_3() -> Result<()> {
    a_guest_sees_the_same(Flavour::Next(Arch::Aarch64))
}

#[test]
#[ignore = "for ./x soak: it builds a kernel"]
fn a_guest_uses_the_gpu_of_a_host_with_pages_of_64_kib() -> Result<()> {
    a_guest_sees_the_same(Flavour::Debug64k)
}

/// With the original and with ours, on a host with that kernel.
fn a_guest_sees_the_same(flavour: Flavour) -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(USEMEM + RESMEM),
        ..Options::default()
    };
    let plan = HostPlan::new(flavour, &format!("host of a guest on {flavour}"))
        .kernel_memory(2048)
        .gpu(gh200, options, Memory::Real)
        .try_with(|vm| {
            let varia = agent_build::program(Arch::Aarch64, "varia", "varia")?;
            let vm = vm.machine("virtualization=on").cpu("neoverse-v1");
            inner_guest::equip(vm.host_file("/usr/bin/varia", varia), &script())
        })?;
    let started = Instant::now();
    let host = plan.boot()?;
    println!("the host is up after {:?}", started.elapsed());
    let memory = host.memory(0);
    let clique = format!(",x-nv-gpudirect-clique={CLIQUE}");

    let mut seen = Vec::new();
    // Ours first: lockdep looks no further after its first report, which the original gets.
    for (driver, to_guest, to_host) in [
        (Driver::Ours, *b"our own.", *b"from VM1"),
        (Driver::Original, *b"original", *b"from VM2"),
    ] {
        host.load(driver)?;
        assert_eq!(host.bind(0, driver)?, Ok(()), "{driver:?}");
        if driver == Driver::Ours {
            doctor(&host, flavour)?;
            println!("varia doctor has ended after {:?}", started.elapsed());
        }
        for region in [0, USEMEM] {
            memory
                .write(region + FROM_HOST, &to_guest)
                .expect("inside the memory");
        }
        let word = digits(to_host);
        let report = inner_guest::run(&host, 0, &clique, INITIATORS, &[("word", &word)])?;
        println!(
            "{driver:?}: the guest has ended after {:?}",
            started.elapsed()
        );

        for (bar, start, length, size) in [(4, 0, USEMEM, GIB), (2, USEMEM, RESMEM, 2 * GIB)] {
            let expected = [digits(to_guest), word.clone(), word.clone()].join("\n");
            let read = section(&report, &format!("bar{bar}"))?;
            assert_eq!(
                read, expected,
                "{driver:?}: what the guest reads in BAR{bar}"
            );
            for place in [FROM_GUEST, length - LAST] {
                let mut held = [0; 8];
                memory
                    .read(start + place, &mut held)
                    .expect("inside the memory");
                assert_eq!(
                    held, to_host,
                    "{driver:?}: BAR{bar}+{place:#x} in the device"
                );
            }
            let beyond = section(&report, &format!("beyond{bar}"))?;
            assert_eq!(
                beyond,
                "f".repeat(16),
                "{driver:?}: beyond the memory of BAR{bar}"
            );
            let assigned = bar_size(section(&report, "resource")?, bar);
            assert_eq!(assigned, size, "{driver:?}: BAR{bar}");
        }
        assert_eq!(section(&report, "initiators")?, "1-8", "{driver:?}");
        assert_eq!(section(&report, "memory")?, "0", "{driver:?}");
        assert_clique(section(&report, "config")?);
        seen.push(section(&report, "lspci")?.to_owned());
    }
    assert!(seen[0].contains("[10de:2342]"), "{}", seen[0]);
    assert_eq!(seen[0], seen[1], "lspci with ours, with the original");
    host.power_off()
}

/// Checks that QEMU's capability of a clique and its place in the list are those of the extension.
fn assert_clique(config: &str) {
    let byte = |at: usize| u8::from_str_radix(&config[2 * at..2 * at + 2], 16).expect("a byte");
    let qemu: Vec<u8> = (0..256).map(byte).collect();
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let silicon = Silicon::new(gh200, Options::default()).expect("silicon of the catalogue");
    let options = varia_serve::Options {
        gpudirect_clique: Some(CLIQUE.into()),
        ..Default::default()
    };
    let endpoint = Endpoint::new(Arc::new(silicon), options).expect("a device of the catalogue");
    endpoint.open().expect("nobody else has it");
    let mut ours = [0; 256];
    let read = endpoint.read(RegionIndex::CONFIG, 0, &mut ours);
    assert_eq!(read, Ok(ours.len()));
    let mut at = 0x34;
    let mut list = Vec::new();
    while ours[at] != 0 && list.len() < 48 {
        assert_eq!(
            qemu[at], ours[at],
            "the pointer at {at:#x} in QEMU's guest: {config}"
        );
        let capability = usize::from(ours[at]);
        assert_eq!(
            qemu[capability], ours[capability],
            "at {capability:#x}: {config}"
        );
        list.push(capability);
        at = capability + 1;
    }
    assert_eq!(qemu[at], 0, "the end of the list at {at:#x}: {config}");
    let last = list.last().copied().expect("a list");
    assert_eq!(last, 0xc8);
    assert_eq!(qemu[last..last + 8], ours[last..last + 8], "{config}");
    assert_eq!(ours[last + 6], CLIQUE << 3);
}

/// Checks that `varia doctor` finds no failure in a plan on a host that has KVM, QEMU and the GPU; the
/// guest that runs next proves the verdict right.
fn doctor(host: &Host, flavour: Flavour) -> Result<()> {
    let plan = format!(
        "/usr/bin/varia plan --gpu {} --memory 512M --cpus 1 --json > /tmp/plan.json",
        host.address(0)
    );
    host.vm.sh(&plan)?;
    let text = host
        .vm
        .sh("/usr/bin/varia doctor /tmp/plan.json --json || true")?;
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    let mut others = Vec::new();
    let pages = if flavour.is_debug() { "ok" } else { "warning" };
    for (check, severity, part) in [
        ("iommu", "ok", ":"),
        ("smmu", "warning", "is not an SMMUv3"),
        ("page-size", pages, "KiB"),
        ("kvm", "ok", "bits of guest addresses"),
        ("cacheable-pfnmap", "ok", "KVM has it"),
        ("stage-2-write-back", "ok", ""),
        ("backend", "ok", "which the plan uses"),
        ("variant-driver", "ok", "Varia's"),
        ("group", "ok", "alone"),
        ("driver", "ok", "its best"),
        ("firmware", "ok", "1.5 GiB at 0x"),
        ("aperture", "ok", "a guest's addresses have"),
        ("qemu", "ok", "/usr/bin/qemu-system-aarch64"),
        ("qemu-features", "ok", "acpi-generic-initiator"),
        ("libvirt", "not-applicable", "only --vmm libvirt"),
        ("plan-devices", "ok", "BARs of the plan"),
        ("plan-files", "ok", "exists"),
    ] {
        let own: Vec<_> = findings
            .iter()
            .filter(|one| one["check"] == check)
            .collect();
        let said = |one: &&Value| {
            one["found"]
                .as_str()
                .is_some_and(|text| text.contains(part))
        };
        let is = own.iter().all(|one| one["severity"] == severity) && own.iter().any(said);
        if !is {
            others.push((check, severity, part, own));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
    let mut failures = findings.iter().filter(|one| one["severity"] == "failure");
    assert_eq!(failures.next(), None);
    Ok(())
}
