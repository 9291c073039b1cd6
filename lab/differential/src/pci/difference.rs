//! The differences between the kernel's core and ours that are meant, each by name.

use super::operation::{Answer, Op};

/// One operation and its two answers.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What was done.
    pub op: &'a Op,
    /// What the kernel answered.
    pub kernel: &'a Answer,
    /// What ours answered.
    pub ours: &'a Answer,
}

/// A difference that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Predicate {
    /// The name under which docs/pci-core.md explains it.
    pub name: &'static str,
    /// Whether this case is exactly that difference.
    pub explains: fn(&Case<'_>) -> bool,
}

/// Those that are meant. There is none: where the cores differ, no operation here shows it.
pub const ALLOWED: &[Predicate] = &[];
