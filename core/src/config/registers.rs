//! The register map: every byte of configuration space belongs to one register.
//!
//! A user may read and write any bytes. The map cuts what was asked for into an [`Access`] to one
//! register after another. A handler gets an access and the register's whole value, never an
//! offset: what is unaligned, empty, or crosses into another register can't be written down.

use varia_spec::pci::CFG_SPACE_EXP_SIZE;

use crate::device::{ConfigRegister, Width};

/// Action of a register beyond its masks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// No action.
    Plain,
    /// Writes go to the device as they are.
    Raw,
    /// The command register.
    Command,
    /// A base address register, 0 to 5.
    Bar(u8),
    /// The expansion ROM's base address register.
    Rom,
    /// Power management control.
    PowerControl,
    /// The address of vital product data.
    VpdAddress,
    /// MSI message control.
    MessageControl,
    /// Express device control.
    DeviceControl,
    /// Advanced features control.
    AdvancedControl,
}

/// A register and its bits.
///
/// A bit that is *virtual* is read from and written to the core's copy; any other goes to the
/// device. A write changes only bits that are *writable*.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Register {
    pub(crate) at: ConfigRegister,
    pub(crate) virt: u32,
    pub(crate) write: u32,
    pub(crate) role: Role,
}

/// An access to one register: some of its bytes, side by side, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    register: Register,
    first: u8,
    count: u8,
}

impl Access {
    /// The register.
    pub(crate) fn register(self) -> Register {
        self.register
    }

    /// Number of the bytes in the register.
    pub(crate) fn len(self) -> usize {
        usize::from(self.count)
    }

    /// The bits of the register that lie in these bytes.
    pub(crate) fn mask(self) -> u32 {
        let bytes = u32::MAX >> (32 - 8 * u32::from(self.count));
        bytes << self.shift()
    }

    /// Puts bytes into the register's place.
    pub(crate) fn place(self, bytes: u32) -> u32 {
        bytes << self.shift() & self.mask()
    }

    /// Takes the bytes out of the register's value.
    pub(crate) fn take(self, value: u32) -> u32 {
        (value & self.mask()) >> self.shift()
    }

    /// The aligned accesses that touch these bytes of the device and no others, with the shift of
    /// each in the register.
    pub(crate) fn on_device(self) -> impl Iterator<Item = (ConfigRegister, u32)> {
        let start = self.register.at.offset();
        let (mut at, end) = (u16::from(self.first), u16::from(self.first + self.count));
        std::iter::from_fn(move || {
            let piece = widest(start + at, end.checked_sub(at)?)?;
            let shift = 8 * u32::from(at);
            at += piece.width().bytes();
            Some((piece, shift))
        })
    }

    fn shift(self) -> u32 {
        8 * u32::from(self.first)
    }
}

/// The registers of the whole space.
#[derive(Clone, Debug)]
pub(crate) struct RegisterMap {
    registers: Vec<Register>,
    /// For each byte the index of its register.
    owner: Vec<u16>,
}

impl RegisterMap {
    /// A map of `registers`, which are sorted and don't overlap; the bytes between them are raw.
    pub(crate) fn new(registers: impl IntoIterator<Item = Register>) -> Self {
        let mut map = Self {
            registers: Vec::new(),
            owner: Vec::new(),
        };
        for register in registers {
            map.fill(register.at.offset());
            map.push(register);
        }
        map.fill(CFG_SPACE_EXP_SIZE);
        map
    }

    /// The first of the accesses that make up one of `count` bytes at `pos`; `None` for no bytes,
    /// and beyond the space.
    pub(crate) fn access(&self, pos: u16, count: usize) -> Option<Access> {
        let owner = *self.owner.get(usize::from(pos))?;
        let register = *self.registers.get(usize::from(owner))?;
        let first = pos - register.at.offset();
        let rest = usize::from(register.at.width().bytes() - first);
        let count = count.min(rest) as u8;
        (count != 0).then_some(Access {
            register,
            first: first as u8,
            count,
        })
    }

    fn push(&mut self, register: Register) {
        let index = self.registers.len() as u16;
        let bytes = usize::from(register.at.width().bytes());
        self.owner.extend(std::iter::repeat_n(index, bytes));
        self.registers.push(register);
    }

    /// Raw registers up to `end`.
    fn fill(&mut self, end: u16) {
        let start = self.owner.len() as u16;
        for at in tiles(start, end) {
            self.push(Register {
                at,
                virt: 0,
                write: u32::MAX,
                role: Role::Raw,
            });
        }
    }
}

/// The widest aligned register at `at` with at most `len` bytes; `None` for no bytes.
fn widest(at: u16, len: u16) -> Option<ConfigRegister> {
    [Width::Dword, Width::Word, Width::Byte]
        .into_iter()
        .filter(|width| width.bytes() <= len)
        .find_map(|width| ConfigRegister::new(at, width))
}

/// Aligned registers, as wide as can be, that cover `start..end`.
pub(crate) fn tiles(start: u16, end: u16) -> impl Iterator<Item = ConfigRegister> {
    let mut at = start;
    std::iter::from_fn(move || {
        let tile = widest(at, end.checked_sub(at)?)?;
        at += tile.width().bytes();
        Some(tile)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> RegisterMap {
        let word = Register {
            at: ConfigRegister::word(2),
            virt: 0,
            write: 0,
            role: Role::Command,
        };
        RegisterMap::new([word])
    }

    /// Every access of up to eight bytes, cut up: the pieces follow each other and cover it.
    #[test]
    fn pieces_cover_what_was_asked_for_and_stay_in_their_register() {
        let map = map();
        for pos in 0..16 {
            for count in 1..=8_u16 {
                let mut at = pos;
                while at < pos + count {
                    let access = map.access(at, usize::from(pos + count - at)).unwrap();
                    let register = access.register().at;
                    assert_eq!(register.offset() + access.first as u16, at);
                    let end = register.offset() + register.width().bytes();
                    at += access.len() as u16;
                    assert!(at <= end && at <= pos + count, "{pos}+{count}: {access:?}");
                    let on_device: u16 = access.on_device().map(|(r, _)| r.width().bytes()).sum();
                    assert_eq!(usize::from(on_device), access.len());
                }
            }
        }
    }

    #[test]
    fn a_register_gets_its_bytes_in_their_place() {
        let access = map().access(3, 4).unwrap();
        assert_eq!(access.register().role, Role::Command);
        assert_eq!(access.len(), 1);
        assert_eq!(access.mask(), 0xff00);
        assert_eq!(access.place(0x1234), 0x3400);
        assert_eq!(access.take(0xabcd), 0xab);
    }

    #[test]
    fn three_bytes_of_a_device_are_a_word_and_a_byte() {
        let access = map().access(4, 3).unwrap();
        let pieces: Vec<_> = access.on_device().collect();
        assert_eq!(
            pieces,
            [(ConfigRegister::word(4), 0), (ConfigRegister::byte(6), 16)]
        );
    }

    #[test]
    fn nothing_and_beyond_the_space_is_no_access() {
        let map = map();
        assert_eq!(map.access(0, 0), None);
        assert_eq!(map.access(4096, 1), None);
        assert_eq!(map.access(4095, 4).unwrap().len(), 1);
    }
}
