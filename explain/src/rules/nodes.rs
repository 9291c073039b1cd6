//! The nodes themselves: their numbers, and that those of GPUs are empty.

use std::collections::BTreeSet;

use super::initiators::Ties;
use super::nodes as named;
use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};
use varia_plan::limits::MAX_NODES;

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let line = definition.machine.place.line;
    let there: BTreeSet<u32> = definition.nodes.iter().map(|node| node.id).collect();
    let mut ties = Ties::new(case, &there);
    twice(case, &there, &mut ties, out);
    gaps(case, &there, &mut ties, out);
    ties.check(case, out);
    if there.len() as u64 > u64::from(MAX_NODES) {
        out.add(
            Code::NodesOverLimit,
            line,
            format!(
                "there are {} nodes, and QEMU takes {MAX_NODES}",
                there.len()
            ),
            "give the VM fewer GPUs, or each fewer nodes",
            None,
        );
    }
}

/// Two nodes with one number; one of them may be the one that is missing elsewhere.
fn twice(case: &Case<'_>, there: &BTreeSet<u32>, ties: &mut Ties, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, node) in case.definition.nodes.iter().enumerate() {
        if seen.insert(node.id) {
            continue;
        }
        let missing = ties.take_missing(|_| true);
        let hole = || (0..node.id).find(|id| !there.contains(id));
        let (remedy, fix) = match missing.or_else(hole) {
            Some(id) => (
                format!("give one of them the number {id}, which no node has"),
                Fix::NodeId { node: index, id },
            ),
            None => ("take one of them away".to_owned(), Fix::RemoveNode(index)),
        };
        out.add(
            Code::NodeTwice,
            node.place.line,
            format!("there are two nodes with the number {}", node.id),
            remedy,
            fix,
        );
    }
}

/// Numbers that no node has, below one that a node has.
fn gaps(case: &Case<'_>, there: &BTreeSet<u32>, ties: &mut Ties, out: &mut Findings) {
    let definition = case.definition;
    let Some(last) = there.last().copied() else {
        return;
    };
    // somebody gave two nodes one number
    if out.has(&[Code::NodeTwice]) {
        return;
    }
    let mut holes = Vec::new();
    for hole in (0..last)
        .filter(|id| !there.contains(id))
        .take(MAX_NODES as usize)
    {
        // a node that is tied as one number and defined as another
        let astray = ties
            .take_orphan_above(hole)
            .filter(|_| ties.is_missing(hole));
        let node = astray.and_then(|id| definition.nodes.iter().position(|node| node.id == id));
        if let (Some(id), Some(node)) = (astray, node) {
            ties.take_missing(|one| one == hole);
            out.add(
                Code::NodeGap,
                definition.nodes.get(node).map_or(1, |node| node.place.line),
                format!("there is no node {hole}, though a Generic Initiator ties it, and node {id} is tied to nothing"),
                format!("give node {id} the number {hole}"),
                Fix::NodeId { node, id: hole },
            );
        } else if !ties.is_missing(hole) {
            holes.push(hole);
        }
    }
    let Some(first) = holes.first().copied() else {
        return;
    };
    let pairs: Vec<_> = (0..)
        .zip(there)
        .filter(|(to, from)| to != *from)
        .map(|(to, from)| (*from, to))
        .collect();
    let place = definition.nodes.iter().find(|node| node.id > first);
    // with nodes that are to be added, numbers would be given twice
    let fix = (!ties.misses()).then_some(Fix::Renumber(pairs));
    out.add(
        Code::NodeGap,
        place.map_or(1, |node| node.place.line),
        format!("there is a node {last}, and no {}", named(&holes)),
        "number the nodes from 0 without a gap",
        fix,
    );
}
