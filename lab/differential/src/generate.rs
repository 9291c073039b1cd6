//! Seeded operations around every edge of the device under test.
//!
//! A write that two implementations may carry out differently is followed by writes that bring
//! both to the same state, so that one difference does not show again in later answers.

mod access;
mod call;
mod mapping;

use fastrand::Rng;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;

use crate::op::{EVENTS, Op, SLOTS, Shape};

/// Set of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surface {
    /// All that a user of the kernel's VFIO does.
    Kernel,
    /// Operations that a vfio-user client has as well, and by which the original driver, the kernel
    /// below the driver and the user-space core can be compared.
    Portable,
}

/// At least `count` operations for a device of this shape; the same for the same arguments.
pub fn operations(seed: u64, count: usize, shape: &Shape, surface: Surface) -> Vec<Op> {
    let mut generator = Generator {
        rng: Rng::with_seed(seed),
        shape,
        surface,
        ops: Vec::new(),
        kept: [0; SLOTS as usize],
        dozing: false,
        disabled: false,
    };
    generator.prologue();
    generator.first_look();
    while generator.ops.len() < count {
        match surface {
            Surface::Kernel => generator.kernel_step(),
            Surface::Portable => generator.portable_step(),
        }
    }
    if surface == Surface::Kernel && shape.is_declined() {
        // The last: the original opens nothing more afterwards.
        generator.settle();
        generator.push(Op::Reopen { unmap: true });
    }
    generator.ops
}

struct Generator<'a> {
    rng: Rng,
    shape: &'a Shape,
    surface: Surface,
    ops: Vec<Op>,
    /// Bytes of each mapping that is kept, as far as it is known; 0 for none.
    kept: [u64; SLOTS as usize],
    /// The last write to the power register has put the device to sleep.
    dozing: bool,
    /// The last write to the command register has disabled memory.
    disabled: bool,
}

impl Generator<'_> {
    fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    fn choice<T: Copy>(&mut self, from: &[T], otherwise: T) -> T {
        from.get(self.rng.usize(0..from.len().max(1)))
            .copied()
            .unwrap_or(otherwise)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.rng.u8(..)).collect()
    }

    fn portable_step(&mut self) {
        match self.rng.u32(0..400) {
            0..32 => self.region_info(),
            32..144 => self.config_read(),
            144..208 => self.header_write(),
            208..280 => self.read(),
            280..352 => self.write(),
            352..388 => self.map(),
            388..396 => self.settle(),
            396..399 => self.map_private(),
            _ => {
                self.push(Op::Reset);
                self.first_look();
            }
        }
    }

    fn kernel_step(&mut self) {
        let before = self.ops.len();
        match self.rng.u32(0..1000) {
            0..60 => self.region_info(),
            60..230 => self.config_read(),
            230..320 => self.header_write(),
            320..350 => self.capability_write(),
            350..500 => self.read(),
            500..640 => self.write(),
            640..680 => self.map(),
            680..690 => self.map_private(),
            690..740 => self.keep(),
            740..830 => self.touch(),
            830..840 => self.protect(),
            840..845 => self.unmap(),
            845..857 => self.dma(),
            857..882 => self.bad_buffer(),
            882..912 => self.information(),
            912..935 => self.feature(),
            935..960 => self.interrupts(),
            // Only a device that is declined has any, so there is more to do.
            960..967 => {
                (0..if self.shape.is_declined() { 6 } else { 1 }).for_each(|_| self.ioeventfd())
            }
            967..975 => {
                let event = self.rng.u8(0..EVENTS);
                let signal = self.rng.bool();
                self.push(match signal {
                    true => Op::Signal { event },
                    false => Op::Drain { event },
                });
            }
            975..980 => self.unknown_call(),
            980..997 => self.settle(),
            _ => self.upheaval(),
        }
        // A child does it as well as its parent, if it is one thing that leaves nothing behind in
        // the user.
        let [op] = self.ops.get_mut(before..).unwrap_or_default() else {
            return;
        };
        let by_child = matches!(
            op,
            Op::Read { .. } | Op::Write { .. } | Op::RegionInfo { .. } | Op::Touch { .. }
        );
        if by_child && self.rng.u32(0..64) == 0 {
            *op = Op::Child(Box::new(op.clone()));
        }
    }

    /// Brings back what outlasts a close. QEMU keeps the registers of MSI over a reset of the
    /// device: how many messages were enabled, the mask bits, and the message that the kernel chose.
    fn prologue(&mut self) {
        self.write_config(MESSAGE, vec![0; 18]);
    }

    /// Resets of every kind, a close in the middle, and low power.
    fn upheaval(&mut self) {
        match self.rng.u32(0..20) {
            0..9 => self.push(Op::Reset),
            9..13 => self.function_level_reset(),
            13..15 if !self.shape.is_declined() => {
                self.kept = Default::default();
                self.push(Op::Reopen { unmap: true });
                self.prologue();
            }
            15 if !self.shape.is_declined() => {
                self.push(Op::Reopen { unmap: false });
                self.prologue();
            }
            16 => self.hot_reset(),
            17..20 => self.low_power(),
            _ => self.push(Op::Reset),
        }
        if self.rng.bool() {
            self.first_look();
        }
    }

    /// After a reset: the first look at readiness, by a fault or by a read. A runtime that does not
    /// see faults looks at the read.
    fn first_look(&mut self) {
        self.settle();
        if self.rng.bool() {
            self.map();
        }
        self.push(Op::Read {
            region: RegionIndex::BAR4.0,
            offset: 0,
            len: 1,
        });
    }

    /// Power, memory, and what [`bars`](Self::bars) sets.
    fn settle(&mut self) {
        self.write_config(PM_CONTROL, vec![0, 0]);
        self.write_config(header::COMMAND, vec![0x06, 0x04]);
        (self.dozing, self.disabled) = (false, false);
        self.bars();
    }

    /// The BARs and the interrupt line as a guest might program them: all that a write near the
    /// fake BARs can change.
    fn bars(&mut self) {
        let addresses = [
            (0x10, 0x10_0000_0000u64),
            (0x18, 0x20_0000_0000),
            (0x20, 0x40_0000_0000),
        ];
        for (register, address) in addresses {
            self.write_config(register, address.to_le_bytes().into());
        }
        self.write_config(header::INTERRUPT_LINE, vec![0x20]);
    }

    fn write_config(&mut self, offset: u16, data: Vec<u8>) {
        self.push(Op::Write {
            region: RegionIndex::CONFIG.0,
            offset: offset.into(),
            data,
        });
    }
}

/// Where the profiles under test have the control register of the power management capability and
/// the device control register of the Express capability.
const PM_CONTROL: u16 = 0x44;
/// Control, address, data and mask bits of their MSI capability.
const MESSAGE: u16 = 0x4a;
const DEVICE_CONTROL: u16 = 0x68;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::MemoryShape;

    const SHAPE: Shape = Shape {
        usemem: Some(MemoryShape {
            length: 512 << 20,
            size: 1 << 30,
        }),
        resmem: Some(MemoryShape {
            length: (1 << 30) + 0x3000,
            size: 2 << 30,
        }),
        bars: [16 << 20, 0, 1 << 30, 0, 32 << 20, 0],
        page: 4096,
    };

    #[test]
    fn the_same_seed_makes_the_same_operations() {
        for surface in [Surface::Kernel, Surface::Portable] {
            let ops = |seed| operations(seed, 1000, &SHAPE, surface);
            assert_eq!(ops(7), ops(7));
            assert_ne!(ops(7), ops(8));
        }
    }

    /// The name of an operation's variant.
    fn kind(op: &Op) -> String {
        let text = format!("{op:?}");
        let end = text.find([' ', '(']).unwrap_or(text.len());
        text[..end].to_owned()
    }

    #[test]
    fn ten_thousand_operations_reach_every_kind() {
        let ops = operations(1, 10_000, &SHAPE, Surface::Kernel);
        assert!(ops.len() >= 10_000);
        let count = |name: &str| ops.iter().filter(|op| kind(op) == name).count();
        for (name, least) in [
            ("RegionInfo", 300),
            ("Read", 2000),
            ("Write", 2000),
            ("Map", 200),
            ("MapPrivate", 50),
            ("BadRead", 50),
            ("BadWrite", 50),
            ("Ioctl", 500),
            ("Keep", 300),
            ("Touch", 500),
            ("Protect", 50),
            ("Unmap", 20),
            ("Dma", 50),
            ("Signal", 20),
            ("Drain", 20),
            ("Child", 50),
            ("Reset", 5),
            ("Reopen", 1),
            ("AwaitSuspend", 1),
        ] {
            assert!(count(name) >= least, "{name}: {}", count(name));
        }
    }

    #[test]
    fn ten_thousand_operations_cross_every_edge() {
        for surface in [Surface::Kernel, Surface::Portable] {
            let ops = operations(1, 10_000, &SHAPE, surface);
            let memories = [(2, SHAPE.resmem), (4, SHAPE.usemem)];
            for (region, memory) in memories {
                let memory = memory.expect("this shape has both");
                for edge in [memory.length, memory.size] {
                    let crosses = ops.iter().any(|op| {
                        matches!(op, Op::Read { region: r, offset, len }
                        if *r == region && *offset < edge && offset + u64::from(*len) > edge)
                    });
                    assert!(crosses, "no read crosses {edge:#x} of region {region}");
                }
            }
        }
    }

    #[test]
    fn a_portable_run_has_only_what_a_client_can_do() {
        for op in operations(1, 10_000, &SHAPE, Surface::Portable) {
            let name = kind(&op);
            let portable = ["RegionInfo", "Read", "Write", "Map", "MapPrivate", "Reset"];
            assert!(portable.contains(&&*name), "{name}");
        }
    }

    #[test]
    fn a_declined_device_is_opened_again_at_the_end_alone() {
        let declined = Shape {
            usemem: None,
            resmem: None,
            ..SHAPE
        };
        let ops = operations(3, 10_000, &declined, Surface::Kernel);
        let reopened = |op: &Op| matches!(op, Op::Reopen { .. });
        assert_eq!(ops.iter().position(reopened), Some(ops.len() - 1));
    }
}
