//! A copy engine: the device reads and writes the user's memory by itself, and sends a message when
//! it has ended.
//!
//! No chip has this one. It stands for the engines of real GPUs, whose registers are not public, so
//! that DMA, its faults and its interrupts go through every layer above the device. A command runs
//! during the write that starts it; where the user's memory is reached through the user, it goes on
//! on the user's thread ([`Dma::later`]), and stops if the device may not go on: after a reset, without
//! bus master, or if its memory no longer answers. A command either does all of its writes or none,
//! except in memory that is reached through the user: a user that refuses one page has those before.
//!
//! Registers: `varia_spec::copy_engine`.

use std::sync::{Arc, Mutex};

use varia_core::{Dma, Errno};
use varia_spec::copy_engine::{
    CHECKSUM_START, ID, LEN, MAX_LENGTH, NO_VECTOR, OFFSET, checksum, command, register, status,
};
use varia_sys::memory::SharedMemory;
use vm_memory::guest_memory::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use crate::silicon::lock;

/// The engine of a function.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    state: Mutex<State>,
    memory: Mutex<Option<Arc<Dma>>>,
}

#[derive(Debug)]
struct State {
    registers: Registers,
    status: u32,
    count: u32,
    result: u64,
    fault: u64,
    /// Number of resets: a command that one has overtaken ends without a trace.
    resets: u64,
}

/// Registers that a driver writes.
#[derive(Clone, Copy, Debug)]
struct Registers {
    command: u32,
    source: u64,
    destination: u64,
    length: u64,
    pattern: u64,
    vector: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            registers: Registers {
                command: 0,
                source: 0,
                destination: 0,
                length: 0,
                pattern: 0,
                vector: NO_VECTOR,
            },
            status: status::IDLE,
            count: 0,
            result: 0,
            fault: 0,
            resets: 0,
        }
    }
}

/// A command that a driver has started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    operation: Operation,
    length: u64,
    resets: u64,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Copy {
        from: Place,
        to: Place,
    },
    Fill {
        to: Place,
        pattern: u64,
    },
    Checksum {
        from: Place,
    },
    /// A command that does not exist, or has a wrong length.
    Wrong {
        status: u32,
    },
}

/// Place of an operand.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Offset in the coherent memory.
    Own(u64),
    /// Address of the bus.
    Bus(u64),
}

/// Reason why a command failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) status: u32,
    pub(crate) fault: u64,
}

impl Engine {
    /// Bytes of the block.
    pub(crate) fn registers(&self) -> Vec<u8> {
        let state = lock(&self.state);
        let registers = &state.registers;
        let mut block = vec![0; LEN as usize];
        let mut put = |at: u64, bytes: &[u8]| {
            let slots = block.iter_mut().skip(at as usize);
            slots.zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        };
        for (at, value) in [
            (register::ID, ID),
            (register::STATUS, state.status),
            (register::COUNT, state.count),
            (register::COMMAND, registers.command),
            (register::VECTOR, registers.vector),
        ] {
            put(at, &value.to_le_bytes());
        }
        for (at, value) in [
            (register::SOURCE, registers.source),
            (register::DESTINATION, registers.destination),
            (register::LENGTH, registers.length),
            (register::PATTERN, registers.pattern),
            (register::RESULT, state.result),
            (register::FAULT, state.fault),
        ] {
            put(at, &value.to_le_bytes());
        }
        block
    }

    /// Takes the bytes of a write to BAR0 that are the block's. A write of the lowest byte of the
    /// command register starts the command that is returned.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Option<Command> {
        let mut state = lock(&self.state);
        if state.status == status::BUSY {
            return None;
        }
        let registers = &mut state.registers;
        let mut starts = false;
        for (byte, at) in data.iter().zip(offset..) {
            let Some(at) = at.checked_sub(OFFSET) else {
                continue;
            };
            let (narrow, wide) = match at {
                register::COMMAND..register::SOURCE => (Some(&mut registers.command), None),
                register::SOURCE..register::DESTINATION => (None, Some(&mut registers.source)),
                register::DESTINATION..register::LENGTH => (None, Some(&mut registers.destination)),
                register::LENGTH..register::PATTERN => (None, Some(&mut registers.length)),
                register::PATTERN..register::RESULT => (None, Some(&mut registers.pattern)),
                register::VECTOR..LEN if at < register::VECTOR + 4 => {
                    (Some(&mut registers.vector), None)
                }
                _ => continue,
            };
            if let Some(value) = narrow {
                let shift = 8 * (at % 4);
                *value = *value & !(0xff << shift) | u32::from(*byte) << shift;
            }
            if let Some(value) = wide {
                let shift = 8 * (at % 8);
                *value = *value & !(0xff << shift) | u64::from(*byte) << shift;
            }
            starts |= at == register::COMMAND;
        }
        if !starts {
            return None;
        }
        let registers = *registers;
        let place = |bus: u32, at: u64| match registers.command & bus {
            0 => Place::Own(at),
            _ => Place::Bus(at),
        };
        let from = place(command::SOURCE_BUS, registers.source);
        let to = place(command::DESTINATION_BUS, registers.destination);
        let known = command::OPERATION | command::SOURCE_BUS | command::DESTINATION_BUS;
        let length = registers.length;
        let operation = match registers.command & command::OPERATION {
            _ if registers.command & !known != 0 => Operation::Wrong {
                status: status::BAD_COMMAND,
            },
            command::COPY..=command::CHECKSUM if length == 0 || length > MAX_LENGTH => {
                Operation::Wrong {
                    status: status::BAD_LENGTH,
                }
            }
            command::COPY => Operation::Copy { from, to },
            command::FILL => Operation::Fill {
                to,
                pattern: registers.pattern,
            },
            command::CHECKSUM => Operation::Checksum { from },
            _ => Operation::Wrong {
                status: status::BAD_COMMAND,
            },
        };
        (state.status, state.fault, state.result) = (status::BUSY, 0, 0);
        let resets = state.resets;
        Some(Command {
            operation,
            length,
            resets,
        })
    }

    /// The command runs, and no reset has overtaken it.
    pub(crate) fn runs(&self, command: &Command) -> bool {
        lock(&self.state).resets == command.resets
    }

    /// Ends a command, unless a reset has overtaken it; the vector of its message.
    pub(crate) fn end(&self, of: &Command, outcome: Result<u64, Failure>) -> Option<u16> {
        let mut state = lock(&self.state);
        if state.resets != of.resets {
            return None;
        }
        match outcome {
            Ok(result) => {
                state.result = result;
                state.end(status::DONE, 0);
            }
            Err(failure) => state.end(failure.status, failure.fault),
        }
        u16::try_from(state.registers.vector).ok()
    }

    /// Loses registers and the command that runs.
    pub(crate) fn reset(&self) {
        let mut state = lock(&self.state);
        *state = State {
            resets: state.resets.wrapping_add(1),
            ..State::default()
        };
    }

    pub(crate) fn attach(&self, memory: Option<Arc<Dma>>) {
        *lock(&self.memory) = memory;
    }

    /// The user's memory.
    pub(crate) fn memory(&self) -> Option<Arc<Dma>> {
        lock(&self.memory).clone()
    }
}

impl State {
    fn end(&mut self, status: u32, fault: u64) {
        (self.status, self.fault) = (status, fault);
        self.count = self.count.wrapping_add(1);
    }
}

impl Command {
    /// Ranges of the coherent memory that the command uses: offset and length.
    pub(crate) fn own(&self) -> impl Iterator<Item = (u64, u64)> {
        let length = self.length;
        self.places().filter_map(move |place| match place {
            Place::Own(at) => Some((at, length)),
            Place::Bus(_) => None,
        })
    }

    /// The command needs the bus.
    pub(crate) fn masters(&self) -> bool {
        self.places().any(|place| matches!(place, Place::Bus(_)))
    }

    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let (from, to) = match self.operation {
            Operation::Copy { from, to } => (Some(from), Some(to)),
            Operation::Fill { to, .. } => (None, Some(to)),
            Operation::Checksum { from } => (Some(from), None),
            Operation::Wrong { .. } => (None, None),
        };
        from.into_iter().chain(to)
    }

    /// Runs in the user's memory as far as it is mapped with descriptors, else, once the caller has
    /// been replied to, through the user. `still` says whether the device may go on; `ended` gets the
    /// outcome.
    pub(crate) fn run(
        self,
        own: SharedMemory,
        user: Option<Arc<Dma>>,
        still: impl Fn() -> Result<(), Failure> + Send + 'static,
        ended: impl FnOnce(Result<u64, Failure>) + Send + 'static,
    ) {
        let Some(user) = user else {
            let nothing = Dma::default();
            let outcome = self.carry_out(&own, &*nothing.mappings(), &still);
            return ended(outcome);
        };
        let (outcome, missed) = {
            let mappings = user.mappings();
            mappings.missed();
            let outcome = self.carry_out(&own, &*mappings, &still);
            (outcome, mappings.missed())
        };
        if outcome.is_ok() || !missed {
            return ended(outcome);
        }
        let of_job = Arc::clone(&user);
        let ended = Arc::new(Mutex::new(Some(ended)));
        let of_job_ended = Arc::clone(&ended);
        let job = move || {
            let outcome = self.through_user(&own, &of_job, &still);
            if let Some(ended) = lock(&of_job_ended).take() {
                ended(outcome);
            }
        };
        if user.later(Box::new(job)).is_err() {
            if let Some(ended) = lock(&ended).take() {
                ended(outcome);
            }
        }
    }

    /// Runs with the memory that is reached through the user, again if the mappings change meanwhile.
    fn through_user(
        &self,
        own: &SharedMemory,
        user: &Dma,
        still: &impl Fn() -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let on_bus = |place| match place {
            Place::Bus(at) => Some(at),
            Place::Own(_) => None,
        };
        loop {
            still()?;
            let Some(transaction) = user.transaction() else {
                return Err(not_mapped(self.places().find_map(on_bus).unwrap_or(0)));
            };
            let outcome = self.carry_out(own, &transaction, still);
            still()?;
            match transaction.commit() {
                Ok(()) => return outcome,
                Err(Errno::EINTR) => {}
                // what is sent is the destination's, which comes last
                Err(_) => {
                    let refused = self.places().filter_map(on_bus).last().unwrap_or(0);
                    return Err(outcome.err().unwrap_or_else(|| not_mapped(refused)));
                }
            }
        }
    }

    fn carry_out<M>(
        &self,
        own: &SharedMemory,
        user: &M,
        still: &impl Fn() -> Result<(), Failure>,
    ) -> Result<u64, Failure>
    where
        M: GuestMemory,
    {
        let length = self.length as usize;
        match self.operation {
            Operation::Copy { from, to } => {
                let bytes = self.read(from, own, user)?;
                still()?;
                self.write(to, &bytes, own, user)?;
                Ok(0)
            }
            Operation::Fill { to, pattern } => {
                let pattern = pattern.to_le_bytes();
                let bytes: Vec<_> = pattern.iter().copied().cycle().take(length).collect();
                self.write(to, &bytes, own, user)?;
                Ok(0)
            }
            Operation::Checksum { from } => {
                let bytes = self.read(from, own, user)?;
                Ok(checksum(CHECKSUM_START, &bytes))
            }
            Operation::Wrong { status } => Err(Failure { status, fault: 0 }),
        }
    }

    fn read<M>(&self, from: Place, own: &SharedMemory, user: &M) -> Result<Vec<u8>, Failure>
    where
        M: GuestMemory,
    {
        let mut bytes = vec![0; self.length as usize];
        match from {
            Place::Own(at) => own.read(at, &mut bytes).map_err(|_| failed(at))?,
            Place::Bus(at) => user
                .read_slice(&mut bytes, GuestAddress(at))
                .map_err(|error| not_mapped(met(&error, at)))?,
        }
        Ok(bytes)
    }

    /// Every byte has its place, or none is written: ranges are looked up as a whole.
    fn write<M>(&self, to: Place, bytes: &[u8], own: &SharedMemory, user: &M) -> Result<(), Failure>
    where
        M: GuestMemory,
    {
        match to {
            Place::Own(at) => own.write(at, bytes).map_err(|_| failed(at)),
            Place::Bus(at) => user
                .write_slice(bytes, GuestAddress(at))
                .map_err(|error| not_mapped(met(&error, at))),
        }
    }
}

/// Failure at an address of the bus.
fn not_mapped(fault: u64) -> Failure {
    Failure {
        status: status::NOT_MAPPED,
        fault,
    }
}

/// Address that an access could not reach; `at` if the error has none.
fn met(error: &Error, at: u64) -> u64 {
    match error {
        Error::InvalidGuestAddress(GuestAddress(address)) => *address,
        _ => at,
    }
}

fn failed(at: u64) -> Failure {
    Failure {
        status: status::MEMORY_FAILED,
        fault: at,
    }
}
