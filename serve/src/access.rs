//! Reads and writes of memory regions.
//!
//! Readiness is looked at, and memory touched, inside one shared hold of the core's memory lock;
//! sleeping happens outside of it. Nothing here decides: pieces, looks and sleeps are the
//! variant's answers.
//!
//! An access does not sleep: it is an attempt, which either comes to an end or says how long to
//! leave the device alone. The protocol's server serves other requests meanwhile.

use varia_core::{ConfigRegister, Core, MemoryGuard, Width};
use varia_spec::Errno;
use varia_variant::{
    After, Before, Begin, Direction, MemoryRegion, Millis, Monotonic, Ready, Register, Sample,
    SegmentKind, Wait,
    ready::{MAX_REGISTERS, StatusRegisters, Values},
};

use crate::{
    clock::Clock,
    endpoint::{Endpoint, until},
};

/// What a look came to.
enum Look {
    Ready,
    Sleep(Millis),
}

/// One look at a device's readiness, in the present hold.
fn look(
    core: &Core,
    guard: &MemoryGuard<'_>,
    variant: &dyn Ready,
    wait: &mut Wait,
    clock: &dyn Clock,
) -> Result<Look, Errno> {
    let sample = Sample {
        now: clock.now(),
        memory_enabled: guard.enabled(),
    };
    let (generation, registers) = match variant.ready_before(wait, sample) {
        Before::Ready => return Ok(Look::Ready),
        Before::Failed(errno) => return Err(errno),
        Before::Poll {
            generation,
            registers,
        } => (generation, registers),
    };
    let values = read_registers(core, guard, registers)?;
    match variant.ready_after(wait, generation, values, sample) {
        After::Ready => Ok(Look::Ready),
        After::Sleep(time) => Ok(Look::Sleep(time)),
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

/// What came of an attempt to use the device's memory.
pub(crate) enum Attempt<'a> {
    /// It is ready, in this hold.
    Ready(MemoryGuard<'a>),
    /// It is not; look again after this long.
    Wait(Millis),
}

/// One look, and the hold in which the device is ready if it is.
pub(crate) fn attempt<'a>(
    core: &'a Core,
    variant: &dyn Ready,
    wait: &mut Wait,
    clock: &dyn Clock,
) -> Result<Attempt<'a>, Errno> {
    let guard = core.memory();
    Ok(match look(core, &guard, variant, wait, clock)? {
        Look::Ready => Attempt::Ready(guard),
        Look::Sleep(time) => Attempt::Wait(time),
    })
}

/// One operation's wait for the device, by value: one deadline over all its attempts.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    wait: Wait,
    /// When this runtime's patience ends, whatever the variant would allow.
    limit: Monotonic,
}

/// What came of an attempt at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It is done, with so many bytes.
    Done(usize),
    /// Nothing was done: the device is not ready. Try again after this long.
    Wait(Millis),
}

/// An access that has been let in.
struct Begun<'a> {
    /// Bytes, clipped to the region.
    count: usize,
    /// The hold in which it is carried out.
    guard: MemoryGuard<'a>,
}

impl Endpoint {
    /// A user's operation has arrived: its wait, if it comes to one, is measured from now.
    pub fn arrived(&self) -> Operation {
        Operation {
            wait: Wait::default(),
            limit: self.options.clock.now().after(self.options.patience),
        }
    }

    /// Makes attempts until one comes to an end, sleeping between them.
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

    /// Starts an access: its clipped count, and the hold in which it is carried out; or how long
    /// to wait.
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
                            "the device is not ready after {} s, so an access fails; the next one \
                             looks again{}",
                            self.options.patience.0 / 1000,
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
            let segment = memory.segment(Direction::Read, at, rest.len() as u64);
            let (piece, later) = split_mut(rest, segment.len);
            match segment.kind {
                SegmentKind::Memory(address, _) => guard.read(address, piece)?,
                SegmentKind::Ones | SegmentKind::Drop => piece.fill(0xff),
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
            let segment = memory.segment(Direction::Write, at, rest.len() as u64);
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

fn split_mut(data: &mut [u8], len: u64) -> (&mut [u8], &mut [u8]) {
    let len = usize::try_from(len).unwrap_or(data.len()).min(data.len());
    data.split_at_mut(len)
}
