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
    /// What each layer of the user-space runtime adds to an access: docs/layers.md. Takes seconds,
    /// and an idle machine.
    Layers,
}

pub(crate) fn run(command: Command) -> Outcome {
    let (arguments, page): (&[&str], _) = match command {
        Command::Kernel => {
            test::prepare()?;
            let program = &["run", "-p", "varia-vmtests", "--bin", "bench-kernel"];
            (program, "docs/performance.md")
        }
        Command::Layers => {
            let program = &["bench", "-p", "varia-serve", "--bench", "layers"];
            (program, "docs/layers.md")
        }
    };
    let output = Process::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(arguments)
        .arg("--quiet")
        .env("CARGO_TARGET_DIR", agent_build::target_folder())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the bench failed (see above)".into());
    }
    let page = workspace().join(page);
    fs::write(&page, output.stdout)?;
    println!("{} is written", page.display());
    Ok(())
}
