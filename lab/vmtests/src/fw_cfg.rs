//! ACPI tables that QEMU offers to the firmware of an arm64 machine, read in the place of firmware
//! while the machine stands still.
//!
//! Source: QEMU 11.1 `docs/specs/fw_cfg` (the DMA interface), the memory map of `virt` (RAM, the
//! device fw_cfg, ECAM above 256 GiB), and the protocol of `-qtest`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Where RAM begins; nothing runs that uses it.
const RAM: u64 = 1 << 30;
/// The register that starts a transfer, big-endian.
const DMA: u64 = 0x0902_0010;
/// The configuration space of bus 0, 1 MiB for each bus.
const ECAM: u64 = 0x40_1000_0000;
/// Primary, secondary and subordinate bus of a bridge.
const BUS_NUMBERS: u64 = 0x18;
/// The key of the list of files.
const DIRECTORY: u32 = 0x19;
const SELECT_AND_READ: u32 = 0b1010;
/// Bytes of a file in the list: size and key, big-endian, two bytes, a name.
const ENTRY: usize = 64;

/// A connection to a machine that does not run.
#[derive(Debug)]
pub struct FwCfg {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl FwCfg {
    /// Connects to what QEMU's `-qtest` listens on.
    ///
    /// # Panics
    /// If nothing does.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        let to = UnixStream::connect(socket).expect("QEMU listens");
        let from = BufReader::new(to.try_clone().expect("a descriptor"));
        Self { to, from }
    }

    /// Sends a command; answers the word behind `OK`.
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.to, "{command}").expect("QEMU reads");
        loop {
            let mut line = String::new();
            let read = self.from.read_line(&mut line);
            assert!(matches!(read, Ok(1..)), "QEMU ended at {command:?}");
            if line.starts_with("IRQ") {
                continue;
            }
            let answer = line.strip_prefix("OK");
            let answer = answer.unwrap_or_else(|| panic!("{command}: {line}"));
            return answer.trim().to_owned();
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("write {address:#x} {:#x} 0x{hex}", bytes.len()));
    }

    fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        let hex = self.ask(&format!("read {address:#x} {length:#x}"));
        let digits = hex.trim_start_matches("0x").as_bytes();
        let byte = |two: &[u8]| {
            let text = std::str::from_utf8(two).expect("digits");
            u8::from_str_radix(text, 16).expect("a byte")
        };
        digits.chunks(2).map(byte).collect()
    }

    /// Numbers the bus behind the only bridge of a root bus, as firmware does: the next one.
    pub fn number_bus_behind(&mut self, root: u8) {
        let at = ECAM + (u64::from(root) << 20) + BUS_NUMBERS;
        self.write(at, &[root, root + 1, root + 1]);
    }

    /// Item of a key.
    fn item(&mut self, key: u32, length: usize) -> Vec<u8> {
        let buffer = RAM + 0x1000;
        let length_word = u32::try_from(length).expect("32 bits");
        let mut order = (key << 16 | SELECT_AND_READ).to_be_bytes().to_vec();
        order.extend(length_word.to_be_bytes());
        order.extend(buffer.to_be_bytes());
        self.write(RAM, &order);
        self.write(DMA, &RAM.to_be_bytes());
        assert_eq!(self.read(RAM, 4), [0; 4], "the transfer is done");
        self.read(buffer, length)
    }

    /// The table with this signature.
    ///
    /// # Panics
    /// If QEMU made none.
    pub fn table(&mut self, signature: &str) -> Vec<u8> {
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().expect("4 bytes"));
        let count = word(&self.item(DIRECTORY, 4)) as usize;
        let list = self.item(DIRECTORY, 4 + count * ENTRY);
        let file = list[4..].chunks(ENTRY).find(|entry| {
            let name = entry[8..].split(|byte| *byte == 0).next();
            name == Some(b"etc/acpi/tables")
        });
        let file = file.expect("ACPI tables");
        let all = self.item(word(&file[4..]) >> 16, word(file) as usize);
        // one behind the other, each with its length behind its signature
        let mut rest = &all[..];
        while rest.len() > 8 {
            let length = u32::from_le_bytes(rest[4..8].try_into().expect("4 bytes")) as usize;
            if length == 0 {
                break;
            }
            let (table, behind) = rest.split_at(length);
            if table.starts_with(signature.as_bytes()) {
                return table.to_vec();
            }
            rest = behind;
        }
        panic!("QEMU made no {signature}");
    }
}
