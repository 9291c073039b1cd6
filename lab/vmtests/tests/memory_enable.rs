//! Reads and writes while memory is off in the command register: what the original answers, our
//! module as it is, and our module with its parameter `honour_memory_enable`.

use varia_agent::applets::memory_enable::Switched;
use varia_lab::Arch;
use varia_silicon::{Options, profile};
use varia_spec::Errno;
use varia_vmtests::Result;
use varia_vmtests::counters::Counters;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const MIB: u64 = 1 << 20;

/// Answers of usemem and resmem. Memory outside the BARs does not know the command register: an access
/// that the driver lets through reaches the memory.
fn switched(host: &Host) -> Result<[Switched; 2]> {
    let answers: Vec<Switched> = host.ask("memory-enable", &[host.address(0), "4", "2"])?;
    Ok(answers.try_into().expect("an answer for each region"))
}

#[test]
fn honour_memory_enable_refuses_reads_and_writes_while_memory_is_off() -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let host = HostPlan::new(Arch::Aarch64, "memory enable")
        .gpu(gh200, options, Memory::Real)
        .boot()?;
    let refused = Err(Errno::EIO.get());
    let ignoring = Switched {
        // the check that a reset asks for
        after_reset: [refused, refused],
        on: [Ok(8), Ok(8)],
        off: [Ok(8), Ok(8)],
        on_again: Ok(8),
        kept: true,
        reached: true,
    };
    let honouring = Switched {
        off: [refused, refused],
        reached: false,
        ..ignoring.clone()
    };
    let parameter = "/sys/module/nvgrace_gpu_vfio_pci/parameters/honour_memory_enable";
    for (driver, option, answers) in [
        (Driver::Original, None, &ignoring),
        (Driver::Ours, Some("N"), &ignoring),
        (Driver::Ours, Some("Y"), &honouring),
    ] {
        host.unload()?;
        let argument = match option {
            Some("Y") => "honour_memory_enable=1",
            _ => "",
        };
        host.vm
            .sh(&format!("insmod {} {argument}", driver.file()))?;
        if let Some(option) = option {
            assert_eq!(host.vm.read_text(parameter)?, option);
        }
        assert_eq!(host.bind(0, driver)?, Ok(()));
        for (region, seen) in ["usemem", "resmem"].into_iter().zip(switched(&host)?) {
            assert_eq!(&seen, answers, "{region}, {driver:?}, option {option:?}");
        }
        if driver == Driver::Ours {
            let counters = Counters::read(&host, 0)?;
            assert_eq!(counters.broken_rules(), Vec::<String>::new());
        }
    }
    host.power_off()
}
