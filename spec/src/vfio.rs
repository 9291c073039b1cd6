//! The VFIO user interface: indices, flags and capability identifiers.
//!
//! Source: Linux 7.2 `include/uapi/linux/vfio.h`, and for the packing of offsets
//! `include/linux/vfio_pci_core.h:VFIO_PCI_OFFSET_SHIFT`. vfio-user uses the same numbers.

mod info;

pub use info::{
    DeviceCapability, DeviceInfo, IrqAction, IrqInfo, RegionCapability, RegionInfo, RegionType,
    SparseArea,
};

/// A VFIO region index of a PCI device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct RegionIndex(pub u32);

impl RegionIndex {
    /// `VFIO_PCI_BAR0_REGION_INDEX`.
    pub const BAR0: Self = Self(0);
    /// `VFIO_PCI_BAR1_REGION_INDEX`.
    pub const BAR1: Self = Self(1);
    /// `VFIO_PCI_BAR2_REGION_INDEX`.
    pub const BAR2: Self = Self(2);
    /// `VFIO_PCI_BAR3_REGION_INDEX`.
    pub const BAR3: Self = Self(3);
    /// `VFIO_PCI_BAR4_REGION_INDEX`.
    pub const BAR4: Self = Self(4);
    /// `VFIO_PCI_BAR5_REGION_INDEX`.
    pub const BAR5: Self = Self(5);
    /// `VFIO_PCI_ROM_REGION_INDEX`.
    pub const ROM: Self = Self(6);
    /// `VFIO_PCI_CONFIG_REGION_INDEX`.
    pub const CONFIG: Self = Self(7);
    /// `VFIO_PCI_VGA_REGION_INDEX`.
    pub const VGA: Self = Self(8);
    /// `VFIO_PCI_NUM_REGIONS`: how many fixed indices a PCI device has.
    pub const COUNT: u32 = 9;

    /// The BAR number 0 to 5, or `None` for any other region.
    pub const fn bar(self) -> Option<u8> {
        if self.0 < 6 { Some(self.0 as u8) } else { None }
    }
}

/// Number of bits of a device descriptor's file position that hold the offset in a region
/// (`VFIO_PCI_OFFSET_SHIFT`). A region larger than 1 << 40 bytes would alias the next index.
pub const OFFSET_SHIFT: u32 = 40;

/// The largest region that a file position can address, in bytes.
pub const MAX_REGION_SIZE: u64 = 1 << OFFSET_SHIFT;

/// `struct vfio_device_info.flags`.
pub mod device_flags {
    /// `VFIO_DEVICE_FLAGS_RESET`: the device can be reset.
    pub const RESET: u32 = 1 << 0;
    /// `VFIO_DEVICE_FLAGS_PCI`.
    pub const PCI: u32 = 1 << 1;
    /// `VFIO_DEVICE_FLAGS_CAPS`: a capability chain follows.
    pub const CAPS: u32 = 1 << 7;
}

/// Capabilities of a device: `struct vfio_info_cap_header`, as those of a region.
pub mod device_cap {
    /// `VFIO_DEVICE_INFO_CAP_ZPCI_BASE`.
    pub const ZPCI_BASE: u16 = 1;
    /// `VFIO_DEVICE_INFO_CAP_ZPCI_GROUP`.
    pub const ZPCI_GROUP: u16 = 2;
    /// `VFIO_DEVICE_INFO_CAP_ZPCI_UTIL`.
    pub const ZPCI_UTIL: u16 = 3;
    /// `VFIO_DEVICE_INFO_CAP_ZPCI_PFIP`.
    pub const ZPCI_PFIP: u16 = 4;
}

/// Bytes in `struct vfio_device_info` {argsz, flags, num_regions, num_irqs, cap_offset, pad u32}.
pub const DEVICE_INFO_LEN: usize = 24;

/// `struct vfio_device_feature.flags`: an index in bits 15:0, and what to do with it.
pub mod device_feature {
    /// `VFIO_DEVICE_FEATURE_GET`: ask for data.
    pub const GET: u32 = 1 << 16;
    /// `VFIO_DEVICE_FEATURE_SET`: hand data over, or do it.
    pub const SET: u32 = 1 << 17;
    /// `VFIO_DEVICE_FEATURE_PROBE`: can it be done?
    pub const PROBE: u32 = 1 << 18;
    /// `VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY`: the device may be suspended; no data.
    pub const LOW_POWER_ENTRY: u32 = 3;
    /// `VFIO_DEVICE_FEATURE_LOW_POWER_EXIT`: not any more; no data.
    pub const LOW_POWER_EXIT: u32 = 5;
    /// `VFIO_DEVICE_FEATURE_DMA_BUF`: parts of a region, as a descriptor.
    pub const DMA_BUF: u32 = 11;
    /// `VFIO_DEVICE_FEATURE_ZPCI_ERROR`: the oldest pending error record of a device on s390.
    /// Source: Linux 7.3 `include/uapi/linux/vfio.h`.
    pub const ZPCI_ERROR: u32 = 13;
    /// `VFIO_DEVICE_FEATURE_MASK`: the bits of the index.
    pub const INDEX: u32 = 0xffff;
}

/// `struct vfio_region_info.flags`.
pub mod region_flags {
    /// `VFIO_REGION_INFO_FLAG_READ`.
    pub const READ: u32 = 1 << 0;
    /// `VFIO_REGION_INFO_FLAG_WRITE`.
    pub const WRITE: u32 = 1 << 1;
    /// `VFIO_REGION_INFO_FLAG_MMAP`.
    pub const MMAP: u32 = 1 << 2;
    /// `VFIO_REGION_INFO_FLAG_CAPS`: a capability chain follows.
    pub const CAPS: u32 = 1 << 3;
}

/// Region capabilities: `struct vfio_info_cap_header` {id u16, version u16, next u32}.
pub mod region_cap {
    /// `VFIO_REGION_INFO_CAP_SPARSE_MMAP`: only the listed areas can be mapped.
    pub const SPARSE_MMAP: u16 = 1;
    /// `VFIO_REGION_INFO_CAP_TYPE`.
    pub const TYPE: u16 = 2;
    /// `VFIO_REGION_INFO_CAP_MSIX_MAPPABLE`.
    pub const MSIX_MAPPABLE: u16 = 3;
    /// `VFIO_REGION_INFO_CAP_NVLINK2_SSATGT`. Source: Linux 5.12 `include/uapi/linux/vfio.h`.
    pub const NVLINK2_SSATGT: u16 = 4;
    /// `VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD`.
    pub const NVLINK2_LNKSPD: u16 = 5;
    /// Bytes in a capability header.
    pub const HEADER_LEN: usize = 8;
    /// The version that Linux gives each of them.
    pub const VERSION: u16 = 1;
}

/// Bytes in `struct vfio_region_info` {argsz, flags, index, cap_offset u32; size, offset u64}.
pub const REGION_INFO_LEN: usize = 32;

/// A VFIO interrupt index of a PCI device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct IrqIndex(pub u32);

impl IrqIndex {
    /// `VFIO_PCI_INTX_IRQ_INDEX`.
    pub const INTX: Self = Self(0);
    /// `VFIO_PCI_MSI_IRQ_INDEX`.
    pub const MSI: Self = Self(1);
    /// `VFIO_PCI_MSIX_IRQ_INDEX`.
    pub const MSIX: Self = Self(2);
    /// `VFIO_PCI_ERR_IRQ_INDEX`.
    pub const ERR: Self = Self(3);
    /// `VFIO_PCI_REQ_IRQ_INDEX`.
    pub const REQ: Self = Self(4);
    /// `VFIO_PCI_NUM_IRQS`.
    pub const COUNT: u32 = 5;
}

/// `struct vfio_irq_info.flags`.
pub mod irq_flags {
    /// `VFIO_IRQ_INFO_EVENTFD`: can signal through an eventfd.
    pub const EVENTFD: u32 = 1 << 0;
    /// `VFIO_IRQ_INFO_MASKABLE`.
    pub const MASKABLE: u32 = 1 << 1;
    /// `VFIO_IRQ_INFO_AUTOMASKED`.
    pub const AUTOMASKED: u32 = 1 << 2;
    /// `VFIO_IRQ_INFO_NORESIZE`: vectors can't be added one by one.
    pub const NORESIZE: u32 = 1 << 3;
}

/// `struct vfio_irq_set.flags`: exactly one data bit and one action bit.
pub mod irq_set {
    /// `VFIO_IRQ_SET_DATA_NONE`.
    pub const DATA_NONE: u32 = 1 << 0;
    /// `VFIO_IRQ_SET_DATA_BOOL`: one u8 for each vector.
    pub const DATA_BOOL: u32 = 1 << 1;
    /// `VFIO_IRQ_SET_DATA_EVENTFD`: one descriptor (s32, -1 for none) for each vector.
    pub const DATA_EVENTFD: u32 = 1 << 2;
    /// `VFIO_IRQ_SET_ACTION_MASK`.
    pub const ACTION_MASK: u32 = 1 << 3;
    /// `VFIO_IRQ_SET_ACTION_UNMASK`.
    pub const ACTION_UNMASK: u32 = 1 << 4;
    /// `VFIO_IRQ_SET_ACTION_TRIGGER`.
    pub const ACTION_TRIGGER: u32 = 1 << 5;
    /// `VFIO_IRQ_SET_DATA_TYPE_MASK`.
    pub const DATA_MASK: u32 = DATA_NONE | DATA_BOOL | DATA_EVENTFD;
    /// `VFIO_IRQ_SET_ACTION_TYPE_MASK`.
    pub const ACTION_TYPE_MASK: u32 = ACTION_MASK | ACTION_UNMASK | ACTION_TRIGGER;
}
