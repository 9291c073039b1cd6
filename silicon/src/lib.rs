//! Models of physical PCI devices: GH200, GB200.
