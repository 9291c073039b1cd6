//! NUMA nodes: their numbers, those of GPUs, and the Generic Initiators that tie them.

use std::collections::BTreeSet;

use varia_plan::limits::MAX_NODES;

use super::nodes as named;
use crate::assignment::{Difference, Instead};
use crate::case::{Case, Subject};
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings, Value, optional};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    // nodes may be tied in a way that was not read
    if case.definition.scope.has_open_ties {
        return;
    }
    for difference in &case.assignment.differences {
        report(case, difference, out);
    }
    let nodes = case.definition.nodes.iter().map(|node| node.id);
    let count = nodes.collect::<BTreeSet<u32>>().len();
    if count as u64 > u64::from(MAX_NODES) {
        out.add(
            Code::NodesOverLimit,
            case.definition.machine.place.line,
            &[("count", &count), ("most", &MAX_NODES)],
            None,
        );
    }
}

fn report(case: &Case<'_>, difference: &Difference, out: &mut Findings) {
    let definition = case.definition;
    let assign = || case.assignment.fix(&case.gpus);
    let label = |gpu: usize| case.gpus.get(gpu).map(Subject::label).unwrap_or_default();
    let wanted = |gpu: usize| case.gpus.get(gpu).map_or(0, |gpu| gpu.nodes);
    let line_of_gpu = |gpu: usize| case.gpus.get(gpu).map_or(1, |gpu| case.line(gpu));
    let line_of_node = |place: usize| {
        definition
            .nodes
            .get(place)
            .map_or(1, |node| node.place.line)
    };
    let number = |place: usize| definition.nodes.get(place).map_or(0, |node| node.id);
    match difference {
        Difference::NumberTwice { place, free } => out.add(
            Code::NodeTwice,
            line_of_node(*place),
            &[("node", &number(*place)), ("free", &optional(*free))],
            assign(),
        ),
        Difference::Astray { hole, node, place } => out.add(
            Code::NodeGap,
            line_of_node(*place),
            &[("hole", hole), ("node", node)],
            assign(),
        ),
        Difference::Gap { last, holes, pairs } => {
            let first = holes.first().copied().unwrap_or(0);
            let mut nodes = definition.nodes.iter();
            let behind = nodes.find(|node| node.id > first);
            out.add(
                Code::NodeGap,
                behind.map_or(1, |node| node.place.line),
                &[("last", last), ("holes", &named(holes))],
                pairs.clone().map(Fix::Renumber),
            );
        }
        Difference::Device {
            device,
            nodes,
            line,
            gpu,
        } => {
            let is_there = definition.ids.iter().any(|one| one.id == *device);
            if !is_there && definition.scope.has_more {
                return;
            }
            let given = gpu.as_ref().map(|(_, given)| named(given));
            let values: &[Value<'_>] = &[
                ("nodes", &named(nodes)),
                ("given", &optional(given)),
                (
                    if is_there { "other" } else { "absent" },
                    &format!("{device:?}"),
                ),
                ("gpu", &optional(gpu.as_ref().map(|(gpu, _)| label(*gpu)))),
            ];
            out.add(Code::InitiatorDevice, *line, values, assign());
        }
        Difference::Undefined { nodes, line } => {
            out.add(
                Code::NodeMissing,
                *line,
                &[("nodes", &named(nodes))],
                assign(),
            );
        }
        Difference::HasMemory { place } => out.add(
            Code::NodeHasMemory,
            line_of_node(*place),
            &[("node", &number(*place))],
            Fix::EmptyNode(*place),
        ),
        Difference::Unfit {
            gpu,
            node,
            has_cpus,
            instead,
            line,
        } => {
            let (untied, new) = match instead {
                Instead::Untied(node) => (Some(*node), None),
                Instead::New(nodes) => (None, Some(named(nodes))),
                Instead::Nothing => (None, None),
            };
            let values: &[Value<'_>] = &[
                ("gpu", &label(*gpu)),
                (if *has_cpus { "node" } else { "undefined" }, node),
                ("instead", &optional(untied)),
                ("new", &optional(new)),
            ];
            out.add(Code::InitiatorNode, *line, values, assign());
        }
        Difference::TiedTwice {
            gpu,
            node,
            instead,
            line,
        } => {
            let values: &[Value<'_>] = &[
                ("gpu", &label(*gpu)),
                ("node", node),
                ("instead", &optional(*instead)),
            ];
            out.add(Code::InitiatorTwice, *line, values, assign());
        }
        Difference::Shared {
            right,
            gpu,
            nodes,
            instead,
            is_new,
            line,
        } => {
            let values: &[Value<'_>] = &[
                ("other", &label(*right)),
                ("gpu", &label(*gpu)),
                ("nodes", &named(nodes)),
                (if *is_new { "new" } else { "instead" }, &named(instead)),
            ];
            out.add(Code::NodeShared, *line, values, assign());
        }
        Difference::WrongGpu {
            gpu,
            giver,
            nodes,
            line,
        } => {
            let values: &[Value<'_>] = &[
                ("other", &label(*giver)),
                ("gpu", &label(*gpu)),
                ("count", &nodes.len()),
                ("wanted", &wanted(*giver)),
                ("nodes", &named(nodes)),
            ];
            out.add(Code::InitiatorWrongGpu, *line, values, assign());
        }
        Difference::Untied { gpu, nodes } => {
            let has_id = case.gpus.get(*gpu).is_some_and(|gpu| !gpu.id.is_empty());
            out.add(
                Code::InitiatorMissing,
                line_of_gpu(*gpu),
                &[("nodes", &named(nodes)), ("gpu", &label(*gpu))],
                has_id.then(assign),
            );
        }
        Difference::TooFew { gpu, own, more } => {
            let code = match own {
                0 => Code::NodesMissing,
                _ => Code::NodesTooFew,
            };
            let fix = match definition.nodes.is_empty() {
                true => Fix::FirstNode,
                false => assign(),
            };
            let values: &[Value<'_>] = &[
                ("gpu", &label(*gpu)),
                ("own", own),
                ("wanted", &wanted(*gpu)),
                ("count", more),
            ];
            out.add(code, line_of_gpu(*gpu), values, fix);
        }
        Difference::TooMany { gpu, own, nodes } => {
            let values: &[Value<'_>] = &[
                ("gpu", &label(*gpu)),
                ("own", own),
                ("wanted", &wanted(*gpu)),
                ("nodes", &named(nodes)),
            ];
            out.add(Code::NodesTooMany, line_of_gpu(*gpu), values, assign());
        }
    }
}
