//! Binding devices to VFIO drivers and giving them back.
//!
//! A change of drivers is a transaction over all devices that are named: what is there is looked
//! at in full before anything is written; what was there is in a journal before the first write;
//! a failure takes everything back. Whoever is killed in the middle leaves the journal, and the
//! next command takes the devices back to what they were, or, where all of them had already got
//! there, completes the change.
//!
//! | module | what is in it |
//! |---|---|
//! | `check` | what has to be true before, and which driver |
//! | `transition` | a device, from one driver to another |
//! | `journal` | what survives a crash |
//! | `host` | the machine: writes, modules, saved files |

mod check;
mod error;
mod host;
mod journal;
mod transition;

use varia_facts::Bdf;

pub use check::{Chosen, Driver};
pub use error::BindError;
pub use host::{Host, Live};
pub use journal::Recovery;
pub use transition::State;

use journal::{Change, Records};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The devices.
    pub devices: Vec<Bdf>,
    /// This driver, instead of the best of each.
    pub driver: Option<String>,
    /// This one where the driver's probe fails.
    pub fallback: Option<String>,
}

/// What came of it for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The device.
    pub bdf: Bdf,
    /// What it was.
    pub before: State,
    /// What it is.
    pub after: State,
    /// Why this driver; empty for giving back.
    pub why: String,
    /// The driver that was wanted and refused the device, and what it said.
    pub fell_back: Option<(String, String)>,
}

/// Finds out what binding would do, and changes nothing.
///
/// # Errors
/// What would keep it from being done.
pub fn plan(host: &dyn Host, request: &Request) -> Result<Vec<Chosen>, BindError> {
    check::bind(host, request)
}

/// Completes or takes back what an interrupted command left. None if there is nothing.
///
/// # Errors
/// [`BindError::Unrestored`], and those of the journal.
pub fn recover(host: &mut dyn Host) -> Result<Option<Recovery>, BindError> {
    journal::recover(host)
}

/// Binds devices. All of them are bound afterwards, or all are as they were.
///
/// # Errors
/// Which device and why; nothing is changed then, unless it is [`BindError::Unrestored`].
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
    });
    let mut records = Records::load(host)?;
    let mut changes: Vec<_> = changes.collect();
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
                *slot = Some((refusal.driver, refusal.why));
                change.after = State::overridden(&driver);
            }
        }
    };
    if let Some(refusal) = refusal {
        return Err(refusal.into_error());
    }
    let outcomes = wanted.into_iter().zip(changes).zip(fell_back);
    let outcomes = outcomes.map(|(((chosen, _), change), fell_back)| Outcome {
        bdf: change.bdf,
        before: change.before,
        after: change.after,
        why: chosen.why,
        fell_back,
    });
    Ok(outcomes.collect())
}

/// Finds out what giving back would do, and changes nothing.
///
/// # Errors
/// What would keep it from being done.
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
        });
    }
    Ok(outcomes)
}

/// Gives devices back to what they were before they were bound.
///
/// # Errors
/// As for [`bind`].
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
        });
    }
    match journal::transact(host, &changes, &records)? {
        Ok(()) => Ok(outcomes),
        Err(refusal) => Err(refusal.into_error()),
    }
}
