// SPDX-License-Identifier: GPL-2.0

//! Tables of operations that VFIO and the memory manager call.

use super::{
    instance::Instance,
    memory::Unlocked,
    transfer::{
        Direction,
        Transfer, //
    },
    Caching,
    Driver,
    Fault,
    Opened, //
};
use crate::{
    bindings,
    error::{
        from_result,
        to_result, //
    },
    mm::{
        fault,
        pfn_space::PfnLocator,
        virt::{
            self,
            VmaNew,
            VmaRef, //
        },
    },
    prelude::*,
    uaccess::UserPtr, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};

/// The tables of `T`, and their functions.
pub(super) struct Operations<T: Driver>(PhantomData<T>);

/// A capability that tells which area of a region can be mapped.
#[repr(C)]
struct SparseCapability {
    header: bindings::vfio_info_cap_header,
    count: u32,
    reserved: u32,
    area: bindings::vfio_region_sparse_mmap_area,
}

impl<T: Driver> Operations<T> {
    /// Operations of VFIO.
    pub(super) const TABLE: &'static bindings::vfio_device_ops = &bindings::vfio_device_ops {
        name: crate::str::as_char_ptr_in_const_context(T::NAME).cast_mut(),
        init: Some(bindings::vfio_pci_core_init_dev),
        release: Some(Self::release),
        open_device: Some(Self::open_device),
        close_device: Some(Self::close_device),
        ioctl: Some(Self::ioctl),
        get_region_info_caps: Some(Self::region_info),
        device_feature: Some(Self::feature),
        read: Some(Self::read),
        write: Some(Self::write),
        mmap: Some(Self::mmap),
        request: Some(bindings::vfio_pci_core_request),
        match_: Some(bindings::vfio_pci_core_match),
        match_token_uuid: Some(bindings::vfio_pci_core_match_token_uuid),
        #[cfg(CONFIG_IOMMUFD)]
        bind_iommufd: Some(bindings::vfio_iommufd_physical_bind),
        #[cfg(CONFIG_IOMMUFD)]
        unbind_iommufd: Some(bindings::vfio_iommufd_physical_unbind),
        #[cfg(CONFIG_IOMMUFD)]
        attach_ioas: Some(bindings::vfio_iommufd_physical_attach_ioas),
        #[cfg(CONFIG_IOMMUFD)]
        detach_ioas: Some(bindings::vfio_iommufd_physical_detach_ioas),
        ..pin_init::zeroed()
    };

    /// Operations of `vfio_pci_core`.
    #[allow(
        clippy::needless_update,
        reason = "a configuration can have no other operation"
    )]
    pub(super) const PCI_TABLE: &'static bindings::vfio_pci_device_ops =
        &bindings::vfio_pci_device_ops {
            #[cfg(CONFIG_VFIO_PCI_DMABUF)]
            get_dmabuf_phys: Some(Self::dmabuf_ranges),
            ..pin_init::zeroed()
        };

    /// Operations of mappings.
    const MAPPING_TABLE: &'static bindings::vm_operations_struct =
        &bindings::vm_operations_struct {
            fault: Some(Self::fault),
            #[cfg(CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP)]
            huge_fault: Some(Self::huge_fault),
            ..pin_init::zeroed()
        };

    /// # Safety
    ///
    /// VFIO calls this for the last reference to an instance of `T`.
    unsafe extern "C" fn release(vdev: *mut bindings::vfio_device) {
        let Some(core) = NonNull::new(vdev.cast::<bindings::vfio_pci_core_device>()) else {
            return;
        };
        // SAFETY: VFIO calls this for the last reference to an instance of `T`.
        unsafe {
            Instance::<T>::drop_data(core);
            bindings::vfio_pci_core_release_dev(vdev);
        }
    }

    /// # Safety
    ///
    /// VFIO calls this for an instance of `T` that is not open.
    unsafe extern "C" fn open_device(vdev: *mut bindings::vfio_device) -> c_int {
        let core = vdev.cast::<bindings::vfio_pci_core_device>();
        from_result(|| {
            // SAFETY: VFIO opens an instance of `T`, one open at a time.
            to_result(unsafe { bindings::vfio_pci_core_enable(core) })?;
            // SAFETY: As above; the core is enabled.
            unsafe { Opened::<T>::open(vdev) }.inspect_err(|_| {
                // SAFETY: The core was enabled above.
                unsafe { bindings::vfio_pci_core_disable(core) };
            })?;
            // SAFETY: The core is enabled.
            unsafe { bindings::vfio_pci_core_finish_enable(core) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// VFIO calls this once for an open instance of `T`.
    unsafe extern "C" fn close_device(vdev: *mut bindings::vfio_device) {
        // SAFETY: VFIO closes an open instance of `T`, once. The core closes first: until then it,
        // and importers of the memory, may reach the memory. The open state has nothing of what the
        // core takes down.
        unsafe {
            bindings::vfio_pci_core_close_device(vdev);
            T::closed(Opened::<T>::close(vdev));
        }
    }

    /// # Safety
    ///
    /// VFIO calls this for an open instance of `T`.
    unsafe extern "C" fn ioctl(
        vdev: *mut bindings::vfio_device,
        request: c_uint,
        argument: c_ulong,
    ) -> c_long {
        // SAFETY: VFIO calls this for an open instance of `T`.
        if let Err(error) = T::ioctl(unsafe { Opened::from_vdev(vdev) }, request) {
            return error.to_errno() as c_long;
        }
        // SAFETY: As above.
        unsafe { bindings::vfio_pci_core_ioctl(vdev, request, argument) }
    }

    /// # Safety
    ///
    /// VFIO calls this for an open instance of `T`.
    unsafe extern "C" fn feature(
        vdev: *mut bindings::vfio_device,
        flags: u32,
        argument: *mut c_void,
        size: usize,
    ) -> c_int {
        // SAFETY: VFIO calls this for an open instance of `T`.
        if let Err(error) = T::feature(unsafe { Opened::from_vdev(vdev) }, flags) {
            return error.to_errno();
        }
        // SAFETY: As above.
        unsafe { bindings::vfio_pci_core_ioctl_feature(vdev, flags, argument, size) }
    }

    /// # Safety
    ///
    /// VFIO calls this for an open instance of `T`.
    unsafe extern "C" fn region_info(
        vdev: *mut bindings::vfio_device,
        info: *mut bindings::vfio_region_info,
        caps: *mut bindings::vfio_info_cap,
    ) -> c_int {
        // SAFETY: VFIO calls this for an open instance of `T`, with structures of its own.
        unsafe {
            let index = (*info).index;
            let Some(region) = T::region_info(Opened::from_vdev(vdev), index) else {
                return bindings::vfio_pci_ioctl_get_region_info(vdev, info, caps);
            };
            (*info).offset = u64::from(index) << super::OFFSET_SHIFT;
            (*info).size = region.size;
            (*info).flags = region.flags;
            let mut capability = SparseCapability {
                header: bindings::vfio_info_cap_header {
                    id: bindings::VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16,
                    version: 1,
                    next: 0,
                },
                count: 1,
                reserved: 0,
                area: bindings::vfio_region_sparse_mmap_area {
                    offset: region.area.0,
                    size: region.area.1,
                },
            };
            bindings::vfio_info_add_capability(
                caps,
                (&raw mut capability).cast(),
                size_of::<SparseCapability>(),
            )
        }
    }

    /// # Safety
    ///
    /// VFIO calls this for an open instance of `T`.
    unsafe extern "C" fn read(
        vdev: *mut bindings::vfio_device,
        buffer: *mut c_char,
        count: usize,
        position: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: By the contract of this function, which VFIO calls.
        unsafe { Self::transfer(vdev, Direction::Read, buffer.cast(), count, position) }
    }

    /// # Safety
    ///
    /// VFIO calls this for an open instance of `T`.
    unsafe extern "C" fn write(
        vdev: *mut bindings::vfio_device,
        buffer: *const c_char,
        count: usize,
        position: *mut bindings::loff_t,
    ) -> isize {
        let buffer = buffer.cast_mut().cast();
        // SAFETY: By the contract of this function, which VFIO calls.
        unsafe { Self::transfer(vdev, Direction::Write, buffer, count, position) }
    }

    /// A read or write; the position moves only by a success.
    ///
    /// # Safety
    ///
    /// `vdev` is that of an open instance of `T`, and `position` is the caller's own.
    unsafe fn transfer(
        vdev: *mut bindings::vfio_device,
        direction: Direction,
        buffer: *mut c_void,
        count: usize,
        position: *mut bindings::loff_t,
    ) -> isize {
        let user = (UserPtr::from_ptr(buffer), count);
        // SAFETY: By the safety requirements; the operation begins here.
        let (dev, at, unlocked) = unsafe {
            (
                Opened::<T>::from_vdev(vdev),
                position.read(),
                Unlocked::new(),
            )
        };
        let mut transfer = Transfer::new(dev, direction, user, at as u64, unlocked);
        match T::transfer(&mut transfer) {
            Ok(done) => {
                // SAFETY: By the safety requirements.
                unsafe { position.write(at.wrapping_add(done as bindings::loff_t)) };
                done as isize
            }
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// VFIO calls this for an open instance of `T`.
    unsafe extern "C" fn mmap(
        vdev: *mut bindings::vfio_device,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: VFIO calls this for an open instance of `T` and a mapping that is being made.
        let (dev, new) = unsafe { (Opened::<T>::from_vdev(vdev), VmaNew::from_raw(vma)) };
        let mapping = match T::mmap(dev, new) {
            // A mapping of page frames alone can't be one of pages too.
            Ok(_) if new.flags() & virt::flags::MIXEDMAP != 0 => return EINVAL.to_errno(),
            // Nor can it copy a page on write.
            Ok(Some(_)) if new.copies_on_write() => return EINVAL.to_errno(),
            Ok(Some(mapping)) => mapping,
            // SAFETY: As above.
            Ok(None) => return unsafe { bindings::vfio_pci_core_mmap(vdev, vma) },
            Err(error) => return error.to_errno(),
        };
        let mut flags =
            bindings::VM_IO | bindings::VM_PFNMAP | bindings::VM_DONTEXPAND | bindings::VM_DONTDUMP;
        if mapping.allow_uncached {
            flags |= 1 << bindings::VMA_ALLOW_ANY_UNCACHED_BIT;
        }
        // SAFETY: The mapping is being made and is not shared yet, and nothing is mapped in it.
        unsafe {
            bindings::vm_flags_set(vma, flags as bindings::vm_flags_t);
            if mapping.caching == Caching::WriteCombining {
                let prot = (*vma).vm_page_prot;
                (*vma).vm_page_prot = bindings::pgprot_writecombine(prot);
            }
            (*vma).vm_private_data = vdev.cast();
            (*vma).vm_ops = Self::MAPPING_TABLE;
        }
        0
    }

    /// # Safety
    ///
    /// The memory manager calls this for a mapping that `mmap` has made.
    unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: By the contract of this function, which the memory manager calls.
        unsafe { Self::huge_fault(fault, 0) }
    }

    /// # Safety
    ///
    /// The memory manager calls this for a mapping that `mmap` has made.
    unsafe extern "C" fn huge_fault(
        fault: *mut bindings::vm_fault,
        order: c_uint,
    ) -> bindings::vm_fault_t {
        let Some(fault) = NonNull::new(fault) else {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        };
        // SAFETY: The memory manager calls this with a fault of a mapping that `mmap` has made,
        // which has the device, and which keeps the device open by its file. The operation begins
        // here.
        let (dev, unlocked) = unsafe {
            let vma = (*fault.as_ptr()).__bindgen_anon_1.vma;
            let dev = Opened::<T>::from_vdev((*vma).vm_private_data.cast());
            (dev, Unlocked::new())
        };
        // SAFETY: As above.
        unsafe {
            fault::handle(fault, order, |fault| {
                T::fault(Fault::new(fault, dev, unlocked), order)
            })
        }
    }

    /// # Safety
    ///
    /// `vfio_pci_core` calls this for an open instance of `T`.
    #[cfg(CONFIG_VFIO_PCI_DMABUF)]
    unsafe extern "C" fn dmabuf_ranges(
        core: *mut bindings::vfio_pci_core_device,
        provider: *mut *mut bindings::p2pdma_provider,
        index: c_uint,
        out: *mut bindings::phys_vec,
        ranges: *mut bindings::vfio_region_dma_range,
        count: usize,
    ) -> c_int {
        // SAFETY: The core calls this for an open instance of `T`, with arguments for the functions
        // below. Only BARs have providers; memory outside the BARs belongs to the same function.
        unsafe {
            let Some(memory) = T::dma_range(Opened::from_vdev(core.cast()), index) else {
                return bindings::vfio_pci_core_get_dmabuf_phys(
                    core, provider, index, out, ranges, count,
                );
            };
            provider.write(bindings::pcim_p2pdma_provider((*core).pdev, 0));
            if provider.read().is_null() {
                return EINVAL.to_errno();
            }
            bindings::vfio_pci_core_fill_phys_vec(
                out,
                ranges,
                count,
                memory.base(),
                memory.length(),
            )
        }
    }
}

impl<T: Driver> PfnLocator for Operations<T> {
    fn locate(vma: &VmaRef, frame: usize) -> Result<usize> {
        // SAFETY: The mapping is locked.
        let (operations, device) =
            unsafe { ((*vma.as_ptr()).vm_ops, (*vma.as_ptr()).vm_private_data) };
        let Some(operations) = NonNull::new(operations.cast_mut()) else {
            return Err(ENOENT);
        };
        // SAFETY: A mapping's table is valid.
        let fault = unsafe { (*operations.as_ptr()).fault };
        let ours: unsafe extern "C" fn(*mut bindings::vm_fault) -> bindings::vm_fault_t =
            Self::fault;
        if !fault.is_some_and(|fault| ptr::fn_addr_eq(fault, ours)) {
            return Err(ENOENT);
        }
        // SAFETY: The mapping was made by `mmap`, so it has the device, and keeps it open.
        let dev = unsafe { Opened::<T>::from_vdev(device.cast()) };
        T::locate(
            dev,
            frame,
            vma.page_offset(),
            vma.length() >> crate::page::PAGE_SHIFT,
        )
    }
}
