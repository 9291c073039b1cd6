//! ACPI tables: `iasl` reads them without a remark, and Linux sees the nodes, distances,
//! initiators and speeds that they describe.

use std::process::Command;

use varia_firmware::{
    Access, DeviceProperties, Distances, Domain, MemoryRange, Numa, Oem, Processor,
    ProximityDomain, early_program, hmat, slit, srat, ssdt,
};
use varia_lab::agent_build::workspace;
use varia_lab::chroot::Chroot;
use varia_lab::iasl::recompile;
use varia_lab::{Arch, Running, Set, Vm, packages};
use varia_vmtests::Result;
use varia_vmtests::command::varia;

/// The names in QEMU's tables, and a higher revision: Linux replaces those by ours.
const OVER_QEMU: Oem = Oem {
    id: *b"BOCHS ",
    table_id: *b"BXPC    ",
    revision: 2,
};
const MIB: u64 = 1 << 20;
/// The memory of each of the two domains that have some.
const EACH: u64 = 512 * MIB;
/// A function that every machine of the lab has.
const INITIATOR: &str = "0000:00:1c.0";
/// Bytes of a table's header, in which a compiler names itself.
const HEADER: usize = 36;

/// Two domains with a processor and memory each, and eight that a function initiates accesses of.
fn machine(arch: Arch) -> Numa {
    let start = match arch {
        Arch::Aarch64 => 1 << 30,
        Arch::X86_64 => 0,
    };
    let own = |index: u32| Domain {
        processors: vec![match arch {
            Arch::Aarch64 => Processor::Gicc(index),
            Arch::X86_64 => Processor::Apic(index),
        }],
        memory: vec![
            MemoryRange::new(start + u64::from(index) * EACH, EACH).expect("a range of memory"),
        ],
        initiators: Vec::new(),
    };
    let gpu = Domain {
        initiators: vec![INITIATOR.parse().expect("an address")],
        ..Domain::default()
    };
    let mut domains = vec![own(0), own(1)];
    domains.extend(std::iter::repeat_n(gpu, 8));
    let mut distances = Distances::new(domains.len());
    for (from, to, distance) in [(0, 1, 17), (1, 0, 23), (0, 9, 80), (9, 0, 255)] {
        distances
            .set(ProximityDomain(from), ProximityDomain(to), distance)
            .expect("a distance");
    }
    Numa::new(domains, distances).expect("a machine")
}

fn accesses() -> Vec<Access> {
    [
        (0, 0, 110, 200_000),
        (1, 1, 120, 180_000),
        (0, 1, 190, 50_000),
        (2, 0, 320, 450_000),
    ]
    .map(
        |(initiator, target, nanoseconds, megabytes_per_second)| Access {
            initiator: ProximityDomain(initiator),
            target: ProximityDomain(target),
            nanoseconds,
            megabytes_per_second,
        },
    )
    .into()
}

/// A table without its header.
fn hex(table: &[u8]) -> String {
    table[HEADER..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn iasl_takes_every_table_apart_and_together_without_a_remark() -> Result<()> {
    let gpu = |path: &str, base| {
        let device = path.parse().expect("a path");
        DeviceProperties::coherent_memory(device, base, 96 << 30, 16..24)
    };
    let properties = [
        gpu("\\_SB.PCI0.S08.S00", 0x4200_0000_0000),
        gpu("\\_SB.PCI0.S10.S00", 0),
    ];
    for arch in Arch::ALL {
        let numa = machine(arch);
        let hmat = hmat(&numa, &accesses(), Oem::VARIA).expect("an HMAT");
        for table in [
            srat(&numa, Oem::VARIA),
            slit(&numa, Oem::VARIA),
            hmat,
            ssdt(&properties, Oem::VARIA),
        ] {
            let name = String::from_utf8_lossy(&table[..4]).into_owned();
            taken(&format!("{name} of {arch}"), &table)?;
        }
    }
    Ok(())
}

/// `iasl` takes a table apart and together, and has nothing to say.
fn taken(name: &str, table: &[u8]) -> Result<()> {
    let (again, said) = recompile(table)?;
    assert!(
        said.contains("0 Errors, 0 Warnings, 0 Remarks"),
        "{name}: {said}"
    );
    let lower = said.to_lowercase();
    for word in ["invalid", "unknown", "incorrect", "error:"] {
        assert!(!lower.contains(word), "{name}: {said}");
    }
    assert_eq!(hex(&again), hex(table), "{name}");
    Ok(())
}

/// `varia tables`, as a VMM would get them.
#[test]
fn iasl_takes_what_the_command_writes() -> Result<()> {
    let varia = varia()?;
    for gpus in [&["gh200"; 4][..], &["gb200:2-of-one-superchip"]] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(&varia);
        command.args(["tables", "--access", "0,0=110,450000", "--out"]);
        command.arg(folder.path());
        for gpu in gpus {
            command.args(["--gpu", gpu]);
        }
        let output = command.output().expect("varia starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        for name in ["srat", "slit", "hmat", "ssdt"] {
            let file = folder.path().join(format!("{name}.aml"));
            let table = std::fs::read(&file).expect("a table of each kind");
            assert!(table.starts_with(name.to_uppercase().as_bytes()), "{name}");
            taken(&format!("{name} of {gpus:?}"), &table)?;
        }
    }
    Ok(())
}

#[test]
fn iasl_is_not_silent_on_a_wrong_table() -> Result<()> {
    let mut table = srat(&machine(Arch::Aarch64), Oem::VARIA);
    // the length of the first structure
    table[49] -= 1;
    match recompile(&table) {
        Err(_) => Ok(()),
        Ok((again, said)) => {
            assert!(
                again[HEADER..] != table[HEADER..] || said.contains("Warning"),
                "{said}"
            );
            Ok(())
        }
    }
}

fn node(vm: &Running, file: &str) -> Result<String> {
    let text = vm.read_text(&format!("/sys/devices/system/node/{file}"))?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn linux_sees_the_machine(arch: Arch) -> Result<()> {
    let numa = machine(arch);
    let vm = Vm::new(arch)
        .name(format!("tables-{arch}"))
        .cpus(2)
        .memory(2 * EACH / MIB)
        .acpi_table(srat(&numa, OVER_QEMU))
        .acpi_table(slit(&numa, OVER_QEMU))
        .acpi_table(hmat(&numa, &accesses(), OVER_QEMU).expect("an HMAT"))
        .boot()?;
    for (file, expected) in [
        ("online", "0-9"),
        ("has_cpu", "0-1"),
        ("has_memory", "0-1"),
        ("has_generic_initiator", "2-9"),
        ("node0/cpulist", "0"),
        ("node1/cpulist", "1"),
        ("node0/distance", "10 17 20 20 20 20 20 20 20 80"),
        ("node1/distance", "23 10 20 20 20 20 20 20 20 20"),
        ("node9/distance", "255 20 20 20 20 20 20 20 20 10"),
        // class 0 is the best of all initiators, class 1 the best of processors
        ("node0/access0/initiators/read_latency", "110"),
        ("node0/access0/initiators/read_bandwidth", "200000"),
        ("node0/access1/initiators/write_latency", "110"),
        ("node1/access1/initiators/write_latency", "120"),
        ("node1/access1/initiators/write_bandwidth", "180000"),
    ] {
        assert_eq!(node(&vm, file)?, expected, "{file} on {arch}");
    }
    for own in ["node0", "node1"] {
        let text = node(&vm, &format!("{own}/meminfo"))?;
        let total: u64 = text
            .split("MemTotal: ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse().ok())
            .expect(&text);
        assert!(
            (EACH / 1024 / 2..=EACH / 1024).contains(&total),
            "{own} has {total} kB on {arch}"
        );
    }
    Ok(vm.power_off()?)
}

#[test]
fn linux_on_arm64_sees_the_nodes_distances_initiators_and_speeds() -> Result<()> {
    linux_sees_the_machine(Arch::Aarch64)
}

#[test]
fn linux_on_x86_sees_the_nodes_distances_initiators_and_speeds() -> Result<()> {
    linux_sees_the_machine(Arch::X86_64)
}

/// The words of a host's first program are what an assembler makes of its source.
#[test]
fn the_early_program_is_its_source() -> Result<()> {
    let tools = packages::ensure(Set::Tools)?;
    let source = workspace().join("firmware/src/early");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let object = folder.path().join("program.o");
    let code = folder.path().join("program.bin");
    let root = Chroot::new(&tools).bind(&source).bind(folder.path());
    let (object, code_text) = (object.display().to_string(), code.display().to_string());
    let source = source.join("program.s").display().to_string();
    root.run(["aarch64-linux-gnu-as", &source, "-o", &object])?;
    root.run([
        "aarch64-linux-gnu-objcopy",
        "-O",
        "binary",
        &object,
        &code_text,
    ])?;
    let code = std::fs::read(&code).expect("the code");
    let file = early_program(&[], &[]);
    // behind the headers; then comes the data, which the source does not have
    let program = file.get(0x200..0x200 + code.len());
    assert_eq!(program, Some(&code[..]));
    assert_eq!(
        file.get(0x200 + code.len()..0x210 + code.len()),
        Some(&[0; 16][..])
    );
    Ok(())
}
