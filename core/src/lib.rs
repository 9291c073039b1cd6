//! A VFIO PCI core in user space.
