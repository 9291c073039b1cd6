//! Descriptors, mappings and ioctls. One program: linking is most of what a small one costs.

mod event;
mod mapping;
mod memory;
mod vfio;
