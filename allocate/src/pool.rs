//! The GPUs of a host that a VM can get.

use std::collections::BTreeMap;

use varia_facts::{Bdf, Facts, GroupId, NodeId, PciFunction};
use varia_plan::leaves_its_group;
use varia_spec::nvidia::chip::Identity;

use crate::health::{self, Health, Observed};
use crate::preferred::{self, Candidate};
use crate::refusal::Refusal;
use crate::topology::{self, LEVELS, Level, Place};

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Address.
    pub bdf: Bdf,
    /// Name of the chip, such as `GH200`.
    pub chip: &'static str,
    /// Health.
    pub health: Health,
    /// Nearest node with CPUs; `None` if the node is not known.
    pub cpu_node: Option<NodeId>,
    /// IOMMU group.
    pub group: Option<GroupId>,
    /// Functions that are bound together: the device, and the other members of its group but for
    /// those that may stay with the host.
    pub bound_together: Vec<Bdf>,
}

/// The GPUs of a host.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    devices: Vec<Device>,
    places: Vec<Place>,
    totals: [BTreeMap<u32, usize>; LEVELS],
    egm: Vec<(String, Vec<Bdf>)>,
    index: BTreeMap<Bdf, usize>,
}

impl Pool {
    /// GPUs of a host, by address: functions whose chip is known.
    #[must_use]
    pub fn new(facts: &Facts, observed: &Observed) -> Self {
        let chip = |function: &&PciFunction| {
            Identity::of(function.vendor, function.device, function.class).chip()
        };
        let mut functions: Vec<_> = facts
            .functions
            .iter()
            .filter(|f| chip(f).is_some())
            .collect();
        functions.sort_by_key(|function| function.bdf);
        let bdfs: Vec<Bdf> = functions.iter().map(|function| function.bdf).collect();
        let mut health = health::of(facts, &bdfs, observed);
        let places = topology::places(facts, &functions);
        let mut totals: [BTreeMap<u32, usize>; LEVELS] = Default::default();
        for place in &places {
            for (number, total) in place.iter().zip(&mut totals) {
                *total.entry(*number).or_insert(0) += 1;
            }
        }
        let devices: Vec<_> = functions
            .iter()
            .filter_map(|function| {
                Some(Device {
                    bdf: function.bdf,
                    chip: chip(function)?.name,
                    health: health.remove(&function.bdf).unwrap_or(Health::Healthy),
                    cpu_node: function.cpu_node,
                    group: function.iommu_group,
                    bound_together: bound_together(facts, function),
                })
            })
            .collect();
        let egm = facts.host.egm.iter();
        Self {
            index: bdfs.into_iter().zip(0..).collect(),
            devices,
            places,
            totals,
            egm: egm.map(|egm| (egm.path(), egm.gpus.clone())).collect(),
        }
    }

    /// All GPUs, by address.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The GPU at an address.
    #[must_use]
    pub fn device(&self, bdf: Bdf) -> Option<&Device> {
        self.devices.get(*self.index.get(&bdf)?)
    }

    /// Other GPUs of a GPU's IOMMU group.
    pub fn group_of(&self, bdf: Bdf) -> impl Iterator<Item = &Device> {
        let group = self.device(bdf).and_then(|device| device.group);
        let devices = self.devices.iter();
        devices.filter(move |other| other.bdf != bdf && group.is_some() && other.group == group)
    }

    /// Device nodes of EGM whose GPUs are all among `devices`.
    pub(crate) fn complete_egm(&self, devices: &[Bdf]) -> Vec<String> {
        let complete = self
            .egm
            .iter()
            .filter(|(_, gpus)| !gpus.is_empty() && gpus.iter().all(|gpu| devices.contains(gpu)));
        complete.map(|(path, _)| path.clone()).collect()
    }

    /// Device node of a GPU's EGM.
    pub(crate) fn egm_of(&self, bdf: Bdf) -> Option<&str> {
        let of = self.egm.iter().find(|(_, gpus)| gpus.contains(&bdf));
        of.map(|(path, _)| path.as_str())
    }

    pub(crate) fn place(&self, bdf: Bdf, level: Level) -> Option<u32> {
        let place = self.places.get(*self.index.get(&bdf)?)?;
        let at = Level::ALL.iter().position(|other| *other == level)?;
        place.get(at).copied()
    }

    /// The best `size` of the available devices, with all of `must`, by address.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::TooFew`] and [`Refusal::TooSmall`].
    pub fn preferred(
        &self,
        available: &[Bdf],
        must: &[Bdf],
        size: usize,
    ) -> Result<Vec<Bdf>, Refusal> {
        let mut candidates = BTreeMap::new();
        for (bdf, is_must) in available
            .iter()
            .map(|bdf| (bdf, false))
            .chain(must.iter().map(|bdf| (bdf, true)))
        {
            let index = *self.index.get(bdf).ok_or(Refusal::Unknown { bdf: *bdf })?;
            let place = *self
                .places
                .get(index)
                .ok_or(Refusal::Unknown { bdf: *bdf })?;
            candidates.insert(
                index,
                Candidate {
                    index,
                    place,
                    must: is_must,
                },
            );
        }
        let candidates: Vec<_> = candidates.into_values().collect();
        let forced = candidates.iter().filter(|one| one.must).count();
        if forced > size {
            return Err(Refusal::TooSmall {
                wanted: size,
                must: forced,
            });
        }
        let total = |level, number| self.total(level, number);
        let chosen = preferred::best(&candidates, size, &total).ok_or(Refusal::TooFew {
            wanted: size,
            available: candidates.len(),
        })?;
        let chosen = chosen.iter().filter_map(|index| self.devices.get(*index));
        Ok(chosen.map(|device| device.bdf).collect())
    }

    /// Number of the pool's devices at a place.
    pub(crate) fn total(&self, level: Level, number: u32) -> usize {
        let at = Level::ALL.iter().position(|other| *other == level);
        let totals = at.and_then(|at| self.totals.get(at));
        let total = totals.and_then(|totals| totals.get(&number));
        total.copied().unwrap_or_default()
    }
}

/// A function and the members of its IOMMU group that are bound with it.
fn bound_together(facts: &Facts, function: &PciFunction) -> Vec<Bdf> {
    let groups = facts.host.iommu.groups.iter();
    let mut group = groups.filter(|group| Some(group.id) == function.iommu_group);
    let members = group.next().map(|group| group.members.as_slice());
    let others = members.unwrap_or_default().iter().filter(|bdf| {
        let member = facts.function(**bdf);
        **bdf != function.bdf && !member.is_some_and(leaves_its_group)
    });
    std::iter::once(&function.bdf)
        .chain(others)
        .copied()
        .collect()
}
