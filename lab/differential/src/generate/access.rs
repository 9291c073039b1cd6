//! Reads and writes of regions and of configuration space.

use varia_spec::pci::{CFG_SPACE_EXP_SIZE, header};
use varia_spec::vfio::RegionIndex;

use super::{DEVICE_CONTROL, Generator, PM_CONTROL, Surface};
use crate::op::{Op, Pointer};

/// Lengths that accesses like to have, in bytes.
const LENGTHS: [u32; 18] = [
    0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 31, 64, 65, 255, 1000, 4096, 4099,
];
/// The longest access of registers: each piece of it is a message to the device.
const LONGEST_OF_REGISTERS: u32 = 64;
/// The high byte of device control, and its bit that starts a function-level reset.
const RESET_BYTE: u64 = DEVICE_CONTROL as u64 + 1;
const RESET_BIT: u8 = 0x80;

impl Generator<'_> {
    /// An offset in configuration space: near the BARs, in the header, in a capability or beyond.
    fn config_offset(&mut self) -> u64 {
        let size = u64::from(CFG_SPACE_EXP_SIZE);
        match self.rng.u32(0..10) {
            0..5 => self.rng.u64(0x0e..0x2c),
            5..7 => self.rng.u64(0..0x40),
            7..9 => self.rng.u64(0..size),
            _ => size - 8 + self.rng.u64(0..16),
        }
    }

    fn config_len(&mut self) -> u32 {
        match self.rng.u32(0..10) {
            0..6 => self.choice(&[1, 2, 4, 8], 4),
            6..9 => self.rng.u32(0..20),
            _ => self.rng.u32(20..300),
        }
    }

    pub(super) fn config_read(&mut self) {
        let (offset, len) = (self.config_offset(), self.config_len());
        self.push(Op::Read {
            region: RegionIndex::CONFIG.0,
            offset,
            len,
        });
    }

    /// A write near the BARs, or one that takes memory or power away for a while.
    pub(super) fn header_write(&mut self) {
        match self.rng.u32(0..30) {
            0 | 1 => {
                let command = self.choice(&[0x00, 0x02, 0x04, 0x06], 0x06);
                self.disabled = command & 0x02 == 0;
                return self.write_config(header::COMMAND, vec![command, 0x04]);
            }
            2 => {
                let states: &[u8] = match self.surface {
                    Surface::Kernel => &[0, 1, 2, 3],
                    Surface::Portable => &[0, 3],
                };
                let state = self.choice(states, 0);
                self.dozing = state == 3;
                return self.write_config(PM_CONTROL, vec![state, 0]);
            }
            _ => {}
        }
        let (offset, data) = self.header_data();
        let len = data.len() as u64;
        self.push(Op::Write {
            region: RegionIndex::CONFIG.0,
            offset,
            data,
        });
        if !is_inside_one_register(offset, len) {
            self.bars();
        }
    }

    /// Somewhere near the BARs, and not beyond the header: a capability's state would not be
    /// brought back by [`bars`](Self::bars).
    fn header_data(&mut self) -> (u64, Vec<u8>) {
        let offset = self.rng.u64(0x10..0x2a);
        let most = u32::from(header::STD_HEADER_SIZEOF) - offset as u32;
        let len = self.config_len().min(most) as usize;
        (offset, self.config_data(len))
    }

    fn config_data(&mut self, len: usize) -> Vec<u8> {
        match self.rng.u32(0..3) {
            0 => vec![0xff; len],
            1 => vec![0; len],
            _ => self.bytes(len),
        }
    }

    /// A write behind the BARs, where the core alone answers, to all that is there.
    pub(super) fn capability_write(&mut self) {
        let offset = match self.rng.bool() {
            true => self.rng.u64(0x28..0x100),
            false => self.rng.u64(0x28..u64::from(CFG_SPACE_EXP_SIZE) + 8),
        };
        let len = self.config_len().min(64) as usize;
        let mut data = self.config_data(len);
        // A function-level reset takes its time; it has an operation of its own.
        if let Some(byte) = RESET_BYTE
            .checked_sub(offset)
            .and_then(|at| data.get_mut(at as usize))
        {
            *byte &= !RESET_BIT;
        }
        self.push(Op::Write {
            region: RegionIndex::CONFIG.0,
            offset,
            data,
        });
    }

    pub(super) fn function_level_reset(&mut self) {
        self.write_config(DEVICE_CONTROL, vec![0, RESET_BIT]);
    }

    /// A region, most often one of the fake BARs; its edges.
    fn place(&mut self) -> (u32, u64) {
        let region = match self.rng.u32(0..20) {
            0..9 => 4,
            9..18 => 2,
            18 => self.rng.u32(0..12),
            _ => 0,
        };
        let shown = match self.surface {
            Surface::Kernel => self.shape.region(region),
            // What the device's own BARs hold is not the same there.
            Surface::Portable => self.shape.memory(region),
        };
        let Some(memory) = shown else {
            // From the end of a region on, where nothing has a side effect.
            let far = [1 << 39, (1 << 40) - 4, 1 << 38];
            return (region, self.choice(&far, 1 << 39));
        };
        let middle = match self.rng.u32(0..8) {
            0 => self.rng.u64(0..memory.size),
            _ => self.shape.page,
        };
        let edges = [0, middle, memory.length, memory.length, memory.size];
        let edge = self.choice(&edges, 0);
        (region, (edge + self.rng.u64(0..40)).saturating_sub(24))
    }

    fn access_len(&mut self, region: u32) -> u32 {
        let len = self.choice(&LENGTHS, 4);
        match self.shape.memory(region) {
            Some(_) => len,
            None => len.min(LONGEST_OF_REGISTERS),
        }
    }

    pub(super) fn read(&mut self) {
        let (region, offset) = self.place();
        let len = self.access_len(region);
        self.push(Op::Read {
            region,
            offset,
            len,
        });
    }

    pub(super) fn write(&mut self) {
        let (region, offset) = self.place();
        let len = self.access_len(region) as usize;
        let data = self.bytes(len);
        self.push(Op::Write {
            region,
            offset,
            data,
        });
    }

    fn bad_pointer(&mut self, len: u32) -> Pointer {
        match self.rng.u32(0..6) {
            0 => Pointer::Null,
            1 => Pointer::ReadOnly,
            _ => Pointer::Cut(self.rng.u32(0..len + 2).min(4200) as u16),
        }
    }

    /// A read or a write with an address that is not good for all of it. What part of a write has
    /// been done is not said: a good one follows.
    pub(super) fn bad_buffer(&mut self) {
        let is_config = self.rng.u32(0..4) == 0;
        if self.rng.bool() {
            let (region, offset, len) = match is_config {
                true => (
                    RegionIndex::CONFIG.0,
                    self.config_offset(),
                    self.config_len(),
                ),
                false => {
                    let (region, offset) = self.place();
                    (region, offset, self.access_len(region))
                }
            };
            let pointer = self.bad_pointer(len);
            return self.push(Op::BadRead {
                region,
                offset,
                len,
                pointer,
            });
        }
        let (region, offset, data) = match is_config {
            true => {
                let (offset, data) = self.header_data();
                (RegionIndex::CONFIG.0, offset, data)
            }
            false => {
                let (region, offset) = self.place();
                let len = self.access_len(region) as usize;
                (region, offset, self.bytes(len))
            }
        };
        let pointer = self.bad_pointer(data.len() as u32);
        self.push(Op::BadWrite {
            region,
            offset,
            data: data.clone(),
            pointer,
        });
        match is_config {
            true => self.bars(),
            false => self.push(Op::Write {
                region,
                offset,
                data,
            }),
        }
    }
}

/// Returns true if an access stays inside one 64-bit BAR register pair.
fn is_inside_one_register(offset: u64, len: u64) -> bool {
    len == 0 || offset / 8 == (offset + len - 1) / 8
}
