//! `iasl`, the ACPI compiler, in the tools' root.

use crate::chroot::Chroot;
use crate::error::{Error, Result};
use crate::packages::{self, Set};

/// The ACPI compiler's output for an ASL source: a table, ready for a machine.
///
/// # Errors
/// [`Error::Command`] with what `iasl` said of the source, and those of fetching it.
pub fn compile_asl(source: &str) -> Result<Vec<u8>> {
    let tools = packages::ensure(Set::Tools)?;
    let scratch = tempfile::tempdir().map_err(Error::io("create a temporary folder"))?;
    let file = scratch.path().join("table.asl");
    std::fs::write(&file, source).map_err(Error::file("write", &file))?;
    Chroot::new(&tools)
        .bind(scratch.path())
        .cwd(scratch.path())
        .run(["iasl", "table.asl"])?;
    let table = scratch.path().join("table.aml");
    std::fs::read(&table).map_err(Error::file("read", &table))
}

/// Table that the ACPI compiler makes of its own disassembly of `table`, and its messages.
///
/// # Errors
/// [`Error::Command`] with what `iasl` said if it refuses either, and those of fetching it.
pub fn recompile(table: &[u8]) -> Result<(Vec<u8>, String)> {
    let tools = packages::ensure(Set::Tools)?;
    let scratch = tempfile::tempdir().map_err(Error::io("create a temporary folder"))?;
    let (first, second) = (
        scratch.path().join("first.aml"),
        scratch.path().join("second.aml"),
    );
    std::fs::write(&first, table).map_err(Error::file("write", &first))?;
    let root = Chroot::new(&tools).bind(scratch.path()).cwd(scratch.path());
    let mut said = String::new();
    let steps: [&[&str]; 2] = [
        &["iasl", "-d", "first.aml"],
        &["iasl", "-p", "second", "first.dsl"],
    ];
    for step in steps {
        let output = root.run(step.iter().copied())?;
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    let bytes = std::fs::read(&second).map_err(Error::file("read", &second))?;
    Ok((bytes, said))
}
