//! `./x kernel`: Varia's kernel modules, their package, and the original they are compared with.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use varia_lab::progress::{Progress, Unit};
use varia_lab::{
    Arch, Flavour, Kernel, Set, kernel_modules, kernel_package, kernel_tree, packages,
};

use crate::{Outcome, stats};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build nvgrace-gpu-vfio-pci.ko for kernels of the lab.
    Build {
        /// The kernel; Debian's of both architectures if not given.
        #[arg(long, alias = "arch")]
        kernel: Option<Choice>,
        /// Build the original driver from Debian's source package instead.
        #[arg(long)]
        original: bool,
        /// Build varia-coherent-memory.ko, the guest driver, instead.
        #[arg(long, conflicts_with = "original")]
        guest: bool,
    },
    /// Make the DKMS package: a GPU host that installs it compiles the C half alone.
    Deb {
        /// Put the package into this folder too.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Build a kernel of the lab that is not Debian's, and keep it in the cache.
    Lab,
    /// Write the driver in the kernel's own Rust as a series of mails.
    Series {
        /// An empty folder for the mails.
        #[arg(value_name = "FOLDER")]
        out: PathBuf,
        /// Sender, who signs off: `NAME <ADDRESS>`.
        #[arg(long, default_value = "The Varia developers <varia@example.org>")]
        sender: String,
        /// Date of the patches, as git takes it.
        #[arg(long, default_value = "2026-01-01T00:00:00Z")]
        date: String,
        /// Check the mails with the kernel's checkpatch.
        #[arg(long)]
        check: bool,
    },
    /// Print how much C, Rust and unsafe the module is made of, as in docs/kernel.md.
    Stats,
}

/// A kernel of the lab, as the command line names it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Choice {
    /// Debian's, pages of 4 KiB.
    #[value(alias = "aarch64")]
    Arm64,
    /// Debian's.
    #[value(alias = "x86_64")]
    Amd64,
    /// Debian's, pages of 16 KiB.
    #[value(name = "arm64-16k")]
    Arm64Pages16,
    /// Debian's of the next series.
    #[value(name = "arm64-7.3")]
    Arm64Next,
    /// Debian's of the next series.
    #[value(name = "amd64-7.3")]
    Amd64Next,
    /// Debian's of the next series, pages of 16 KiB.
    #[value(name = "arm64-16k-7.3")]
    Arm64Pages16Next,
    /// Built from Debian's source: pages of 64 KiB, lockdep, KASAN, iommufd.
    #[value(name = "debug-64k")]
    Debug64k,
    /// The same of the next series.
    #[value(name = "debug-64k-7.3")]
    Debug64kNext,
}

impl Choice {
    const fn flavour(self) -> Flavour {
        match self {
            Self::Arm64 => Flavour::Debian(Arch::Aarch64),
            Self::Amd64 => Flavour::Debian(Arch::X86_64),
            Self::Arm64Pages16 => Flavour::Debian16k,
            Self::Arm64Next => Flavour::Next(Arch::Aarch64),
            Self::Amd64Next => Flavour::Next(Arch::X86_64),
            Self::Arm64Pages16Next => Flavour::Next16k,
            Self::Debug64k => Flavour::Debug64k,
            Self::Debug64kNext => Flavour::NextDebug64k,
        }
    }
}

pub(crate) fn run(command: Command) -> Outcome {
    if !matches!(command, Command::Stats) {
        packages::ensure(Set::Tools)?;
    }
    match command {
        Command::Build {
            kernel,
            original,
            guest,
        } => build(kernel, original, guest),
        Command::Deb { out } => deb(out),
        Command::Stats => stats::run(),
        Command::Series {
            out,
            sender,
            date,
            check,
        } => series(&out, &sender, &date, check),
        Command::Lab => {
            let kernel = Kernel::of(Flavour::Debug64k)?;
            println!("{}", kernel.image.display());
            Ok(())
        }
    }
}

fn build(kernel: Option<Choice>, original: bool, guest: bool) -> Outcome {
    let both = Arch::ALL.map(Flavour::Debian).to_vec();
    for flavour in kernel.map_or(both, |kernel| vec![kernel.flavour()]) {
        let what = format!("build the module for {flavour}");
        let progress = Progress::start(what, Unit::Items, 0);
        let module = if original {
            kernel_modules::original(flavour)?
        } else if guest {
            kernel_modules::coherent_memory(flavour)?
        } else {
            kernel_modules::ours(flavour)?
        };
        progress.finish();
        println!("{}", module.display());
    }
    Ok(())
}

fn series(out: &Path, sender: &str, date: &str, check: bool) -> Outcome {
    fs::create_dir_all(out)?;
    if fs::read_dir(out)?.next().is_some() {
        return Err(format!("{} has files: name an empty folder", out.display()).into());
    }
    let original = kernel_tree::original()?;
    let mails = kernel_tree::mails(&original, sender, date, &out.canonicalize()?)?;
    for mail in &mails {
        println!("{}", mail.display());
    }
    if check {
        print!("{}", kernel_tree::checkpatch(&mails)?);
    }
    Ok(())
}

fn deb(out: Option<PathBuf>) -> Outcome {
    let progress = Progress::start("make the package", Unit::Items, 0);
    let mut package = kernel_package::deb(&kernel_package::folder())?;
    progress.finish();
    if let (Some(folder), Some(name)) = (out, package.file_name()) {
        fs::create_dir_all(&folder)?;
        let copy = folder.join(name);
        fs::copy(&package, &copy)?;
        package = copy;
    }
    println!("{}", package.display());
    Ok(())
}
