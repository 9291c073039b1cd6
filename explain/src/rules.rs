//! What a definition must have for the GPUs in it. Each rule looks at one matter and adds what it
//! finds; a fault has one cause and gives one finding.

mod distances;
mod initiators;
mod iommu;
mod machine;
mod memory;
mod names;
mod nodes;
mod topology;

use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Finding, Findings};

/// Everything that is missing or wrong, in the order in which it is to be put right: names before
/// what refers to them, nodes before what ties them, and distances when all nodes are there.
pub(crate) fn check(case: &Case<'_>) -> Vec<Finding> {
    if case.gpus.is_empty() {
        return Vec::new();
    }
    let mut found = Findings::default();
    names::check(case, &mut found);
    machine::check(case, &mut found);
    topology::check(case, &mut found);
    iommu::check(case, &mut found);
    nodes::check(case, &mut found);
    memory::check(case, &mut found);
    distances::check(case, &mut found);
    for finding in &mut found.0 {
        leave_names(case, finding);
    }
    found.0
}

/// Without a fix that adds something under a name that is there: what has it may be a bus of a
/// kind that is not known.
fn leave_names(case: &Case<'_>, finding: &mut Finding) {
    let (Some(Fix::RootPort { name, .. } | Fix::RootBus { name, .. })
    | Some(Fix::AddIommufd(name))) = &finding.fix
    else {
        return;
    };
    if case.definition.ids.iter().any(|one| one.id == *name) {
        finding.remedy = format!("{name:?} is something else's id: name one that is there");
        finding.fix = None;
    }
}

/// `1, 2 and 5`, or `1 to 8`.
fn list(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let run = |(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first} to {last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

/// `node 3`, or `nodes 1 to 8`.
fn nodes(numbers: &[u32]) -> String {
    let word = if numbers.len() == 1 { "node" } else { "nodes" };
    format!("{word} {}", list(numbers))
}
