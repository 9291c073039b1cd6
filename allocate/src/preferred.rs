//! The best set of a size among the available devices.
//!
//! Costs of a set, the first one counting most: IOMMU groups that it divides, superchips that it
//! touches, complete sets of EGM that it divides, superchips that it divides, IOMMUs, PCIe roots,
//! and the order of the addresses. The levels are nested and the costs add up, so that the best set
//! is found level by level, exactly.

use std::ops::Add;

use crate::topology::{LEVELS, Level, Place};

/// A device to choose from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Index in the pool; an earlier device is preferred.
    pub(crate) index: usize,
    pub(crate) place: Place,
    /// True if every set has the device.
    pub(crate) must: bool,
}

/// Cost of a set, compared from the first number on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost([u32; 7]);

impl Add for Cost {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = own.saturating_add(other);
        }
        self
    }
}

impl Cost {
    /// Cost of taking `taken` of the `free` devices at a place of a level with `total` devices.
    fn of(level: Level, taken: usize, free: usize, total: usize) -> Self {
        let touches = u32::from(taken > 0);
        // a place that is not complete can't be divided any more
        let divides = u32::from(taken > 0 && taken < free && free == total);
        let mut cost = [0; 7];
        match level {
            Level::Group => cost[0] = u32::from(taken > 0 && taken < total),
            Level::Superchip => (cost[1], cost[3]) = (touches, divides),
            Level::Egm => cost[2] = divides,
            Level::Iommu => cost[4] = touches,
            Level::Root => cost[5] = touches,
        }
        Self(cost)
    }
}

/// Best choices of each size at one place.
#[derive(Debug)]
struct Best {
    /// Cost by size; `None` if no set of the size has all the devices that it must have.
    costs: Vec<Option<Cost>>,
    below: Below,
}

#[derive(Debug)]
enum Below {
    Device(usize),
    /// Places inside, and for each size the number of devices of the last place inside; the rest
    /// is a choice among the places before it.
    Places(Vec<(Best, Vec<usize>)>),
}

/// Best set of `size` devices, as indices in the pool; `None` if there is no such set. `total` has
/// the number of the pool's devices at a place of a level.
pub(crate) fn best(
    candidates: &[Candidate],
    size: usize,
    total: &dyn Fn(Level, u32) -> usize,
) -> Option<Vec<usize>> {
    let mut sorted = candidates.to_vec();
    sorted.sort_unstable_by_key(|candidate| (candidate.place, candidate.index));
    let best = inside(&sorted, 0, size, total);
    (*best.costs.get(size)?)?;
    let mut chosen = Vec::new();
    collect(&best, size, &mut chosen);
    chosen.sort_unstable();
    Some(chosen)
}

/// Best choices among devices that share the places of all levels before `level`.
fn inside(
    candidates: &[Candidate],
    level: usize,
    most: usize,
    total: &dyn Fn(Level, u32) -> usize,
) -> Best {
    let mut costs = vec![Some(Cost::default())];
    let mut places = Vec::new();
    let mut rest = candidates;
    while let Some(first) = rest.first() {
        let same = |other: &&Candidate| {
            first.place.get(level).is_some() && other.place.get(level) == first.place.get(level)
        };
        let count = rest.iter().take_while(same).count().max(1);
        let (here, after) = rest.split_at(count);
        rest = after;
        let best = at(here, level, most, total);
        let (sums, last) = add(&costs, &best.costs, most);
        costs = sums;
        places.push((best, last));
    }
    Best {
        costs,
        below: Below::Places(places),
    }
}

/// Best choices at one place of `level`, or of one device below all levels.
fn at(
    candidates: &[Candidate],
    level: usize,
    most: usize,
    total: &dyn Fn(Level, u32) -> usize,
) -> Best {
    let (Some(kind), Some(first)) = (Level::ALL.get(level), candidates.first()) else {
        let device = candidates.first();
        let order = device.map_or(0, |device| device.index);
        let mut cost = Cost::default();
        cost.0[6] = u32::try_from(order).unwrap_or(u32::MAX);
        let without = device.is_none_or(|device| !device.must);
        return Best {
            costs: vec![without.then(Cost::default), Some(cost)],
            below: Below::Device(order),
        };
    };
    let number = first.place.get(level).copied().unwrap_or_default();
    let all = total(*kind, number);
    let free = candidates.len();
    let mut best = inside(candidates, level + 1, most, total);
    for (taken, cost) in best.costs.iter_mut().enumerate() {
        *cost = cost.map(|cost| cost + Cost::of(*kind, taken, free, all));
    }
    best
}

/// Best costs of two sets of places together, and for each size the number of devices of the second.
fn add(
    one: &[Option<Cost>],
    other: &[Option<Cost>],
    most: usize,
) -> (Vec<Option<Cost>>, Vec<usize>) {
    let length = (one.len() + other.len() - 1).min(most + 1);
    let mut sums: Vec<Option<Cost>> = vec![None; length];
    let mut last = vec![0; length];
    for (before, cost) in one.iter().enumerate() {
        let Some(cost) = cost else { continue };
        for (taken, more) in other.iter().enumerate() {
            let Some(more) = more else { continue };
            let (Some(sum), Some(last)) =
                (sums.get_mut(before + taken), last.get_mut(before + taken))
            else {
                break;
            };
            let cost = *cost + *more;
            if sum.is_none_or(|sum| cost < sum) {
                *sum = Some(cost);
                *last = taken;
            }
        }
    }
    (sums, last)
}

/// Adds the devices of the best set of a size.
fn collect(best: &Best, size: usize, chosen: &mut Vec<usize>) {
    match &best.below {
        Below::Device(index) => {
            if size > 0 {
                chosen.push(*index);
            }
        }
        Below::Places(places) => {
            let mut left = size;
            for (place, last) in places.iter().rev() {
                let taken = last.get(left).copied().unwrap_or_default();
                collect(place, taken, chosen);
                left = left.saturating_sub(taken);
            }
        }
    }
}

/// Cost of a set, counted over the whole set: what [`best`] is compared with.
#[cfg(test)]
pub(crate) fn cost(
    candidates: &[Candidate],
    chosen: &[usize],
    total: &dyn Fn(Level, u32) -> usize,
) -> Cost {
    let mut sum = Cost::default();
    for (level, kind) in Level::ALL.iter().enumerate() {
        let numbers: std::collections::BTreeSet<u32> = candidates
            .iter()
            .map(|candidate| candidate.place[level])
            .collect();
        for number in numbers {
            let here = || {
                candidates
                    .iter()
                    .filter(|candidate| candidate.place[level] == number)
            };
            let taken = here().filter(|one| chosen.contains(&one.index)).count();
            sum = sum + Cost::of(*kind, taken, here().count(), total(*kind, number));
        }
    }
    for index in chosen {
        sum.0[6] += *index as u32;
    }
    sum
}

const _: () = assert!(LEVELS == Level::ALL.len());
