//! Files of our module in debugfs, for a user who reads, maps, is refused, and goes.

use varia_agent::applets::vfio_read::Seen;
use varia_lab::Arch;
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::counters::{Counters, file};
use varia_vmtests::host::{Driver, HostPlan, Memory};

const MIB: u64 = 1 << 20;

#[test]
fn debugfs_shows_layout_readiness_and_counts_that_balance() -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let host = HostPlan::new(Arch::Aarch64, "debugfs")
        .gpu(gh200, options, Memory::Real)
        .boot()?;
    host.load(Driver::Ours)?;
    assert_eq!(host.bind(0, Driver::Ours)?, Ok(()));

    let base = host.memory_base(0).0;
    assert_eq!(
        file(&host, 0, "layout")?.lines().collect::<Vec<_>>(),
        [
            "served",
            "page_size 4 KiB",
            "region 0 base",
            "region 1 base",
            &format!(
                "region 2 resmem write-combining address {:#x} length 1 GiB bar 1 GiB",
                base + 512 * MIB
            ),
            "region 3 base",
            &format!("region 4 usemem cached address {base:#x} length 512 MiB bar 512 MiB"),
            "region 5 base",
        ]
    );
    assert_eq!(
        file(&host, 0, "readiness")?,
        "method bar0\nreset_generation 1\nready_generation 1"
    );
    assert_eq!(file(&host, 0, "poison")?, "");
    let bound = Counters::read(&host, 0)?;
    assert_eq!((bound.get("opens"), bound.get("polls")), (0, 1));
    assert_eq!(bound.broken_rules(), Vec::<String>::new());

    let seen: Seen = host.ask("vfio-read", &[host.address(0), "4", "0"])?;
    assert_eq!(seen.errno, None);
    let read = Counters::read(&host, 0)?;
    assert_eq!(read.broken_rules(), Vec::<String>::new(), "{read:?}");
    for (name, count) in [
        ("opens", 1),
        ("closes", 1),
        ("accesses", 1),
        ("copies", 1),
        // readiness is checked under the lock that is held for the copy
        ("checks", 0),
        ("locks_ready", 1),
        ("memory_mapped", 1),
        ("pages_registered", 2),
        ("resets", read.get("reset_generation") - 1),
        ("ready_generation", read.get("reset_generation")),
    ] {
        assert_eq!(read.get(name), count, "{name} in {read:?}");
    }
    assert!(read.get("resets") >= 1, "opening resets: {read:?}");

    host.unbind(0)?;
    assert!(
        file(&host, 0, "counters").is_err(),
        "the files go with the device"
    );
    host.vm.sh("rmmod nvgrace_gpu_vfio_pci")?;
    host.power_off()
}
