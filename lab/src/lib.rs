//! VMs for tests and demos.
