//! `./x test`.

use std::env;
use std::process::Command;
use std::thread;
use std::time::Instant;

use varia_lab::agent_build::{self, workspace};
use varia_lab::{Arch, Set, packages};

use crate::{Outcome, lab, programs};

/// The package whose tests boot VMs.
pub(crate) const MACHINE_TESTS: &str = "varia-vmtests";

/// Runs every test, or those that `rest`, arguments for cargo test, selects. Packages for VMs are
/// fetched first, with progress; a test that misses something fails.
pub(crate) fn all(rest: &[String]) -> Outcome {
    lab::tell_of_namespaces();
    if rest.is_empty() {
        fetch()?;
        return run(&["--workspace"], Some(guest_programs));
    }
    prepare()?;
    run_selected(&["--workspace"], rest)
}

/// Selection of the packages whose tests need no VM and no apt: those of `varia-debian` make and
/// download packages.
pub(crate) const WITHOUT_MACHINES: [&str; 5] = [
    "--workspace",
    "--exclude",
    MACHINE_TESTS,
    "--exclude",
    "varia-debian",
];

/// Runs the tests that need no VM.
///
/// # Errors
/// A package in `rest` whose tests boot VMs, and failing tests.
pub(crate) fn without_machines(rest: &[String]) -> Outcome {
    if names(rest, MACHINE_TESTS) {
        return Err(format!("the tests of {MACHINE_TESTS} boot VMs: leave out --no-vm").into());
    }
    if rest.is_empty() {
        run(&WITHOUT_MACHINES, None)
    } else {
        run_selected(&WITHOUT_MACHINES, rest)
    }
}

/// Returns true if arguments for cargo test select `package`, or select by a pattern.
fn names(rest: &[String], package: &str) -> bool {
    let mut words = rest.iter().take_while(|word| *word != "--");
    let mut specs = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-p" | "--package" => specs.extend(words.next().map(String::as_str)),
            word => specs.extend(
                word.strip_prefix("--package=")
                    .or_else(|| word.strip_prefix("-p")),
            ),
        }
    }
    specs
        .iter()
        .any(|spec| spec.contains(package) || spec.contains(['*', '?', '[']))
}

/// `cargo test` of what `rest` selects in a selection of packages.
fn run_selected(selection: &[&str], rest: &[String]) -> Outcome {
    // a package that is named stands for the whole workspace
    let names_package = rest
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word.starts_with("-p") || word.starts_with("--package"));
    let selection = if names_package { &[] } else { selection };
    succeed(cargo(selection).args(rest))
}

/// Folders of the modules' Rust halves, which are workspaces of their own.
pub(crate) const MODULES: [&str; 2] = ["kernel/rust", "kernel/modules/varia-coherent-memory"];

/// Builds that go on beside that of the test programs.
type Beside = fn() -> varia_lab::Result<()>;

/// Builds and runs all tests of a selection of packages.
fn run(selection: &[&str], beside: Option<Beside>) -> Outcome {
    let started = Instant::now();
    let mut failed = Vec::new();
    for folder in MODULES {
        let manifest = format!("{folder}/Cargo.toml");
        if succeed(&mut cargo(&["--manifest-path", &manifest])).is_err() {
            failed.push(folder.to_owned());
        }
    }
    let built: Result<_, Box<dyn std::error::Error>> = thread::scope(|scope| {
        let beside = beside.map(|build| scope.spawn(build));
        let programs = programs::build(cargo(selection))?;
        match beside.map(thread::ScopedJoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(programs),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(_)) => Err("the build of the guests' programs panicked".into()),
        }
    });
    let ended = programs::run(built?, programs::lanes())?;
    let names = ended
        .iter()
        .filter(|it| !it.passed)
        .map(|it| it.name.clone());
    failed.extend(names);
    if succeed(cargo(selection).arg("--doc")).is_err() {
        failed.push("documentation".to_owned());
    }
    println!("{}", programs::table(&ended));
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!("all tests took {minutes:.1} minutes");
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failing tests in {} (see above)", failed.join(", ")).into())
    }
}

/// Fetches the packages that VMs are made of.
fn fetch() -> Outcome {
    for set in Set::all() {
        packages::ensure(set)?;
    }
    Ok(())
}

/// Builds the programs that guests of either architecture run: no test has to.
fn guest_programs() -> varia_lab::Result<()> {
    eprintln!("build the guests' programs, beside the tests ...");
    let started = Instant::now();
    // An arm64 host's own `varia` takes longest.
    agent_build::program(Arch::Aarch64, "varia", "varia")?;
    for arch in Arch::ALL {
        agent_build::agent(arch)?;
    }
    let seconds = started.elapsed().as_secs();
    eprintln!("build the guests' programs: done in {seconds} s");
    Ok(())
}

/// Fetches and builds what VMs are made of, with progress.
pub(crate) fn prepare() -> Outcome {
    fetch()?;
    for arch in Arch::ALL {
        lab::build_agent(arch)?;
    }
    // An arm64 host's own `varia`: minutes of compiling belong to no test.
    agent_build::program(Arch::Aarch64, "varia", "varia")?;
    Ok(())
}

fn succeed(command: &mut Command) -> Outcome {
    if command.status()?.success() {
        Ok(())
    } else {
        Err("there are failing tests (see above)".into())
    }
}

/// `cargo test` of `selection`, which goes on after a failure.
pub(crate) fn cargo(selection: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .arg("test")
        .args(selection)
        .arg("--no-fail-fast");
    // The lab's builds and cargo's go to the same folder wherever the tests are run from.
    cargo.env("CARGO_TARGET_DIR", agent_build::target_folder());
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_in_each_form_of_the_option() {
        let named = |text: &str| {
            let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            names(&words, MACHINE_TESTS)
        };
        for text in [
            "-p varia-vmtests",
            "-pvaria-vmtests",
            "--package varia-vmtests --test boot",
            "-p varia-plan --package=varia-vmtests@0.1.0",
            "-p varia-*",
        ] {
            assert!(named(text), "{text}");
        }
        for text in ["", "varia-vmtests", "-p varia-plan", "-- -p varia-vmtests"] {
            assert!(!named(text), "{text}");
        }
    }
}
