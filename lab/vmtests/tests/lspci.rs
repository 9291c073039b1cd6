//! `lspci` reads our silicon's configuration space as it would a card's.

use std::error::Error;

use varia_lab::chroot::Chroot;
use varia_lab::{Set, packages};
use varia_silicon::{Options, Silicon, profile};

/// What `lspci` prints where something can't be what it says it is.
const COMPLAINTS: [&str; 6] = [
    "<access denied>",
    "<chain broken>",
    "<chain looped>",
    "<unreadable>",
    "Unknown",
    "Invalid",
];
/// `lspci` misses the modules of a kernel, which has nothing to do with the device.
const NO_MODULES: &str = "lspci: Unable to load libkmod resources";

/// Everything is shown, and every line of `expected` is there.
fn lspci_reads(name: &str, expected: &[&str]) -> Result<(), Box<dyn Error>> {
    let silicon = Silicon::new(profile::find(name)?, Options::default())?;
    let scratch = tempfile::tempdir()?;
    std::fs::write(scratch.path().join("dump"), silicon.lspci_dump())?;
    let tools = packages::ensure(Set::Tools)?;
    let output = Chroot::new(&tools)
        .bind(scratch.path())
        .cwd(scratch.path())
        .run(["lspci", "-F", "dump", "-vvv", "-nn"])?;
    let text = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8(output.stderr)?;
    let error = errors.lines().find(|line| !line.starts_with(NO_MODULES));
    assert_eq!(error, None, "lspci of {name}, which it shows as:\n{text}");
    for word in COMPLAINTS {
        assert!(!text.contains(word), "lspci says {word:?}:\n{text}");
    }
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    for line in expected {
        assert!(lines.contains(line), "no line {line:?} in:\n{text}");
    }
    let capabilities = silicon.profile().capabilities.len();
    let shown = lines
        .iter()
        .filter(|line| line.starts_with("Capabilities: ["))
        .count();
    assert_eq!(shown, capabilities, "capabilities shown in:\n{text}");
    Ok(())
}

#[test]
fn lspci_reads_gh200_without_complaint() -> Result<(), Box<dyn Error>> {
    lspci_reads(
        "gh200",
        &[
            "Region 2: Memory at <unassigned> (64-bit, prefetchable) [disabled]",
            "BAR 2: current size: 128GB, supported: 128GB",
            "Capabilities: [48] MSI: Enable- Count=1/16 Maskable+ 64bit+",
            "Capabilities: [b0] MSI-X: Enable- Count=9 Masked-",
        ],
    )
}

#[test]
fn lspci_reads_gb200_without_complaint() -> Result<(), Box<dyn Error>> {
    lspci_reads(
        "gb200",
        &[
            "BAR 2: current size: 256GB, supported: 256GB",
            "Capabilities: [300 v1] Designated Vendor-Specific: Vendor=10de ID=0003 Rev=0 Len=12 <?>",
        ],
    )
}
