//! Values with their origin: a public source, or an assumption and the reason for it.

/// Origin of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Public source that shows the value.
    Sourced(&'static str),
    /// Reason for an assumed value: no public source shows it.
    Assumed(&'static str),
}

/// A value and its origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// Origin of the value.
    pub mark: Mark,
}

impl<T> Fact<T> {
    /// A value that the public source `source` shows.
    pub const fn sourced(value: T, source: &'static str) -> Self {
        Self {
            value,
            mark: Mark::Sourced(source),
        }
    }

    /// A value that no public source shows, assumed for the reason `why`.
    pub const fn assumed(value: T, why: &'static str) -> Self {
        Self {
            value,
            mark: Mark::Assumed(why),
        }
    }
}
