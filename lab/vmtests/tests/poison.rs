//! Pages of usemem and resmem that fail: who is killed for them, and what our module remembers.

use varia_lab::{Arch, Ending, GuestCommand, kernel_modules};
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::counters::{Counters, file};
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const MODULE: &str = "/lab/varia_poison.ko";
const SIGBUS: Ending = Ending::Signal(7);
const SIGKILL: Ending = Ending::Signal(9);
const ALIVE: Ending = Ending::Exit(0);

/// Where resmem begins, in bytes from usemem's beginning.
const RESMEM: u64 = 512 * MIB;

/// End of a user who maps `pages` of usemem when page `failed` of usemem fails.
fn user(host: &Host, pages: std::ops::Range<u64>, failed: u64) -> Result<Ending> {
    user_of(host, 4, pages, failed)
}

/// The same with pages of a region, 4 or 2.
fn user_of(host: &Host, region: u64, pages: std::ops::Range<u64>, failed: u64) -> Result<Ending> {
    let start = if region == 2 { RESMEM } else { 0 };
    let numbers = [
        region,
        pages.start * PAGE,
        (pages.end - pages.start) * PAGE,
        host.memory_base(0).0 + start + failed * PAGE,
    ]
    .map(|number| number.to_string());
    let [region, offset, len, address] = &numbers;
    let arguments = [host.address(0), region, offset, len, address];
    let output = host.vm.run(&GuestCommand::applet("poison", &arguments))?;
    if let Ending::Exit(code) = output.ending {
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.ending)
}

#[test]
fn poison_list_shows_each_page_once_and_who_maps_it_gets_sigbus() -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let module = kernel_modules::poison(Arch::Aarch64)?;
    let host = HostPlan::new(Arch::Aarch64, "poison")
        .gpu(gh200, options, Memory::Real)
        .with(|vm| vm.host_file(MODULE, module))
        .boot()?;
    host.vm.sh(&format!("insmod {MODULE}"))?;
    host.load(Driver::Ours)?;
    assert_eq!(host.bind(0, Driver::Ours)?, Ok(()));

    assert_eq!(user(&host, 0..16, 3)?, SIGBUS);
    let base = host.memory_base(0).0;
    let line = |first: u64, pages: u64| {
        format!(
            "region 4 usemem offset {:#x} length {:#x} address {:#x}",
            first * PAGE,
            pages * PAGE,
            base + first * PAGE
        )
    };
    assert_eq!(file(&host, 0, "poison")?, line(3, 1));
    assert_eq!(
        user(&host, 2..8, 3)?,
        SIGBUS,
        "again, elsewhere in a mapping"
    );
    assert_eq!(file(&host, 0, "poison")?, line(3, 1));
    assert_eq!(user(&host, 0..16, 4)?, SIGBUS, "the next page");
    assert_eq!(user(&host, 0..16, 8)?, SIGBUS, "a page further on");
    let listed = format!("{}\n{}", line(3, 2), line(8, 1));
    assert_eq!(file(&host, 0, "poison")?, listed);

    // poison-in-mapping: pages behind and before a mapping.
    assert_eq!(user(&host, 0..16, 20)?, ALIVE);
    assert_eq!(user(&host, 8..16, 5)?, ALIVE);
    assert_eq!(file(&host, 0, "poison")?, listed, "no user has met those");

    // resmem, at the same offset as a failed page of usemem, and its own pages beyond a mapping.
    assert_eq!(user_of(&host, 2, 0..16, 3)?, SIGBUS, "resmem");
    let resmem = format!(
        "region 2 resmem offset {:#x} length {PAGE:#x} address {:#x}",
        3 * PAGE,
        base + RESMEM + 3 * PAGE
    );
    assert_eq!(file(&host, 0, "poison")?, format!("{resmem}\n{listed}"));
    assert_eq!(user_of(&host, 2, 0..16, 20)?, ALIVE, "resmem");
    assert_eq!(file(&host, 0, "poison")?, format!("{resmem}\n{listed}"));

    let counters = Counters::read(&host, 0)?;
    assert_eq!(counters.broken_rules(), Vec::<String>::new());
    let counts = ["poison_lookups", "poison_found", "poison_entries"].map(|n| counters.get(n));
    assert_eq!(counts, [8, 5, 4]);

    host.unbind(0)?;
    host.load(Driver::Original)?;
    assert_eq!(host.bind(0, Driver::Original)?, Ok(()));
    assert_eq!(user(&host, 0..16, 3)?, SIGBUS);
    assert_eq!(user_of(&host, 2, 0..16, 3)?, SIGBUS);
    assert_eq!(
        user(&host, 0..16, 20)?,
        SIGKILL,
        "the original's user is killed for a page that it does not map"
    );
    host.power_off()
}
