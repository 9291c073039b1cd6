//! Kernels with other page sizes: both drivers load, bind and serve, and a fault inserts the
//! largest page that the kernel has for page frames.

use varia_agent::applets::first_touch::Touched;
use varia_lab::Flavour;
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::report;

const GIB: u64 = 1 << 30;
/// usemem and resmem of 1 GiB each: two huge pages of 512 MiB.
const MEMORY: u64 = 2 * GIB;
/// Faults of the applet's own code that may come in between.
const STRAY: u64 = 4;

/// Times of touching a region, with `driver`.
fn touched(host: &Host, region: &str, huge: u64) -> Result<Touched> {
    let (length, huge) = (GIB.to_string(), huge.to_string());
    host.ask("first-touch", &[host.address(0), region, &length, &huge])
}

fn both_drivers_serve(flavour: Flavour) -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(MEMORY),
        ..Options::default()
    };
    let host = HostPlan::new(flavour, &format!("pages of {flavour}"))
        .gpu(gh200, options, Memory::Real)
        .boot()?;
    let mut reports = Vec::new();
    // Ours first: lockdep looks no further after its first report, which the original gets.
    for driver in [Driver::Ours, Driver::Original] {
        host.load(driver)?;
        assert_eq!(host.bind(0, driver)?, Ok(()), "{driver:?} on {flavour}");
        reports.push(report::of_kernel(&host, &[0])?);
        let huge = flavour.pmd_size();
        for region in ["2", "4"] {
            let seen = touched(&host, region, huge)?;
            println!("{flavour}, {driver:?}, region {region}: {seen:?}");
            let what = format!("{driver:?} on {flavour}, region {region}: {seen:?}");
            assert_eq!(seen.page, flavour.page_size(), "{what}");
            assert_eq!(seen.wrong, 0, "{what}");
            let (pages, faults) = seen.fitting;
            assert_eq!(pages, huge / seen.page, "{what}");
            assert!((1..=1 + STRAY).contains(&faults), "one huge page: {what}");
            let (pages, faults) = seen.misaligned;
            assert!((pages..=pages + STRAY).contains(&faults), "{what}");
        }
        if driver == Driver::Ours {
            host.check_log()?;
        }
    }
    assert_eq!(reports[0], reports[1], "ours, the original on {flavour}");
    Ok(host.vm.power_off()?)
}

#[test]
fn with_pages_of_16_kib_faults_insert_32_mib() -> Result<()> {
    both_drivers_serve(Flavour::Debian16k)
}

#[test]
#[ignore = "for ./x soak: it builds a kernel"]
fn with_pages_of_64_kib_and_kasan_faults_insert_512_mib() -> Result<()> {
    both_drivers_serve(Flavour::Debug64k)
}

#[test]
#[ignore = "for ./x soak: it builds a kernel"]
fn on_linux_7_3_with_pages_of_64_kib_faults_insert_512_mib() -> Result<()> {
    both_drivers_serve(Flavour::NextDebug64k)
}
