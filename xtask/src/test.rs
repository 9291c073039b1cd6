//! `./x test` and `./x soak`.

use std::env;
use std::process::Command;

use varia_lab::agent_build::{self, workspace};
use varia_lab::{Arch, Flavour, Kernel, Set, packages};

use crate::{Outcome, fuzz, lab};

/// How long a soak lets everything happen at once, in seconds.
const SOAK_SECONDS: u64 = 30 * 60;

/// The package whose tests boot machines.
const MACHINE_TESTS: &str = "varia-vmtests";

/// Every test. What machines are made of is fetched and built first, where it can be
/// seen; a test that misses something fails.
pub(crate) fn all(rest: &[String]) -> Outcome {
    prepare()?;
    kernel_crate(rest)?;
    cargo_test(&["--workspace"], rest, None)
}

/// The tests that need no machine.
pub(crate) fn without_machines(rest: &[String]) -> Outcome {
    kernel_crate(rest)?;
    cargo_test(&["--workspace", "--exclude", MACHINE_TESTS], rest, None)
}

/// Every test, those that are ignored elsewhere included, with `count` operations in those that
/// count; then the fuzzers, for so many seconds each. What they need is looked for first.
pub(crate) fn soak(count: u64, fuzz_seconds: u64) -> Outcome {
    fuzz::ready()?;
    prepare()?;
    // Minutes of compiling belong to no test.
    Kernel::of(Flavour::Debug64k)?;
    for arch in Arch::ALL {
        packages::ensure(Set::Dkms(arch))?;
    }
    kernel_crate(&[])?;
    // What the tests counted belongs to the result.
    let all = ["--", "--include-ignored", "--show-output"].map(str::to_owned);
    cargo_test(&["--workspace"], &all, Some(count))?;
    fuzz::run(&[], fuzz_seconds)
}

pub(crate) fn prepare() -> Outcome {
    for set in Set::all() {
        packages::ensure(set)?;
    }
    for arch in Arch::ALL {
        lab::build_agent(arch)?;
    }
    Ok(())
}

/// The tests of the kernel module's Rust half, which is a workspace of its own; left out when
/// something else is asked for.
fn kernel_crate(rest: &[String]) -> Outcome {
    if !rest.is_empty() {
        return Ok(());
    }
    cargo_test(&["--manifest-path", "kernel/rust/Cargo.toml"], &[], None)
}

fn cargo_test(selection: &[&str], rest: &[String], count: Option<u64>) -> Outcome {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .arg("test")
        .args(selection)
        .arg("--no-fail-fast")
        .args(rest);
    // The lab's builds and cargo's go to the same place wherever the tests are run from.
    cargo.env("CARGO_TARGET_DIR", agent_build::target_folder());
    if let Some(count) = count {
        cargo.env("VARIA_COUNT", count.to_string());
        cargo.env("VARIA_SECONDS", SOAK_SECONDS.to_string());
    }
    let status = cargo.status()?;
    if status.success() {
        Ok(())
    } else {
        Err("there are failing tests (see above)".into())
    }
}
