//! The tests that boot VMs.
