//! The kernel's own driver on our silicon, and ours beside it: the same sizes, the same
//! answers.
//!
//! The original is built from Debian's kernel source when the test runs. The coherent
//! memory of most of these GPUs is absent: nothing here touches it.

use varia_agent::applets::vfio_info::Report;
use varia_lab::Arch;
use varia_serve::{Endpoint, View};
use varia_silicon::{Options, Profile, Silicon, profile};
use varia_spec::Errno;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::{Result, report};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PAGE: u64 = 4 * KIB;

/// With the bug: 1 GiB is carved out, what is left is rounded to 512 MiB, and each of the
/// two parts gets a BAR of the next power of two.
const GH200_SIZES: [u64; 16] = [
    GIB + 512 * MIB,
    GIB + 512 * MIB + PAGE,
    2 * GIB - PAGE,
    2 * GIB,
    2 * GIB + PAGE,
    2 * GIB + 512 * MIB - PAGE,
    2 * GIB + 512 * MIB,
    3 * GIB,
    3 * GIB + PAGE,
    65 * GIB + 100 * MIB,
    96 * GIB,
    96 * GIB + 300 * MIB,
    129 * GIB - PAGE,
    129 * GIB,
    129 * GIB + PAGE,
    480 * GIB,
];

/// Without the bug: nothing is carved out and nothing is rounded but the BAR.
const GB200_SIZES: [u64; 14] = [
    PAGE,
    3 * PAGE,
    512 * MIB - PAGE,
    512 * MIB,
    512 * MIB + PAGE,
    GIB,
    GIB + PAGE,
    3 * GIB,
    128 * GIB - PAGE,
    128 * GIB,
    128 * GIB + PAGE,
    184 * GIB,
    256 * GIB,
    256 * GIB + PAGE,
];

/// Sizes that leave nothing: with the bug, size and what the probe answers.
const GH200_REFUSED: [(u64, Errno); 4] = [
    (GIB, Errno::EINVAL),
    (GIB + PAGE, Errno::EINVAL),
    (GIB + 512 * MIB - PAGE, Errno::EINVAL),
    (GIB - PAGE, Errno::EOVERFLOW),
];

/// With the bug, the smallest size whose BAR a VFIO file position can't address: the original
/// serves it, and its end would be taken for another region.
const TOO_LARGE: u64 = 1024 * GIB + GIB + PAGE;

fn find(name: &str) -> &'static Profile {
    profile::find(name).expect("a profile of the catalogue")
}

fn of_size(size: u64) -> Options {
    Options {
        memory: Some(size),
        ..Options::default()
    }
}

/// Endpoint of the user-space runtime for a GPU of this size.
fn runtime(profile: &Profile, size: u64) -> std::result::Result<Endpoint, varia_serve::Error> {
    let silicon = Silicon::new(profile, of_size(size)).expect("silicon of this size");
    let options = varia_serve::Options {
        view: View::Virtual,
        ..varia_serve::Options::default()
    };
    Endpoint::new(std::sync::Arc::new(silicon), options)
}

/// The machine's GPUs served by `driver`, all of them bound before the first is opened.
fn reports(host: &Host, driver: Driver, count: usize) -> Result<Vec<Report>> {
    host.load(driver)?;
    for gpu in 0..count {
        let bound = host.bind(gpu, driver)?;
        assert_eq!(
            bound,
            Ok(()),
            "{driver:?} refuses a GPU of {} bytes:\n{}",
            host.memory(gpu).len(),
            host.vm.sh("dmesg | tail -20")?
        );
    }
    report::of_kernel(host, &(0..count).collect::<Vec<_>>())
}

fn three_agree_on(profile: &Profile, sizes: &[u64]) -> Result<()> {
    let name = format!("sizes of {}", profile.name);
    let mut plan = HostPlan::new(Arch::Aarch64, &name);
    for size in sizes {
        plan = plan.gpu(profile, of_size(*size), Memory::Absent);
    }
    let host = plan.boot()?;
    let original = reports(&host, Driver::Original, sizes.len())?;
    let ours = reports(&host, Driver::Ours, sizes.len())?;
    host.power_off()?;
    for (number, size) in sizes.iter().enumerate() {
        let name = format!("{} with {size} bytes", profile.name);
        assert_eq!(
            ours[number], original[number],
            "{name}: our module, the original"
        );
        let runtime = runtime(profile, *size)?;
        let runtime = report::of_runtime(&runtime)
            .unwrap_or_else(|errno| panic!("{name}: the user-space runtime says {errno}"));
        for region in [2, 4] {
            assert_eq!(
                runtime.regions[region], original[number].regions[region],
                "{name}: region {region} of the user-space runtime, of the original"
            );
        }
        assert_eq!(
            runtime.sizing, original[number].sizing,
            "{name}: BAR registers of the user-space runtime, of the original"
        );
    }
    Ok(())
}

#[test]
fn with_the_bug_the_original_and_both_runtimes_agree_on_every_size() -> Result<()> {
    three_agree_on(find("gh200"), &GH200_SIZES)
}

#[test]
fn without_the_bug_the_original_and_both_runtimes_agree_on_every_size() -> Result<()> {
    three_agree_on(find("gb200"), &GB200_SIZES)
}

#[test]
fn sizes_that_leave_nothing_are_refused_alike_and_ours_refuses_what_would_alias() -> Result<()> {
    let gh200 = find("gh200");
    let mut plan = HostPlan::new(Arch::Aarch64, "refused sizes");
    for (size, _) in GH200_REFUSED {
        plan = plan.gpu(gh200, of_size(size), Memory::Absent);
    }
    let large = GH200_REFUSED.len();
    let host = plan.gpu(gh200, of_size(TOO_LARGE), Memory::Absent).boot()?;
    for (driver, aliasing) in [
        (Driver::Original, Ok(())),
        (Driver::Ours, Err(Errno::EOVERFLOW.get())),
    ] {
        host.load(driver)?;
        for (gpu, (size, errno)) in GH200_REFUSED.into_iter().enumerate() {
            let bound = host.bind(gpu, driver)?;
            assert_eq!(bound, Err(errno.get()), "{driver:?} with {size} bytes");
        }
        let bound = host.bind(large, driver)?;
        assert_eq!(bound, aliasing, "{driver:?} with {TOO_LARGE} bytes");
    }
    let log = host.vm.sh("dmesg")?;
    assert!(log.contains("needs a BAR above 1 TiB"), "{log}");
    // the original rounds up a length of zero, which the kernel's sanitizer reports
    host.power_off_but_for("shift-out-of-bounds")?;
    let too_large = (TOO_LARGE, Errno::EOVERFLOW);
    for (size, errno) in GH200_REFUSED.into_iter().chain([too_large]) {
        let refused = runtime(gh200, size).expect_err("it is refused").errno();
        assert_eq!(refused, errno, "the user-space runtime with {size} bytes");
    }
    Ok(())
}

#[test]
fn on_x86_the_original_binds_and_ours_says_the_same() -> Result<()> {
    let (gh200, size) = (find("gh200"), GIB + 512 * MIB);
    let host = HostPlan::new(Arch::X86_64, "original on x86")
        .gpu(gh200, of_size(size), Memory::Real)
        .boot()?;
    let original = reports(&host, Driver::Original, 1)?;
    let ours = reports(&host, Driver::Ours, 1)?;
    assert_eq!(ours, original);
    assert_eq!(original[0].regions[2].size, GIB);
    assert_eq!(original[0].regions[4].size, 512 * MIB);
    host.power_off()
}
