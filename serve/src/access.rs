//! Reads and writes of memory regions.
//!
//! Readiness is polled, and memory accessed, while the core's memory lock is held shared; the lock
//! is not held during a sleep. Nothing here decides: segments, polls and sleeps are decisions of
//! the variant.
//!
//! An access does not sleep: it is an attempt, which either ends or returns the time until the next
//! attempt. The protocol's server serves other requests meanwhile.

use varia_core::{ConfigRegister, Core, MemoryGuard, Width};
use varia_spec::Errno;
use varia_variant::{
    After, Before, Begin, Direction, MemoryRegion, Millis, Monotonic, Ready, Register, Sample,
    Segment, SegmentKind, Wait,
    ready::{MAX_REGISTERS, StatusRegisters, Values},
};

use crate::{
    clock::Clock,
    endpoint::{Endpoint, until},
};

/// Result of a poll.
enum Poll {
    Ready,
    Sleep(Millis),
}

/// Polls a device's readiness once, under the lock held by the caller.
fn poll(
    core: &Core,
    guard: &MemoryGuard<'_>,
    variant: &dyn Ready,
    wait: &mut Wait,
    clock: &dyn Clock,
) -> Result<Poll, Errno> {
    let sample = Sample {
        now: clock.now(),
        memory_enabled: guard.enabled(),
    };
    let (generation, registers) = match variant.ready_before(wait, sample) {
        Before::Ready => return Ok(Poll::Ready),
        Before::Failed(errno) => return Err(errno),
        Before::Poll {
            generation,
            registers,
        } => (generation, registers),
    };
    let values = read_registers(core, guard, registers)?;
    match variant.ready_after(wait, generation, values, sample) {
        After::Ready => Ok(Poll::Ready),
        After::Sleep(time) => Ok(Poll::Sleep(time)),
        After::Failed(errno) => Err(errno),
    }
}

fn read_registers(
    core: &Core,
    guard: &MemoryGuard<'_>,
    registers: StatusRegisters,
) -> Result<Values, Errno> {
    let mut values = [0; MAX_REGISTERS];
    for (value, register) in values.iter_mut().zip(registers) {
        *value = match register {
            None => continue,
            Some(Register::Config(offset)) => {
                let at = ConfigRegister::new(offset, Width::Dword).ok_or(Errno::EINVAL)?;
                core.device().config_read(at)?
            }
            Some(Register::Bar0(offset)) => {
                let mut bytes = [0; 4];
                guard.bar_read(0, offset, &mut bytes)?;
                u32::from_le_bytes(bytes)
            }
        };
    }
    Ok(values)
}

/// Result of an attempt to use the device's memory.
pub(crate) enum Attempt<'a> {
    /// The device is ready while this lock is held.
    Ready(MemoryGuard<'a>),
    /// The device is not ready: poll again after this time.
    Wait(Millis),
}

/// Polls once. Returns the lock, held, if the device is ready.
pub(crate) fn attempt<'a>(
    core: &'a Core,
    variant: &dyn Ready,
    wait: &mut Wait,
    clock: &dyn Clock,
) -> Result<Attempt<'a>, Errno> {
    let guard = core.memory();
    Ok(match poll(core, &guard, variant, wait, clock)? {
        Poll::Ready => Attempt::Ready(guard),
        Poll::Sleep(time) => Attempt::Wait(time),
    })
}

/// Wait of one operation for the device, by value: one deadline over all attempts.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    wait: Wait,
    /// End of this runtime's timeout, whatever the variant would allow.
    limit: Monotonic,
}

/// Result of an attempt at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The operation is done, with this many bytes.
    Done(usize),
    /// The device is not ready and nothing was done: the next attempt is due after this time.
    Wait(Millis),
}

/// An access that has begun.
struct Begun<'a> {
    /// Bytes, clipped to the region.
    count: usize,
    /// The lock held during the access.
    guard: MemoryGuard<'a>,
}

impl Endpoint {
    /// An operation of the user has arrived: a wait of the operation is measured from now.
    pub fn arrived(&self) -> Operation {
        Operation {
            wait: Wait::default(),
            limit: self.options.clock.now().after(self.options.timeout),
        }
    }

    /// Makes attempts until an attempt ends, and sleeps between them.
    pub(crate) fn finish(
        &self,
        mut attempt: impl FnMut(&mut Operation) -> Result<Progress, Errno>,
    ) -> Result<usize, Errno> {
        let mut operation = self.arrived();
        loop {
            match attempt(&mut operation)? {
                Progress::Done(count) => return Ok(count),
                Progress::Wait(time) => self.options.clock.sleep(time),
            }
        }
    }

    /// Starts an access. Returns the clipped count and the lock, held; or the time until the next
    /// attempt.
    fn begin(
        &self,
        memory: &MemoryRegion,
        direction: Direction,
        offset: u64,
        count: usize,
        operation: &mut Operation,
    ) -> Result<Result<Begun<'_>, Millis>, Errno> {
        let (clipped, needs_ready) = match memory.begin(direction, offset, count as u64) {
            Begin::Refuse(errno) => return Err(errno),
            Begin::Serve { count, needs_ready } => (count, needs_ready),
        };
        let guard = match (&self.variant, needs_ready) {
            (Some(variant), true) => {
                let clock = &*self.options.clock;
                match attempt(&self.core, &**variant, &mut operation.wait, clock)? {
                    Attempt::Ready(guard) => guard,
                    Attempt::Wait(time) if clock.now().after(time) <= operation.limit => {
                        return Ok(Err(time));
                    }
                    Attempt::Wait(_) => {
                        log::warn!(
                            "the device is not ready after {} s, so an access fails; the next access \
                             polls again{}",
                            self.options.timeout.0 / 1000,
                            until(variant)
                        );
                        return Err(Errno::ETIMEDOUT);
                    }
                }
            }
            _ => self.core.memory(),
        };
        let count = usize::try_from(clipped).unwrap_or(count).min(count);
        Ok(Ok(Begun { count, guard }))
    }

    /// First segment of `len` bytes at an offset, up to the first failed page.
    fn segment(
        &self,
        memory: &MemoryRegion,
        direction: Direction,
        offset: u64,
        len: u64,
    ) -> Segment {
        let segment = memory.segment(direction, offset, len);
        let SegmentKind::Memory(address, _) = segment.kind else {
            return segment;
        };
        let failed = self.core.device().memory_failed(address, segment.len);
        segment.up_to(failed.map(|at| at.0.saturating_sub(address.0)))
    }

    pub(crate) fn memory_read(
        &self,
        memory: &MemoryRegion,
        offset: u64,
        data: &mut [u8],
        operation: &mut Operation,
    ) -> Result<Progress, Errno> {
        let begun = self.begin(memory, Direction::Read, offset, data.len(), operation)?;
        let Begun { count, guard } = match begun {
            Ok(begun) => begun,
            Err(time) => return Ok(Progress::Wait(time)),
        };
        let mut rest = data.get_mut(..count).unwrap_or_default();
        let mut at = offset;
        while !rest.is_empty() {
            let segment = self.segment(memory, Direction::Read, at, rest.len() as u64);
            let done = count - rest.len();
            let (piece, later) = split_mut(rest, segment.len);
            match segment.kind {
                SegmentKind::Memory(address, _) => guard.read(address, piece)?,
                SegmentKind::Ones | SegmentKind::Drop => piece.fill(0xff),
                SegmentKind::Failed => return ended(done),
            }
            at += segment.len;
            rest = later;
        }
        Ok(Progress::Done(count))
    }

    pub(crate) fn memory_write(
        &self,
        memory: &MemoryRegion,
        offset: u64,
        data: &[u8],
        operation: &mut Operation,
    ) -> Result<Progress, Errno> {
        let begun = self.begin(memory, Direction::Write, offset, data.len(), operation)?;
        let Begun { count, guard } = match begun {
            Ok(begun) => begun,
            Err(time) => return Ok(Progress::Wait(time)),
        };
        let mut rest = data.get(..count).unwrap_or_default();
        let mut at = offset;
        while !rest.is_empty() {
            let segment = self.segment(memory, Direction::Write, at, rest.len() as u64);
            if segment.kind == SegmentKind::Failed {
                return ended(count - rest.len());
            }
            let len = usize::try_from(segment.len)
                .unwrap_or(rest.len())
                .min(rest.len());
            let (piece, later) = rest.split_at(len);
            if let SegmentKind::Memory(address, _) = segment.kind {
                guard.write(address, piece)?;
            }
            at += segment.len;
            rest = later;
        }
        Ok(Progress::Done(count))
    }
}

/// An access that ends at a failed page, with the bytes before that page.
fn ended(done: usize) -> Result<Progress, Errno> {
    match done {
        0 => Err(Errno::EIO),
        done => Ok(Progress::Done(done)),
    }
}

fn split_mut(data: &mut [u8], len: u64) -> (&mut [u8], &mut [u8]) {
    let len = usize::try_from(len).unwrap_or(data.len()).min(data.len());
    data.split_at_mut(len)
}
