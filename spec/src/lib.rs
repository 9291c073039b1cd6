//! PCI configuration-space layouts and the VFIO ABI as typed constants.
