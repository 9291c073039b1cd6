// SPDX-License-Identifier: GPL-2.0

//! Registration of a driver: its probe, its removal and its error handlers.
//!
//! [`pci::Driver`] can't be used: it owns the driver data of the device, which `vfio_pci_core`
//! wants for its own device.

use super::{
    instance::{
        Instance,
        Owner, //
    },
    Driver, //
};
use crate::{
    bindings,
    device,
    driver,
    error::{
        from_result,
        to_result, //
    },
    pci::{
        self,
        error_handler::{
            ErrorHandler,
            ErrorHandlerTable, //
        },
    },
    prelude::*,
    types::Opaque,
    ThisModule, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::{
        null_mut,
        NonNull, //
    },
};

/// An adapter for the registration of VFIO PCI drivers.
pub struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `bindings::pci_driver` is a C type declared as `repr(C)`.
// - The driver data of a bound device is `vfio_pci_core`'s and is null once the device is removed,
//   so none of `DriverData` is ever taken from it.
// - `struct pci_driver` embeds a `struct device_driver` at `DEVICE_DRIVER_OFFSET`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = ();
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is guaranteed to be valid if
// a preceding call to `register` has been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        pdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: It's safe to set the fields of `struct pci_driver` on initialization.
        unsafe {
            (*pdrv.get()).name = name.as_char_ptr();
            (*pdrv.get()).probe = Some(Self::probe_callback);
            (*pdrv.get()).remove = Some(Self::remove_callback);
            (*pdrv.get()).id_table = T::ID_TABLE.as_ptr();
            (*pdrv.get()).err_handler = ErrorHandlerTable::<Self>::TABLE;
            (*pdrv.get()).driver_managed_dma = true;
        }

        // SAFETY: `pdrv` is guaranteed to be a valid `DriverType`.
        to_result(unsafe {
            bindings::__pci_register_driver(pdrv.get(), module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(pdrv: &Opaque<Self::DriverType>) {
        // SAFETY: `pdrv` is guaranteed to be a valid `DriverType`.
        unsafe { bindings::pci_unregister_driver(pdrv.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    extern "C" fn probe_callback(
        pdev: *mut bindings::pci_dev,
        _id: *const bindings::pci_device_id,
    ) -> c_int {
        // SAFETY: The PCI bus only ever calls the probe callback with a valid pointer to a
        // `struct pci_dev`.
        let pdev = unsafe { &*pdev.cast::<pci::Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let owner = Owner::<T>::new(pdev)?;
            Self::set_core(pdev, owner.core());
            // SAFETY: The device is new, and its driver data is its core's device.
            let registered =
                to_result(unsafe { bindings::vfio_pci_core_register_device(owner.core()) });
            if let Err(error) = registered {
                Self::set_core(pdev, null_mut());
                return Err(error);
            }
            T::registered(pdev, owner.data());
            owner.into_registered();
            Ok(0)
        })
    }

    extern "C" fn remove_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: The PCI bus only ever calls the remove callback with a valid pointer to a
        // `struct pci_dev`.
        let pdev = unsafe { &*pdev.cast::<pci::Device<device::CoreInternal<'_>>>() };

        let Some(core) = Self::core(pdev) else {
            return;
        };
        // SAFETY: The probe has registered the device, and has left its reference to this callback.
        let owner = unsafe {
            bindings::vfio_pci_core_unregister_device(core.as_ptr());
            Owner::<T>::from_registered(core)
        };
        T::unregistered(owner.data());
        Self::set_core(pdev, null_mut());
    }

    fn set_core(
        pdev: &pci::Device<device::CoreInternal<'_>>,
        core: *mut bindings::vfio_pci_core_device,
    ) {
        // SAFETY: The device is valid; its driver data is this adapter's.
        unsafe { bindings::dev_set_drvdata(&raw mut (*pdev.as_ptr()).dev, core.cast()) };
    }

    fn core<Ctx: device::DeviceContext>(
        pdev: &pci::Device<Ctx>,
    ) -> Option<NonNull<bindings::vfio_pci_core_device>> {
        // SAFETY: The device is valid; its driver data is this adapter's.
        let core = unsafe { bindings::dev_get_drvdata(&raw mut (*pdev.as_ptr()).dev) };
        NonNull::new(core.cast())
    }

    fn data(pdev: &pci::Device<device::Bound>) -> Option<&T::Data> {
        let core = Self::core(pdev)?;
        // SAFETY: The driver data of a bound device is that of an instance whose data is there, and
        // which lives until the device is unbound.
        Some(unsafe { Instance::<T>::data_of(core) })
    }
}

impl<T: Driver> ErrorHandler for Adapter<T> {
    const ERROR_DETECTED: Option<
        unsafe extern "C" fn(
            *mut bindings::pci_dev,
            bindings::pci_channel_state_t,
        ) -> bindings::pci_ers_result_t,
    > = Some(bindings::vfio_pci_core_aer_err_detected);

    fn reset_done(pdev: &pci::Device<device::Bound>) {
        if let Some(data) = Self::data(pdev) {
            T::reset_done(data);
        }
    }

    fn resume(pdev: &pci::Device<device::Bound>) {
        if let Some(data) = Self::data(pdev) {
            T::recovered(data);
        }
    }
}
