//! `./x test`.

use std::env;
use std::process::Command;

use varia_lab::agent_build::{self, workspace};
use varia_lab::{Arch, Set, packages};

use crate::{Outcome, lab};

/// The package whose tests boot machines.
pub(crate) const MACHINE_TESTS: &str = "varia-vmtests";

/// Every test. What machines are made of is fetched and built first, where it can be
/// seen; a test that misses something fails.
pub(crate) fn all(rest: &[String]) -> Outcome {
    prepare()?;
    kernel_crate(rest)?;
    cargo_test(&["--workspace"], rest)
}

/// The tests that need no machine.
pub(crate) fn without_machines(rest: &[String]) -> Outcome {
    kernel_crate(rest)?;
    cargo_test(&["--workspace", "--exclude", MACHINE_TESTS], rest)
}

pub(crate) fn prepare() -> Outcome {
    for set in Set::all() {
        packages::ensure(set)?;
    }
    for arch in Arch::ALL {
        lab::build_agent(arch)?;
    }
    // An arm64 host's own `varia`: minutes of compiling belong to no test.
    agent_build::program(Arch::Aarch64, "varia", "varia")?;
    Ok(())
}

/// The tests of the kernel module's Rust half, which is a workspace of its own; left out when
/// something else is asked for.
fn kernel_crate(rest: &[String]) -> Outcome {
    if !rest.is_empty() {
        return Ok(());
    }
    cargo_test(&["--manifest-path", "kernel/rust/Cargo.toml"], &[])
}

fn cargo_test(selection: &[&str], rest: &[String]) -> Outcome {
    if cargo(selection).args(rest).status()?.success() {
        Ok(())
    } else {
        Err("there are failing tests (see above)".into())
    }
}

/// cargo test of `selection`, to its end.
pub(crate) fn cargo(selection: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .arg("test")
        .args(selection)
        .arg("--no-fail-fast");
    // The lab's builds and cargo's go to the same place wherever the tests are run from.
    cargo.env("CARGO_TARGET_DIR", agent_build::target_folder());
    cargo
}
