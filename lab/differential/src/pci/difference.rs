//! The differences between the kernel's core and ours that are meant, each by name.

use super::operation::{Answer, Op};

/// Operation with its two answers.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Operation.
    pub op: &'a Op,
    /// Answer of the kernel.
    pub kernel: &'a Answer,
    /// Answer of the user-space core.
    pub ours: &'a Answer,
}

/// A difference that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Predicate {
    /// The name under which docs/pci-core.md explains it.
    pub name: &'static str,
    /// Returns true if a case is exactly this difference.
    pub explains: fn(&Case<'_>) -> bool,
}

/// Differences that are meant. There is none: where the cores differ, no operation here shows it.
pub const ALLOWED: &[Predicate] = &[];
