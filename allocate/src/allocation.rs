//! Checks of a request, and its result.

use std::collections::{BTreeMap, BTreeSet};

use varia_facts::{Bdf, GroupId};

use crate::health::Health;
use crate::pool::{Device, Pool};
use crate::refusal::Refusal;
use crate::topology::Level;

/// Devices for one container or VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The GPUs, in the order of the request.
    pub devices: Vec<Bdf>,
    /// IOMMU groups of the GPUs.
    pub groups: BTreeSet<GroupId>,
    /// Functions that are bound before use: GPUs without their best driver, with the other members
    /// of their groups.
    pub to_bind: BTreeSet<Bdf>,
    /// Device nodes of the EGM whose GPUs are all among the devices.
    pub egm: Vec<String>,
    /// Sentences about the choice.
    pub reasons: Vec<String>,
}

impl Pool {
    /// Checks that each container can have its devices. `taken` has the devices that have a user,
    /// with the user.
    ///
    /// # Errors
    /// The constraint that the request does not meet.
    pub fn allocate(
        &self,
        containers: &[Vec<Bdf>],
        taken: &BTreeMap<Bdf, String>,
    ) -> Result<Vec<Allocation>, Refusal> {
        let mut owner: BTreeMap<Bdf, usize> = BTreeMap::new();
        for (container, devices) in containers.iter().enumerate() {
            for bdf in devices {
                if self.device(*bdf).is_none() {
                    return Err(Refusal::Unknown { bdf: *bdf });
                }
                if owner.insert(*bdf, container).is_some() {
                    return Err(Refusal::Twice { bdf: *bdf });
                }
            }
        }
        let mut allocations = Vec::new();
        for (container, devices) in containers.iter().enumerate() {
            for device in devices.iter().filter_map(|bdf| self.device(*bdf)) {
                check(self, device, container, &owner, taken)?;
            }
            allocations.push(self.allocation(devices));
        }
        Ok(allocations)
    }

    /// Chooses `count` GPUs of a chip among those that are healthy and have no user.
    ///
    /// # Errors
    /// [`Refusal::TooFew`].
    pub fn choose(
        &self,
        chip: &str,
        count: usize,
        taken: &BTreeMap<Bdf, String>,
    ) -> Result<Allocation, Refusal> {
        let is_free = |device: &&Device| {
            device.chip == chip
                && device.health.is_allocatable()
                && !taken.contains_key(&device.bdf)
                && !self
                    .group_of(device.bdf)
                    .any(|other| taken.contains_key(&other.bdf))
        };
        let free: Vec<Bdf> = self
            .devices()
            .iter()
            .filter(is_free)
            .map(|d| d.bdf)
            .collect();
        let devices = self.preferred(&free, &[], count)?;
        let mut allocations = self.allocate(&[devices], taken)?;
        Ok(allocations.pop().unwrap_or_default())
    }

    fn allocation(&self, devices: &[Bdf]) -> Allocation {
        let all = || devices.iter().filter_map(|bdf| self.device(*bdf));
        let egm = self.complete_egm(devices);
        let mut to_bind = BTreeSet::new();
        for device in all() {
            if matches!(device.health, Health::Bindable { .. }) {
                to_bind.extend(&device.bound_together);
            }
        }
        Allocation {
            devices: devices.to_vec(),
            groups: all().filter_map(|device| device.group).collect(),
            to_bind,
            reasons: self.reasons(devices, &egm),
            egm,
        }
    }

    fn reasons(&self, devices: &[Bdf], egm: &[String]) -> Vec<String> {
        let places = |level| -> BTreeSet<_> {
            let places = devices.iter().filter_map(|bdf| self.place(*bdf, level));
            places.collect()
        };
        let mut reasons = Vec::new();
        let superchips = places(Level::Superchip).len();
        if devices.len() > 1 {
            reasons.push(format!(
                "{} GPUs of {}",
                devices.len(),
                counted(superchips, "superchip")
            ));
            reasons.push(format!(
                "{} and {}",
                counted(places(Level::Iommu).len(), "IOMMU"),
                counted(places(Level::Root).len(), "PCIe root")
            ));
        }
        for path in egm {
            reasons.push(format!("all GPUs of {path}, so that it goes with them"));
        }
        let divided: BTreeSet<&str> = devices.iter().filter_map(|bdf| self.egm_of(*bdf)).collect();
        for path in divided {
            if !egm.iter().any(|complete| complete == path) {
                reasons.push(format!(
                    "not all GPUs of {path}, so that it stays with the host"
                ));
            }
        }
        reasons
    }
}

/// `1 superchip`, `2 superchips`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Checks one device of a request; `owner` has the container of each requested device.
fn check(
    pool: &Pool,
    device: &Device,
    container: usize,
    owner: &BTreeMap<Bdf, usize>,
    taken: &BTreeMap<Bdf, String>,
) -> Result<(), Refusal> {
    let bdf = device.bdf;
    if let Health::Unhealthy(reasons) = &device.health {
        return Err(Refusal::Unhealthy {
            bdf,
            reasons: reasons.clone(),
        });
    }
    if let Some(holder) = taken.get(&bdf) {
        return Err(Refusal::Taken {
            bdf,
            holder: holder.clone(),
        });
    }
    let Some(group) = device.group else {
        return Ok(());
    };
    for other in pool.group_of(bdf).map(|other| other.bdf) {
        match owner.get(&other) {
            Some(same) if *same == container => {}
            Some(_) => return Err(Refusal::GroupDivided { bdf, other, group }),
            None => {
                if let Some(holder) = taken.get(&other) {
                    return Err(Refusal::GroupTaken {
                        bdf,
                        group,
                        other,
                        holder: holder.clone(),
                    });
                }
            }
        }
    }
    Ok(())
}
