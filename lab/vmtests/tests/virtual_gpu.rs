//! Inside a VM: the virtual GPU, whose memory is in its BARs and which firmware says nothing of. The
//! original driver, ours and `vfio-pci` serve it alike.

use varia_agent::applets::vfio_info::Report;
use varia_lab::Arch;
use varia_silicon::{Options, profile};
use varia_vmtests::host::{Driver, HostPlan, Memory};
use varia_vmtests::{Result, report};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// usemem 512 MiB behind 1 GiB, resmem 1 GiB and 192 KiB behind 2 GiB.
const SIZE: u64 = GIB + 512 * MIB + 192 * 1024;

/// A machine of its own: after a fallback the original opens nothing more in it.
fn inside(driver: Driver) -> Result<(Report, String)> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(SIZE),
        ..Options::default()
    };
    let host = HostPlan::new(Arch::Aarch64, &format!("virtual GPU with {driver:?}"))
        .gpu(gh200, options, Memory::Bars)
        .boot()?;
    host.load(driver)?;
    assert_eq!(host.bind(0, driver)?, Ok(()), "{driver:?}");
    let mut reports = report::of_kernel(&host, &[0])?;
    let log = host.vm.sh("dmesg")?;
    host.power_off()?;
    Ok((reports.remove(0), log))
}

#[test]
fn inside_a_vm_the_original_ours_and_vfio_pci_serve_the_virtual_gpu_alike() -> Result<()> {
    let (plain, _) = inside(Driver::VfioPci)?;
    assert_eq!(plain.regions[4].size, GIB);
    assert_eq!(plain.regions[2].size, 2 * GIB);
    let (original, _) = inside(Driver::Original)?;
    assert_eq!(original, plain, "the original, vfio-pci");
    let (ours, log) = inside(Driver::Ours)?;
    assert_eq!(ours, original, "ours, the original");
    let reason = "firmware property nvidia,gpu-mem-base-pa";
    assert!(log.contains(reason), "no {reason:?} in:\n{log}");
    Ok(())
}
