// SPDX-License-Identifier: GPL-2.0

//! `memory_lock`, and what may be done with it held.
//!
//! - [`Unlocked`]: an operation that holds no `memory_lock`. Sleeping, and touching user memory in
//!   a way that may fault, take it.
//! - [`MemoryGuard`]: `memory_lock` is held for reading. It borrows the operation's [`Unlocked`],
//!   so nothing sleeps or faults before the guard is dropped.
//! - [`MemoryEnabled`]: a token that borrows the guard: memory is enabled in the command register,
//!   and the device is in full power. Registers of a BAR take it.
//! - [`MemoryReady`]: a guard under which the driver's own check has passed. Device memory outside
//!   the BARs, and insertions into mappings, take it.

use super::{
    device_memory::DeviceMemory,
    instance::Opened,
    Driver, //
};
use crate::{
    bindings,
    error::to_result,
    mm::{
        fault::{
            self,
            FaultResult, //
        },
        virt::VmaRef, //
    },
    prelude::*, //
};
use core::marker::PhantomData;

/// An operation that holds no `memory_lock`.
///
/// # Invariants
///
/// There is one value for each operation.
pub struct Unlocked(PhantomData<*mut ()>);

impl Unlocked {
    /// The token of an operation.
    ///
    /// # Safety
    ///
    /// The operation begins here, holds no `memory_lock`, and makes one token.
    pub(super) unsafe fn new() -> Self {
        // INVARIANT: By the safety requirements.
        Self(PhantomData)
    }

    /// True if the process is being killed.
    pub fn is_killed(&self) -> bool {
        is_killed()
    }

    /// Sleeps; a kill of the process ends the sleep.
    pub fn sleep(&mut self, milliseconds: u32) {
        // SAFETY: No lock is held that forbids sleeping: the token is borrowed as long as a guard
        // lives.
        unsafe {
            bindings::schedule_timeout_killable(
                bindings::__msecs_to_jiffies(milliseconds)
                    .try_into()
                    .unwrap_or(c_long::MAX),
            )
        };
    }

    /// Lets other tasks run, if they are due.
    pub fn reschedule(&mut self) {
        // SAFETY: As above.
        unsafe { bindings::cond_resched() };
    }
}

/// True if the process is being killed.
fn is_killed() -> bool {
    // SAFETY: The current task is valid.
    unsafe { bindings::fatal_signal_pending(bindings::get_current()) != 0 }
}

/// `memory_lock`, held for reading.
///
/// # Invariants
///
/// The lock of `core`, which is valid, is held for reading by this value.
pub struct MemoryGuard<'a> {
    core: *mut bindings::vfio_pci_core_device,
    _unlocked: PhantomData<&'a mut Unlocked>,
}

impl MemoryGuard<'_> {
    /// Takes the lock; `EINTR` if the process is killed meanwhile.
    ///
    /// # Safety
    ///
    /// `core` is valid as long as the guard lives, which ends before the operation's [`Unlocked`]
    /// is
    /// used again.
    unsafe fn new(core: *mut bindings::vfio_pci_core_device) -> Result<Self> {
        // SAFETY: By the safety requirements.
        to_result(unsafe { bindings::down_read_killable(&raw mut (*core).memory_lock) })?;
        // INVARIANT: Just taken.
        Ok(Self {
            core,
            _unlocked: PhantomData,
        })
    }

    /// A token if memory is enabled in the command register and the device is in full power.
    pub fn enabled(&self) -> Option<MemoryEnabled<'_>> {
        // SAFETY: By the type invariant the lock is held, which this function wants.
        unsafe { bindings::__vfio_pci_memory_enabled(self.core) }
            .then_some(MemoryEnabled(PhantomData))
    }

    /// True if the user has put the device into runtime suspend.
    pub fn is_suspended(&self) -> bool {
        // SAFETY: By the type invariant the lock is held, under which this changes.
        unsafe { (*self.core).pm_runtime_engaged }
    }

    /// True if the process is being killed.
    pub fn is_killed(&self) -> bool {
        is_killed()
    }
}

impl Drop for MemoryGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::up_read(&raw mut (*self.core).memory_lock) };
    }
}

/// Memory is enabled, as long as the guard that this token borrows is held.
#[derive(Clone, Copy)]
pub struct MemoryEnabled<'a>(PhantomData<&'a MemoryGuard<'a>>);

/// `memory_lock`, held for reading, with the driver's check passed: the device's memory can be used
/// until this value is dropped.
pub struct MemoryReady<'a>(MemoryGuard<'a>);

impl MemoryReady<'_> {
    /// Inserts `1 << order` page frames from `frame` on, all of them in `memory`, for a fault.
    /// [`FaultResult::SIGBUS`] if a frame is not in the memory, if the first one is not aligned to
    /// the order, or if the fault does not take the order.
    pub fn insert(
        &self,
        fault: &fault::Fault<'_>,
        memory: &DeviceMemory,
        frame: usize,
        order: u32,
    ) -> FaultResult {
        if !memory.has_frames(frame, order) || !fault.takes(order) {
            return FaultResult::SIGBUS;
        }
        // SAFETY: The lock is held, the fault is being handled and takes the order, and the frames
        // are an aligned block of device memory that this device has claimed. The mapping is one
        // of page frames alone and does not copy on write, because `mmap` has refused the others.
        unsafe {
            FaultResult::from_raw(bindings::vfio_pci_vmf_insert_pfn(
                self.0.core,
                fault.as_ptr(),
                frame,
                order,
            ))
        }
    }
}

/// Verdict of the driver's check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// The memory can be used.
    Ready,
    /// Drop the lock, sleep so many milliseconds, and check again.
    Sleep(u32),
}

/// Result of one attempt to lock.
pub enum Locked<'a> {
    /// The memory can be used.
    Ready(MemoryReady<'a>),
    /// The lock is not held; sleep so many milliseconds before the next attempt.
    Sleep(u32),
}

impl<T: Driver> Opened<T> {
    /// Takes the lock and makes the driver's check once.
    ///
    /// # Safety
    ///
    /// The guard in the result ends before the operation's [`Unlocked`] is used again.
    unsafe fn attempt<'a>(&self, wait: &mut T::Wait) -> Result<Locked<'a>> {
        // SAFETY: The core's device outlives the operation; the rest by the safety requirements.
        let guard = unsafe { MemoryGuard::new(self.core())? };
        match T::check(self, &guard, wait)? {
            Check::Ready => Ok(Locked::Ready(MemoryReady(guard))),
            Check::Sleep(milliseconds) => Ok(Locked::Sleep(milliseconds)),
        }
    }

    /// Takes the lock and makes the driver's check once. `EINTR` if the process is killed, or the
    /// error of the check.
    pub fn lock_once<'a>(
        &self,
        _unlocked: &'a mut Unlocked,
        wait: &mut T::Wait,
    ) -> Result<Locked<'a>> {
        // SAFETY: The guard borrows the token.
        unsafe { self.attempt(wait) }
    }

    /// The same until the check passes or fails, sleeping without the lock in between.
    pub fn lock_ready<'a>(
        &self,
        unlocked: &'a mut Unlocked,
        wait: &mut T::Wait,
    ) -> Result<MemoryReady<'a>> {
        loop {
            // SAFETY: The guard, if there is one, is returned, and borrows the token.
            match unsafe { self.attempt(wait)? } {
                Locked::Ready(ready) => return Ok(ready),
                Locked::Sleep(milliseconds) => unlocked.sleep(milliseconds),
            }
        }
    }
}

/// A page fault in a mapping of an open device.
pub struct Fault<'a, T: Driver> {
    fault: fault::Fault<'a>,
    dev: &'a Opened<T>,
    unlocked: Unlocked,
}

impl<'a, T: Driver> Fault<'a, T> {
    /// A fault of a mapping of `dev`.
    pub(super) fn new(fault: fault::Fault<'a>, dev: &'a Opened<T>, unlocked: Unlocked) -> Self {
        Self {
            fault,
            dev,
            unlocked,
        }
    }

    /// The device.
    pub fn device(&self) -> &Opened<T> {
        self.dev
    }

    /// The mapping.
    pub fn vma(&self) -> &VmaRef {
        self.fault.vma()
    }

    /// Address of the fault, at the beginning of its page.
    pub fn address(&self) -> usize {
        self.fault.address()
    }

    /// The fault's parts, to lock and insert with.
    pub fn parts(&mut self) -> (&fault::Fault<'a>, &Opened<T>, &mut Unlocked) {
        (&self.fault, self.dev, &mut self.unlocked)
    }

    /// True if the fault may release its locks, wait, and be tried again.
    pub fn may_release(&self) -> bool {
        self.fault.may_release()
    }

    /// True if the fault holds the lock of its mapping alone.
    pub fn is_vma_locked(&self) -> bool {
        self.fault.is_vma_locked()
    }

    /// True if the fault has been tried before with the lock of the memory map.
    pub fn was_tried(&self) -> bool {
        self.fault.was_tried()
    }

    /// Releases the locks of the fault, calls `wait`, and has the fault tried again; see
    /// [`fault::Fault::release_and`].
    pub fn release_and(self, wait: impl FnOnce(&Opened<T>, &mut Unlocked)) -> FaultResult {
        let (dev, mut unlocked) = (self.dev, self.unlocked);
        self.fault.release_and(|| wait(dev, &mut unlocked))
    }
}
