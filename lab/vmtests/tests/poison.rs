//! Pages of usemem and resmem that fail: who is killed for them, and what our module remembers.

use varia_agent::applets::vfio_read::Seen;
use varia_lab::{Arch, Ending, GuestCommand, HANG, Output, kernel_modules};
use varia_silicon::{Options, profile};
use varia_spec::Errno;
use varia_variant::Bytes;
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
    Ok(output_of(host, region, pages, failed)?.ending)
}

/// The same with all that the user prints.
fn output_of(host: &Host, region: u64, pages: std::ops::Range<u64>, failed: u64) -> Result<Output> {
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
    Ok(output)
}

/// Eight bytes of a region, read by a system call: their number, or the error.
fn read(host: &Host, region: u64, offset: u64) -> Result<std::result::Result<usize, i32>> {
    let (region, offset) = (region.to_string(), offset.to_string());
    let task = host.start("vfio-read", &[host.address(0), &region, &offset])?;
    let seen: Seen = host.answer(&task)?;
    Ok(seen.errno.map_or(Ok(seen.bytes.len()), Err))
}

/// poison-refused: page `failed` of a region is not read, and the pages beside it are.
fn failed_page_is_refused(host: &Host, region: u64, failed: u64) -> Result<()> {
    let at = failed * PAGE;
    let eio = Err(Errno::EIO.get());
    for (offset, expected) in [
        (at - 8, Ok(8)),
        (at - 4, Ok(4)),
        (at, eio),
        (at + PAGE - 1, eio),
        (at + PAGE, Ok(8)),
    ] {
        assert_eq!(
            read(host, region, offset)?,
            expected,
            "region {region} at {offset:#x}"
        );
    }
    Ok(())
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
            "region 4 usemem offset {:#x} length {} address {:#x}",
            first * PAGE,
            Bytes(pages * PAGE),
            base + first * PAGE
        )
    };
    assert_eq!(file(&host, 0, "poison")?, line(3, 1));
    failed_page_is_refused(&host, 4, 3)?;
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
    let alive = output_of(&host, 4, 0..16, 20)?;
    assert_eq!(alive.ending, ALIVE);
    assert_eq!(
        alive.text(),
        "0x3000\n0x4000\n0x8000\nalive",
        "none of these can be mapped"
    );
    assert_eq!(user(&host, 8..16, 5)?, ALIVE);
    assert_eq!(file(&host, 0, "poison")?, listed, "no user has met those");

    // resmem, at the same offset as a failed page of usemem, and its own pages beyond a mapping.
    assert_eq!(user_of(&host, 2, 0..16, 3)?, SIGBUS, "resmem");
    failed_page_is_refused(&host, 2, 3)?;
    let resmem = format!(
        "region 2 resmem offset {:#x} length {} address {:#x}",
        3 * PAGE,
        Bytes(PAGE),
        base + RESMEM + 3 * PAGE
    );
    assert_eq!(file(&host, 0, "poison")?, format!("{resmem}\n{listed}"));
    assert_eq!(user_of(&host, 2, 0..16, 20)?, ALIVE, "resmem");
    assert_eq!(file(&host, 0, "poison")?, format!("{resmem}\n{listed}"));

    let counters = Counters::read(&host, 0)?;
    assert_eq!(counters.broken_rules(), Vec::<String>::new());
    let counts = ["poison_lookups", "poison_found", "poison_entries"].map(|n| counters.get(n));
    assert_eq!(counts, [8, 5, 4]);
    let refused = ["accesses_failed", "faults_failed"].map(|name| counters.get(name));
    println!("result: reads and writes that ended at a failed page, faults of one: {refused:?}");
    assert!(refused[0] == 6 && refused[1] >= 5, "{refused:?}");

    host.unbind(0)?;
    host.load(Driver::Original)?;
    assert_eq!(host.bind(0, Driver::Original)?, Ok(()));
    original_reads_a_failed_page(&host)?;
    original_kills_a_user_who_does_not_map_the_page(&host)?;
    claimed_memory(&host)?;
    host.power_off()
}

/// The original reads a page that has failed under a mapping, in both regions.
fn original_reads_a_failed_page(host: &Host) -> Result<()> {
    for region in [4, 2] {
        assert_eq!(user_of(host, region, 0..16, 3)?, SIGBUS);
        assert_eq!(read(host, region, 3 * PAGE)?, Ok(8), "region {region}");
    }
    Ok(())
}

/// A user of the original is killed for a page that none of its mappings has.
fn original_kills_a_user_who_does_not_map_the_page(host: &Host) -> Result<()> {
    assert_eq!(user(host, 0..16, 20)?, SIGKILL);
    Ok(())
}

/// claimed-memory: while a device is open the kernel can't take its memory as RAM; where the kernel has
/// taken that memory, the device can't be opened, and the log says so.
fn claimed_memory(host: &Host) -> Result<()> {
    host.unbind(0)?;
    host.load(Driver::Ours)?;
    assert_eq!(host.bind(0, Driver::Ours)?, Ok(()));
    let base = host.memory_base(0).0;
    let add = format!("echo {base:#x} > /sys/module/varia_poison/parameters/online");
    let armed = "/tmp/claimed";
    let task = host.start("error-event", &[host.address(0), armed])?;
    host.vm
        .sh(&format!("until [ -e {armed} ]; do sleep 0.1; done"))?;
    let iomem = host.vm.read_text("/proc/iomem")?;
    let claims = |iomem: &str| {
        let own = |line: &&str| line.ends_with(&format!(" : {}", host.address(0)));
        iomem
            .lines()
            .filter(own)
            .filter(|line| line.contains(&format!("{base:x}-")))
            .count()
    };
    assert_eq!(claims(&iomem), 1, "usemem is claimed: {iomem}");
    let refused = host.vm.sh(&add).expect_err("the memory is claimed");
    assert!(refused.to_string().contains("File exists"), "{refused}");
    host.vm.kill_task(&task)?;
    host.vm.wait(&task, HANG)?;
    let iomem = host.vm.read_text("/proc/iomem")?;
    assert_eq!(claims(&iomem), 0, "the claim is released: {iomem}");

    host.vm.sh(&add)?;
    let since = host.vm.sh("dmesg")?.lines().count();
    let region = 4.to_string();
    let task = host.start("vfio-read", &[host.address(0), &region, &region])?;
    let output = host.vm.wait(&task, HANG)?;
    assert_ne!(output.ending, ALIVE, "an open of memory that is RAM now");
    let log = host.vm.sh("dmesg")?;
    let line = format!("usemem of 512 MiB at {base:#x} is claimed by another part of the kernel");
    let said = log.lines().skip(since).filter(|text| text.contains(&line));
    assert_eq!(said.count(), 1, "{log}");
    let counters = Counters::read(host, 0)?;
    assert_eq!(counters.broken_rules(), Vec::<String>::new());
    Ok(())
}
