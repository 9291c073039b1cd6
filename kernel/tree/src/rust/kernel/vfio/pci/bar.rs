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
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// Value of a register that the device does not have, as on the bus.
const MISSING: u32 = u32::MAX;

/// A BAR that its owner has mapped for `'a`.
///
/// # Invariants
///
/// `address` is a mapping for `'a` of the whole BAR, which has `len` bytes.
pub struct Bar<'a> {
    address: NonNull<c_void>,
    len: u64,
    _mapping: PhantomData<&'a ()>,
}

impl Bar<'_> {
    /// The BAR behind a mapping; `ENOMEM` if the mapping is null.
    ///
    /// # Safety
    ///
    /// `pdev` is valid. `address` is null, or a mapping of its whole BAR `index` that lives as long
    /// as this value.
    pub(super) unsafe fn from_raw(
        pdev: *mut bindings::pci_dev,
        index: c_int,
        address: *mut c_void,
    ) -> Result<Self> {
        // SAFETY: By the safety requirements.
        let len = unsafe { bindings::pci_resource_len(pdev, index) };
        // INVARIANT: By the safety requirements.
        Ok(Self {
            address: NonNull::new(address).ok_or(ENOMEM)?,
            len,
            _mapping: PhantomData,
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

/// A BAR that is mapped while its device is probed: the device is enabled and the BAR is claimed
/// until this is dropped.
///
/// # Invariants
///
/// This value owns the mapping of `bar`.
pub struct ProbeBar<'a> {
    bar: Bar<'a>,
    // Dropped after the mapping.
    claim: Claimed<'a>,
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
        let index = c_int::try_from(index)?;
        // SAFETY: The device is valid, and the claim outlives the mapping. A length of 0 maps the
        // whole BAR.
        let address = unsafe { bindings::pci_iomap(pdev.as_ptr(), index, 0) };
        // SAFETY: The mapping ends with the value that has the BAR, and does not give it away.
        let bar = unsafe { Bar::from_raw(pdev.as_ptr(), index, address)? };
        // INVARIANT: Just mapped.
        Ok(Self { bar, claim })
    }

    /// Register of 32 bits at an offset, as [`Bar::read32`]. The device has no user who could
    /// disable memory.
    pub fn read32(&self, offset: u64) -> u32 {
        self.bar.read(offset)
    }
}

impl Drop for ProbeBar<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the device is valid.
        unsafe {
            bindings::pci_iounmap(self.claim.enabled.0.as_ptr(), self.bar.address.as_ptr());
        }
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
