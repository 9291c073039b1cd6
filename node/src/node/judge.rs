//! Health of the devices: facts, registers of idle devices, errors that devices reported.

use std::collections::{BTreeMap, BTreeSet};

use varia_allocate::{Constraint, Device, Health, Observed, Pool, Reason};
use varia_facts::{Bdf, PciFunction};
use varia_linux::error_counters::{Uncorrectable, poisoned_ranges, uncorrectable};
use varia_linux::inventory::{Extent, Inventory};
use varia_linux::matching::same_name;
use varia_linux::probe;
use varia_linux::users::users;

use super::Node;
use super::drivers::bindable;
use crate::machine::Machine;

impl<M: Machine> Node<M> {
    /// Reads the facts again; returns `true` if the health of a device changed.
    ///
    /// # Errors
    /// The host can't be read; every device is then as it was.
    pub fn refresh(&mut self) -> Result<bool, String> {
        match Inventory::of(self.machine.tree(), Extent::Served) {
            Ok(inventory) => {
                self.facts = inventory.facts;
                self.unread = None;
                Ok(self.judge())
            }
            Err(error) => {
                self.unread = Some(error.to_string());
                Err(error.to_string())
            }
        }
    }

    /// Judges the health of the devices; returns `true` if one changed.
    pub(super) fn judge(&mut self) -> bool {
        self.read_idle_devices();
        let facts = &self.facts;
        self.baseline
            .retain(|bdf, _| facts.function(*bdf).is_some());
        let mut observed = Observed::default();
        for function in &self.facts.functions {
            let tree = self.machine.tree();
            if let Some(text) = errors(tree, function, &mut self.baseline) {
                observed.errors.insert(function.bdf, text);
            }
        }
        let mut pool = Pool::new(&self.facts, &observed);
        if self.settings.binds {
            observed.bindable = self.bindable(&pool);
            pool = Pool::new(&self.facts, &observed);
        }
        let changed = self.report(&pool);
        self.pool = pool;
        changed
    }

    /// Result of the check whether devices without their best driver can be bound. A device that
    /// can be bound is checked again when its facts change.
    fn bindable(&mut self, pool: &Pool) -> BTreeMap<Bdf, Result<(), String>> {
        let lacks_driver = |device: &&Device| {
            let mut reasons = device.health.reasons().iter();
            reasons.any(|reason| reason.constraint == Constraint::Driver)
        };
        let mut results = BTreeMap::new();
        let mut checked = BTreeMap::new();
        for device in pool.devices().iter().filter(lacks_driver) {
            let Some(function) = self.facts.function(device.bdf) else {
                continue;
            };
            let is_known = self.checked.get(&device.bdf) == Some(function);
            let result = match is_known {
                true => Ok(()),
                false => bindable(&mut self.machine, &device.bound_together),
            };
            if result.is_ok() {
                checked.insert(device.bdf, function.clone());
            }
            results.insert(device.bdf, result);
        }
        self.checked = checked;
        results
    }

    /// Reads the registers of devices that a VFIO driver has, that no pod has and that are awake.
    fn read_idle_devices(&mut self) {
        let tree = self.machine.tree();
        let page = self.facts.kernel.page_size;
        let is_seen = self.machine.unseen().is_none();
        for function in &mut self.facts.functions {
            let best = function.best_driver.as_deref().unwrap_or_default();
            let driver = function.driver.as_deref().unwrap_or_default();
            let is_idle = is_seen
                && function.variant.is_some()
                && same_name(driver, best)
                && !self.holds.devices.contains_key(&function.bdf)
                && probe::asleep(tree, function.bdf).is_none()
                && users(tree, function.bdf, function.iommu_group).is_empty();
            if is_idle {
                // an error means that the readiness is not known
                function.unprobed = probe::read_registers(tree, function, page).err();
            }
        }
    }

    /// Logs the changes of health; returns `true` if there are any.
    fn report(&self, pool: &Pool) -> bool {
        let mut changed = false;
        let all: BTreeSet<Bdf> = [&self.pool, pool]
            .iter()
            .flat_map(|pool| pool.devices())
            .map(|device| device.bdf)
            .collect();
        for bdf in all {
            let (before, after) = (self.pool.device(bdf), pool.device(bdf));
            if before.map(|device| &device.health) == after.map(|device| &device.health) {
                continue;
            }
            changed = true;
            let pod = self.pod(bdf);
            match after.map(|device| &device.health) {
                None => log::error!(
                    "event=gone device={bdf} pod={pod:?} found={:?} remedy={:?}",
                    "the host does not list the device any more",
                    "check the slot and the kernel's log, then echo 1 > /sys/bus/pci/rescan"
                ),
                Some(Health::Healthy) => log::info!("event=healthy device={bdf} pod={pod:?}"),
                Some(Health::Bindable { text }) => {
                    log::info!("event=bindable device={bdf} found={text:?}");
                }
                Some(Health::Unhealthy(reasons)) => {
                    for Reason { constraint, text } in reasons {
                        log::error!(
                            "event=unhealthy device={bdf} pod={pod:?} reason={} found={text:?}",
                            constraint.name()
                        );
                    }
                }
            }
        }
        changed
    }
}

/// Errors that a device reported since it was first seen without.
fn errors(
    tree: &varia_linux::Tree,
    function: &PciFunction,
    baseline: &mut BTreeMap<Bdf, Uncorrectable>,
) -> Option<String> {
    let bdf = function.bdf;
    let driver = function.driver.as_deref();
    let ranges = driver.and_then(|driver| poisoned_ranges(tree, driver, bdf));
    if let Some(ranges) = ranges.filter(|ranges| *ranges > 0) {
        return Some(format!(
            "{bdf}: {ranges} ranges of pages of its memory have failed: move its VM away, reset the \
             GPU, and replace the board if pages fail again"
        ));
    }
    let now = uncorrectable(tree, bdf)?;
    let first = baseline.entry(bdf).or_insert(now);
    if now.fatal < first.fatal || now.nonfatal < first.nonfatal {
        // another device, or the same one found anew: the kernel counts from 0 again
        *first = Uncorrectable::default();
    }
    let fatal = now.fatal.saturating_sub(first.fatal);
    let nonfatal = now.nonfatal.saturating_sub(first.nonfatal);
    (fatal > 0 || nonfatal > 0).then(|| {
        format!(
            "{bdf} reported {fatal} fatal and {nonfatal} non-fatal errors (AER) since varia node \
             started: see the kernel's log, reset the GPU (echo 1 > \
             /sys/bus/pci/devices/{bdf}/reset), and restart varia node"
        )
    })
}
