// SPDX-License-Identifier: GPL-2.0

//! A device: `vfio_pci_core`'s structure with the driver's states behind it.

use super::{
    memory::Unlocked,
    operations::Operations,
    Bar,
    DeviceMemory,
    Driver, //
};
use crate::{
    bindings,
    device,
    error::from_err_ptr,
    mm::pfn_space::PfnSpace,
    pci,
    prelude::*,
    types::Opaque, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};

/// Memory of a device, which VFIO allocates, zeroed, and frees.
///
/// # Invariants
///
/// - `data` is initialised once `has_data` is set.
/// - `open` is initialised between the end of a successful open and the close.
#[repr(C)]
pub(super) struct Instance<T: Driver> {
    /// First: VFIO frees the structure from here.
    core: Opaque<bindings::vfio_pci_core_device>,
    has_data: UnsafeCell<bool>,
    data: UnsafeCell<MaybeUninit<T::Data>>,
    open: UnsafeCell<MaybeUninit<T::Open>>,
}

impl<T: Driver> Instance<T> {
    /// Data of the instance around a core device.
    ///
    /// # Safety
    ///
    /// `core` is that of an `Instance<T>` with data that outlives `'a`.
    pub(super) unsafe fn data_of<'a>(core: NonNull<bindings::vfio_pci_core_device>) -> &'a T::Data {
        let this = core.cast::<Self>();
        // SAFETY: By the safety requirements; data is shared alone once it is there.
        unsafe { (*this.as_ref().data.get()).assume_init_ref() }
    }

    /// Drops the driver's data, if there is any. The last user of the device is gone.
    ///
    /// # Safety
    ///
    /// `core` is that of an `Instance<T>`, to which nothing else refers.
    pub(super) unsafe fn drop_data(core: NonNull<bindings::vfio_pci_core_device>) {
        let this = core.cast::<Self>();
        // SAFETY: By the safety requirements and the type invariants.
        unsafe {
            if this.as_ref().has_data.get().replace(false) {
                (*this.as_ref().data.get()).assume_init_drop();
            }
        }
    }
}

/// The driver's reference to a device.
///
/// # Invariants
///
/// `core` is that of an `Instance<T>` with data, to which this is a reference.
pub(super) struct Owner<T: Driver> {
    core: NonNull<bindings::vfio_pci_core_device>,
    _instance: PhantomData<Instance<T>>,
}

impl<T: Driver> Owner<T> {
    /// A new device for `pdev`.
    pub(super) fn new(pdev: &pci::Device<device::CoreInternal<'_>>) -> Result<Self> {
        // VFIO allocates the structure by its size alone.
        const { assert!(align_of::<Instance<T>>() <= bindings::ARCH_KMALLOC_MINALIGN) };
        // SAFETY: The device is valid, and the size is that of a structure that begins with a
        // `struct vfio_device`. The table of operations is static.
        let vdev = from_err_ptr(unsafe {
            bindings::_vfio_alloc_device(
                size_of::<Instance<T>>(),
                &raw mut (*pdev.as_ptr()).dev,
                Operations::<T>::TABLE,
            )
        })?;
        let this = NonNull::new(vdev.cast::<Instance<T>>()).ok_or(ENOMEM)?;
        // INVARIANT: The data is not there yet. Until it is, the owner drops the device alone,
        // for which no data is needed.
        let owner = Self {
            core: this.cast(),
            _instance: PhantomData,
        };
        // SAFETY: The instance is valid and not shared yet; its data is not there, and pinned where
        // it is, because VFIO does not move the structure.
        unsafe {
            (*owner.core()).pci_ops = Operations::<T>::PCI_TABLE;
            let slot = this.as_ref().data.get().cast::<T::Data>();
            T::probe(pdev, Unlocked::new()).__pinned_init(slot)?;
            this.as_ref().has_data.get().write(true);
        }
        Ok(owner)
    }

    /// The core's device.
    pub(super) fn core(&self) -> *mut bindings::vfio_pci_core_device {
        self.core.as_ptr()
    }

    /// The driver's data.
    pub(super) fn data(&self) -> Pin<&T::Data> {
        // SAFETY: By the type invariant; the structure does not move.
        unsafe { Pin::new_unchecked(Instance::<T>::data_of(self.core)) }
    }

    /// Leaves the reference to the registration of the device.
    pub(super) fn into_registered(self) {
        core::mem::forget(self);
    }

    /// Takes the reference back.
    ///
    /// # Safety
    ///
    /// `core` is that of an owner that [`Owner::into_registered`] has left, once.
    pub(super) unsafe fn from_registered(core: NonNull<bindings::vfio_pci_core_device>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            core,
            _instance: PhantomData,
        }
    }
}

impl<T: Driver> Drop for Owner<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is a reference to the device.
        unsafe { bindings::vfio_put_device(&raw mut (*self.core()).vdev) };
    }
}

/// A device that is being opened: it is enabled, and has no state of an open device yet.
///
/// # Invariants
///
/// `dev` is an instance with data that `vfio_pci_core` has enabled.
pub struct Opening<'a, T: Driver> {
    dev: &'a Opened<T>,
}

impl<T: Driver> Opening<'_, T> {
    /// The driver's data.
    pub fn data(&self) -> &T::Data {
        self.dev.data()
    }

    /// The PCI device.
    pub fn pci(&self) -> &pci::Device<device::Bound> {
        self.dev.pci()
    }

    /// A BAR, as [`Opened::bar`].
    pub fn bar(&self, index: u32) -> Result<Bar<'_>> {
        self.dev.bar(index)
    }

    /// Registers the page frames of device memory, which mappings of the device have, for memory
    /// failure;
    /// [`None`] without a whole page, and on a kernel that does not handle memory failures.
    pub fn register_frames(&self, memory: &DeviceMemory) -> Result<Option<FrameRegistration<T>>> {
        let (first, count) = memory.frames();
        if count == 0 {
            return Ok(None);
        }
        // SAFETY: The device's inode lives as long as the device, which outlives its open state.
        let space = unsafe {
            let mapping = (*(*self.dev.core()).vdev.inode).i_mapping;
            PfnSpace::new(first, count, mapping)
        };
        match KBox::pin_init(space, GFP_KERNEL) {
            Ok(space) => Ok(Some(FrameRegistration(space))),
            Err(error) if error.to_errno() == -(bindings::EOPNOTSUPP as c_int) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Page frames that are registered for memory failure until this is dropped.
pub struct FrameRegistration<T: Driver>(#[expect(dead_code)] Pin<KBox<PfnSpace<Operations<T>>>>);

/// An open device, as its operations see it.
///
/// # Invariants
///
/// The instance has data. Except inside an [`Opening`], it has the state of an open device too.
#[repr(transparent)]
pub struct Opened<T: Driver>(Instance<T>);

// SAFETY: The states are `Sync` and are only shared; the core's structure is used by C functions
// that may be called in parallel.
unsafe impl<T: Driver> Sync for Opened<T> {}

impl<T: Driver> Opened<T> {
    /// The open device around a core device.
    ///
    /// # Safety
    ///
    /// `vdev` is that of an `Instance<T>` that is open for `'a`.
    pub(super) unsafe fn from_vdev<'a>(vdev: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By the safety requirements; `vdev` is the first member of the core's device, and
        // the core's device that of the instance. INVARIANT: as well.
        unsafe { &*vdev.cast() }
    }

    /// Opens: the core is enabled, the driver makes its state.
    ///
    /// # Safety
    ///
    /// `vdev` is that of an `Instance<T>` that is being opened.
    pub(super) unsafe fn open(vdev: *mut bindings::vfio_device) -> Result {
        // SAFETY: By the safety requirements. The state of the open device is not read: the driver
        // gets an `Opening`, which does not give it away.
        let dev = unsafe { Self::from_vdev(vdev) };
        let opening = Opening { dev };
        let open = T::open(&opening)?;
        // SAFETY: Nobody else reads or writes the state while the device is being opened.
        // INVARIANT: The state is there from now on.
        unsafe { (*dev.0.open.get()).write(open) };
        Ok(())
    }

    /// Drops the state of the open device.
    ///
    /// # Safety
    ///
    /// `vdev` is that of an `Instance<T>` that was open and has been closed.
    pub(super) unsafe fn close<'a>(vdev: *mut bindings::vfio_device) -> &'a T::Data {
        // SAFETY: By the safety requirements; no operation runs any more.
        unsafe {
            let dev = Self::from_vdev(vdev);
            (*dev.0.open.get()).assume_init_drop();
            (*dev.0.data.get()).assume_init_ref()
        }
    }

    /// The core's device.
    pub(super) fn core(&self) -> *mut bindings::vfio_pci_core_device {
        self.0.core.get()
    }

    /// The VFIO device.
    pub(super) fn vdev(&self) -> *mut bindings::vfio_device {
        // SAFETY: The core's device is valid.
        unsafe { &raw mut (*self.core()).vdev }
    }

    /// The driver's data.
    pub fn data(&self) -> &T::Data {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.data.get()).assume_init_ref() }
    }

    /// The driver's state of the open device.
    pub fn open_state(&self) -> &T::Open {
        // SAFETY: By the type invariant; an `Opening` does not give the device away.
        unsafe { (*self.0.open.get()).assume_init_ref() }
    }

    /// A BAR, for the driver's own accesses; fails if `vfio_pci_core` could not claim or map it.
    ///
    /// The mapping is the core's, which unmaps it while it closes the device. So a driver's state
    /// can't keep it.
    pub fn bar(&self, index: u32) -> Result<Bar<'_>> {
        let core = self.core();
        // SAFETY: The device is enabled, so its core has set the map of each BAR, or an error.
        let mapped = unsafe { (*core).barmap.get(index as usize).copied() };
        let address = from_err_ptr(mapped.ok_or(EINVAL)?)?;
        // SAFETY: The PCI device is valid. The core has mapped the whole BAR until the close, which
        // begins when no operation has the device any more.
        unsafe { Bar::from_raw((*core).pdev, index as c_int, address) }
    }

    /// The PCI device.
    pub fn pci(&self) -> &pci::Device<device::Bound> {
        // SAFETY: The core's device has a valid PCI device, which is bound as long as the VFIO
        // device is open: the removal waits for the close.
        unsafe { &*(*self.core()).pdev.cast::<pci::Device<device::Bound>>() }
    }

    /// Resumes the device, so that its memory can be used until the guard is dropped. `EIO` if the
    /// device can't be resumed.
    pub fn resume(&self) -> Result<PowerGuard<'_>> {
        // SAFETY: The PCI device is valid.
        let device = unsafe { &raw mut (*(*self.core()).pdev).dev };
        // SAFETY: As above.
        if unsafe { bindings::pm_runtime_resume_and_get(device) } != 0 {
            return Err(EIO);
        }
        Ok(PowerGuard {
            device,
            _device: PhantomData,
        })
    }
}

/// A device that stays in full power until this guard is dropped.
///
/// # Invariants
///
/// The guard owns a count of the usage of `device`, which is valid.
pub struct PowerGuard<'a> {
    device: *mut bindings::device,
    _device: PhantomData<&'a ()>,
}

impl Drop for PowerGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::pm_runtime_put(self.device) };
    }
}
