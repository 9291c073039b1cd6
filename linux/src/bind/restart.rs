//! Persistent binding and unbinding, and what a start of the machine does with the bindings.

use std::collections::BTreeMap;

use varia_facts::{Bdf, GroupId};

use super::check::{current_state, distinct, group_of};
use super::journal::{Change, Records, transact};
use super::machine::Host;
use super::memory::Demand;
use super::persistent::{
    self, Persistent, PersistentError, PersistentFile, persistent, place, shown,
};
use super::refusal::BindError;
use super::transition::State;
use super::{Outcome, Request, bind, plan, plan_unbind, unbind};

/// Result of a start for all persistent bindings.
#[derive(Debug, Default)]
pub struct Applied {
    /// Bound devices.
    pub outcomes: Vec<Outcome>,
    /// Bindings that were not carried out, and the reasons.
    pub failures: Vec<BindError>,
}

/// Result of [`unbind_persistently`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unbound {
    /// Devices with their previous drivers.
    pub outcomes: Vec<Outcome>,
    /// Paths of the removed files.
    pub removed: Vec<String>,
}

/// Checks a request of [`bind_persistently`], and changes nothing. Returns the paths of the files
/// too.
///
/// # Errors
/// Those of [`plan`], and a file that gives one of the devices another binding.
pub fn plan_persistently(
    host: &dyn Host,
    request: &Request,
) -> Result<(Vec<super::Chosen>, Vec<String>), BindError> {
    check_names(host, request)?;
    let chosen = plan(host, request)?;
    let paths = chosen.iter().map(|chosen| shown(&place(chosen.bdf)));
    let paths = paths.collect();
    Ok((chosen, paths))
}

/// Binds devices as [`bind`] does, now and at each start of the machine.
///
/// # Errors
/// Those of [`bind`], and those of the files. A directory that can't be written and a file that
/// gives one of the devices another binding are found before the first change.
pub fn bind_persistently(
    host: &mut dyn Host,
    request: &Request,
) -> Result<Vec<Outcome>, BindError> {
    check_names(host, request)?;
    persistent::check_writable(host)?;
    let outcomes = bind(host, request)?;
    for outcome in &outcomes {
        let driver = outcome.after.driver.as_deref().unwrap_or_default();
        let binding = Persistent::of(host.tree(), outcome.bdf, driver, request.strict);
        let binding = binding.ok_or(BindError::NoFunction { bdf: outcome.bdf })?;
        persistent::save(host, &binding)?;
    }
    Ok(outcomes)
}

/// Checks that no other file than the devices' own names the devices.
fn check_names(host: &dyn Host, request: &Request) -> Result<(), BindError> {
    for file in persistent(host.tree())? {
        let named = match file.binding {
            Err(
                PersistentError::Misnamed { device, .. }
                | PersistentError::Contradiction { device, .. },
            ) => device,
            _ => continue,
        };
        if request.devices.contains(&named) && file.path != shown(&place(named)) {
            let (path, device) = (file.path, named);
            return Err(PersistentError::Misnamed { path, device }.into());
        }
    }
    Ok(())
}

/// Checks a request of [`unbind_persistently`], and changes nothing.
///
/// # Errors
/// Those of [`plan_unbind`]. A device with a file need not exist, nor have been bound since the
/// machine started.
pub fn plan_unbind_persistently(host: &dyn Host, devices: &[Bdf]) -> Result<Unbound, BindError> {
    let mut unbound = Unbound::default();
    for bdf in distinct(devices) {
        let path = place(bdf);
        let has_file = host.tree().exists(&path);
        match plan_unbind(host, &[bdf]) {
            Ok(outcomes) => unbound.outcomes.extend(outcomes),
            Err(BindError::NoFunction { .. } | BindError::NoRecord { .. }) if has_file => {}
            Err(error) => return Err(error),
        }
        if has_file {
            unbound.removed.push(shown(&path));
        }
    }
    Ok(unbound)
}

/// Restores the state that devices had before they were bound, as [`unbind`] does, and removes
/// their files.
///
/// # Errors
/// Those of [`plan_unbind_persistently`], of [`unbind`] and of the files. A directory that can't be
/// written is found before the first change.
pub fn unbind_persistently(host: &mut dyn Host, devices: &[Bdf]) -> Result<Unbound, BindError> {
    let mut unbound = plan_unbind_persistently(host, devices)?;
    if !unbound.removed.is_empty() {
        persistent::check_writable(host)?;
    }
    let bound: Vec<_> = unbound.outcomes.iter().map(|bound| bound.bdf).collect();
    if !bound.is_empty() {
        unbound.outcomes = unbind(host, &bound)?;
    }
    for bdf in distinct(devices) {
        if host.tree().exists(&place(bdf)) {
            persistent::forget(host, bdf)?;
        }
    }
    Ok(unbound)
}

/// Carries out all persistent bindings that are valid. A fault of one binding does not hinder the
/// others. Bindings of one IOMMU group are carried out together, or none of them is; the demands of
/// one of them (`strict`) are those of the group.
pub fn apply(host: &mut dyn Host) -> Applied {
    let mut applied = Applied::default();
    let files = match persistent(host.tree()) {
        Ok(files) => files,
        Err(error) => {
            applied.failures.push(error.into());
            return applied;
        }
    };
    let mut groups: BTreeMap<(Option<GroupId>, Option<Bdf>), Vec<Persistent>> = BTreeMap::new();
    for file in files {
        match file.binding {
            Ok(binding) => {
                let group = group_of(host.tree(), binding.device);
                // devices without a group have nothing in common
                let alone = group.is_none().then_some(binding.device);
                groups.entry((group, alone)).or_default().push(binding);
            }
            Err(error) => applied.failures.push(error.into()),
        }
    }
    for bindings in groups.into_values() {
        let request = Request {
            devices: bindings.iter().map(|binding| binding.device).collect(),
            drivers: bindings
                .iter()
                .map(|binding| (binding.device, binding.driver.clone()))
                .collect(),
            strict: bindings.iter().any(|binding| binding.strict),
            ..Request::default()
        };
        match bind(host, &request) {
            Ok(outcomes) => applied.outcomes.extend(outcomes),
            Err(error) => {
                let paths = bindings
                    .iter()
                    .map(|binding| shown(&place(binding.device)))
                    .collect::<Vec<_>>();
                let undone = PersistentError::Undone {
                    paths: paths.join(", "),
                    source: Box::new(error),
                };
                applied.failures.push(undone.into());
            }
        }
    }
    applied
}

/// Keeps other drivers from a device that has a persistent binding, before any driver of the device
/// is loaded: sets `driver_override` and binds nothing. Returns the driver, or `None` for a device
/// without a binding.
///
/// # Errors
/// Fault of the device's file, another device at the address, and errors of sysfs and the records.
pub fn reserve(host: &mut dyn Host, bdf: Bdf) -> Result<Option<String>, BindError> {
    let files = persistent(host.tree())?;
    let is_own = |file: &PersistentFile| file.is_own && file.device == Some(bdf);
    let Some(file) = files.into_iter().find(is_own) else {
        return Ok(None);
    };
    let binding = file.binding?;
    let (before, _) = current_state(host.tree(), bdf)?;
    let change = Change {
        bdf,
        after: State {
            driver: before.driver.clone(),
            driver_override: Some(binding.driver.clone()),
        },
        before,
        memory: Demand::None,
    };
    let mut records = Records::load(host)?;
    records.bound(&change);
    match transact(host, &[change], &records)? {
        Ok(()) => Ok(Some(binding.driver)),
        Err(refusal) => Err(refusal.into_error(binding.strict)),
    }
}
