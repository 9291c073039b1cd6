//! The copy engine, driven by the guest through its registers in BAR0.

use varia_lab::Running;
use varia_spec::copy_engine::{OFFSET, command, register};
use varia_vmtests::Result;

/// Bytes that each command of these tests works on.
pub(crate) const PAGE: u64 = 4096;

/// Registers of the copy engine, as the guest reads and writes them in BAR0.
pub(crate) struct Engine<'a> {
    pub(crate) vm: &'a Running,
    pub(crate) bdf: &'a str,
}

fn digits(value: u64) -> String {
    let bytes = value.to_le_bytes();
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

impl Engine<'_> {
    /// Reads a register: its bytes in rising order, as digits.
    pub(crate) fn register(&self, register: u64, len: u64) -> Result<String> {
        self.run(&format!("r {:x} {len:x}\n", OFFSET + register))
    }

    fn run(&self, script: &str) -> Result<String> {
        let output = self
            .vm
            .applet("pci-memory", &[self.bdf, "0"], script.as_bytes())?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// Has the engine carry out a command on a page: status and address of the fault.
    fn command(&self, code: u32, registers: &[(u64, u64)]) -> Result<(u32, u64)> {
        let mut script = format!("w {:x} {}\n", OFFSET + register::LENGTH, digits(PAGE));
        for (register, value) in registers {
            script += &format!("w {:x} {}\n", OFFSET + register, digits(*value));
        }
        let text = self.run(&format!(
            "{script}w {:x} {}\nr {:x} 4\nr {:x} 8\n",
            OFFSET + register::COMMAND,
            &digits(code.into())[..8],
            OFFSET + register::STATUS,
            OFFSET + register::FAULT,
        ))?;
        let number = |line: Option<&str>| {
            let digits = line.unwrap_or_default();
            let number = u64::from_str_radix(digits, 16).map(u64::swap_bytes);
            number.unwrap_or_else(|error| panic!("{text}: {error}")) >> (64 - 4 * digits.len())
        };
        let mut lines = text.lines();
        Ok((number(lines.next()) as u32, number(lines.next())))
    }

    /// Checksum of a page of the coherent memory.
    pub(crate) fn checksum(&self, offset: u64) -> Result<(u32, u64)> {
        self.command(command::CHECKSUM, &[(register::SOURCE, offset)])
    }

    /// Fills a page of the coherent memory with a pattern.
    pub(crate) fn fill(&self, offset: u64, pattern: u64) -> Result<(u32, u64)> {
        let registers = [
            (register::DESTINATION, offset),
            (register::PATTERN, pattern),
        ];
        self.command(command::FILL, &registers)
    }

    /// Copies a page of the coherent memory to an address of the bus.
    pub(crate) fn copy_to_bus(&self, offset: u64, address: u64) -> Result<(u32, u64)> {
        let registers = [(register::SOURCE, offset), (register::DESTINATION, address)];
        self.command(command::COPY | command::DESTINATION_BUS, &registers)
    }
}
