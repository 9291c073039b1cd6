//! Reads and writes of memory regions.
//!
//! Readiness is looked at, and memory touched, inside one shared hold of the core's memory lock;
//! sleeping happens outside of it. Nothing here decides: pieces, looks and sleeps are the
//! variant's answers.

use varia_core::{ConfigRegister, Core, MemoryGuard};
use varia_spec::Errno;
use varia_variant::{
    After, Before, Begin, Direction, MemoryRegion, Millis, Register, Sample, SegmentKind, Variant,
    Wait,
    ready::{MAX_REGISTERS, Registers},
};

use crate::{clock::Clock, endpoint::Endpoint};

/// What a look came to.
enum Look {
    Ready,
    Sleep(Millis),
}

/// One look at a device's readiness, in the present hold.
fn look(
    core: &Core,
    guard: &MemoryGuard<'_>,
    variant: &dyn Variant,
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
        Before::Look {
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
    registers: Registers,
) -> Result<[u32; MAX_REGISTERS], Errno> {
    let mut values = [0; MAX_REGISTERS];
    for (value, register) in values.iter_mut().zip(registers) {
        *value = match register {
            None => continue,
            Some(Register::Config(offset)) => {
                core.device().config_read(ConfigRegister::dword(offset))?
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

/// Waits until the device is ready, and answers with the hold in which it is so.
///
/// `patience` limits the whole wait, whatever the variant would allow: `ETIMEDOUT`.
pub(crate) fn wait_until_ready<'a>(
    core: &'a Core,
    variant: &dyn Variant,
    wait: &mut Wait,
    clock: &dyn Clock,
    patience: Option<Millis>,
) -> Result<MemoryGuard<'a>, Errno> {
    let limit = patience.map(|patience| clock.now().after(patience));
    loop {
        let guard = core.memory();
        match look(core, &guard, variant, wait, clock)? {
            Look::Ready => return Ok(guard),
            Look::Sleep(time) => {
                drop(guard);
                if limit.is_some_and(|limit| clock.now().after(time) > limit) {
                    return Err(Errno::ETIMEDOUT);
                }
                clock.sleep(time);
            }
        }
    }
}

impl Endpoint {
    /// Starts an access: its clipped count, and the hold in which it is carried out.
    fn begin(
        &self,
        memory: &MemoryRegion,
        direction: Direction,
        offset: u64,
        count: usize,
    ) -> Result<(usize, MemoryGuard<'_>), Errno> {
        let (clipped, needs_ready) = match memory.begin(direction, offset, count as u64) {
            Begin::Refuse(errno) => return Err(errno),
            Begin::Serve { count, needs_ready } => (count, needs_ready),
        };
        let guard = match (&self.variant, needs_ready) {
            (Some(variant), true) => {
                let Options { clock, patience } = self.waiting();
                wait_until_ready(
                    &self.core,
                    &**variant,
                    &mut Wait::default(),
                    clock,
                    Some(patience),
                )?
            }
            _ => self.core.memory(),
        };
        Ok((usize::try_from(clipped).unwrap_or(count).min(count), guard))
    }

    fn waiting(&self) -> Options<'_> {
        Options {
            clock: &*self.options.clock,
            patience: self.options.patience,
        }
    }

    pub(crate) fn memory_read(
        &self,
        memory: &MemoryRegion,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, Errno> {
        let (count, guard) = self.begin(memory, Direction::Read, offset, data.len())?;
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
        Ok(count)
    }

    pub(crate) fn memory_write(
        &self,
        memory: &MemoryRegion,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Errno> {
        let (count, guard) = self.begin(memory, Direction::Write, offset, data.len())?;
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
        Ok(count)
    }
}

/// What [`Endpoint::begin`] needs of the options.
struct Options<'a> {
    clock: &'a dyn Clock,
    patience: Millis,
}

fn split_mut(data: &mut [u8], len: u64) -> (&mut [u8], &mut [u8]) {
    let len = usize::try_from(len).unwrap_or(data.len()).min(data.len());
    data.split_at_mut(len)
}
