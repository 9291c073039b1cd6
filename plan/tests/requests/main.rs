//! Requests: their plans and their refusals.

mod edges;
mod host;
mod plans;
mod refusals;
mod rendered;
