//! Descriptors, mappings, sockets and VFIO ioctls behind a safe interface.
