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

#[test]
fn inside_a_vm_the_original_ours_and_vfio_pci_serve_the_virtual_gpu_alike() -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(SIZE),
        ..Options::default()
    };
    let host = HostPlan::new(Arch::Aarch64, "virtual GPU")
        .gpu(gh200, options, Memory::Bars)
        .boot()?;
    let served = |driver: Driver| -> Result<Report> {
        host.unbind(0)?;
        host.load(driver)?;
        assert_eq!(host.bind(0, driver)?, Ok(()), "{driver:?}");
        Ok(report::of_kernel(&host, &[0])?.remove(0))
    };
    let plain = served(Driver::VfioPci)?;
    assert_eq!(plain.regions[4].size, GIB);
    assert_eq!(plain.regions[2].size, 2 * GIB);
    let ours = served(Driver::Ours)?;
    assert_eq!(ours, plain, "ours, vfio-pci");
    let log = host.vm.sh("dmesg")?;
    let reason = "firmware property nvidia,gpu-mem-base-pa";
    assert!(log.contains(reason), "no {reason:?} in:\n{log}");
    // the last one: after a fallback the original opens no other device
    let original = served(Driver::Original)?;
    assert_eq!(original, plain, "the original, vfio-pci");
    host.power_off()
}
