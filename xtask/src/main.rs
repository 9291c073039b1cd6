//! Project automation behind `./x`: the demo, the tests, the lab, the kernel modules.
//!
//! Nothing is decided here: each command puts together what the lab offers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use varia_lab::{Arch, UnknownArch};

mod bench;
mod demo;
mod dist;
mod fuzz;
mod lab;
mod modules;
mod mutants;
mod programs;
mod soak;
mod stats;
mod test;

/// Result of a command: an error is printed as it is.
type Outcome = Result<(), Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(bin_name = "./x", about = "Varia's demo, tests and lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an emulated GH200 and show what a virtual machine sees of it.
    Demo {
        /// The guest's architecture: aarch64 or x86_64.
        #[arg(long, default_value = "aarch64", value_parser = arch)]
        arch: Arch,
    },
    /// Run every test, those in virtual machines included.
    Test {
        /// Leave out the tests that need virtual machines, and those of varia-debian, which need
        /// apt.
        #[arg(long)]
        no_vm: bool,
        /// Arguments for cargo test, such as a name to look for.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Run the tests with larger counts than `test` has time for, then the fuzzers, and keep the
    /// results in docs/soak.md. Takes hours, and an idle machine.
    Soak {
        /// Parts: a test program of lab/vmtests/tests, units, server, mutants-CRATE, fuzz; all of
        /// them if none is named.
        parts: Vec<String>,
        /// Operations of each counted test.
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
        /// Duration of each fuzzer.
        #[arg(long, value_name = "MINUTES", default_value_t = 10)]
        fuzz: u64,
    },
    /// Run the fuzzers; needs a nightly compiler and cargo-fuzz.
    Fuzz {
        /// Fuzzers; all of them if none is named.
        targets: Vec<String>,
        /// Duration of each fuzzer.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Measure, and write the page in docs/ that says how.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Work with the virtual machines' packages and with a machine itself.
    #[command(subcommand)]
    Lab(lab::Command),
    /// Make the command as one static program for each architecture, with bills of materials and
    /// checksums.
    Dist {
        /// Put the files into this folder.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Make the package of the command, for Debian.
    Deb {
        /// The architecture; both if not given.
        #[arg(long, value_parser = arch)]
        arch: Option<Arch>,
        /// Put the packages into this folder.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Build kernel modules.
    #[command(subcommand)]
    Kernel(modules::Command),
}

fn main() -> ExitCode {
    env_logger::init();
    let outcome = match Arguments::parse().command {
        Command::Demo { arch } => demo::run(arch),
        Command::Test { no_vm: true, rest } => test::without_machines(&rest),
        Command::Test { no_vm: false, rest } => test::all(&rest),
        Command::Soak { parts, count, fuzz } => {
            let (operations, fuzz_seconds) = (count, 60 * fuzz);
            let counts = soak::Counts {
                operations,
                fuzz_seconds,
            };
            soak::run(&parts, counts)
        }
        Command::Fuzz { targets, seconds } => fuzz::report(&targets, seconds),
        Command::Bench(command) => bench::run(command),
        Command::Dist { out } => dist::files(out),
        Command::Deb { arch, out } => dist::packages(arch, out),
        Command::Lab(command) => lab::run(command),
        Command::Kernel(command) => modules::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("./x: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An architecture on the command line.
fn arch(text: &str) -> Result<Arch, UnknownArch> {
    text.parse()
}
