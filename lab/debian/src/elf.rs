//! Just enough of ELF to read a kernel module's information and a program's libraries.
//!
//! 64-bit little-endian files only, which is what both of the lab's architectures use.
//! Field offsets are those of the ELF-64 object file format: file header, section
//! header (64 bytes), program header (56 bytes), dynamic entry (16 bytes).

/// A file that parsed as far as its header.
#[derive(Clone, Copy, Debug)]
pub struct Elf<'a> {
    bytes: &'a [u8],
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

impl<'a> Elf<'a> {
    /// Recognises a 64-bit little-endian ELF file; anything else is `None`.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        (bytes.get(..6)? == b"\x7fELF\x02\x01" && bytes.len() >= 64).then_some(Self { bytes })
    }

    /// The contents of the first section with this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let names = self.section_header(self.u16(62)?)?;
        let names = self.part(names.offset, names.size)?;
        (0..self.u16(60)?).find_map(|index| {
            let header = self.section_header(index)?;
            let found = text_at(names, u64::from(header.name))?;
            (found == name).then(|| self.part(header.offset, header.size))?
        })
    }

    /// The values of `key=value` entries in a kernel module's `.modinfo` section.
    #[must_use]
    pub fn modinfo(&self, key: &str) -> Vec<String> {
        let section = self.section(".modinfo").unwrap_or_default();
        section
            .split(|&byte| byte == 0)
            .filter_map(|entry| {
                let entry = std::str::from_utf8(entry).ok()?;
                entry
                    .strip_prefix(key)?
                    .strip_prefix('=')
                    .map(str::to_owned)
            })
            .collect()
    }

    /// The dynamic loader that a program names.
    #[must_use]
    pub fn interpreter(&self) -> Option<String> {
        let header = self
            .program_headers()
            .find(|header| header.kind == PT_INTERP)?;
        let text = self.part(header.offset, header.file_size)?;
        text_at(text, 0).map(str::to_owned)
    }

    /// The shared libraries that a program or library asks for, by name.
    #[must_use]
    pub fn needed(&self) -> Vec<String> {
        let Some(dynamic) = self
            .program_headers()
            .find(|header| header.kind == PT_DYNAMIC)
            .and_then(|header| self.part(header.offset, header.file_size))
        else {
            return Vec::new();
        };
        let entries: Vec<(u64, u64)> = dynamic
            .chunks_exact(16)
            .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let strings = entries
            .iter()
            .find(|(tag, _)| *tag == DT_STRTAB)
            .and_then(|(_, address)| self.file_offset(*address))
            .and_then(|offset| self.bytes.get(usize::try_from(offset).ok()?..));
        let Some(strings) = strings else {
            return Vec::new();
        };
        entries
            .iter()
            .filter(|(tag, _)| *tag == DT_NEEDED)
            .filter_map(|(_, at)| text_at(strings, *at).map(str::to_owned))
            .collect()
    }

    /// Offset in the file of a virtual address.
    fn file_offset(&self, address: u64) -> Option<u64> {
        self.program_headers()
            .filter(|header| header.kind == PT_LOAD)
            .find_map(|header| {
                let inside = address.checked_sub(header.address)?;
                (inside < header.file_size).then(|| header.offset.checked_add(inside))?
            })
    }

    fn program_headers(&self) -> impl Iterator<Item = ProgramHeader> + use<'a> {
        let file = *self;
        let table = file.u64(32).unwrap_or_default();
        (0..file.u16(56).unwrap_or_default()).filter_map(move |index| {
            let header = file.part(table.checked_add(56 * u64::from(index))?, 56)?;
            Some(ProgramHeader {
                kind: u32_at(header, 0)?,
                offset: u64_at(header, 8)?,
                address: u64_at(header, 16)?,
                file_size: u64_at(header, 32)?,
            })
        })
    }

    fn section_header(&self, index: u16) -> Option<SectionHeader> {
        let header = self.part(self.u64(40)?.checked_add(64 * u64::from(index))?, 64)?;
        Some(SectionHeader {
            name: u32_at(header, 0)?,
            offset: u64_at(header, 24)?,
            size: u64_at(header, 32)?,
        })
    }

    fn part(&self, offset: u64, size: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        self.bytes.get(start..end)
    }

    fn u16(&self, offset: u64) -> Option<u16> {
        self.part(offset, 2)?
            .try_into()
            .ok()
            .map(u16::from_le_bytes)
    }

    fn u64(&self, offset: u64) -> Option<u64> {
        u64_at(self.part(offset, 8)?, 0)
    }
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
}

struct SectionHeader {
    name: u32,
    offset: u64,
    size: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at.checked_add(4)?)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at.checked_add(8)?)?
        .try_into()
        .ok()
        .map(u64::from_le_bytes)
}

fn text_at(table: &[u8], at: u64) -> Option<&str> {
    let rest = table.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_needs_a_c_library_and_its_loader() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        assert!(
            elf.needed().iter().any(|name| name.starts_with("libc.so")),
            "{:?}",
            elf.needed()
        );
        assert!(elf.interpreter().unwrap().contains("/ld-linux"));
        assert!(elf.section(".text").is_some_and(|text| !text.is_empty()));
        assert!(elf.section(".no-such-section").is_none());
    }

    #[test]
    fn a_file_cut_anywhere_gives_nothing_and_no_panic() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in (0..200).chain([4096, bytes.len() / 2]) {
            if let Some(elf) = Elf::parse(&bytes[..length]) {
                assert!(elf.section(".text").is_none());
                assert!(elf.needed().len() < 100);
                assert!(elf.modinfo("depends").is_empty());
            }
        }
        assert!(Elf::parse(b"#!/bin/sh\n").is_none());
    }
}
