//! Distances: of all pairs of defined nodes or of none, and the same in both directions.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes as named;
use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};
use varia_plan::distances::{LOCAL, Place, assumed};

/// Findings after which the set of nodes is not known.
const BEFORE: [Code; 4] = [
    Code::NodeTwice,
    Code::NodeGap,
    Code::NodesMissing,
    Code::NodesTooMany,
];

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let there: BTreeSet<u32> = definition.nodes.iter().map(|node| node.id).collect();
    if out.has(&BEFORE)
        || definition.scope.has_open_nodes
        || there.len() < 2
        || there.len() as u64 > u64::from(varia_plan::limits::MAX_NODES)
    {
        return;
    }
    // nodes that another finding defines
    let added = &case.assignment.define;
    let places = Places::new(case);
    let pairs = there
        .iter()
        .flat_map(|from| there.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from < to);
    if definition.distances.is_empty() {
        out.add(
            Code::DistancesMissing,
            definition.nodes.first().map_or(1, |node| node.place.line),
            &[],
            Fix::Distances {
                set: pairs
                    .map(|(from, to)| (from, to, places.distance(from, to)))
                    .collect(),
                remove: Vec::new(),
            },
        );
        return;
    }
    let is_there = |node: u32| there.contains(&node) || added.contains(&node);
    let mut wrong = Vec::new();
    for (index, one) in definition.distances.iter().enumerate() {
        if !is_there(one.from) || !is_there(one.to) {
            wrong.push(index);
        }
    }
    if let Some(one) = wrong
        .first()
        .and_then(|index| definition.distances.get(*index))
    {
        let node = if is_there(one.from) { one.to } else { one.from };
        out.add(
            Code::DistanceNode,
            one.place.line,
            &[("from", &one.from), ("to", &one.to), ("node", &node)],
            Fix::Distances {
                set: Vec::new(),
                remove: wrong,
            },
        );
    }
    values(case, &places, out);
    symmetry(case, &places, out);
    let absent: Vec<(u32, u32)> = pairs
        .filter(|(from, to)| places.given(*from, *to).is_none())
        .collect();
    let Some(line) = definition.distances.first().map(|one| one.place.line) else {
        return;
    };
    if !absent.is_empty() {
        let mut nodes: Vec<u32> = absent.iter().map(|(_, to)| *to).collect();
        nodes.sort_unstable();
        nodes.dedup();
        out.add(
            Code::DistancesIncomplete,
            line,
            &[("count", &absent.len()), ("nodes", &named(&nodes))],
            Fix::Distances {
                set: absent
                    .iter()
                    .map(|(from, to)| (*from, *to, places.distance(*from, *to)))
                    .collect(),
                remove: Vec::new(),
            },
        );
    }
}

/// Values that a SLIT can't have.
fn values(case: &Case<'_>, places: &Places, out: &mut Findings) {
    for one in &case.definition.distances {
        let local = u32::from(LOCAL);
        let is_good = match one.from == one.to {
            true => one.value == local,
            false => is_possible(one.value),
        };
        if is_good {
            continue;
        }
        let value = match one.from == one.to {
            true => local,
            false => places.distance(one.from, one.to),
        };
        out.add(
            Code::DistanceValue,
            one.place.line,
            &[
                ("from", &one.from),
                ("to", &one.to),
                ("value", &one.value),
                ("wanted", &value),
            ],
            Fix::Distances {
                set: vec![(one.from, one.to, value)],
                remove: Vec::new(),
            },
        );
    }
}

/// Different values in the two directions, unless the host's nodes have such.
fn symmetry(case: &Case<'_>, places: &Places, out: &mut Findings) {
    let definition = case.definition;
    let of_host = case.facts.is_some_and(|facts| {
        let nodes = &facts.host.nodes;
        let way = |from: usize, to: usize| nodes.get(from).and_then(|node| node.distances.get(to));
        (0..nodes.len()).any(|from| (0..from).any(|to| way(from, to) != way(to, from)))
    });
    if of_host || out.has(&[Code::DistanceValue]) {
        return;
    }
    for one in definition.distances.iter().filter(|one| one.from < one.to) {
        let Some(back) = places.given.get(&(one.to, one.from)).copied() else {
            continue;
        };
        if back == one.value {
            continue;
        }
        let wanted = places.distance(one.from, one.to);
        let is_back_right = back == wanted;
        let (from, to, wrong, value) = match is_back_right {
            true => (one.from, one.to, one.value, back),
            false => (one.to, one.from, back, one.value),
        };
        out.add(
            Code::DistancesAsymmetric,
            one.place.line,
            &[
                ("from", &from),
                ("to", &to),
                ("wrong", &wrong),
                ("value", &value),
            ],
            Fix::Distances {
                set: vec![(from, to, value)],
                remove: Vec::new(),
            },
        );
    }
}

/// The socket or the GPU of each node, and the distances between them.
struct Places {
    nodes: BTreeMap<u32, Place>,
    /// The socket of each GPU.
    own: Vec<Option<usize>>,
    given: BTreeMap<(u32, u32), u32>,
    /// The most frequent distance between two places.
    usual: BTreeMap<(Place, Place), u32>,
}

impl Places {
    fn new(case: &Case<'_>) -> Self {
        let definition = case.definition;
        let sockets = case.sockets();
        let place = |node: u32| {
            let gpu = case.assignment.owner(node);
            let socket = sockets.iter().position(|socket| *socket == node);
            gpu.map_or(Place::Socket(socket.unwrap_or(0)), Place::Gpu)
        };
        let socket = |gpu| {
            let node = case.socket(gpu).or(sockets.first().copied())?;
            sockets.iter().position(|socket| *socket == node)
        };
        let mut places = Self {
            nodes: definition
                .nodes
                .iter()
                .map(|node| (node.id, place(node.id)))
                .collect(),
            own: case.gpus.iter().map(socket).collect(),
            given: BTreeMap::new(),
            usual: BTreeMap::new(),
        };
        let mut counts: BTreeMap<(Place, Place, u32), u32> = BTreeMap::new();
        for one in &definition.distances {
            places.given.entry((one.from, one.to)).or_insert(one.value);
            if one.from != one.to && is_possible(one.value) {
                let key = (places.place(one.from), places.place(one.to), one.value);
                *counts.entry(key).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((from, to, value), count) in counts {
            let best = most.entry((from, to)).or_insert((count, value));
            if count > best.0 {
                *best = (count, value);
            }
        }
        places.usual = most
            .into_iter()
            .map(|(key, (_, value))| (key, value))
            .collect();
        places
    }

    fn place(&self, node: u32) -> Place {
        self.nodes.get(&node).copied().unwrap_or(Place::Socket(0))
    }

    /// The given distance, in either direction.
    fn given(&self, from: u32, to: u32) -> Option<u32> {
        let back = || self.given.get(&(to, from));
        self.given.get(&(from, to)).or_else(back).copied()
    }

    /// The most frequent distance between the places of two nodes in either direction, or the
    /// assumed one.
    fn distance(&self, from: u32, to: u32) -> u32 {
        let (one, other) = (self.place(from), self.place(to));
        let own = |gpu: usize| self.own.get(gpu).copied().flatten();
        let back = || self.usual.get(&(other, one));
        match self.usual.get(&(one, other)).or_else(back) {
            Some(value) => *value,
            None => assumed(one, other, own).into(),
        }
    }
}

/// A SLIT has 10 for a node itself and 255 for an unreachable one.
fn is_possible(value: u32) -> bool {
    value > u32::from(LOCAL) && value < 255
}
