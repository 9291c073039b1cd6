//! NVLink2 between NVIDIA's GPUs and POWER9: device-tree properties and device-specific regions.
//!
//! Source: Linux 5.12 `drivers/vfio/pci/vfio_pci_nvlink2.c` (removed in 5.13) and
//! `include/uapi/linux/vfio.h`.

use crate::nvidia;

/// IBM's PCI vendor id.
pub const IBM: u16 = 0x1014;

/// Vendor and device ids of GPUs in the SXM2 and SXM3 form. Others exist: the platform decides.
/// Source: the series "Introduce vfio-pci-core subsystem" of 2021, `nvlink2gpu_vfio_pci.c`.
pub const GPU_IDS: [(u16, u16); 4] = [
    (nvidia::VENDOR_ID, 0x1db1),
    (nvidia::VENDOR_ID, 0x1db5),
    (nvidia::VENDOR_ID, 0x1db8),
    (nvidia::VENDOR_ID, 0x1df5),
];

/// Vendor and device id of the bridge of an NVLink2 unit. The device id is assumed: no source was
/// checked, and pci.ids does not list it. The platform decides.
pub const BRIDGE_IDS: [(u16, u16); 1] = [(IBM, 0x04ea)];

/// Properties of nodes of the device tree.
pub mod property {
    /// Phandles of the bridges of a GPU.
    pub const NPU: &str = "ibm,npu";
    /// Phandle of the GPU of a bridge.
    pub const GPU: &str = "ibm,gpu";
    /// Phandle of the link of a bridge.
    pub const NVLINK: &str = "ibm,nvlink";
    /// Index of a link, u32.
    pub const LINK_INDEX: &str = "ibm,npu-link-index";
    /// Addresses of the ATSD registers of a host bridge, u64 each.
    pub const ATSD: &str = "ibm,mmio-atsd";
    /// Target address of a bridge, u64: equal for a GPU and its bridges.
    pub const TARGET: &str = "ibm,device-tgt-addr";
    /// Speed of the link of a bridge, u32.
    pub const SPEED: &str = "ibm,nvlink-speed";
    /// Phandle of the GPU's memory.
    pub const MEMORY: &str = "memory-region";
    /// Base and size of memory, u64 each.
    pub const REG: &str = "reg";
    /// Number of a node, u32.
    pub const PHANDLE: &str = "phandle";
}

/// ATSD registers of an NVLink2 unit.
pub const ATSD_REGISTERS: u16 = 8;

/// Subtypes of the device-specific regions.
pub mod region {
    /// The GPU's memory (`VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM`), of NVIDIA's type.
    pub const GPU_MEMORY: u32 = 1;
    /// The ATSD register (`VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD`), of IBM's type.
    pub const ATSD: u32 = 1;
}
