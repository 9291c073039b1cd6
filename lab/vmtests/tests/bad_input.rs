//! Firmware that gives our module something wrong, and GPUs that lack what it needs: each gets its
//! error number and one line in the log that says what to do, and leaves nothing behind.

use std::fmt::Write;

use varia_agent::applets::vfio_info::Report;
use varia_lab::Arch;
use varia_lab::iasl::compile_asl;
use varia_silicon::profile::{self, Body, Profile};
use varia_silicon::{Faults, Options};
use varia_spec::Errno;
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const BASE: &str = "nvidia,gpu-mem-base-pa";
const SIZE: &str = "nvidia,gpu-mem-size";
const UUID: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";

/// A GPU with what firmware says of it, in ASL, and what comes of it.
struct Case {
    properties: &'static [(&'static str, &'static str)],
    bar0: Option<u64>,
    /// The error number; none if the device is served as a plain one.
    errno: Option<Errno>,
    /// What the line in the log says.
    says: &'static str,
}

const GOOD_BASE: (&str, &str) = (BASE, "0x420000000000");
const GOOD_SIZE: (&str, &str) = (SIZE, "0x60000000");
const BAR0: Option<u64> = Some(16 << 20);

const CASES: &[Case] = &[
    Case {
        properties: &[GOOD_SIZE],
        bar0: BAR0,
        errno: None,
        says: "firmware property nvidia,gpu-mem-base-pa can't be read (EINVAL): served as a plain",
    },
    Case {
        properties: &[GOOD_BASE],
        bar0: BAR0,
        errno: None,
        says: "firmware property nvidia,gpu-mem-size can't be read (EINVAL): served as a plain",
    },
    Case {
        properties: &[(BASE, "\"a text\""), GOOD_SIZE],
        bar0: BAR0,
        errno: None,
        says: "firmware property nvidia,gpu-mem-base-pa can't be read (EPROTO): served as a plain",
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "\"a text\"")],
        bar0: BAR0,
        errno: None,
        says: "firmware property nvidia,gpu-mem-size can't be read (EPROTO): served as a plain",
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0")],
        bar0: BAR0,
        errno: None,
        says: "firmware reports a memory size of 0, so the chip-to-chip link is down",
    },
    Case {
        properties: &[(BASE, "0x420000000800"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EINVAL),
        says: "not served: memory base 0x420000000800 is not a multiple of the page size 0x1000",
    },
    Case {
        // RAM of this machine begins at 1 GiB.
        properties: &[(BASE, "0x50000000"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EBUSY),
        says: "not served: memory of 0x40000000 bytes at 0x70000000 overlaps what the kernel uses",
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0x40000000")],
        bar0: BAR0,
        errno: Some(Errno::EINVAL),
        says: "not served: memory size 0x40000000 leaves nothing usable",
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0x3fffffff")],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        says: "not served: memory size 0x3fffffff is smaller than the 0x40000000 bytes to reserve",
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0x10080000000")],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        says: "not served: memory of 0x10040000000 bytes needs a BAR above 1 TiB",
    },
    Case {
        properties: &[(BASE, "0xfffffffff0000000"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        says: "not served: memory of 0x60000000 bytes at 0xfffffffff0000000 ends beyond 64 bits",
    },
    Case {
        // No CPU has more than 52 bits.
        properties: &[(BASE, "0x100000000000000"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        says: "not served: memory of 0x40000000 bytes at 0x100000020000000 ends beyond 0xf",
    },
    Case {
        properties: &[GOOD_BASE, GOOD_SIZE],
        bar0: None,
        errno: Some(Errno::ENOMEM),
        says: "not served: it has no BAR0 with the registers",
    },
    Case {
        properties: &[GOOD_BASE, GOOD_SIZE],
        bar0: Some(0x2_0000),
        errno: Some(Errno::ENXIO),
        says: "not served: BAR0 has 0x20000 bytes and its readiness registers end at 0x200c0",
    },
];

/// A GH200 with a BAR0 of this size, or none.
fn gh200(bar0: Option<u64>) -> Profile {
    let mut profile = profile::find("gh200")
        .expect("a profile of the catalogue")
        .clone();
    if bar0 != BAR0 {
        // Its vectors would lie outside.
        let inside = |body: &Body| !matches!(body, Body::MessageX { .. });
        profile.capabilities.retain(|fact| inside(&fact.value.body));
    }
    match bar0 {
        Some(size) => {
            let first = profile.bars.first_mut().expect("it has a BAR0");
            first.value.spec.size = size;
        }
        None => profile.bars.retain(|bar| bar.value.index != 0),
    }
    profile
}

/// A table with what firmware says of the GPUs behind the root ports from slot 1 on.
fn firmware() -> String {
    let mut asl = String::from("DefinitionBlock (\"\", \"SSDT\", 2, \"VARIA\", \"BAD\", 1) {\n");
    for (case, slot) in CASES.iter().zip(1..) {
        let path = format!("\\_SB.PCI0.S{:02X}.S00", slot * 8);
        // writing to a String can't fail
        let _ = write!(
            asl,
            "External ({path}, DeviceObj)\nScope ({path}) {{ Name (_DSD, Package () {{ \
             ToUUID (\"{UUID}\"), Package () {{\n"
        );
        for (name, value) in case.properties {
            let _ = writeln!(asl, "Package () {{ \"{name}\", {value} }},");
        }
        asl.push_str("} }) }\n");
    }
    asl + "}\n"
}

/// What our module says of a device since a line of the log, without what the kernel's own code
/// says in its name.
fn said(host: &Host, gpu: usize, since: usize) -> Result<Vec<String>> {
    let log = host.vm.sh("dmesg")?;
    let name = format!("{} {}: ", Driver::Ours.name(), host.address(gpu));
    let lines = log.lines().skip(since).filter(|line| line.contains(&name));
    let ours = lines.filter(|line| {
        ![
            "probe with driver",
            "enabling device",
            "Enabling HDA",
            "resetting",
            "reset done",
        ]
        .iter()
        .any(|other| line.contains(other))
    });
    Ok(ours.map(str::to_owned).collect())
}

#[test]
fn bad_input_gets_its_error_one_line_in_the_log_and_leaves_nothing_behind() -> Result<()> {
    let table = compile_asl(&firmware())?;
    let mut plan = HostPlan::new(Arch::Aarch64, "bad input").with(|vm| vm.acpi_table(table));
    for case in CASES {
        let options = Options {
            faults: Faults {
                // the table of this test has them
                no_properties: true,
                ..Faults::default()
            },
            ..Options::default()
        };
        plan = plan.gpu(&gh200(case.bar0), options, Memory::Absent);
    }
    let good = CASES.len();
    let host = plan
        .gpu(&gh200(BAR0), Options::default(), Memory::Absent)
        .boot()?;

    for (gpu, case) in CASES.iter().enumerate() {
        host.load(Driver::Ours)?;
        let since = host.vm.sh("dmesg")?.lines().count();
        let bound = host.bind(gpu, Driver::Ours)?;
        let errno = case.errno.map(Errno::get);
        assert_eq!(bound.err(), errno, "{}", case.says);
        let lines = said(&host, gpu, since)?;
        assert_eq!(lines.len(), 1, "{}: {lines:#?}", case.says);
        assert!(lines[0].contains(case.says), "{}: {lines:#?}", case.says);
        assert!(lines[0].contains(';'), "what to do: {lines:#?}");

        // Without an unbind: taking the module away has to do it.
        let device = format!("/sys/bus/pci/devices/{}/driver_override", host.address(gpu));
        host.vm.write(&device, "\n")?;
        host.vm.sh("rmmod nvgrace_gpu_vfio_pci")?;
        let left = host.vm.sh(
            "ls -d /sys/kernel/debug/nvgrace_gpu_vfio_pci /sys/bus/pci/drivers/nvgrace_gpu_vfio_pci \
             /sys/class/vfio-dev/* /dev/vfio/[0-9]* 2>/dev/null || true",
        )?;
        assert_eq!(left, "", "{}", case.says);
    }

    // A range of page frames that was left behind would keep this one from being opened.
    host.load(Driver::Ours)?;
    assert_eq!(host.bind(good, Driver::Ours)?, Ok(()));
    let reports: Vec<Report> = host.ask("vfio-info", &[host.address(good)])?;
    assert_eq!(reports[0].regions[4].size, 128 << 30);
    let log = host.vm.sh("dmesg")?;
    for word in ["WARNING:", "BUG:", "Call trace", "Oops"] {
        assert!(!log.contains(word), "{word} in:\n{log}");
    }
    host.power_off()
}
