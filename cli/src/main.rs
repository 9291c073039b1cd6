//! `varia`, the command.
//!
//! | module | contents |
//! |---|---|
//! | `args` | the command line |
//! | `device` | construction of a device and an endpoint |
//! | `serve`, `fleet` | `varia serve`, `varia ctl` |
//! | `inspect`, `drawing` | `varia inspect` |
//! | `run`, `qemu` | `varia run` |
//! | `host` | `varia host`, `varia host-fault` |
//! | `list` | `varia list`, `varia capture` |
//! | `bind` | `varia bind`, `varia unbind` |
//! | `plan` | `varia plan`, `varia tables` |
//! | `doctor` | `varia doctor` |
//! | `explain` | `varia explain` |
//! | `node` | `varia node` |
//! | `manual` | `varia man`, `varia completions` |
//! | `output`, `status` | output to the terminal, exit statuses |

mod args;
mod assume;
mod bind;
mod device;
mod doctor;
mod drawing;
mod explain;
mod files;
mod fleet;
mod host;
mod inspect;
mod list;
mod manual;
mod node;
mod output;
mod plan;
mod platform;
mod qemu;
mod run;
mod serve;
mod service_manager;
mod status;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, Varia};

fn main() -> ExitCode {
    let varia = match Varia::try_parse() {
        Ok(varia) => varia,
        // requested output: help, the version
        Err(error) if error.exit_code() == 0 || has_no_arguments(&error) => error.exit(),
        Err(error) => {
            output::complain(&output::one_line(&error.to_string()));
            return status::refused();
        }
    };
    let level = if varia.verbose { "debug" } else { "info" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level))
        .format_timestamp_millis()
        .format_target(false)
        .init();
    let result = match varia.command {
        Command::Serve(args) => serve::serve(&args).map(|()| ExitCode::SUCCESS),
        Command::Ctl(args) => fleet::ctl::ctl(&args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::inspect(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => run::run(&args),
        Command::Host(args) => host::host(&args),
        Command::HostFault(args) => host::fault(&args).map(|()| ExitCode::SUCCESS),
        Command::List(args) => list::list(&args).map(|()| ExitCode::SUCCESS),
        Command::Bind(args) => bind::bind(&args).map(|()| ExitCode::SUCCESS),
        Command::Unbind(args) => bind::unbind(&args).map(|()| ExitCode::SUCCESS),
        Command::Plan(args) => plan::plan(&args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => explain::explain(&args),
        Command::Tables(args) => plan::tables(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Node(args) => node::node(&args),
        Command::Completions(args) => manual::completions(args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => manual::man(&args).map(|()| ExitCode::SUCCESS),
        Command::Capture(args) => list::capture(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        output::complain(&error.to_string());
        status::refused()
    })
}

/// True without any command: clap prints the help.
fn has_no_arguments(error: &clap::Error) -> bool {
    error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// Error that ends a command; its text names the fault and the remedy.
pub(crate) type Failure = Box<dyn std::error::Error>;
