//! Binding devices to VFIO drivers, and restoring their previous drivers.
//!
//! A change of drivers is a transaction over all named devices: all checks precede the first write;
//! a journal on disk has the previous state before the first write; a failure restores every
//! device. A killed command leaves the journal, and the next command restores the devices, or, if
//! every device had already been changed, completes the change.
//!
//! | module | contents |
//! |---|---|
//! | `check` | checks before binding, and the choice of the driver |
//! | `memory` | memory that a driver serves, or declines to serve |
//! | `transition` | one device's change of drivers |
//! | `journal` | journal and records, which survive a crash |
//! | `machine` | the machine: writes, modules, saved files |
//! | `persistent` | bindings that outlast a restart |
//! | `restart` | the next start of the machine: persistent binding and unbinding |

mod check;
mod journal;
mod machine;
mod memory;
mod persistent;
mod refusal;
mod restart;
mod transition;

use std::collections::BTreeMap;

use varia_facts::Bdf;

pub use check::{Chosen, Driver};
pub use journal::Recovery;
pub use machine::{Host, Live};
pub(crate) use persistent::FOLDER as PERSISTENT_FOLDER;
pub use persistent::{Persistent, PersistentError, PersistentFile, persistent};
pub use refusal::BindError;
pub use restart::{
    Applied, Unbound, apply, bind_persistently, plan_persistently, plan_unbind_persistently,
    reserve, unbind_persistently,
};
pub use transition::State;

use crate::matching::{VFIO_PCI, same_name};
use journal::{Change, Records};
use memory::Demand;
pub use memory::Lack;

/// Request to bind devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Devices to bind.
    pub devices: Vec<Bdf>,
    /// Driver for all devices, instead of the best driver of each device.
    pub driver: Option<String>,
    /// Drivers for single devices; such a driver goes before `driver`.
    pub drivers: BTreeMap<Bdf, String>,
    /// Driver for a device whose driver refuses the device, or the device's memory on a host.
    pub fallback: Option<String>,
    /// A device whose memory the driver does not serve is refused, inside a VM too.
    pub strict: bool,
}

impl Request {
    /// The requested driver of a device; `None` for the best driver.
    fn driver_of(&self, bdf: Bdf) -> Option<&String> {
        self.drivers.get(&bdf).or(self.driver.as_ref())
    }

    /// Demand on a device's memory. On a host, a driver that only takes the device leaves a VM
    /// without the memory; inside a VM this is normal, as is vfio-pci that was asked for by name.
    fn memory(&self, host: &dyn Host, bdf: Bdf, driver: &str) -> Demand {
        let is_plain = same_name(driver, VFIO_PCI) && self.driver_of(bdf).is_some();
        match self.strict {
            true => Demand::Served,
            false if is_plain || memory::is_vm(host.tree()) => Demand::None,
            false => Demand::NotMissing,
        }
    }
}

/// Result of the change for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The device.
    pub bdf: Bdf,
    /// State before the change.
    pub before: State,
    /// State after the change.
    pub after: State,
    /// Reason for the choice of the driver; empty when a previous driver is restored.
    pub why: String,
    /// The driver that refused the device or the device's memory, and the reason, if the fallback
    /// was bound.
    pub fell_back: Option<(String, String)>,
    /// Lack of the device's memory in a VM.
    pub without_memory: Option<Lack>,
}

/// Checks a request to bind, and changes nothing.
///
/// # Errors
/// The error with which [`bind`] would refuse the request.
pub fn plan(host: &dyn Host, request: &Request) -> Result<Vec<Chosen>, BindError> {
    let mut chosen = check::bind(host, request)?;
    for chosen in &mut chosen {
        if !chosen.bound {
            check::check_driver(host.tree(), &chosen.driver)?;
        }
        let driver = &chosen.driver.name;
        let lack = Lack::of(host.tree(), chosen.bdf, driver);
        chosen.without_memory = lack.clone();
        let demand = request.memory(host, chosen.bdf, driver);
        let unmet = lack.filter(|lack| demand.is_unmet(lack));
        if let (Some(lack), None) = (unmet, &request.fallback) {
            let (bdf, before) = (chosen.bdf, chosen.before.to_string());
            let (driver, strict) = (driver.clone(), request.strict);
            return Err(BindError::without_memory(bdf, driver, lack, before, strict));
        }
    }
    if let Some(fallback) = &request.fallback {
        check::check_driver(host.tree(), &Driver::named(fallback))?;
    }
    Ok(chosen)
}

/// Completes or undoes an interrupted command. Returns `None` if no command was interrupted.
///
/// # Errors
/// [`BindError::Unrestored`], and errors of the journal.
pub fn recover(host: &mut dyn Host) -> Result<Option<Recovery>, BindError> {
    journal::recover(host)
}

/// Binds devices: all of them, or none.
///
/// # Errors
/// The error names the device and the reason. Every device has its previous state, except after
/// [`BindError::Unrestored`].
pub fn bind(host: &mut dyn Host, request: &Request) -> Result<Vec<Outcome>, BindError> {
    let chosen = check::bind(host, request)?;
    let mut wanted = Vec::new();
    for chosen in chosen {
        let driver = check::load(host, &chosen.driver)?;
        wanted.push((chosen, driver));
    }
    let changes = wanted.iter().map(|(chosen, driver)| Change {
        bdf: chosen.bdf,
        before: chosen.before.clone(),
        after: State::overridden(driver),
        memory: request.memory(host, chosen.bdf, driver),
    });
    let mut changes: Vec<_> = changes.collect();
    let mut records = Records::load(host)?;
    for change in &changes {
        records.bound(change);
    }
    let mut fell_back = vec![None; changes.len()];
    let refusal = loop {
        match journal::transact(host, &changes, &records)? {
            Ok(()) => break None,
            Err(refusal) => {
                let index = changes.iter().position(|c| c.bdf == refusal.bdf);
                let (Some(index), Some(fallback)) = (index, &request.fallback) else {
                    break Some(refusal);
                };
                let (Some(change), Some(slot)) = (changes.get_mut(index), fell_back.get_mut(index))
                else {
                    break Some(refusal);
                };
                if slot.is_some() {
                    break Some(refusal);
                }
                let driver = check::load(host, &Driver::named(fallback))?;
                let act = refusal.act();
                *slot = Some((refusal.driver, act));
                change.after = State::overridden(&driver);
                change.memory = Demand::None;
            }
        }
    };
    if let Some(refusal) = refusal {
        return Err(refusal.into_error(request.strict));
    }
    let outcomes = wanted.into_iter().zip(changes).zip(fell_back);
    let memory = |change: &Change| {
        let driver = change.after.driver.as_ref()?;
        Lack::of(host.tree(), change.bdf, driver)
    };
    let outcomes = outcomes.map(|(((chosen, _), change), fell_back)| Outcome {
        without_memory: memory(&change),
        bdf: change.bdf,
        before: change.before,
        after: change.after,
        why: chosen.why,
        fell_back,
    });
    Ok(outcomes.collect())
}

/// Checks a request to unbind, and changes nothing.
///
/// # Errors
/// The error with which [`unbind`] would refuse the request.
pub fn plan_unbind(host: &dyn Host, devices: &[Bdf]) -> Result<Vec<Outcome>, BindError> {
    let records = Records::load(host)?;
    let mut outcomes = Vec::new();
    for bdf in check::distinct(devices) {
        let before = check::unbind(host, bdf)?;
        let record = records.of(bdf).ok_or(BindError::NoRecord {
            bdf,
            driver: before.driver.clone(),
        })?;
        outcomes.push(Outcome {
            bdf,
            before,
            after: record.clone(),
            why: String::new(),
            fell_back: None,
            without_memory: None,
        });
    }
    Ok(outcomes)
}

/// Restores the state that devices had before they were bound.
///
/// # Errors
/// Same as [`bind`].
pub fn unbind(host: &mut dyn Host, devices: &[Bdf]) -> Result<Vec<Outcome>, BindError> {
    let outcomes = plan_unbind(host, devices)?;
    let mut records = Records::load(host)?;
    let mut changes = Vec::new();
    for outcome in &outcomes {
        if let Some(driver) = &outcome.after.driver {
            check::load(host, &Driver::named(driver))?;
        }
        records.given_back(outcome.bdf);
        changes.push(Change {
            bdf: outcome.bdf,
            before: outcome.before.clone(),
            after: outcome.after.clone(),
            memory: Demand::None,
        });
    }
    match journal::transact(host, &changes, &records)? {
        Ok(()) => Ok(outcomes),
        Err(refusal) => Err(refusal.into_error(false)),
    }
}
