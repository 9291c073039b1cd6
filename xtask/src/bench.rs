//! `./x bench`.

use std::env;
use std::fs;
use std::process::Command as Process;

use clap::Subcommand;
use varia_lab::Arch;
use varia_lab::agent_build::{self, workspace};

use crate::{Outcome, lab};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The kernel module against the kernel's own driver: docs/performance.md. Takes minutes, and an
    /// idle machine.
    Kernel {
        /// Number of times that all operations are timed with either driver; 0 counts instructions
        /// alone, which a busy machine does as well, and prints them.
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Measures the operations alone whose names have this text in them, and prints the result.
        /// May be repeated.
        #[arg(long, value_name = "TEXT")]
        only: Vec<String>,
    },
    /// Cost that each layer of the user-space runtime adds to an access: docs/layers.md. Takes seconds,
    /// and an idle machine.
    Layers,
    /// The vfio-user server beside the crate vfio_user's, and beside other servers: docs/vfio-user.md.
    /// Prints medians with their quartiles. Takes seconds, and an idle machine.
    VfioUser {
        /// Another server: a command that serves a device with a BAR0 of at least 64 KiB on the
        /// socket that is its last argument. May be repeated.
        #[arg(long, value_name = "NAME=COMMAND")]
        peer: Vec<String>,
        /// Number of times that all operations are timed with each server.
        #[arg(long, default_value_t = 15)]
        rounds: usize,
    },
}

pub(crate) fn run(command: Command) -> Outcome {
    let mut whole = true;
    let (arguments, page): (Vec<String>, _) = match command {
        Command::Kernel { rounds, only } => {
            lab::build_agent(Arch::Aarch64)?;
            whole = rounds > 0 && only.is_empty();
            let program = ["run", "-p", "varia-vmtests", "--bin", "bench-kernel", "-q"];
            let mut arguments = program.map(String::from).to_vec();
            arguments.extend(["--".to_owned(), rounds.to_string()]);
            arguments.extend(only);
            (arguments, "docs/performance.md")
        }
        Command::Layers => {
            let program = ["bench", "-p", "varia-serve", "--bench", "layers", "-q"];
            (program.map(String::from).to_vec(), "docs/layers.md")
        }
        Command::VfioUser { peer, rounds } => {
            whole = false;
            let program = ["bench", "-p", "varia-vfio-user", "--bench", "servers", "-q"];
            let mut arguments = program.map(String::from).to_vec();
            arguments.extend(["--", "--rounds"].map(String::from));
            arguments.push(rounds.to_string());
            arguments.extend(
                peer.into_iter()
                    .flat_map(|peer| ["--peer".to_owned(), peer]),
            );
            (arguments, "docs/vfio-user.md")
        }
    };
    let output = Process::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(arguments)
        .env("CARGO_TARGET_DIR", agent_build::target_folder())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the bench failed (see above)".into());
    }
    if !whole {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        return Ok(());
    }
    let page = workspace().join(page);
    fs::write(&page, output.stdout)?;
    println!("{} is written", page.display());
    Ok(())
}
