//! What is asked for, what comes of it, and what is refused.

mod host;
mod plans;
mod refusals;
mod rendered;
