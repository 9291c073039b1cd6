//! Firmware that gives our module something wrong, and GPUs that lack what it needs: each gets its
//! error number and one line in the log, the sentence of the variant's reason, and leaves nothing
//! behind.

use std::fmt::Write;

use varia_agent::applets::vfio_info::Report;
use varia_lab::Arch;
use varia_lab::iasl::compile_asl;
use varia_silicon::profile::{self, Body, Profile};
use varia_silicon::{Faults, Options};
use varia_spec::Errno;
use varia_variant::{Bytes, Decline, HostPhys, Refusal};
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const BASE: &str = "nvidia,gpu-mem-base-pa";
const SIZE: &str = "nvidia,gpu-mem-size";
const UUID: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";

/// A GPU with its firmware properties, in ASL, and the outcome of its probe.
struct Case {
    properties: &'static [(&'static str, &'static str)],
    bar0: Option<u64>,
    /// The error number; none if the device is served as a plain one.
    errno: Option<Errno>,
    /// The reason, whose sentence is the line in the log.
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
enum Reason {
    Decline(Decline),
    Refusal(Refusal),
}

impl Reason {
    /// The whole text of the log line `line`.
    fn text(self, line: &str) -> String {
        match self {
            Self::Decline(reason) => reason.to_string(),
            Self::Refusal(Refusal::OutOfReach { base, length, .. }) => {
                let last = last_address(line);
                format!("not served: {}", Refusal::OutOfReach { base, length, last })
            }
            Self::Refusal(refusal) => format!("not served: {refusal}"),
        }
    }
}

/// The last address that the machine's CPU can reach, as a line of the log names it.
fn last_address(line: &str) -> HostPhys {
    let (_, after) = line.split_once("ends beyond 0x").expect("an address");
    let digits = after.split(',').next().unwrap_or_default();
    let last = u64::from_str_radix(digits, 16).expect("hexadecimal digits");
    // No CPU has more than 52 bits.
    assert!(
        last.trailing_ones() <= 52 && last & (last + 1) == 0,
        "{line}"
    );
    HostPhys(last)
}

const GOOD_BASE: (&str, &str) = (BASE, "0x420000000000");
const GOOD_SIZE: (&str, &str) = (SIZE, "0x60000000");
const BAR0: Option<u64> = Some(16 << 20);

const CASES: &[Case] = &[
    Case {
        properties: &[GOOD_SIZE],
        bar0: BAR0,
        errno: None,
        reason: Reason::Decline(Decline::Property {
            name: BASE,
            errno: Errno::EINVAL,
        }),
    },
    Case {
        properties: &[GOOD_BASE],
        bar0: BAR0,
        errno: None,
        reason: Reason::Decline(Decline::Property {
            name: SIZE,
            errno: Errno::EINVAL,
        }),
    },
    Case {
        properties: &[(BASE, "\"a text\""), GOOD_SIZE],
        bar0: BAR0,
        errno: None,
        reason: Reason::Decline(Decline::Property {
            name: BASE,
            errno: Errno::EPROTO,
        }),
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "\"a text\"")],
        bar0: BAR0,
        errno: None,
        reason: Reason::Decline(Decline::Property {
            name: SIZE,
            errno: Errno::EPROTO,
        }),
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0")],
        bar0: BAR0,
        errno: None,
        reason: Reason::Decline(Decline::LinkDown),
    },
    Case {
        properties: &[(BASE, "0x420000000800"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EINVAL),
        reason: Reason::Refusal(Refusal::BaseNotPageAligned {
            base: HostPhys(0x4200_0000_0800),
            page: Bytes(0x1000),
        }),
    },
    Case {
        // RAM of this machine begins at 1 GiB.
        properties: &[(BASE, "0x50000000"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EBUSY),
        reason: Reason::Refusal(Refusal::SystemRam {
            base: HostPhys(0x7000_0000),
            length: Bytes(0x4000_0000),
        }),
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0x40000000")],
        bar0: BAR0,
        errno: Some(Errno::EINVAL),
        reason: Reason::Refusal(Refusal::NothingUsable {
            size: Bytes(0x4000_0000),
            least: Bytes(0x6000_0000),
        }),
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0x3fffffff")],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        reason: Reason::Refusal(Refusal::BelowReserve {
            size: Bytes(0x3fff_ffff),
            reserve: Bytes(0x4000_0000),
        }),
    },
    Case {
        properties: &[GOOD_BASE, (SIZE, "0x10080000000")],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        reason: Reason::Refusal(Refusal::BarTooLarge {
            length: Bytes(0x100_4000_0000),
        }),
    },
    Case {
        properties: &[(BASE, "0xfffffffff0000000"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        reason: Reason::Refusal(Refusal::BeyondAddresses {
            base: HostPhys(0xffff_ffff_f000_0000),
            size: Bytes(0x6000_0000),
        }),
    },
    Case {
        // The last address is read from the line: it depends on the CPU.
        properties: &[(BASE, "0x100000000000000"), GOOD_SIZE],
        bar0: BAR0,
        errno: Some(Errno::EOVERFLOW),
        reason: Reason::Refusal(Refusal::OutOfReach {
            base: HostPhys(0x100_0000_2000_0000),
            length: Bytes(0x4000_0000),
            last: HostPhys(0),
        }),
    },
    Case {
        properties: &[GOOD_BASE, GOOD_SIZE],
        bar0: None,
        errno: Some(Errno::ENOMEM),
        reason: Reason::Refusal(Refusal::NoBar0),
    },
    Case {
        properties: &[GOOD_BASE, GOOD_SIZE],
        bar0: Some(0x2_0000),
        errno: Some(Errno::ENXIO),
        reason: Reason::Refusal(Refusal::Bar0TooSmall {
            size: Bytes(0x2_0000),
            end: 0x200c0,
        }),
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

/// Lines of our module about a device since a line of the log, without those that the kernel's own
/// code writes in the module's name.
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

/// strict: a device that is declined otherwise fails its probe, with one line in the log.
fn is_refused_by_strict(host: &Host, gpu: usize) -> Result<()> {
    host.unbind(gpu)?;
    host.unload()?;
    host.vm
        .sh(&format!("insmod {} strict=1", Driver::Ours.file()))?;
    let since = host.vm.sh("dmesg")?.lines().count();
    let errno = host.bind(gpu, Driver::Ours)?.err();
    assert_eq!(errno, Some(Errno::ENODEV.get()));
    let lines = said(host, gpu, since)?;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let words = [
        "not served: firmware",
        "the option strict allows no less",
        "; ",
    ];
    assert!(
        words.iter().all(|word| lines[0].contains(word)),
        "{lines:#?}"
    );
    Ok(())
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
        assert_eq!(bound.err(), errno, "{:?}", case.reason);
        let lines = said(&host, gpu, since)?;
        assert_eq!(lines.len(), 1, "{:?}: {lines:#?}", case.reason);
        let text = format!(": {}", case.reason.text(&lines[0]));
        assert!(lines[0].ends_with(&text), "{text:?} in {lines:#?}");
        assert!(lines[0].contains(';'), "what to do: {lines:#?}");

        if case.errno.is_none() {
            is_refused_by_strict(&host, gpu)?;
            host.load(Driver::Ours)?;
            assert_eq!(host.bind(gpu, Driver::Ours)?, Ok(()));
        }

        // Without an unbind: taking the module away has to do it.
        let device = format!("/sys/bus/pci/devices/{}/driver_override", host.address(gpu));
        host.vm.write(&device, "\n")?;
        host.vm.sh("rmmod nvgrace_gpu_vfio_pci")?;
        let left = host.vm.sh(
            "ls -d /sys/kernel/debug/nvgrace_gpu_vfio_pci /sys/bus/pci/drivers/nvgrace_gpu_vfio_pci \
             /sys/class/vfio-dev/* /dev/vfio/[0-9]* 2>/dev/null || true",
        )?;
        assert_eq!(left, "", "{:?}", case.reason);
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
