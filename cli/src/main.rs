//! `varia`, the command.
//!
//! | module | what is in it |
//! |---|---|
//! | `args` | the command line |
//! | `device` | a profile, made into a device and an endpoint |
//! | `serve` | `varia serve` |
//! | `inspect`, `drawing` | `varia inspect` |
//! | `run`, `qemu` | `varia run` |

mod args;
mod device;
mod drawing;
mod inspect;
mod qemu;
mod run;
mod serve;
mod size;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

use args::{Command, Varia};

fn main() -> ExitCode {
    let varia = Varia::parse();
    let level = if varia.verbose { "debug" } else { "info" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level))
        .format_timestamp_millis()
        .format_target(false)
        .init();
    let result = match varia.command {
        Command::Serve(args) => serve::serve(&args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::inspect(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => run::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("varia: {error}");
        ExitCode::FAILURE
    })
}

/// Anything that ends a command; its text says what was wrong and what to do.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Prints to standard output; a reader that has gone is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
