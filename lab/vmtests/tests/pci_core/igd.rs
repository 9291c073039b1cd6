//! The kernel's vfio-pci beside the variant igd: OpRegions in the machine's memory, and the
//! machine's own bridges.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use varia_agent::applets::opregion::{
    BLOCK, Case, Opened, Seen, SpecificRegion, WRITTEN, short_reads,
};
use varia_facts::{ConfigDword, HexBytes, Number, PlatformFacts, PlatformMemory, RootFunction};
use varia_lab::{Ending, GuestCommand, Running};
use varia_serve::Endpoint;
use varia_silicon::{Options, Silicon, profile};
use varia_spec::vfio::{RegionIndex, region_flags};
use varia_spec::{Errno, intel};

/// The machine's bridges: device number and address.
const BRIDGES: [(u64, &str); 2] = [(0, "0000:00:00.0"), (0x1f, "0000:00:1f.0")];

/// How the kernel's driver differs from the variant; docs/igd.md has the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Difference {
    None,
    /// asls-of-vbt: the register begins with the address of the VBT, at this offset of the block.
    AslsOfVbt(u64),
    /// short-header as well: as many bytes of the VBT's tail are missing.
    ShortHeader(u64, u64),
    /// half-set: the regions that were made before the missing bridge stay, this many.
    HalfSet(usize),
}

struct Row {
    name: &'static str,
    case: Case,
    difference: Difference,
}

fn put(bytes: &mut [u8], at: u16, value: &[u8]) {
    bytes[usize::from(at)..][..value.len()].copy_from_slice(value);
}

/// A block whose bytes differ from their neighbours, with an OpRegion's header.
fn block(version: u16, kib: u32, rvda: u64, rvds: u32) -> Case {
    let mut bytes: Vec<u8> = (0..BLOCK).map(|at| (at * 7 + at / 251) as u8).collect();
    put(&mut bytes, 0, b"IntelGraphicsMem");
    put(&mut bytes, intel::opregion::SIZE, &kib.to_le_bytes());
    put(&mut bytes, intel::opregion::VERSION, &version.to_le_bytes());
    put(&mut bytes, intel::opregion::RVDA, &rvda.to_le_bytes());
    put(&mut bytes, intel::opregion::RVDS, &rvds.to_le_bytes());
    Case {
        bytes,
        pointer: None,
        asls: None,
    }
}

/// The same, whose RVDA is the address of an offset in the block.
fn pointing(version: u16, to: u64, rvds: u32) -> Case {
    Case {
        pointer: Some((intel::opregion::RVDA.into(), to)),
        ..block(version, 8, 0, rvds)
    }
}

fn rows() -> Vec<Row> {
    let row = |name, case, difference| Row {
        name,
        case,
        difference,
    };
    let mut unsigned = block(0x0201, 8, 0, 0);
    unsigned.bytes[15] = b'M';
    let at = |asls| Case {
        asls: Some(asls),
        ..block(0x0201, 8, 0, 0)
    };
    use Difference::{AslsOfVbt, None, ShortHeader};
    vec![
        row("1.0", block(0x0100, 8, 0, 0), None),
        row(
            "1.0 of 1 KiB with a VBT's fields",
            block(0x0100, 1, 7, 9),
            None,
        ),
        row("2.0 without a VBT", block(0x0200, 8, 0, 0x1000), None),
        row(
            "2.0, VBT behind",
            pointing(0x0200, 0x2000, 0x1c00),
            AslsOfVbt(0x2000),
        ),
        row(
            "2.0, VBT elsewhere",
            pointing(0x0200, 0x4321, 0x1801),
            AslsOfVbt(0x4321),
        ),
        row(
            "2.0, VBT inside",
            pointing(0x0200, 0x400, 0x1800),
            AslsOfVbt(0x400),
        ),
        row(
            "2.1 without a VBT's size",
            block(0x0201, 8, 0x2000, 0),
            None,
        ),
        row(
            "2.1, VBT behind",
            block(0x0201, 8, 0x2000, 0x1c00),
            AslsOfVbt(0x2000),
        ),
        row(
            "2.2, VBT elsewhere",
            block(0x0202, 8, 0x4800, 0x1001),
            AslsOfVbt(0x4800),
        ),
        row(
            "2.1 of 4 KiB, VBT behind",
            block(0x0201, 4, 0x2000, 0x1c00),
            ShortHeader(0x2000, 4 << 10),
        ),
        row(
            "3.0, VBT behind",
            block(0x0300, 8, 0x2000, 1),
            AslsOfVbt(0x2000),
        ),
        row("another signature", unsigned, None),
        row("a size of 0", block(0x0201, 0, 0, 0), None),
        row("no address", at(0), None),
        row("no device behind the register", at(u32::MAX), None),
    ]
}

/// The applet's answers on the function at `bdf`.
fn kernels(vm: &Running, bdf: &str, cases: &[Case]) -> Result<Vec<Seen>, Box<dyn Error>> {
    let input = postcard::to_stdvec(cases)?;
    let output = vm.applet("opregion", &[bdf], &input)?;
    Ok(postcard::from_bytes(&output)?)
}

/// The machine as facts: what a case has in memory, and the bridges.
fn facts(case: &Case, base: u64, bridges: &[RootFunction]) -> PlatformFacts {
    let mut bytes = case.bytes.clone();
    if let Some((at, to)) = case.pointer {
        put(&mut bytes, at as u16, &(base + to).to_le_bytes());
    }
    PlatformFacts {
        memory: vec![PlatformMemory {
            base: Number(base),
            size: Number(bytes.len() as u64),
            bytes: HexBytes(bytes),
        }],
        root_functions: bridges.to_vec(),
        config: vec![ConfigDword {
            offset: Number(intel::ASLS.into()),
            value: Number(case.asls.map_or(base, u64::from)),
        }],
        ..PlatformFacts::new()
    }
}

/// The variant's answers.
fn ours(facts: PlatformFacts) -> Result<Opened, Errno> {
    let igd = profile::find("igd").expect("a profile of this name");
    let options = Options {
        platform: Some(facts),
        ..Options::default()
    };
    let silicon = Silicon::new(igd, options).expect("silicon");
    let endpoint = Endpoint::new(Arc::new(silicon), varia_serve::Options::default());
    let endpoint = endpoint.map_err(|error| error.errno())?;
    endpoint.open()?;
    let register = u64::from(intel::ASLS);
    let asls = || {
        let mut bytes = [0; 4];
        endpoint.read(RegionIndex::CONFIG, register, &mut bytes)?;
        Ok::<_, Errno>(u32::from_le_bytes(bytes))
    };
    let first = asls()?;
    endpoint.write(RegionIndex::CONFIG, register, &WRITTEN.to_le_bytes())?;
    let count = endpoint.info().num_regions;
    let regions = (RegionIndex::COUNT..count).map(|index| region(&endpoint, RegionIndex(index)));
    let regions = regions.collect::<Result<_, _>>()?;
    Ok(Opened {
        regions,
        asls: [first, asls()?],
        own_asls: 0,
    })
}

fn region(endpoint: &Endpoint, index: RegionIndex) -> Result<SpecificRegion, Errno> {
    let info = endpoint.region_info(index)?.info;
    let read = |offset, len| {
        let mut bytes = vec![0; len];
        let count = endpoint.read(index, offset, &mut bytes);
        bytes.truncate(count.map_err(Errno::get)?);
        Ok(bytes)
    };
    let written = endpoint.write(index, 0, &[1; 4]);
    Ok(SpecificRegion {
        size: info.size,
        flags: info.flags,
        region_type: info.region_type.map(|it| (it.kind, it.subtype)),
        whole: read(0, info.size as usize + 100),
        short: short_reads(info.size)
            .map(|(offset, len)| read(offset, len))
            .collect(),
        written: written.map_err(Errno::get),
    })
}

/// What of two answers has to be equal, and is not.
fn equal<T: PartialEq + Debug>(what: &str, kernel: &T, ours: &T) -> Result<(), String> {
    if kernel == ours {
        return Ok(());
    }
    let [kernel, ours] = [kernel, ours].map(|value| {
        let mut text = format!("{value:x?}");
        text.truncate(400);
        text
    });
    Err(format!("{what}: the kernel {kernel}, ours {ours}"))
}

/// Compares a case. `expected` is the difference that docs/igd.md names for it.
fn compare(seen: &Seen, ours: Result<Opened, Errno>, expected: Difference) -> Result<(), String> {
    let (kernel, ours) = match (&seen.opened, ours) {
        (Ok(kernel), Ok(ours)) => (kernel, ours),
        // the errno's name ends the applet's sentence
        (Err(kernel), Err(ours)) if kernel.ends_with(&ours.to_string()) => return Ok(()),
        (kernel, ours) => return Err(format!("open: the kernel {kernel:x?}, ours {ours:x?}")),
    };
    let own = u64::from(kernel.own_asls);
    let (address, cut, extra) = match expected {
        Difference::None => (0, 0, 0),
        Difference::AslsOfVbt(vbt) => (vbt, 0, 0),
        Difference::ShortHeader(vbt, cut) => (vbt, cut, 0),
        Difference::HalfSet(extra) => (0, 0, extra),
    };
    equal("write of the register", &kernel.asls[1], &ours.asls[1])?;
    if extra == 0 && !kernel.regions.is_empty() {
        equal("own register", &own, &seen.base)?;
        equal(
            "register",
            &u64::from(kernel.asls[0]),
            &(seen.base + address),
        )?;
        equal("our register", &u64::from(ours.asls[0]), &seen.base)?;
    }
    let count = kernel.regions.len();
    equal("regions", &count, &(ours.regions.len() + extra))?;
    for (index, (kernel, ours)) in kernel.regions.iter().zip(&ours.regions).enumerate() {
        let name = |what: &str| format!("region {}, {what}", 9 + index);
        let cut = if index == 0 { cut } else { 0 };
        equal(&name("type"), &kernel.region_type, &ours.region_type)?;
        let flags = kernel.flags & !region_flags::CAPS;
        equal(&name("flags"), &flags, &ours.flags)?;
        equal(&name("write"), &kernel.written, &ours.written)?;
        equal(&name("size"), &(kernel.size + cut), &ours.size)?;
        let end = kernel.size as usize;
        let whole = ours.whole.as_ref().map(|bytes| &bytes[..end]);
        equal(&name("bytes"), &kernel.whole.as_deref(), &whole)?;
        let asked = short_reads(kernel.size).zip(&kernel.short);
        let answers = asked.zip(&ours.short).filter(|_| cut == 0);
        for (((offset, len), kernel), ours) in answers {
            equal(&name(&format!("{len} bytes at {offset:#x}")), kernel, ours)?;
        }
    }
    Ok(())
}

fn bridge(vm: &Running, device: u64, bdf: &str) -> Result<RootFunction, Box<dyn Error>> {
    let bytes = vm.read(&format!("/sys/bus/pci/devices/{bdf}/config"))?;
    Ok(RootFunction {
        device: Number(device),
        function: Number(0),
        size: Number(bytes.len() as u64),
        bytes: HexBytes(bytes),
    })
}

/// Compares both on the function at `bdf`, which vfio-pci has; takes the machine's bridges away in
/// the end.
///
/// # Errors
/// What differs, a row a line, and errors of the machine.
pub(crate) fn regions_agree(vm: &Running, bdf: &str) -> Result<(), Box<dyn Error>> {
    let bridges = BRIDGES.map(|(device, bdf)| bridge(vm, device, bdf));
    let [host, lpc] = bridges;
    let (host, lpc) = (host?, lpc?);
    let mut failures = Vec::new();
    let mut judge = |rows: Vec<Row>, bridges: &[RootFunction]| -> Result<(), Box<dyn Error>> {
        let cases: Vec<Case> = rows.iter().map(|row| row.case.clone()).collect();
        for (row, seen) in rows.iter().zip(kernels(vm, bdf, &cases)?) {
            let ours = ours(facts(&row.case, seen.base, bridges));
            if let Err(error) = compare(&seen, ours, row.difference) {
                failures.push(format!("igd, {}: {error}", row.name));
            }
        }
        Ok(())
    };
    let all = rows();
    let (count, named) = (all.len(), |row: &&Row| row.difference != Difference::None);
    println!(
        "result: igd, {count} OpRegions, {} differ by name",
        all.iter().filter(named).count()
    );
    judge(all, &[host.clone(), lpc])?;
    let half = |name, regions| {
        let (case, difference) = (block(0x0201, 8, 0, 0), Difference::HalfSet(regions));
        vec![Row {
            name,
            case,
            difference,
        }]
    };
    for ((_, bdf), (name, rest, regions)) in BRIDGES.into_iter().rev().zip([
        ("no LPC bridge", &[host][..], 2),
        ("no host bridge", &[], 1),
    ]) {
        vm.write(&format!("/sys/bus/pci/devices/{bdf}/remove"), "1")?;
        judge(half(name, regions), rest)?;
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n").into()),
    }
}

/// A header that says more than 8 KiB, without a VBT: the kernel's driver takes a fault, ours
/// refuses.
///
/// # Errors
/// Another end, and errors of the machine.
pub(crate) fn above_8_kib(vm: &Running, bdf: &str) -> Result<(), Box<dyn Error>> {
    let case = block(0x0201, 9, 0, 0);
    let input = postcard::to_stdvec(&[case.clone()].as_slice())?;
    let applet = GuestCommand::applet("opregion", &[bdf]).input(input);
    let output = vm.run(&applet)?;
    if output.ending == Ending::Exit(0) {
        return Err("the kernel's driver reads 9 KiB".into());
    }
    let ours = ours(facts(&case, 0x7b00_0000, &[]));
    assert_eq!(ours, Err(Errno::EINVAL));
    Ok(())
}
