//! Rules for the GPUs of a definition. A file of rules has one subject; one cause gives one
//! finding.

mod distances;
mod egm;
mod iommu;
mod machine;
mod memory;
mod names;
mod nodes;
mod programs;
mod topology;

pub(crate) use egm::unjudged as egm_unjudged;
pub(crate) use programs::assumed;

use crate::case::Case;
use crate::finding::{Finding, Findings, Weight};

/// Findings about a definition, in the order of their corrections: names before references, nodes
/// before distances.
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
    egm::check(case, &mut found);
    programs::check(case, &mut found);
    if case.faults_only {
        found
            .0
            .retain(|finding| finding.code.weight() == Weight::Fault);
    }
    found.0
}

/// `1, 2, 5`, or `1 to 8`.
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
