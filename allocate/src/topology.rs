//! Places of the devices: superchip, set of EGM, IOMMU, PCIe root, IOMMU group.
//!
//! The levels are nested, so that a set of devices can be chosen level by level: devices of one set
//! of EGM or of one IOMMU group are never in two superchips here, whatever firmware says of their
//! nodes.

use std::collections::BTreeMap;

use varia_facts::{Bdf, Facts, GroupId, PciFunction};

/// Number of levels.
pub(crate) const LEVELS: usize = 5;

/// A level of nesting, from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// GPUs with the same nearest CPUs, in one superchip or on one socket.
    Superchip,
    /// GPUs that share a device of EGM.
    Egm,
    /// GPUs whose accesses one IOMMU translates.
    Iommu,
    /// GPUs below one root port.
    Root,
    /// GPUs of one IOMMU group.
    Group,
}

impl Level {
    pub(crate) const ALL: [Self; LEVELS] = [
        Self::Superchip,
        Self::Egm,
        Self::Iommu,
        Self::Root,
        Self::Group,
    ];
}

/// Place of a device: a number for each level. Two devices with one number at a level have one
/// number at the levels outside, too.
pub(crate) type Place = [u32; LEVELS];

/// Places of the devices, in their order.
pub(crate) fn places(facts: &Facts, devices: &[&PciFunction]) -> Vec<Place> {
    let mut groups: BTreeMap<GroupId, usize> = BTreeMap::new();
    // the first device of the same IOMMU group represents it
    let group: Vec<usize> = devices
        .iter()
        .enumerate()
        .map(|(index, function)| match function.iommu_group {
            Some(id) => *groups.entry(id).or_insert(index),
            None => index,
        })
        .collect();
    let represented = |index: usize| {
        let first = group.get(index).copied().unwrap_or(index);
        devices.get(first).copied()
    };
    let root_of = |index: usize| represented(index).map(|function| root(facts, function.bdf));
    let iommu_of = |index: usize| represented(index).and_then(|function| function.iommu.clone());
    let egm_of = |index: usize| {
        let function = represented(index)?;
        facts.host.egm_of(function.bdf).map(|egm| egm.pxm)
    };
    // the superchip of the first GPU of the same EGM
    let mut nodes = BTreeMap::new();
    let mut superchip_of = |index: usize| {
        let node = represented(index).and_then(|function| function.cpu_node);
        match egm_of(index) {
            Some(egm) => *nodes.entry(egm).or_insert(node),
            None => node,
        }
    };
    let mut numbers: [BTreeMap<String, u32>; LEVELS] = Default::default();
    let mut places = Vec::new();
    for index in 0..devices.len() {
        // a device of which a level is not known is alone there
        let alone = format!("alone {index}");
        let text = |known: Option<String>| known.unwrap_or_else(|| alone.clone());
        let keys = [
            text(superchip_of(index).map(|node| node.to_string())),
            text(egm_of(index).map(|egm| egm.to_string())),
            iommu_of(index).unwrap_or_default(),
            text(root_of(index).map(|root| root.to_string())),
            group.get(index).copied().unwrap_or(index).to_string(),
        ];
        let mut place = [0; LEVELS];
        let mut path = String::new();
        for ((number, key), known) in place.iter_mut().zip(keys).zip(&mut numbers) {
            path = format!("{path}/{key}");
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            *number = *known.entry(path.clone()).or_insert(next);
        }
        places.push(place);
    }
    places
}

/// Topmost bridge above a function, or the function itself on a root bus.
fn root(facts: &Facts, bdf: Bdf) -> Bdf {
    let mut top = bdf;
    // a list of bridges in captured facts may be a loop
    for _ in 0..=u8::MAX {
        match facts.function(top).and_then(|function| function.upstream) {
            Some(bridge) if bridge != bdf => top = bridge,
            _ => break,
        }
    }
    top
}
