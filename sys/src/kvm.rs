//! Capabilities of the kernel's KVM that matter for device memory in a guest.
//!
//! Source: Linux 7.2 `include/uapi/linux/kvm.h`.

use std::ffi::{c_int, c_ulong};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use varia_spec::errno::Errno;

use crate::errno;

/// `KVM_CREATE_VM`, `_IO(0xae, 1)`.
const CREATE_VM: c_ulong = 0xae01;
/// Default machine type of each architecture.
const DEFAULT_TYPE: c_ulong = 0;
/// `KVM_CHECK_EXTENSION`, `_IO(0xae, 3)`.
const CHECK_EXTENSION: c_ulong = 0xae03;
const CAP_MAX_VCPUS: c_ulong = 66;
const CAP_ARM_VM_IPA_SIZE: c_ulong = 165;
const CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED: c_ulong = 243;

/// Capabilities of KVM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// `KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED`: device memory can be mapped into a guest as
    /// cacheable; `None` on other architectures than arm64.
    pub cacheable_pfnmap: Option<bool>,
    /// `KVM_CAP_ARM_VM_IPA_SIZE`: bits of a guest's physical addresses; `None` on architectures
    /// without this capability.
    pub ipa_bits: Option<u32>,
    /// `KVM_CAP_MAX_VCPUS`.
    pub max_vcpus: u32,
}

/// Queries `/dev/kvm`, and on arm64 an empty VM, which is removed afterwards: only a VM returns the
/// capability of cacheable device memory (`arch/arm64/kvm/arm.c`: `kvm_vm_ioctl_check_extension`
/// returns `EINVAL` without a VM).
///
/// # Errors
/// Error of opening `/dev/kvm`: `ENOENT` without KVM, `EACCES` without permission; or error of
/// creating a VM.
pub fn capabilities() -> Result<Capabilities, Errno> {
    let kvm = File::open("/dev/kvm").map_err(|error| errno::of_io(&error))?;
    let arm = cfg!(target_arch = "aarch64");
    let ipa = check(kvm.as_fd(), CAP_ARM_VM_IPA_SIZE)?;
    let cacheable_pfnmap = if arm {
        let vm = create_vm(&kvm)?;
        Some(check(vm.as_fd(), CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED)? > 0)
    } else {
        None
    };
    Ok(Capabilities {
        cacheable_pfnmap,
        ipa_bits: (ipa > 0).then_some(ipa),
        max_vcpus: check(kvm.as_fd(), CAP_MAX_VCPUS)?,
    })
}

/// Creates an empty VM.
fn create_vm(kvm: &File) -> Result<OwnedFd, Errno> {
    // SAFETY: the descriptor is open during the call; the request takes a number and touches
    // no memory of ours.
    let vm: c_int = unsafe { libc::ioctl(kvm.as_raw_fd(), CREATE_VM as _, DEFAULT_TYPE) };
    if vm < 0 {
        return Err(errno::last());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(vm) })
}

/// Value of a capability; 0 if the kernel does not know the capability.
fn check(kvm_or_vm: BorrowedFd<'_>, capability: c_ulong) -> Result<u32, Errno> {
    // SAFETY: the descriptor is open during the call; the request takes a number and touches
    // no memory of ours.
    let value: c_int =
        unsafe { libc::ioctl(kvm_or_vm.as_raw_fd(), CHECK_EXTENSION as _, capability) };
    u32::try_from(value).map_err(|_| errno::last())
}
