//! `varia bind` and `varia unbind`: devices to VFIO drivers and back.

use std::path::Path;

use varia_facts::Bdf;
use varia_linux::bind::{self, BindError, Chosen, Host, Live, Outcome, Recovery, Request};

use crate::{
    Failure,
    args::{BindArgs, HostArgs, UnbindArgs},
    list::host,
    output::print,
};

/// Binds devices.
pub(crate) fn bind(args: &BindArgs) -> Result<(), Failure> {
    let request = Request {
        devices: args.devices.clone(),
        driver: args.driver.clone(),
        fallback: args.fallback.clone(),
        strict: args.strict,
        ..Request::default()
    };
    needs_dry_run(args.dry_run, &args.host)?;
    if args.dry_run {
        let host = Live::to_read(host(&args.host)?, &args.state);
        let (plan, paths) = match args.persist {
            true => bind::plan_persistently(&host, &request)?,
            false => (bind::plan(&host, &request)?, Vec::new()),
        };
        let saved = paths
            .iter()
            .map(|path| format!("{path} would be written\n"));
        let lines = plan.iter().map(planned).chain(saved);
        return print(&lines.collect::<String>());
    }
    let mut host = live(&args.state)?;
    recover(&mut host)?;
    if args.reserve {
        return reserve(&mut host, &args.devices);
    }
    if args.persisted {
        return persisted(&mut host);
    }
    let outcomes = match args.persist {
        true => bind::bind_persistently(&mut host, &request)?,
        false => bind::bind(&mut host, &request)?,
    };
    let saved = outcomes.iter().filter(|_| args.persist);
    let saved = saved.map(|outcome| format!("{} is bound at each start\n", outcome.bdf));
    let lines = outcomes.iter().map(done).chain(saved);
    print(&lines.collect::<String>())
}

/// Carries out the saved bindings: all that can be carried out.
fn persisted(host: &mut dyn Host) -> Result<(), Failure> {
    let applied = bind::apply(host);
    print(&applied.outcomes.iter().map(done).collect::<String>())?;
    fail(&applied.failures)
}

/// Keeps other drivers from devices.
fn reserve(host: &mut dyn Host, devices: &[Bdf]) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for bdf in devices {
        match bind::reserve(host, *bdf) {
            Ok(Some(driver)) => print(&format!("{bdf} is reserved for {driver}\n"))?,
            Ok(None) => print(&format!("{bdf} has no saved binding\n"))?,
            Err(error) => failures.push(error),
        }
    }
    fail(&failures)
}

/// The failures as one error; none is no error.
fn fail(failures: &[BindError]) -> Result<(), Failure> {
    if failures.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = failures.iter().map(ToString::to_string).collect();
    Err(lines.join("\n").into())
}

/// Gives devices back.
pub(crate) fn unbind(args: &UnbindArgs) -> Result<(), Failure> {
    needs_dry_run(args.dry_run, &args.host)?;
    if args.dry_run {
        let host = Live::to_read(host(&args.host)?, &args.state);
        let unbound = bind::plan_unbind_persistently(&host, &args.devices)?;
        let lines = unbound.outcomes.iter();
        let lines =
            lines.map(|outcome| format!("{} would be {} again\n", outcome.bdf, outcome.after));
        let removed = unbound.removed.iter();
        let lines = lines.chain(removed.map(|path| format!("{path} would be removed\n")));
        return print(&lines.collect::<String>());
    }
    let mut host = live(&args.state)?;
    recover(&mut host)?;
    let unbound = bind::unbind_persistently(&mut host, &args.devices)?;
    let lines = unbound.outcomes.iter();
    let lines = lines.map(|outcome| format!("{} is {} again\n", outcome.bdf, outcome.after));
    let removed = unbound.removed.iter();
    let lines = lines.chain(removed.map(|path| format!("{path} is removed\n")));
    print(&lines.collect::<String>())
}

/// Only this machine can be changed.
fn needs_dry_run(dry_run: bool, host: &HostArgs) -> Result<(), Failure> {
    match &host.sysfs {
        Some(path) if !dry_run => Err(format!(
            "{} can be read, but not changed: add --dry-run, or leave out --sysfs",
            path.display()
        )
        .into()),
        _ => Ok(()),
    }
}

/// This machine, locked by this command, which SIGINT and SIGTERM do not interrupt.
fn live(state: &Path) -> Result<Live, Failure> {
    // the change takes a moment and ends by itself
    ctrlc::set_handler(|| {})?;
    Live::new(state).map_err(|error| {
        format!(
            "can't use {}: {error}: run this command as root, or name another directory with --state",
            state.display()
        )
        .into()
    })
}

/// Completes or takes back the changes of an interrupted command.
fn recover(host: &mut dyn Host) -> Result<(), Failure> {
    let (what, devices) = match bind::recover(host)? {
        None => return Ok(()),
        Some(Recovery::TakenBack(devices)) => ("taken back", devices),
        Some(Recovery::Completed(devices)) => ("completed", devices),
    };
    log::warn!("an interrupted command is {what}: {}", list(&devices));
    Ok(())
}

fn list(devices: &[Bdf]) -> String {
    let devices: Vec<_> = devices.iter().map(Bdf::to_string).collect();
    devices.join(", ")
}

fn planned(chosen: &Chosen) -> String {
    let Chosen { bdf, group, .. } = chosen;
    let verb = if chosen.bound {
        "stays bound to"
    } else {
        "would be bound to"
    };
    let mut text = format!(
        "{bdf} {verb} {}: {}\n  it is {} now, in IOMMU group {group}",
        chosen.driver.name, chosen.why, chosen.before
    );
    for (member, driver) in &chosen.members {
        let driver = driver.as_deref().unwrap_or("no driver");
        text += &format!(", with {member} ({driver})");
    }
    text.push('\n');
    if let Some(lack) = &chosen.without_memory {
        text += &format!("  a VM gets it {lack}\n");
    }
    text
}

fn done(outcome: &Outcome) -> String {
    let Outcome { bdf, after, .. } = outcome;
    let memory = match &outcome.without_memory {
        Some(lack) => format!(", {lack}"),
        None => String::new(),
    };
    match &outcome.fell_back {
        Some((driver, act)) => format!(
            "{bdf} is {after} INSTEAD OF {driver}, which {act}: a VM gets the device without the \
             additions of that driver\n"
        ),
        None if outcome.before == outcome.after => format!("{bdf} was {after} already{memory}\n"),
        None => format!("{bdf} is {after}{memory}: {}\n", outcome.why),
    }
}
