//! A UEFI program that arm64 firmware runs before it boots from a disk, as QEMU's `-kernel`: it
//! carries out register writes and gives firmware one more ACPI table, then returns. So a machine
//! has devices and tables that its VMM has no option for, and what boots from the disk is unchanged.
//!
//! The program is `early/program.s`. Source of the file's form: Microsoft's PE format (PE32+), UEFI
//! 2.10, 2.1.1 (images).

/// A write of a 32-bit register of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterWrite {
    /// Physical address of the register, a multiple of 4 and not 0.
    pub address: u64,
    /// Value to write.
    pub value: u32,
}

/// The assembler's output for `early/program.s`; the data begins behind the last word.
const PROGRAM: [u32; 36] = [
    0xa9bd_7bfd,
    0xa901_53f3,
    0xf900_13f5,
    0x9100_03fd,
    0x1000_0413,
    0xf940_3035,
    0xa8c1_0e62,
    0xb400_0082,
    0xb900_0043,
    0xd503_3f9f,
    0x17ff_fffc,
    0xaa03_03f4,
    0xaa1f_03e0,
    0xb400_01b4,
    0x1000_0200,
    0xaa1f_03e1,
    0x9100_a3e2,
    0xf940_a2a3,
    0xd63f_0060,
    0xb500_00e0,
    0xf940_17e0,
    0xaa13_03e1,
    0xaa14_03e2,
    0x9100_a3e3,
    0xf940_0004,
    0xd63f_0080,
    0xf940_13f5,
    0xa941_53f3,
    0xa8c3_7bfd,
    0xd65f_03c0,
    0xffe0_6bdd,
    0x46a6_6107,
    0x9c5a_b27b,
    0x5c27_c57e,
    0xd503_201f,
    0xd503_201f,
];

/// Position in the file of the PE signature.
const SIGNATURE: u32 = 0x40;
/// Headers of the file, in bytes.
const HEADERS: u32 = 0x200;
/// Alignment of the section in the file.
const IN_FILE: usize = 0x200;
/// Address of the section in the loaded program, and alignment there.
const PAGE: u32 = 0x1000;
const MACHINE_ARM64: u16 = 0xaa64;
/// Executable, line numbers stripped, large addresses; relocations are not stripped, so that
/// firmware loads the program anywhere.
const CHARACTERISTICS: u16 = 0x0026;
const PE32_PLUS: u16 = 0x20b;
/// Directories of the optional header, all empty.
const DIRECTORIES: u32 = 6;
/// Bytes of the optional header: up to the directories, and theirs.
const OPTIONAL: u16 = 112 + 8 * DIRECTORIES as u16;
const EFI_APPLICATION: u16 = 10;
/// Code that can be read and executed.
const CODE: u32 = 0x6000_0020;

/// The program's file, which makes `writes` in their order and installs `table`, one with its header,
/// if it is not empty.
#[must_use]
pub fn early_program(writes: &[RegisterWrite], table: &[u8]) -> Vec<u8> {
    let mut section: Vec<u8> = PROGRAM.iter().flat_map(|word| word.to_le_bytes()).collect();
    let pairs = writes
        .iter()
        .map(|write| (write.address, u64::from(write.value)));
    for (first, second) in pairs.chain([(0, table.len() as u64)]) {
        section.extend(first.to_le_bytes());
        section.extend(second.to_le_bytes());
    }
    section.extend(table);
    section.resize(section.len().next_multiple_of(IN_FILE), 0);
    // tables and writes have kilobytes
    let size = u32::try_from(section.len()).unwrap_or(u32::MAX);
    let mut file = headers(size);
    file.extend(section);
    file
}

/// The headers, for a section of `size` bytes.
fn headers(size: u32) -> Vec<u8> {
    let mut file = Fields(Vec::new());
    file.bytes(b"MZ").pad(0x3c).u32(SIGNATURE).bytes(b"PE\0\0");
    file.u16(MACHINE_ARM64).u16(1); // one section
    file.u32(0).u32(0).u32(0); // time, symbols
    file.u16(OPTIONAL).u16(CHARACTERISTICS);
    file.u16(PE32_PLUS).u16(0).u32(size).u32(0).u32(0);
    file.u32(PAGE).u32(PAGE); // entry, beginning of the code
    file.u64(0).u32(PAGE).u32(IN_FILE as u32); // preferred address, alignments
    file.u64(0).u64(0); // versions
    file.u32(PAGE.saturating_add(size.next_multiple_of(PAGE)))
        .u32(HEADERS)
        .u32(0)
        .u16(EFI_APPLICATION)
        .u16(0);
    file.u64(0).u64(0).u64(0).u64(0); // stack, heap
    file.u32(0).u32(DIRECTORIES);
    file.bytes(&[0; 8 * DIRECTORIES as usize]);
    file.bytes(b".text\0\0\0").u32(size).u32(PAGE);
    file.u32(size).u32(HEADERS);
    file.u32(0).u32(0).u32(0).u32(CODE);
    file.pad(HEADERS as usize);
    file.0
}

struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Zeros up to this position.
    fn pad(&mut self, end: usize) -> &mut Self {
        self.0.resize(end, 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_follows_the_code_and_ends_with_the_table() {
        let write = RegisterWrite {
            address: 0x40_1000_0004,
            value: 2,
        };
        let file = early_program(&[write], b"SSDT");
        assert_eq!(file.len() % IN_FILE, 0);
        assert_eq!(&file[0x40..0x46], b"PE\0\0\x64\xaa");
        let data = HEADERS as usize + 4 * PROGRAM.len();
        let expected = [0x40_1000_0004_u64, 2, 0, 4].map(u64::to_le_bytes).concat();
        assert_eq!(&file[data..data + 32], expected);
        assert_eq!(&file[data + 32..data + 36], b"SSDT");
    }

    #[test]
    fn a_large_table_takes_more_of_the_file_and_of_the_loaded_program() {
        let file = early_program(&[], &[1; 5000]);
        let field = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("4 bytes"));
        let section = u32::try_from(file.len()).expect("small") - HEADERS;
        assert_eq!(field(0x58 + 56), 0x3000, "bytes of the loaded program");
        assert_eq!((field(0xf8 + 8), field(0xf8 + 16)), (section, section));
    }
}
