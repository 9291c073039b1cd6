//! The agent's binary: `/init` of a lab machine, or an applet by name.

use std::process::ExitCode;

use varia_agent::{applets, init, serve};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::process::id() == 1 {
        return boot();
    }
    let Some((name, rest)) = arguments.split_first() else {
        let known: Vec<_> = applets::names().collect();
        eprintln!(
            "usage: agent APPLET [ARGUMENT...]; applets: {}",
            known.join(", ")
        );
        return ExitCode::FAILURE;
    };
    match applets::find(name) {
        Some(applet) => applet(rest),
        None => {
            let known: Vec<_> = applets::names().collect();
            eprintln!(
                "agent: there is no applet {name:?}; there are: {}",
                known.join(", ")
            );
            ExitCode::FAILURE
        }
    }
}

/// Runs the machine. Whatever happens, it ends with power-off: a first process that
/// returns would make the kernel panic.
fn boot() -> ExitCode {
    let (plan, troubles) = init::bring_up();
    for trouble in &troubles {
        eprintln!("varia-agent: {trouble}");
    }
    let result = if plan.shell {
        init::shell()
    } else {
        init::open_port().and_then(|mut port| serve::serve(&mut port, troubles))
    };
    if let Err(error) = result {
        eprintln!("varia-agent: {error}");
    }
    eprintln!("varia-agent: {}", init::power_off());
    ExitCode::FAILURE
}
