// SPDX-License-Identifier: GPL-2.0

//! Extended capabilities and words of configuration space.

use super::{
    Device,
    DeviceId,
    Vendor, //
};
use crate::{
    bindings,
    device,
    prelude::*, //
};

/// Error of an access to configuration space: a PCIBIOS code or a negative errno.
fn pcibios_to_result(code: c_int) -> Result {
    match code {
        ..=-1 => Err(Error::from_errno(code)),
        0 => Ok(()),
        _ => Err(EIO),
    }
}

impl<Ctx: device::DeviceContext> Device<Ctx> {
    /// Pointer to the C structure.
    #[allow(dead_code, reason = "not every configuration has VFIO drivers in Rust")]
    pub(crate) fn as_ptr(&self) -> *mut bindings::pci_dev {
        self.as_raw()
    }

    /// Configuration offset of the Designated Vendor-Specific Extended Capability with this vendor
    /// and id; [`None`] if the device does not have the capability.
    pub fn find_dvsec(&self, vendor: u16, id: u16) -> Option<u16> {
        // SAFETY: By its type invariant `self.as_raw` is a valid pointer to a `struct pci_dev`.
        let offset = unsafe { bindings::pci_find_dvsec_capability(self.as_raw(), vendor, id) };
        (offset != 0).then_some(offset)
    }

    /// Word of configuration space at `offset`.
    pub fn read_config_word(&self, offset: u16) -> Result<u16> {
        let mut value = 0;
        // SAFETY: By its type invariant `self.as_raw` is a valid pointer to a `struct pci_dev`;
        // `value` is valid for writes.
        let code =
            unsafe { bindings::pci_read_config_word(self.as_raw(), offset.into(), &mut value) };
        pcibios_to_result(code).map(|()| value)
    }

    /// Double word of configuration space at `offset`.
    pub fn read_config_dword(&self, offset: u16) -> Result<u32> {
        let mut value = 0;
        // SAFETY: By its type invariant `self.as_raw` is a valid pointer to a `struct pci_dev`;
        // `value` is valid for writes.
        let code =
            unsafe { bindings::pci_read_config_dword(self.as_raw(), offset.into(), &mut value) };
        pcibios_to_result(code).map(|()| value)
    }
}

impl DeviceId {
    /// Equivalent to C's `PCI_DRIVER_OVERRIDE_DEVICE_VFIO` macro.
    ///
    /// The driver takes a device with this id only if the device's `driver_override` names the
    /// driver.
    pub const fn from_id_vfio_override(vendor: Vendor, device: u32) -> Self {
        let mut id = Self::from_id(vendor, device);
        id.0.override_only = bindings::PCI_ID_F_VFIO_DRIVER_OVERRIDE;
        id
    }
}
