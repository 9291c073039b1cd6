//! Models as a user of each sees them. One program: linking is most of what a small one costs.

mod bad_input;
mod bad_profile;
mod config;
mod device;
mod engine;
mod faults;
mod machine;
mod nic;
mod rings;
