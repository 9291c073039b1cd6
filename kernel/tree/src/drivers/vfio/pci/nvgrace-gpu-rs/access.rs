// SPDX-License-Identifier: GPL-2.0-only

//! Reads and writes of a region of memory, in segments of bounded size.
//!
//! The user's buffer can be a mapping of the same region, whose faults take `memory_lock`. So with
//! that lock held, the buffer is copied without page faults, and if a page is missing, the segment
//! goes through a bounce buffer.

use kernel::{
    prelude::*,
    vfio::pci::{
        DeviceMemory,
        Direction,
        Transfer, //
    }, //
};
use varia_variant::{
    memory::natural_run,
    Begin,
    MemoryRegion,
    MemoryType,
    SegmentKind, //
};

use crate::{
    events::Counter,
    ready::{
        self,
        Wait, //
    },
    state::{
        caching,
        to_error,
        State, //
    },
    NvgraceGpu, //
};

/// Most bytes that are copied through the bounce buffer at once.
const COPY_CHUNK: usize = 4096;
/// Most bytes that are copied with the lock held once, between the memory and the user.
const DIRECT_CHUNK: u64 = 2 << 20;

/// The direction for the decisions.
pub(crate) fn direction(direction: Direction) -> varia_variant::Direction {
    match direction {
        Direction::Read => varia_variant::Direction::Read,
        Direction::Write => varia_variant::Direction::Write,
    }
}

/// A read or write.
pub(crate) fn transfer(
    transfer: &mut Transfer<'_, NvgraceGpu>,
    region: &MemoryRegion,
) -> Result<usize> {
    let dev = transfer.device();
    let state = &dev.data().state;
    let _power = dev.resume()?;
    let direction = direction(transfer.direction());
    let (count, needs_ready) =
        match region.begin(direction, transfer.offset(), transfer.len() as u64) {
            Begin::Refuse(errno) => {
                state.count(Counter::AccessesRefused);
                return Err(to_error(errno));
            }
            Begin::Serve { count, needs_ready } => (count, needs_ready),
        };
    state.count(Counter::Accesses);
    let mut access = Access {
        transfer,
        region,
        state,
        done: 0,
        count,
        straight: true,
        wait: Wait::default(),
        bounce: KVec::new(),
    };
    let result = access.run(needs_ready);
    let done = access.done;
    state.count(Counter::AccessesEnded);
    result.map(|()| done as usize)
}

/// A read or write that has begun.
struct Access<'a, 'b> {
    transfer: &'a mut Transfer<'b, NvgraceGpu>,
    region: &'a MemoryRegion,
    state: &'a State,
    done: u64,
    count: u64,
    /// False behind a missing page of the user's: the bounce buffer brings the page in.
    straight: bool,
    wait: Wait,
    bounce: KVec<u8>,
}

impl Access<'_, '_> {
    fn segment(&self) -> varia_variant::Segment {
        let offset = self.transfer.offset().saturating_add(self.done);
        let direction = direction(self.transfer.direction());
        let left = self.count.saturating_sub(self.done);
        let segment = self.region.segment(direction, offset, left);
        let failed = self
            .state
            .failed(self.transfer.region(), offset, segment.len);
        segment.up_to(failed)
    }

    fn run(&mut self, needs_ready: bool) -> Result {
        let checks = self.count > 0
            && matches!(
                self.segment().kind,
                SegmentKind::Memory(_, MemoryType::Cached) // the copy checks
            );
        if needs_ready && !checks {
            let dev = self.transfer.device();
            drop(ready::lock(dev, self.transfer.unlocked(), &mut self.wait)?);
            self.state.count(Counter::Checks);
        }
        while self.done < self.count {
            let segment = self.segment();
            let moved = match segment.kind {
                SegmentKind::Memory(_, MemoryType::Cached) if self.straight => {
                    self.copy_directly(segment.len.min(DIRECT_CHUNK) as usize)?
                }
                SegmentKind::Memory(at, memory) => {
                    let len = segment.len.min(COPY_CHUNK as u64);
                    match memory {
                        MemoryType::Cached => self.copy_bounced(None, len)?,
                        MemoryType::WriteCombining | MemoryType::Registers => {
                            let (width, len) = natural_run(at, len);
                            self.copy_bounced(Some(width as usize), len)?
                        }
                    }
                }
                SegmentKind::Ones => self.ones(segment.len)?,
                SegmentKind::Drop => self.count - self.done,
                SegmentKind::Failed => {
                    self.state.count(Counter::AccessesFailed);
                    return if self.done == 0 { Err(EIO) } else { Ok(()) };
                }
            };
            self.done = self.done.saturating_add(moved);
            if self.done < self.count && self.transfer.unlocked().is_killed() {
                return Err(EINTR);
            }
            self.transfer.unlocked().reschedule();
        }
        Ok(())
    }

    /// Copies between the memory and the user, up to the first missing page.
    fn copy_directly(&mut self, len: usize) -> Result<u64> {
        let dev = self.transfer.device();
        let memory = mapped(self.transfer, self.region, self.state)?;
        let offset = self.transfer.offset().saturating_add(self.done);
        let (unlocked, buffer) = self.transfer.split(self.done as usize, len)?;
        let ready = ready::lock(dev, unlocked, &mut self.wait)?;
        let moved = memory.copy_user(&ready, offset, buffer)?;
        drop(ready);
        self.state.count(Counter::Copies);
        self.straight = moved == len;
        Ok(moved as u64)
    }

    /// Copies through the bounce buffer; in accesses of `width` bytes if there is one.
    fn copy_bounced(&mut self, width: Option<usize>, len: u64) -> Result<u64> {
        let dev = self.transfer.device();
        let memory = mapped(self.transfer, self.region, self.state)?;
        let offset = self.transfer.offset().saturating_add(self.done);
        let at = self.done as usize;
        let mut bounce = self.take_bounce()?;
        let bytes = bounce.get_mut(..len as usize).ok_or(EINVAL)?;
        let writes = self.transfer.direction() == Direction::Write;
        if writes {
            self.transfer.load(at, bytes)?;
        }
        let ready = ready::lock(dev, self.transfer.unlocked(), &mut self.wait)?;
        match (writes, width) {
            (true, None) => memory.write(&ready, offset, bytes)?,
            (true, Some(width)) => memory.write_ordered(&ready, offset, width, bytes)?,
            (false, None) => memory.read(&ready, offset, bytes)?,
            (false, Some(width)) => memory.read_ordered(&ready, offset, width, bytes)?,
        }
        drop(ready);
        self.state.count(Counter::Copies);
        if !writes {
            self.transfer.store(at, bytes)?;
        }
        self.bounce = bounce;
        self.straight = true;
        Ok(len)
    }

    /// Gives the user bytes that no memory is behind.
    fn ones(&mut self, len: u64) -> Result<u64> {
        let len = len.min(COPY_CHUNK as u64);
        let mut bounce = self.take_bounce()?;
        let bytes = bounce.get_mut(..len as usize).ok_or(EINVAL)?;
        bytes.fill(0xff);
        self.transfer.store(self.done as usize, bytes)?;
        self.bounce = bounce;
        Ok(len)
    }

    fn take_bounce(&mut self) -> Result<KVec<u8>> {
        if self.bounce.is_empty() {
            self.bounce = KVec::from_elem(0, COPY_CHUNK, GFP_KERNEL)?;
        }
        Ok(core::mem::take(&mut self.bounce))
    }
}

/// Memory of the region, mapped for the kernel's own accesses.
fn mapped<'a>(
    transfer: &Transfer<'a, NvgraceGpu>,
    region: &MemoryRegion,
    state: &State,
) -> Result<&'a DeviceMemory> {
    let memory = transfer.device().open_state().memory(transfer.region());
    let memory = memory.ok_or(ENXIO)?;
    // Of two racing maps the other one counts.
    if !memory.is_mapped() && memory.map(caching(region.memory()))? {
        state.count(Counter::MemoryMapped);
    }
    Ok(memory)
}
