//! Requests: their plans and their refusals.

mod host;
mod plans;
mod refusals;
mod rendered;
