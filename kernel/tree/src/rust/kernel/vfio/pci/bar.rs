// SPDX-License-Identifier: GPL-2.0

//! Registers in a BAR, for a driver's own polls.

use super::MemoryEnabled;
use crate::{
    bindings,
    device,
    error::to_result,
    pci,
    prelude::*, //
};
use core::ptr::NonNull;

/// Value of a register that the device does not have, as on the bus.
const MISSING: u32 = u32::MAX;

/// A BAR that is mapped.
///
/// # Invariants
///
/// `address` is the mapping of the whole BAR, which has `len` bytes, of `pdev`.
pub struct Bar {
    pdev: *mut bindings::pci_dev,
    address: NonNull<c_void>,
    len: u64,
}

// SAFETY: A mapping of a BAR can be used and unmapped from any thread.
unsafe impl Send for Bar {}
// SAFETY: As above; reads of registers can run in parallel.
unsafe impl Sync for Bar {}

impl Bar {
    /// Maps a BAR.
    ///
    /// # Safety
    ///
    /// `pdev` is valid, and its BAR is claimed, as long as the mapping lives.
    pub(super) unsafe fn new(pdev: *mut bindings::pci_dev, index: u32) -> Result<Self> {
        let index = c_int::try_from(index)?;
        // SAFETY: By the safety requirements. A length of 0 maps the whole BAR.
        let address = unsafe { bindings::pci_iomap(pdev, index, 0) };
        // SAFETY: As above.
        let len = unsafe { bindings::pci_resource_len(pdev, index) };
        // INVARIANT: Just mapped.
        Ok(Self {
            pdev,
            address: NonNull::new(address).ok_or(ENOMEM)?,
            len,
        })
    }

    /// Register of 32 bits at an offset; all ones if the BAR ends before it, or if the offset is
    /// not aligned.
    pub fn read32(&self, _enabled: MemoryEnabled<'_>, offset: u64) -> u32 {
        self.read(offset)
    }

    fn read(&self, offset: u64) -> u32 {
        let end = offset.checked_add(size_of::<u32>() as u64);
        if end.is_none_or(|end| end > self.len) || offset % 4 != 0 {
            return MISSING;
        }
        // SAFETY: By the type invariant, and the register is inside the BAR.
        unsafe { bindings::ioread32(self.address.as_ptr().byte_add(offset as usize)) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::pci_iounmap(self.pdev, self.address.as_ptr()) };
    }
}

/// A BAR that is mapped while its device is probed: the device is enabled and the BAR is claimed
/// until this is dropped.
pub struct ProbeBar<'a> {
    bar: Bar,
    // Dropped after the mapping.
    _claim: Claimed<'a>,
}

impl<'a> ProbeBar<'a> {
    /// Enables the device, claims the BAR in the driver's name, and maps it.
    pub fn new(
        pdev: &'a pci::Device<device::Core<'_>>,
        index: u32,
        name: &'static CStr,
    ) -> Result<Self> {
        let enabled = Enabled::new(pdev)?;
        let claim = Claimed::new(enabled, index, name)?;
        // SAFETY: The device is valid, and the claim outlives the mapping.
        let bar = unsafe { Bar::new(pdev.as_ptr(), index)? };
        Ok(Self { bar, _claim: claim })
    }

    /// Register of 32 bits at an offset, as [`Bar::read32`]. The device has no user who could
    /// disable memory.
    pub fn read32(&self, offset: u64) -> u32 {
        self.bar.read(offset)
    }
}

/// A device that is enabled until this is dropped.
struct Enabled<'a>(&'a pci::Device);

impl<'a> Enabled<'a> {
    fn new(pdev: &'a pci::Device) -> Result<Self> {
        // SAFETY: The device is valid.
        to_result(unsafe { bindings::pci_enable_device(pdev.as_ptr()) })?;
        Ok(Self(pdev))
    }
}

impl Drop for Enabled<'_> {
    fn drop(&mut self) {
        // SAFETY: The device is valid and was enabled.
        unsafe { bindings::pci_disable_device(self.0.as_ptr()) };
    }
}

/// A BAR that is claimed until this is dropped.
struct Claimed<'a> {
    enabled: Enabled<'a>,
    bars: c_int,
}

impl<'a> Claimed<'a> {
    fn new(enabled: Enabled<'a>, index: u32, name: &'static CStr) -> Result<Self> {
        let bars = 1_i32.checked_shl(index).ok_or(EINVAL)?;
        // SAFETY: The device is valid, and the name is static.
        to_result(unsafe {
            bindings::pci_request_selected_regions(enabled.0.as_ptr(), bars, name.as_char_ptr())
        })?;
        Ok(Self { enabled, bars })
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        // SAFETY: The device is valid, and the BARs were claimed.
        unsafe { bindings::pci_release_selected_regions(self.enabled.0.as_ptr(), self.bars) };
    }
}
