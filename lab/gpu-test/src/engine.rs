//! The GPU's copy engine, driven from user space by its registers in BAR0.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use varia_spec::copy_engine::{ID, LEN, OFFSET, command, register, status};
use varia_sys::mapping::{Access, Mapping, Share, page_size};

use crate::Failure;
use crate::gpu::{Gpu, read};

/// A limit that only a hang reaches.
const HANG: Duration = Duration::from_secs(300);

/// A copy engine.
pub(crate) struct Engine {
    registers: Mapping,
    /// File of the guest driver with the number of interrupts.
    completions: String,
    before: u64,
    commands: u64,
}

/// End of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub(crate) status: u32,
    pub(crate) fault: u64,
    pub(crate) result: u64,
}

impl Engine {
    /// The GPU's engine; `None` if it has none. Its first MSI-X vector is chosen.
    pub(crate) fn open(gpu: &Gpu) -> Result<Option<Self>, Failure> {
        let folder = format!("/sys/bus/pci/devices/{}", gpu.address);
        let path = format!("{folder}/resource0");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| format!("{path}: {error}"))?;
        let pages = LEN.next_multiple_of(page_size() as u64);
        let registers = Mapping::new(&file, OFFSET, pages, Access::ReadWrite, Share::Shared);
        let mut engine = Self {
            registers: registers.map_err(|errno| format!("{path}: mmap: {errno}"))?,
            completions: format!("{folder}/completions"),
            before: 0,
            commands: 0,
        };
        if engine.get32(register::ID)? != ID {
            return Ok(None);
        }
        engine.before = engine.completions()?;
        engine.set32(register::VECTOR, 0)?;
        Ok(Some(engine))
    }

    fn get32(&self, at: u64) -> Result<u32, Failure> {
        let mut bytes = [0; 4];
        let read = self.registers.read(at as usize, &mut bytes);
        read.map_err(|errno| format!("register {at:#x}: {errno}"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn set32(&self, at: u64, value: u32) -> Result<(), Failure> {
        let written = self.registers.write(at as usize, &value.to_le_bytes());
        written.map_err(|errno| format!("register {at:#x}: {errno}"))
    }

    fn get64(&self, at: u64) -> Result<u64, Failure> {
        Ok(u64::from(self.get32(at)?) | u64::from(self.get32(at + 4)?) << 32)
    }

    fn set64(&self, at: u64, value: u64) -> Result<(), Failure> {
        self.set32(at, value as u32)?;
        self.set32(at + 4, (value >> 32) as u32)
    }

    /// Runs a command to its end, and waits for its interrupt.
    pub(crate) fn run(
        &mut self,
        operation: u32,
        source: u64,
        destination: u64,
        length: u64,
    ) -> Result<Ended, Failure> {
        self.set64(register::SOURCE, source)?;
        self.set64(register::DESTINATION, destination)?;
        self.set64(register::LENGTH, length)?;
        self.set32(register::COMMAND, operation)?;
        self.commands += 1;
        let begin = Instant::now();
        loop {
            let status = self.get32(register::STATUS)?;
            if status == u32::MAX {
                return Err("the GPU reads as all ones: it is gone".to_owned());
            }
            if status != status::BUSY && self.interrupts()? >= self.commands {
                return Ok(Ended {
                    status,
                    fault: self.get64(register::FAULT)?,
                    result: self.get64(register::RESULT)?,
                });
            }
            if begin.elapsed() > HANG {
                return Err(format!(
                    "command {operation:#x} has status {status:#x}, and {} of {} interrupts came",
                    self.interrupts()?,
                    self.commands
                ));
            }
            std::thread::yield_now();
        }
    }

    /// Has the destination of later fills hold this word.
    pub(crate) fn fill_with(&self, word: u64) -> Result<(), Failure> {
        self.set64(register::PATTERN, word)
    }

    /// Number of commands so far.
    pub(crate) fn commands(&self) -> u64 {
        self.commands
    }

    /// Number of interrupts so far.
    pub(crate) fn interrupts(&self) -> Result<u64, Failure> {
        Ok(self.completions()?.wrapping_sub(self.before))
    }

    fn completions(&self) -> Result<u64, Failure> {
        let text = read(&self.completions)?;
        text.parse()
            .map_err(|error| format!("{}: {text:?}: {error}", self.completions))
    }
}

/// A copy from the guest's memory into the GPU's.
pub(crate) const TO_GPU: u32 = command::COPY | command::SOURCE_BUS;
/// A copy from the GPU's memory into the guest's.
pub(crate) const FROM_GPU: u32 = command::COPY | command::DESTINATION_BUS;
