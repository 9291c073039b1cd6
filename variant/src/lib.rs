//! The vocabulary and the trait of a VFIO PCI variant driver.
