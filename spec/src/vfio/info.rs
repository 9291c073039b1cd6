//! Structures that VFIO's ioctls return and vfio-user's messages carry, as plain values.
//!
//! The structures of the ABI also have `argsz`, which belongs to a call, and an index and a
//! position in a file, which belong to the caller and the transport: those stand with the layer
//! that packs the bytes.

use super::{irq_set, region_cap};
use crate::errno::Errno;

/// `struct vfio_device_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceInfo {
    /// Bits of [`device_flags`](super::device_flags).
    pub flags: u32,
    /// Highest region index plus one.
    pub num_regions: u32,
    /// Highest interrupt index plus one.
    pub num_irqs: u32,
}

/// `struct vfio_region_info` and its capabilities. `Areas` is a collection of [`SparseArea`] that
/// suits the environment: an array or a vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegionInfo<Areas> {
    /// Bits of [`region_flags`](super::region_flags). Whoever packs the structure sets `CAPS`.
    pub flags: u32,
    /// Bytes; 0 for a region that the device does not have.
    pub size: u64,
    /// `VFIO_REGION_INFO_CAP_SPARSE_MMAP`: the areas that can be mapped; empty if there is no such
    /// capability.
    pub areas: Areas,
    /// `VFIO_REGION_INFO_CAP_TYPE`: the type of a device-specific region.
    pub region_type: Option<RegionType>,
    /// `VFIO_REGION_INFO_CAP_MSIX_MAPPABLE`: the pages of the MSI-X table can be mapped too.
    pub msix_mappable: bool,
    /// Capabilities that the region itself has, in their order.
    pub capabilities: [Option<RegionCapability>; 2],
}

/// Capability of a device-specific region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionCapability {
    /// `VFIO_REGION_INFO_CAP_NVLINK2_SSATGT`: address of an NVLink2 unit's target, by which a user
    /// finds the GPU and the bridges that belong together.
    TargetAddress(u64),
    /// `VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD`: speed of an NVLink2 link, as the hardware is wired.
    LinkSpeed(u32),
}

impl RegionCapability {
    /// Id in the chain.
    pub const fn id(self) -> u16 {
        match self {
            Self::TargetAddress(_) => region_cap::NVLINK2_SSATGT,
            Self::LinkSpeed(_) => region_cap::NVLINK2_LNKSPD,
        }
    }

    /// Bytes behind the header, in the byte order of the machine.
    pub const fn body(self) -> [u8; 8] {
        match self {
            Self::TargetAddress(target) => target.to_ne_bytes(),
            Self::LinkSpeed(speed) => {
                let [a, b, c, d] = speed.to_ne_bytes();
                [a, b, c, d, 0, 0, 0, 0]
            }
        }
    }

    /// The capability with this id and body; `None` if the id is another capability's.
    pub const fn parse(id: u16, body: [u8; 8]) -> Option<Self> {
        let [a, b, c, d, ..] = body;
        match id {
            region_cap::NVLINK2_SSATGT => Some(Self::TargetAddress(u64::from_ne_bytes(body))),
            region_cap::NVLINK2_LNKSPD => Some(Self::LinkSpeed(u32::from_ne_bytes([a, b, c, d]))),
            _ => None,
        }
    }
}

/// Capability in the chain behind `struct vfio_device_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceCapability {
    /// Id in the chain.
    pub id: u16,
    /// Version of the structure.
    pub version: u16,
    body: [u8; Self::MAX_BODY],
    len: u8,
}

impl DeviceCapability {
    /// The longest body in bytes.
    pub const MAX_BODY: usize = 72;

    /// A capability without a body.
    pub const fn new(id: u16, version: u16) -> Self {
        Self {
            id,
            version,
            body: [0; Self::MAX_BODY],
            len: 0,
        }
    }

    /// The capability with these bytes behind its body; those beyond [`Self::MAX_BODY`] are lost.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        let rest = self.body.get_mut(usize::from(self.len)..);
        for (slot, byte) in rest.unwrap_or_default().iter_mut().zip(bytes) {
            *slot = *byte;
            self.len += 1;
        }
        self
    }

    /// Bytes behind the header, without padding, in the byte order of the machine.
    pub fn body(&self) -> &[u8] {
        self.body.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// `struct vfio_region_sparse_mmap_area`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SparseArea {
    /// Offset in the region in bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// The content of `struct vfio_region_info_cap_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionType {
    /// Namespace of the subtype; `VFIO_REGION_TYPE_PCI_VENDOR_TYPE` and a vendor ID, for example.
    pub kind: u32,
    /// Subtype, in this namespace.
    pub subtype: u32,
}

impl RegionType {
    /// Type of a region of a PCI vendor's own (`VFIO_REGION_TYPE_PCI_VENDOR_TYPE`).
    pub const fn of_vendor(vendor: u16, subtype: u32) -> Self {
        Self {
            kind: 1 << 31 | vendor as u32,
            subtype,
        }
    }
}

/// `struct vfio_irq_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IrqInfo {
    /// Bits of [`irq_flags`](super::irq_flags).
    pub flags: u32,
    /// Number of vectors.
    pub count: u32,
}

impl IrqInfo {
    /// Checks the range of a SET_IRQS request, as Linux 7.2
    /// `drivers/vfio/vfio_main.c:vfio_set_irqs_validate_and_prepare` does.
    ///
    /// # Errors
    /// `EINVAL` if `start` is not a vector of this index, or `count` vectors from there are not
    /// all.
    pub const fn check_range(self, start: u32, count: u32) -> Result<(), Errno> {
        match self.count.checked_sub(start) {
            Some(1..) if self.count - start >= count => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// The action of a SET_IRQS request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqAction {
    /// `VFIO_IRQ_SET_ACTION_MASK`.
    Mask,
    /// `VFIO_IRQ_SET_ACTION_UNMASK`.
    Unmask,
    /// `VFIO_IRQ_SET_ACTION_TRIGGER`.
    Trigger,
}

impl IrqAction {
    /// The action in the flags of a SET_IRQS request, which may have a data bit besides.
    ///
    /// # Errors
    /// `EINVAL` if there is not exactly one action, or a bit that VFIO does not define.
    pub const fn from_flags(flags: u32) -> Result<Self, Errno> {
        match flags & !irq_set::DATA_MASK {
            irq_set::ACTION_MASK => Ok(Self::Mask),
            irq_set::ACTION_UNMASK => Ok(Self::Unmask),
            irq_set::ACTION_TRIGGER => Ok(Self::Trigger),
            _ => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lies_in_the_vectors_and_begins_at_one_of_them() {
        let info = IrqInfo { flags: 0, count: 8 };
        for (start, count) in [(0, 0), (0, 8), (7, 0), (7, 1)] {
            assert_eq!(info.check_range(start, count), Ok(()), "{start}+{count}");
        }
        for (start, count) in [(0, 9), (7, 2), (8, 0), (1, u32::MAX), (u32::MAX, 1)] {
            let refused = info.check_range(start, count);
            assert_eq!(refused, Err(Errno::EINVAL), "{start}+{count}");
        }
        assert_eq!(IrqInfo::default().check_range(0, 0), Err(Errno::EINVAL));
    }

    #[test]
    fn flags_have_one_action() {
        use irq_set::{ACTION_MASK, ACTION_TRIGGER, ACTION_UNMASK, DATA_BOOL};
        let action = IrqAction::from_flags;
        assert_eq!(action(ACTION_MASK), Ok(IrqAction::Mask));
        assert_eq!(action(ACTION_UNMASK | DATA_BOOL), Ok(IrqAction::Unmask));
        assert_eq!(action(ACTION_TRIGGER), Ok(IrqAction::Trigger));
        for flags in [0, DATA_BOOL, ACTION_MASK | ACTION_TRIGGER, 1 << 6, 1 << 31] {
            assert_eq!(action(flags), Err(Errno::EINVAL), "{flags:#x}");
        }
    }
}
