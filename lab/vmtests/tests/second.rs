//! The adaptor is generic: a second module, of a descriptor and a trivial variant (`lab/second`), is
//! built by the same Makefile, and serves its device beside the first module.

use varia_agent::applets::vfio_read::Seen;
use varia_lab::{Arch, kernel_modules};
use varia_silicon::{Options, profile};
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const FILE: &str = "/lab/drivers/second.ko";
const DRIVER: &str = "varia_overlay_vfio_pci";

/// The subsystem's vendor and id, as a user of VFIO reads them.
fn subsystem(host: &Host, device: usize) -> Result<Vec<u8>> {
    let region = RegionIndex::CONFIG.0.to_string();
    let offset = header::SUBSYSTEM_VENDOR_ID.to_string();
    let seen: Seen = host.ask("vfio-read", &[host.address(device), &region, &offset])?;
    assert_eq!(seen.errno, None);
    Ok(seen.bytes[..4].to_vec())
}

#[test]
fn a_second_module_serves_its_device_beside_the_first() -> Result<()> {
    let profile = |name| profile::find(name).expect("a profile of the catalogue");
    let second = kernel_modules::second(Arch::Aarch64)?;
    let host = HostPlan::new(Arch::Aarch64, "second module")
        .gpu(profile("gh200"), Options::default(), Memory::Absent)
        .gpu(profile("nic"), Options::default(), Memory::Absent)
        .with(|vm| vm.host_file(FILE, second))
        .boot()?;
    host.load(Driver::Ours)?;
    host.vm.sh(&format!("insmod {FILE}"))?;
    assert_eq!(host.bind(0, Driver::Ours)?, Ok(()));

    host.vm.modprobe("vfio_pci", "")?;
    assert_eq!(host.bind(1, Driver::VfioPci)?, Ok(()));
    assert_eq!(subsystem(&host, 1)?, [0x34, 0x12, 0x01, 0x00]);
    host.unbind(1)?;
    host.vm.bind(host.address(1), DRIVER)?;
    assert_eq!(subsystem(&host, 1)?, [0x34, 0x12, 0xfe, 0xca]);
    for (device, driver) in [(0, Driver::Ours.name()), (1, DRIVER)] {
        let folder = format!("/sys/kernel/debug/{driver}/{}", host.address(device));
        let layout = host.vm.read_text(&format!("{folder}/layout"))?;
        assert!(layout.starts_with("served\n"), "{layout}");
        assert_eq!(layout.contains("usemem"), device == 0, "{layout}");
    }

    // The first goes, the second stays.
    host.unload()?;
    assert_eq!(subsystem(&host, 1)?, [0x34, 0x12, 0xfe, 0xca]);
    host.unbind(1)?;
    host.vm.sh(&format!("rmmod {DRIVER}"))?;
    host.power_off()
}
