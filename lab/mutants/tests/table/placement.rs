//! Faults in the placement of memory on nodes.

use varia_mutants::Mutant;

use super::mutant;

const PLAN: &str = "placement/src/plan.rs";
const EXTENT: &str = "placement/src/extent.rs";
const DOMAINS: &str = "placement/src/domains.rs";
const SPLIT: &str = "placement/src/split.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        PLAN,
        "a base that is not aligned is rounded down",
        "base.0.checked_next_multiple_of(block.0).ok_or(below)?",
        "base.0 & block.0.wrapping_neg()",
    ),
    mutant(
        PLAN,
        "the first nodes get no block more",
        "u64::from((index as u64) < more)",
        "u64::from((index as u64) > count - more)",
    ),
    mutant(
        PLAN,
        "sizes may add up to less",
        "if sum != Some(usable) {",
        "if sum > Some(usable) || sum.is_none() {",
    ),
    mutant(
        PLAN,
        "a node of another device may be named",
        "if !numbers.as_slice().contains(&node) {",
        "if node > numbers.range().1 {",
    ),
    mutant(
        PLAN,
        "a node that has memory gets more",
        "if node.has_memory {",
        "if node.has_memory && number == 0 {",
    ),
    mutant(
        PLAN,
        "the kernel has one node more",
        "if number >= max {",
        "if number > max {",
    ),
    mutant(
        EXTENT,
        "a BAR of one block is too small",
        "if bar4.size < block {",
        "if bar4.size.0 * 2 < block.0 {",
    ),
    mutant(
        EXTENT,
        "a search finds a page more",
        "match self.kept.checked_mul(",
        "match (self.kept + 1).checked_mul(",
    ),
    mutant(
        EXTENT,
        "memory of a link that is down is memory",
        "(Ok(_), Ok(0)) => Err(",
        "(Ok(0), Ok(0)) => Err(",
    ),
    mutant(
        DOMAINS,
        "a disabled initiator counts",
        "(kind == HANDLE_PCI && enabled)",
        "(kind == HANDLE_PCI)",
    ),
    mutant(
        DOMAINS,
        "bus and function are swapped",
        "u16::from_be_bytes([bus, devfn])",
        "u16::from_le_bytes([bus, devfn])",
    ),
    mutant(
        DOMAINS,
        "another function may have the domain too",
        "other != function && found.contains(domain)",
        "other == function && !found.contains(domain)",
    ),
    mutant(
        SPLIT,
        "a node may be named twice",
        "any(|(other, _)| other == node)",
        "any(|(other, size)| other == node && size.0 == 0)",
    ),
];
