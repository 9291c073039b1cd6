//! VFIO PCI variant drivers: nvgrace_gpu.
