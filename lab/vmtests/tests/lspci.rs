//! `lspci` reads our silicon's configuration space as it would a card's: from a file, and in a
//! machine that has every profile twice, as its owner sees it and as a VM does.
//!
//! Outputs of `lspci` are kept in `golden/lspci`; `VARIA_GOLDEN=write` writes them anew.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use varia_lab::chroot::Chroot;
use varia_lab::{Arch, GuestCommand, Set, Vm, packages};
use varia_serve::{self as serve, View};
use varia_silicon::{Options, Profile, Silicon, profile};
use varia_variant::MemoryLayout;
use varia_vmtests::gpu::Gpu;

/// Words that `lspci` prints for a structure that is not valid.
const COMPLAINTS: [&str; 8] = [
    "!!!",
    "<access denied>",
    "<chain broken>",
    "<chain looped>",
    "<unreadable>",
    "Unknown",
    "Invalid ",
    "<invalid",
];
/// `lspci` misses the modules of a kernel, which has nothing to do with the device.
const NO_MODULES: &str = "lspci: Unable to load libkmod resources";
/// Enough for a device to be served.
const MEMORY: u64 = 3 << 29;
/// Rows of the dump with what a machine assigns: BARs, ROM, interrupt line.
const ASSIGNED: [&str; 3] = ["10:", "20:", "30:"];

/// Complaints in an output of `lspci`.
fn complaints(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter(|line| COMPLAINTS.iter().any(|word| line.contains(word)))
        .collect()
}

#[test]
fn lspci_reads_a_dump_of_every_profile_without_complaint() -> Result<(), Box<dyn Error>> {
    let tools = packages::ensure(Set::Tools)?;
    for profile in profile::ALL.iter() {
        let silicon = Silicon::new(profile, Options::default())?;
        let scratch = tempfile::tempdir()?;
        std::fs::write(scratch.path().join("dump"), silicon.lspci_dump())?;
        let output = Chroot::new(&tools)
            .bind(scratch.path())
            .cwd(scratch.path())
            .run(["lspci", "-F", "dump", "-vvv", "-nn"])?;
        let text = String::from_utf8(output.stdout)?;
        let errors = String::from_utf8(output.stderr)?;
        let error = errors.lines().find(|line| !line.starts_with(NO_MODULES));
        assert_eq!(error, None, "{}, which it shows as:\n{text}", profile.name);
        assert_eq!(complaints(&text), [""; 0], "{} in:\n{text}", profile.name);
        let shown = text.matches("Capabilities: [").count();
        assert_eq!(
            shown,
            profile.capabilities.len(),
            "capabilities in:\n{text}"
        );
    }
    Ok(())
}

/// Every profile, as both see it, and options that change what a VM sees: a name for each.
fn functions() -> Vec<(String, &'static Profile, serve::Options)> {
    let views = [View::Virtual, View::Physical];
    let all = profile::ALL.iter().flat_map(|profile| {
        views.map(|view| {
            let name = format!("{}-{view:?}", profile.name).to_lowercase();
            let options = serve::Options {
                view,
                ..Default::default()
            };
            (name, profile, options)
        })
    });
    let with = |what: &str, name, layout, gpudirect_clique| {
        let options = serve::Options {
            layout,
            gpudirect_clique,
            ..Default::default()
        };
        let profile = profile::find(name).expect("a profile of the catalogue");
        (format!("{}-{what}", profile.name), profile, options)
    };
    let others = [
        with("region", "gh200", MemoryLayout::Region, None),
        with("physical-bar", "gb200", MemoryLayout::PhysicalBar, None),
        with("clique", "gh200", MemoryLayout::Bar, Some(5)),
    ];
    all.chain(others).collect()
}

#[test]
fn lspci_in_a_machine_shows_every_profile_as_it_did() -> Result<(), Box<dyn Error>> {
    let arch = Arch::X86_64;
    let mut served = Vec::new();
    for (name, profile, serve) in functions() {
        let options = Options {
            memory: profile.coherent.map(|_| MEMORY),
            ..Options::default()
        };
        served.push((name, Gpu::serve_with(profile, serve, options)?));
    }
    let tree = packages::ensure(Set::Userland(arch))?;
    // room for the physical regions 2, half a TiB each
    let mut vm = Vm::new(arch)
        .name("lspci")
        .cpu("max,phys-bits=46")
        .cpus(1)
        .programs(&tree, &["/usr/bin/lspci"])?;
    for (number, (_, gpu)) in served.iter().enumerate() {
        vm = vm.vfio_user(format!("dev{number}"), &gpu.socket());
    }
    let vm = vm.boot()?;
    let output = vm.run(&GuestCommand::sh("lspci -nvvvxxxx"))?.checked()?;
    let text = output.text();
    let mut differ = String::new();
    for ((name, _), bus) in served.iter().zip(1_u32..) {
        let start = format!("{bus:02x}:00.0 ");
        let function = text.split("\n\n").find(|part| part.starts_with(&start));
        let function = function.ok_or_else(|| format!("no {start}({name}) in:\n{text}"))?;
        assert_eq!(complaints(function), [""; 0], "{name}:\n{function}");
        let rows = function.lines().filter(|line| is_row(line)).count();
        assert_eq!(rows, 256, "{name}: the whole space is shown");
        let seen = normal(function);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("golden/lspci")
            .join(format!("{name}.txt"));
        if std::env::var_os("VARIA_GOLDEN").is_some_and(|what| what == "write") {
            std::fs::write(&golden, &seen)?;
        }
        let expected = std::fs::read_to_string(&golden).map_err(|error| {
            format!("{}: {error}; VARIA_GOLDEN=write makes it", golden.display())
        })?;
        if seen != expected {
            writeln!(differ, "--- {}\n{seen}", golden.display())?;
        }
    }
    assert!(
        differ.is_empty(),
        "lspci shows something else now:\n{differ}"
    );
    vm.power_off()?;
    Ok(())
}

/// A row of the dump, as `3f0: 00 ...`.
fn is_row(line: &str) -> bool {
    line.split_once(": ").is_some_and(|(at, bytes)| {
        u16::from_str_radix(at, 16).is_ok() && bytes.split(' ').count() == 16
    })
}

/// Without what a machine assigns, and without rows of zeros.
fn normal(function: &str) -> String {
    let mut text = String::new();
    for line in function.lines().skip(1).map(str::trim_end) {
        // the port's number; and the pin, of which this lspci says the next letter
        if line.contains("Physical Slot: ") || line.contains("Interrupts: ") {
            continue;
        }
        if is_row(line) {
            let bytes = line.split_once(": ").map_or("", |(_, bytes)| bytes);
            let zero = bytes.split(' ').all(|byte| byte == "00");
            if zero || ASSIGNED.iter().any(|row| line.starts_with(row)) {
                continue;
            }
        }
        let line = without(line, "Memory at ");
        let line = without(&line, "I/O ports at ");
        let line = without(&line, "Expansion ROM at ");
        text += line.as_str();
        text.push('\n');
    }
    text
}

/// The line with the hexadecimal number behind `mark` left out.
fn without(line: &str, mark: &str) -> String {
    let digit = |c: char| c.is_ascii_hexdigit();
    match line.split_once(mark) {
        Some((before, after)) => format!("{before}{mark}*{}", after.trim_start_matches(digit)),
        None => line.to_owned(),
    }
}
