//! The core's copy of the registers.

use varia_spec::Errno;
use varia_spec::pci::CFG_SPACE_EXP_SIZE;

use super::registers::{Register, tiles};
use super::walk::Patch;
use crate::device::{ConfigRegister, Device};

/// 4096 bytes, little endian.
#[derive(Debug)]
pub(crate) struct Values(Vec<u8>);

impl Values {
    pub(crate) fn new() -> Self {
        Self(vec![0; usize::from(CFG_SPACE_EXP_SIZE)])
    }

    /// A register's value; bits above its width are zero.
    pub(crate) fn get(&self, at: ConfigRegister) -> u32 {
        let start = usize::from(at.offset());
        let bytes = start..start + usize::from(at.width().bytes());
        let bytes = self.0.get(bytes).unwrap_or_default();
        let next = |value, byte: &u8| value << 8 | u32::from(*byte);
        bytes.iter().rev().fold(0, next)
    }

    pub(crate) fn set(&mut self, at: ConfigRegister, value: u32) {
        let start = usize::from(at.offset());
        let bytes = start..start + usize::from(at.width().bytes());
        let slots = self.0.get_mut(bytes).unwrap_or_default();
        for (slot, byte) in slots.iter_mut().zip(value.to_le_bytes()) {
            *slot = byte;
        }
    }

    /// Changes the bits of `mask` to those of `value`.
    pub(crate) fn merge(&mut self, register: Register, mask: u32, value: u32) {
        let kept = self.get(register.at) & !mask;
        self.set(register.at, kept | value & mask);
    }

    /// Copies `len` bytes from the device, by whole registers where they are aligned.
    pub(crate) fn fill<D: Device + ?Sized>(
        &mut self,
        device: &D,
        start: u16,
        len: u16,
    ) -> Result<(), Errno> {
        for at in tiles(start, start + len) {
            let value = device.config_read(at)?;
            self.set(at, value);
        }
        Ok(())
    }

    pub(crate) fn patch(&mut self, patch: Patch) {
        let kept = self.get(patch.at) & !patch.mask;
        self.set(patch.at, kept | patch.value & patch.mask);
    }
}
