//! The kernel's own VFIO selftests on our module, and on vfio-pci and the original to know what
//! is ours. They are built from Debian's kernel source when the test runs.
//!
//! A machine without iommufd leaves out the variants that need it, by name; every other test has
//! to pass or to skip itself, with the reason that is listed here.

use std::collections::BTreeMap;

use varia_lab::{Arch, Ending, Flavour, GuestCommand, selftests};
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory, shrink_bar2};

const MIB: u64 = 1 << 20;
/// Variants of tests that need `/dev/iommu`: the selftests' harness leaves out one by its whole
/// name.
const IOMMUFD: [&str; 3] = ["iommufd", "iommufd_compat_type1", "iommufd_compat_type1v2"];
/// Suffixes of the IOMMU's name in the variants of some tests.
const SUFFIXES: [&str; 7] = [
    "",
    "_anonymous",
    "_anonymous_hugetlb_2mb",
    "_anonymous_hugetlb_1gb",
    "_same_uuid",
    "_diff_uuid",
    "_null_uuid",
];

/// Programs that need `/dev/iommu`.
const IOMMUFD_PROGRAM: &str = "vfio_iommufd_setup_test";
/// Programs that find the device unfit and leave before their first test, and why.
const UNFIT: [(&str, &str); 2] = [
    ("vfio_pci_driver_test", "No driver found for device"),
    ("vfio_pci_sriov_uapi_test", "SR-IOV may not be supported"),
];
/// The fixture that asks for MSI and MSI-X. The arm64 machine's interrupt controller has no such
/// interrupts for a function that vfio-user serves: it fails with vfio-pci, the original and ours
/// (ENOSPC), which the test expects, and the kernel warns in its_msi_teardown(). It runs on x86-64.
const MESSAGES: &str = "vfio_pci_irq_test";
const WITH_MESSAGES: &str = "vfio_pci_device_test";
const WARNING: &str = "at its_msi_teardown+";
/// `KSFT_SKIP` (Linux 7.2 `tools/testing/selftests/kselftest.h`).
const SKIPPED: i32 = 4;

/// End of a test.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    Passed,
    Skipped(String),
    Failed,
}

/// All tests of all programs by name, with their ends.
type Ends = BTreeMap<String, End>;

/// Reads the lines of the Test Anything Protocol that name a test.
fn read(program: &str, text: &str) -> Ends {
    let mut ends = Ends::new();
    for line in text.lines() {
        let (passed, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => continue,
        };
        let Some((_, rest)) = rest.split_once(' ') else {
            continue;
        };
        let (name, end) = match rest.split_once("# SKIP") {
            Some((name, why)) => (name, End::Skipped(why.trim().to_owned())),
            None if passed => (rest, End::Passed),
            None => (rest, End::Failed),
        };
        ends.insert(format!("{program}: {}", name.trim()), end);
    }
    ends
}

/// Runs the programs on the GPU, with the log of what they print.
fn run(host: &Host, programs: &[String], iommufd: bool) -> Result<(Ends, String)> {
    let (mut ends, mut log) = (Ends::new(), String::new());
    for program in programs {
        let mut argv = vec![format!("/lab/selftests/{program}")];
        if host.vm.arch() == Arch::Aarch64 {
            argv.extend(["-F", MESSAGES].map(str::to_owned));
        }
        if !iommufd {
            for variant in IOMMUFD {
                for suffix in SUFFIXES {
                    argv.extend(["-V".to_owned(), format!("{variant}{suffix}")]);
                }
            }
        }
        argv.push(host.address(0).to_owned());
        let mode = if iommufd {
            "iommufd"
        } else {
            "vfio_type1v2_iommu"
        };
        let command = GuestCommand::new(argv).env("VARIA_IOMMU_MODE", mode);
        let output = host.vm.run(&command)?;
        let (text, errors) = (output.text(), String::from_utf8_lossy(&output.stderr));
        log.push_str(&format!(
            "--- {program}: {:?}\n{text}\n{errors}\n",
            output.ending
        ));
        let unfit = UNFIT.iter().find(|(name, _)| name == program);
        match unfit.filter(|_| output.ending == Ending::Exit(SKIPPED)) {
            Some((_, why)) => {
                assert!(text.contains(why) || errors.contains(why), "{log}");
                ends.insert(program.clone(), End::Skipped((*why).to_owned()));
            }
            None => {
                let seen = read(program, &text);
                assert!(!seen.is_empty(), "{program} names no test:\n{log}");
                ends.extend(seen);
            }
        }
    }
    Ok((ends, log))
}

/// Ends of the tests that [`run`] leaves out on arm64.
fn left_out(host: &Host) -> Result<Ends> {
    let program = format!("/lab/selftests/{WITH_MESSAGES}");
    let argv = [program.as_str(), "-f", MESSAGES, host.address(0)];
    let command =
        GuestCommand::new(argv.map(str::to_owned)).env("VARIA_IOMMU_MODE", "vfio_type1v2_iommu");
    Ok(read(WITH_MESSAGES, &host.vm.run(&command)?.text()))
}

fn our_module_passes(flavour: Flavour) -> Result<()> {
    let mut gh200 = profile::find("gh200")
        .expect("a profile of the catalogue")
        .clone();
    shrink_bar2(&mut gh200.bars);
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let programs = selftests::vfio(flavour)?;
    let mut names: Vec<_> = programs
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let host = HostPlan::new(flavour, &format!("selftests on {flavour}"))
        .gpu(&gh200, options, Memory::Real)
        .with(|vm| {
            names.iter().zip(&programs).fold(vm, |vm, (name, path)| {
                vm.host_file(format!("/lab/selftests/{name}"), path)
            })
        })
        .boot()?;
    let iommufd = host.vm.list("/dev")?.iter().any(|name| name == "iommu");
    if !iommufd {
        names.retain(|name| name != IOMMUFD_PROGRAM);
        println!(
            "{flavour}: without /dev/iommu, {IOMMUFD_PROGRAM} and the variants iommufd* are left out"
        );
    }
    let mut seen = Vec::new();
    let mut without_messages = Vec::new();
    for driver in [Driver::VfioPci, Driver::Original, Driver::Ours] {
        host.load(driver)?;
        assert_eq!(host.bind(0, driver)?, Ok(()), "{driver:?}");
        seen.push(run(&host, &names, iommufd)?);
        if flavour.arch() == Arch::Aarch64 {
            without_messages.push(left_out(&host)?);
        }
        host.unbind(0)?;
    }
    let [(generic, _), (original, _), (ours, log)] = seen.as_slice() else {
        unreachable!("three drivers");
    };
    for (name, end) in ours {
        println!("{flavour}: {name}: {end:?}");
        let others = (generic.get(name), original.get(name));
        assert_ne!(
            *end,
            End::Failed,
            "{name}; vfio-pci and the original: {others:?}\n{log}"
        );
    }
    assert!(
        ours.keys().eq(original.keys()),
        "{ours:#?}, not {original:#?}"
    );
    let passed = ours.values().filter(|end| **end == End::Passed).count();
    println!("result: {flavour}: {passed} of {} passed", ours.len());
    assert!(passed >= 15, "{ours:#?}\n{log}");
    if let [generic, original, ours] = without_messages.as_slice() {
        println!("left out: {ours:#?}");
        assert_eq!((ours, original), (generic, generic));
        assert!(ours.values().any(|end| *end == End::Failed), "{ours:#?}");
    }
    host.power_off_but_for(WARNING)
}

#[test]
fn the_kernels_own_vfio_selftests_pass_on_our_module() -> Result<()> {
    our_module_passes(Flavour::Debian(Arch::Aarch64))
}

#[test]
#[ignore = "for ./x soak: the same on x86-64"]
fn the_kernels_own_vfio_selftests_pass_on_our_module_for_x86() -> Result<()> {
    our_module_passes(Flavour::Debian(Arch::X86_64))
}

#[test]
#[ignore = "for ./x soak: it builds a kernel"]
fn the_kernels_own_vfio_selftests_pass_on_our_module_with_iommufd() -> Result<()> {
    our_module_passes(Flavour::Debug64k)
}

#[test]
#[ignore = "for ./x soak: the same programs on another kernel"]
fn the_selftests_of_linux_7_3_pass_on_our_module_for_x86() -> Result<()> {
    our_module_passes(Flavour::Next(Arch::X86_64))
}
