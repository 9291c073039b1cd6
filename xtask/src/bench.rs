//! `./x bench`.

use std::env;
use std::fs;
use std::process::Command as Process;

use clap::Subcommand;
use varia_lab::agent_build::{self, workspace};

use crate::{Outcome, test};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The kernel module against the kernel's own driver: docs/performance.md. Takes minutes, and an
    /// idle machine.
    Kernel,
}

pub(crate) fn run(command: Command) -> Outcome {
    let Command::Kernel = command;
    test::prepare()?;
    let output = Process::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["run", "--quiet", "-p", "varia-vmtests"])
        .args(["--bin", "bench-kernel"])
        .env("CARGO_TARGET_DIR", agent_build::target_folder())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the bench failed (see above)".into());
    }
    let page = workspace().join("docs/performance.md");
    fs::write(&page, output.stdout)?;
    println!("{} is written", page.display());
    Ok(())
}
