//! Changes of drivers, with the host locked.

use std::collections::BTreeSet;

use varia_facts::Bdf;
use varia_linux::bind::{self, BindError, Host, Recovery, Request};

use super::texts;
use crate::machine::Machine;

/// Calls `act` with the host locked.
pub(super) fn locked<M: Machine, T>(
    machine: &mut M,
    act: &mut dyn FnMut(&mut dyn Host) -> Result<T, String>,
) -> Result<T, String> {
    let mut result = None;
    let lock = machine.locked(&mut |host| result = Some(act(host)));
    lock.map_err(|error| {
        format!(
            "can't lock the directory of the saved files: {error}: run varia node as root, or name \
             another --state"
        )
    })?;
    result.unwrap_or_else(|| Err("the host was not locked".to_owned()))
}

/// Completes or undoes an interrupted change of drivers.
pub(super) fn recover(host: &mut dyn Host) -> Result<(), String> {
    let recovery = bind::recover(host).map_err(|error| error.to_string())?;
    match recovery {
        None => {}
        Some(Recovery::TakenBack(devices)) => {
            log::warn!(
                "event=taken-back devices={:?} found={:?}",
                texts(&devices),
                "an interrupted change of drivers, which was undone"
            );
        }
        Some(Recovery::Completed(devices)) => {
            log::warn!(
                "event=completed devices={:?} found={:?}",
                texts(&devices),
                "an interrupted change of drivers, which was completed"
            );
        }
    }
    Ok(())
}

/// Restores the previous drivers of those functions that were bound and are there.
pub(super) fn restore(host: &mut dyn Host, bound: &[Bdf]) -> Result<(), String> {
    let mut there = Vec::new();
    for bdf in bound {
        match bind::plan_unbind(host, &[*bdf]) {
            Ok(_) => there.push(*bdf),
            // not bound any more, or not yet
            Err(BindError::NoRecord { .. } | BindError::NoFunction { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    let restored = bind::unbind(host, &there);
    restored.map(|_| ()).map_err(|error| error.to_string())
}

pub(super) fn bind_request(devices: &BTreeSet<Bdf>) -> Request {
    Request {
        devices: devices.iter().copied().collect(),
        ..Request::default()
    }
}

/// Checks that devices can be bound together to their best drivers.
pub(super) fn bindable<M: Machine>(machine: &mut M, devices: &[Bdf]) -> Result<(), String> {
    let request = bind_request(&devices.iter().copied().collect());
    locked(machine, &mut |host| {
        let plan = bind::plan(host, &request);
        plan.map(|_| ()).map_err(|error| error.to_string())
    })
}
