//! Journal of a change in progress, and records of the states before devices were bound. Both
//! survive a crash.
//!
//! Both end with the boot that they were written in: bindings do, too.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use varia_facts::Bdf;

use super::machine::Host;
use super::memory::{Demand, Lack};
use super::refusal::BindError;
use super::transition::{State, Stop, transition};
use crate::tree::Tree;

const JOURNAL: &str = "journal.json";
const RECORDS: &str = "records.json";

/// Change of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) bdf: Bdf,
    pub(super) before: State,
    pub(super) after: State,
    /// Demand on the device's memory.
    #[serde(default)]
    pub(super) memory: Demand,
}

impl Change {
    /// Lack of the device's memory, if the bound driver does not meet the demand.
    fn lacks(&self, tree: &Tree) -> Option<Lack> {
        let driver = self.after.driver.as_ref()?;
        Lack::of(tree, self.bdf, driver).filter(|lack| self.memory.is_unmet(lack))
    }
}

/// A change in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    boot: String,
    changes: Vec<Change>,
    /// Records after the change.
    records: Records,
}

/// States of devices before they were bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Records {
    boot: String,
    devices: BTreeMap<Bdf, Bound>,
}

/// A device that was bound here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bound {
    /// State before binding.
    before: State,
    /// State after binding.
    after: State,
}

impl Records {
    pub(super) fn load(host: &dyn Host) -> Result<Self, BindError> {
        let boot = boot(host);
        let saved: Option<Self> = load(host, RECORDS)?;
        let fresh = Self {
            boot: boot.clone(),
            devices: BTreeMap::new(),
        };
        Ok(saved.filter(|saved| saved.boot == boot).unwrap_or(fresh))
    }

    /// State of a device before it was bound.
    pub(super) fn of(&self, bdf: Bdf) -> Option<&State> {
        self.devices.get(&bdf).map(|bound| &bound.before)
    }

    /// Records that a device is bound. A device that is bound again keeps its first state, unless
    /// another program bound the device in between.
    pub(super) fn bound(&mut self, change: &Change) {
        if change.before == change.after {
            return;
        }
        let ours = self.devices.get(&change.bdf);
        let first = ours.filter(|bound| bound.after == change.before);
        let before = first.map_or(&change.before, |bound| &bound.before).clone();
        let bound = Bound {
            before,
            after: change.after.clone(),
        };
        self.devices.insert(change.bdf, bound);
    }

    /// Records that a device has its previous state.
    pub(super) fn given_back(&mut self, bdf: Bdf) {
        self.devices.remove(&bdf);
    }

    fn save(&self, host: &mut dyn Host) -> Result<(), BindError> {
        save(host, RECORDS, self)
    }
}

/// Refusal of a device by a driver's probe, or of the device's memory alone.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) bdf: Bdf,
    pub(super) driver: String,
    reason: Reason,
    before: State,
}

/// Reason of a refusal.
#[derive(Debug)]
enum Reason {
    /// The driver's probe fails, with this error.
    Probe(String),
    /// The driver takes the device and is not known to serve the device's memory.
    Memory(Lack),
}

impl Refusal {
    /// The driver's act, for a sentence that begins with the driver.
    pub(super) fn act(&self) -> String {
        match &self.reason {
            Reason::Memory(lack) => format!("serves the device {lack}"),
            Reason::Probe(why) => format!("refuses the device ({why})"),
        }
    }

    pub(super) fn into_error(self, strict: bool) -> BindError {
        let before = self.before.to_string();
        let why = match self.reason {
            Reason::Probe(why) => why,
            Reason::Memory(lack) => {
                return BindError::without_memory(self.bdf, self.driver, lack, before, strict);
            }
        };
        let fallback = if self.driver == crate::matching::VFIO_PCI {
            ""
        } else {
            "; --fallback vfio-pci gives the device to a VM without the additions of this driver"
        };
        BindError::Refused {
            bdf: self.bdf,
            driver: self.driver,
            why,
            before,
            fallback,
        }
    }
}

/// Result of the recovery of an interrupted change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The devices have their previous states.
    TakenBack(Vec<Bdf>),
    /// All devices had already been changed.
    Completed(Vec<Bdf>),
}

/// Carries out all changes or none. The inner error is a driver's refusal, after which every device
/// has its previous state.
pub(super) fn transact(
    host: &mut dyn Host,
    changes: &[Change],
    records: &Records,
) -> Result<Result<(), Refusal>, BindError> {
    let mut records = records.clone();
    for change in changes {
        if let Some(bound) = records.devices.get_mut(&change.bdf) {
            bound.after = change.after.clone();
        }
    }
    let journal = Journal {
        boot: boot(host),
        changes: changes.to_vec(),
        records: records.clone(),
    };
    save(host, JOURNAL, &journal)?;
    for change in changes {
        let now = State::of(host.tree(), change.bdf);
        let stop = if now.as_ref() == Some(&change.before) {
            let stopped = transition(host, change.bdf, &change.after).err();
            stopped.or_else(|| change.lacks(host.tree()).map(Stop::Memory))
        } else {
            let now = now.map_or("gone".to_owned(), |now| now.to_string());
            take_back(host, changes)?;
            forget(host)?;
            return Err(BindError::Changed {
                bdf: change.bdf,
                what: format!("the device was {} and is {now}", change.before),
            });
        };
        let Some(stop) = stop else { continue };
        take_back(host, changes)?;
        forget(host)?;
        let reason = match stop {
            Stop::Probe(error) => Reason::Probe(error.to_string()),
            Stop::Memory(lack) => Reason::Memory(lack),
            Stop::Other(what) => {
                return Err(BindError::Changed {
                    bdf: change.bdf,
                    what,
                });
            }
        };
        return Ok(Err(Refusal {
            bdf: change.bdf,
            driver: change.after.driver.clone().unwrap_or_default(),
            reason,
            before: change.before.clone(),
        }));
    }
    records.save(host)?;
    forget(host)?;
    Ok(Ok(()))
}

/// Restores every device, the last device first.
fn take_back(host: &mut dyn Host, changes: &[Change]) -> Result<(), BindError> {
    let mut first = None;
    for change in changes.iter().rev() {
        if State::of(host.tree(), change.bdf).is_none() {
            // a device that is gone needs no restoring
            continue;
        }
        let driver = change.before.driver.as_deref();
        let gone = |driver: &&str| !host.tree().exists(&format!("sys/bus/pci/drivers/{driver}"));
        if let Some(driver) = driver.filter(gone) {
            // the driver may have been unloaded; a failure shows in the transition
            let _ = host.load(driver);
        }
        if let Err(stop) = transition(host, change.bdf, &change.before) {
            let now = State::of(host.tree(), change.bdf);
            first.get_or_insert(BindError::Unrestored {
                bdf: change.bdf,
                before: change.before.to_string(),
                why: stop.to_string(),
                now: now.map_or("gone".to_owned(), |now| now.to_string()),
            });
        }
    }
    first.map_or(Ok(()), Err)
}

pub(super) fn recover(host: &mut dyn Host) -> Result<Option<Recovery>, BindError> {
    let Some(journal): Option<Journal> = load(host, JOURNAL)? else {
        return Ok(None);
    };
    if journal.boot != boot(host) {
        forget(host)?;
        return Ok(None);
    }
    let devices = journal.changes.iter().map(|change| change.bdf).collect();
    let done = |change: &Change| {
        State::of(host.tree(), change.bdf).is_none_or(|now| now == change.after)
            && change.lacks(host.tree()).is_none()
    };
    let recovery = if journal.changes.iter().all(done) {
        journal.records.save(host)?;
        Recovery::Completed(devices)
    } else {
        take_back(host, &journal.changes)?;
        Recovery::TakenBack(devices)
    };
    forget(host)?;
    Ok(Some(recovery))
}

/// Identifier of the current boot.
fn boot(host: &dyn Host) -> String {
    let text = host.tree().text("proc/sys/kernel/random/boot_id");
    text.unwrap_or_default()
}

fn load<T: DeserializeOwned>(host: &dyn Host, name: &str) -> Result<Option<T>, BindError> {
    let path = host.place(name).display().to_string();
    let bytes = host.saved(name).map_err(|source| BindError::Saved {
        what: "read",
        path: path.clone(),
        source,
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes).map_err(|error| BindError::Spoilt {
        path,
        why: error.to_string(),
    })?;
    Ok(Some(parsed))
}

fn save<T: Serialize>(host: &mut dyn Host, name: &str, value: &T) -> Result<(), BindError> {
    let path = host.place(name).display().to_string();
    let bytes = serde_json::to_vec_pretty(value).map_err(std::io::Error::other);
    let result = bytes.and_then(|bytes| host.save(name, &bytes));
    result.map_err(|source| BindError::Saved {
        what: "write",
        path,
        source,
    })
}

fn forget(host: &mut dyn Host) -> Result<(), BindError> {
    let path = host.place(JOURNAL).display().to_string();
    host.forget(JOURNAL).map_err(|source| BindError::Saved {
        what: "remove",
        path,
        source,
    })
}
