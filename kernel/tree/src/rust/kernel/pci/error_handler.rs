// SPDX-License-Identifier: GPL-2.0

//! Handlers of resets and of errors on the link (AER).

use super::Device;
use crate::{
    bindings,
    device, //
};
use core::marker::PhantomData;

/// Handlers of what PCI tells the driver of a device that was reset, or had an error.
pub trait ErrorHandler {
    /// `error_detected` of `struct pci_error_handlers`, for a bus driver that has one in C.
    const ERROR_DETECTED: Option<
        unsafe extern "C" fn(
            *mut bindings::pci_dev,
            bindings::pci_channel_state_t,
        ) -> bindings::pci_ers_result_t,
    > = None;

    /// The device has been reset, by whatever means. No lock of the driver's is held.
    fn reset_done(pdev: &Device<device::Bound>) {
        let _ = pdev;
    }

    /// The device has recovered from an error, in which the link may have been reset without a
    /// call of [`ErrorHandler::reset_done`].
    fn resume(pdev: &Device<device::Bound>) {
        let _ = pdev;
    }
}

/// Table of the handlers of `T`, for a `struct pci_driver`.
pub struct ErrorHandlerTable<T: ErrorHandler>(PhantomData<T>);

impl<T: ErrorHandler> ErrorHandlerTable<T> {
    /// The table.
    pub const TABLE: &'static bindings::pci_error_handlers = &bindings::pci_error_handlers {
        error_detected: T::ERROR_DETECTED,
        reset_done: Some(Self::reset_done_callback),
        resume: Some(Self::resume_callback),
        ..pin_init::zeroed()
    };

    extern "C" fn reset_done_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: PCI calls the handlers of a bound driver with a valid device.
        T::reset_done(unsafe { &*pdev.cast::<Device<device::Bound>>() });
    }

    extern "C" fn resume_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: PCI calls the handlers of a bound driver with a valid device.
        T::resume(unsafe { &*pdev.cast::<Device<device::Bound>>() });
    }
}
