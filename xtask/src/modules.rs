//! `./x kernel`: Varia's kernel modules, and the original they are compared with.

use clap::Subcommand;
use varia_lab::progress::{Progress, Unit};
use varia_lab::{Arch, Set, kernel_modules, packages};

use crate::{Outcome, arch};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build nvgrace-gpu-vfio-pci.ko for Debian's kernel of the lab.
    Build {
        /// aarch64 or x86_64; both if not given.
        #[arg(long, value_parser = arch)]
        arch: Option<Arch>,
        /// Build the original driver from Debian's source package instead.
        #[arg(long)]
        original: bool,
    },
}

pub(crate) fn run(command: Command) -> Outcome {
    let Command::Build { arch, original } = command;
    packages::ensure(Set::Tools)?;
    for arch in arch.map_or(Arch::ALL.to_vec(), |arch| vec![arch]) {
        let progress = Progress::start(format!("build the module for {arch}"), Unit::Items, 0);
        let module = if original {
            kernel_modules::original(arch)?
        } else {
            kernel_modules::ours(arch)?
        };
        progress.finish();
        println!("{}", module.display());
    }
    Ok(())
}
