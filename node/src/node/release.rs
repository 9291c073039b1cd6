//! Release of the devices that no pod has any more.

use std::time::Duration;

use varia_facts::Bdf;
use varia_linux::users::users;

use super::drivers::{locked, recover, restore};
use super::{Listing, Node};
use crate::holds::Hold;
use crate::machine::Machine;

impl<M: Machine> Node<M> {
    /// Begins the delay of every release anew: the time until the next listing is covered by none,
    /// and a kubelet that starts lists pods that run only when it knows them again.
    pub fn unlisted(&mut self) {
        self.counts.unlisted();
        self.seen.clear();
    }

    /// Takes note of the devices that pods have, and releases the devices that no pod has had for
    /// the set time, which counts from one listing to a later one. Returns `true` if a device was
    /// released.
    pub fn follow(&mut self, listing: &Listing, now: Duration) -> bool {
        let mut named = self.unsaved;
        let mut due = Vec::new();
        for (bdf, hold) in &mut self.holds.devices {
            let seen = self.seen.entry(*bdf).or_insert(now);
            if let Some(pod) = listing.get(bdf) {
                *seen = now;
                named |= hold.pod.as_ref() != Some(pod);
                hold.pod = Some(pod.clone());
            } else if now.saturating_sub(*seen) >= self.settings.release_after {
                due.push(*bdf);
            }
        }
        for (bdf, pod) in listing {
            if self.pool.device(*bdf).is_some() && !self.holds.devices.contains_key(bdf) {
                log::warn!(
                    "event=adopted device={bdf} pod={:?} found={:?}",
                    pod.to_string(),
                    "a pod has the device, and this process has no record of it"
                );
                let hold = Hold {
                    pod: Some(pod.clone()),
                    ..Hold::default()
                };
                self.holds.devices.insert(*bdf, hold);
                self.seen.insert(*bdf, now);
                named = true;
            }
        }
        if named {
            let holds = &self.holds;
            let saved = locked(&mut self.machine, &mut |host| holds.save(host));
            if let Err(why) = &saved {
                log::error!("event=unsaved found={why:?}");
            }
            // the next listing tries again
            self.unsaved = saved.is_err();
        }
        let mut released = false;
        for bdf in due {
            match self.release(bdf) {
                Ok(()) => {
                    released = true;
                    self.counts.released();
                    log::info!("event=released device={bdf}");
                }
                Err(why) => {
                    // the next try comes after the same time
                    self.seen.insert(bdf, now);
                    log::error!("event=unreleased device={bdf} found={why:?}");
                }
            }
        }
        if released {
            let _ = self.refresh();
        }
        released
    }

    /// Restores the driver of a device that no pod has, and forgets the hold.
    fn release(&mut self, bdf: Bdf) -> Result<(), String> {
        let group = self.pool.device(bdf).and_then(|device| device.group);
        if let Some(unseen) = self.machine.unseen() {
            return Err(unseen);
        }
        if let Some(user) = users(self.machine.tree(), bdf, group).first() {
            return Err(format!(
                "no pod has {bdf}, and {user} uses it: end that process"
            ));
        }
        let mut holds = self.holds.clone();
        let hold = holds.devices.remove(&bdf).unwrap_or_default();
        let mut bound = hold.bound;
        // a pod that still has another GPU of the group keeps the drivers
        let heir = self.pool.group_of(bdf).map(|other| other.bdf);
        let mut heir = heir.filter(|other| holds.devices.contains_key(other));
        if let Some(heir) = heir.next().and_then(|heir| holds.devices.get_mut(&heir)) {
            heir.bound.append(&mut bound);
        }
        let bound: Vec<Bdf> = bound.into_iter().collect();
        locked(&mut self.machine, &mut |host| {
            recover(host)?;
            restore(host, &bound)?;
            holds.save(host)
        })?;
        self.holds = holds;
        self.seen.remove(&bdf);
        Ok(())
    }
}
