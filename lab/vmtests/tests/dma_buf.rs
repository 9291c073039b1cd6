//! Dma-bufs of usemem and resmem, imported: they are the memory itself, from its beginning to its
//! end and not the padding of the BAR, with the original driver and with ours alike. On the same
//! machine, what the reports in docs/upstream say of the original.

#[path = "dma_buf/reports.rs"]
mod reports;

use varia_agent::applets::dma_buf::Shared;
use varia_lab::{Arch, Flavour, kernel_modules};
use varia_silicon::{Options, profile};
use varia_spec::Errno;
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// usemem has 512 MiB, and resmem a little more than 1 GiB of a BAR of 2 GiB.
const USEMEM: u64 = 512 * MIB;
const RESMEM: u64 = GIB + 64 * KIB;
const MODULE: &str = "/lab/varia_importer.ko";

fn share(host: &Host, gpu: usize, region: u32, offset: u64, length: u64) -> Result<Shared> {
    let numbers = [u64::from(region), offset, length].map(|number| number.to_string());
    let [region, offset, length] = &numbers;
    host.ask("dma-buf", &[host.address(gpu), region, offset, length])
}

#[test]
fn a_dma_buf_is_the_memory_without_the_padding() -> Result<()> {
    both_drivers_share(Flavour::Debian(Arch::Aarch64))
}

#[test]
#[ignore = "for ./x soak: the same with the next series"]
fn on_linux_7_3_a_dma_buf_is_the_memory_without_the_padding() -> Result<()> {
    both_drivers_share(Flavour::Next(Arch::Aarch64))
}

fn both_drivers_share(flavour: Flavour) -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let mut without_bar4 = gh200.clone();
    without_bar4.bars.retain(|bar| bar.value.index != 4);
    let of_size = |memory| Options {
        memory: Some(memory),
        ..Options::default()
    };
    let module = kernel_modules::importer(flavour)?;
    let position = kernel_modules::position(flavour)?;
    let (late, clock) = reports::late();
    let host = HostPlan::new(flavour, &format!("dma-buf on {flavour}"))
        .gpu(gh200, of_size(USEMEM + RESMEM), Memory::Real)
        .gpu(&without_bar4, of_size(USEMEM + GIB), Memory::Absent)
        .gpu(gh200, late, Memory::Absent)
        .gpu(
            profile::find("cxl").expect("a profile of the catalogue"),
            reports::every_second_poll(),
            Memory::Real,
        )
        .with(|vm| vm.host_file(MODULE, module).module_file(position))
        .boot()?;
    host.vm.sh(&format!("insmod {MODULE}"))?;
    let (base, absent) = (host.memory_base(0).0, host.memory_base(1).0);
    let refused = |errno: Errno| Shared::Refused(errno.get());
    let exported = |address, length| Shared::Exported {
        on: Ok(vec![(address, length)]),
        after_reset: Ok(vec![(address, length)]),
        // the mappings are revoked with the memory
        off: Err(Errno::ENODEV.get()),
    };
    for driver in [Driver::Original, Driver::Ours] {
        host.load(driver)?;
        let last = USEMEM - 4 * KIB;
        let tail = RESMEM - 64 * KIB;
        for (gpu, region, offset, length, expected) in [
            (0, 4, 0, USEMEM, exported(base, USEMEM)),
            (0, 4, last, 4 * KIB, exported(base + last, 4 * KIB)),
            (0, 4, last, 8 * KIB, refused(Errno::EINVAL)),
            (
                0,
                2,
                tail,
                64 * KIB,
                exported(base + USEMEM + tail, 64 * KIB),
            ),
            (0, 2, tail, 68 * KIB, refused(Errno::EINVAL)),
            (0, 2, RESMEM, 4 * KIB, refused(Errno::EINVAL)),
            // The kernel wants the physical BAR of the same number.
            (1, 2, 0, 4 * KIB, exported(absent + USEMEM, 4 * KIB)),
            (1, 4, 0, 4 * KIB, refused(Errno::ENODEV)),
        ] {
            assert_eq!(host.bind(gpu, driver)?, Ok(()), "{driver:?}");
            let seen = share(&host, gpu, region, offset, length)?;
            assert_eq!(
                seen, expected,
                "{driver:?}, GPU {gpu}, region {region}, {length:#x} at {offset:#x}"
            );
        }
        reports::resmem_count(&host, driver)?;
        reports::config_write(&host, driver)?;
        reports::private_mapping(&host, driver)?;
        reports::again(&host, driver)?;
        reports::dma_buf_after_reset(&host, driver, &clock)?;
    }
    host.power_off()
}
