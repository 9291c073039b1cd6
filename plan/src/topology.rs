//! Allocation of slots and of bus numbers in a VM, for plans and for corrections of definitions.
//!
//! Firmware numbers the buses below each root bus one after the other. A further root bus of QEMU's
//! (`pxb-pcie`) has a fixed number, so that the buses below the root bus before it must end before
//! that number: else UEFI finds no place for them, and the VM does not boot.

use std::collections::BTreeSet;

use crate::limits::BUSES;

/// Slots of a bus.
const SLOTS: u8 = 32;
/// Slot of a q35 machine's own devices.
const OF_MACHINE: u8 = 31;
/// Bus numbers of a root port: its own, and one that firmware keeps free for a hotplugged bridge.
const OF_PORT: u32 = 2;
/// Ports that libvirt adds for devices of its own: USB, memory balloon, serial.
const OWN_PORTS: u32 = 3;

/// Slots of a bus that are taken.
#[derive(Clone, Debug, Default)]
pub struct Slots(BTreeSet<u8>);

impl Slots {
    /// Takes a slot.
    pub fn take(&mut self, slot: u8) {
        self.0.insert(slot);
    }

    /// The last free slot: a VMM that chooses slots itself begins with the first. `None` if every
    /// slot is taken.
    #[must_use]
    pub fn free(&self) -> Option<u8> {
        (1..SLOTS)
            .rev()
            .find(|slot| *slot != OF_MACHINE && !self.0.contains(slot))
    }
}

/// Bus numbers of a VM.
#[derive(Clone, Debug)]
pub struct Buses {
    /// First number and count of numbers of each root bus.
    taken: Vec<(u32, u32)>,
}

impl Buses {
    /// The machine's own root bus, with `ports` root ports or other bridges on it.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Self {
            taken: vec![(0, Self::of(ports))],
        }
    }

    /// The machine's own root bus of a VM of libvirt with this number of disks: each has a root port.
    #[must_use]
    pub fn with_disks(disks: usize) -> Self {
        Self::new(disks.saturating_add(OWN_PORTS as usize))
    }

    /// Bus numbers of a root bus with `ports` root ports or other bridges on it.
    #[must_use]
    pub fn of(ports: usize) -> u32 {
        u32::try_from(ports)
            .unwrap_or(u32::MAX)
            .saturating_mul(OF_PORT)
            .saturating_add(1)
    }

    /// Takes the numbers of a further root bus.
    pub fn take(&mut self, first: u32, count: u32) {
        self.taken.push((first, count.max(1)));
    }

    /// A number for a further root bus with `count` numbers; `None` if there is no room.
    #[must_use]
    pub fn free(&self, count: u32) -> Option<u8> {
        let step = u32::from(BUSES);
        let count = count.max(step);
        let candidates = (step..256 - step).step_by(usize::from(BUSES));
        let is_free = |first: &u32| {
            let end = first + count;
            end <= 256
                && self
                    .taken
                    .iter()
                    .all(|(other, more)| end <= *other || *first >= other.saturating_add(*more))
        };
        let found = candidates.into_iter().find(is_free)?;
        u8::try_from(found).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_bus_leaves_room_for_the_ports_before_it() {
        for (ports, number) in [(0, 8), (3, 8), (4, 16), (14, 32), (26, 56)] {
            assert_eq!(Buses::new(ports).free(8), Some(number), "{ports}");
        }
        let mut buses = Buses::new(0);
        buses.take(8, 3);
        buses.take(24, 20);
        assert_eq!(buses.free(8), Some(16));
        buses.take(16, 8);
        assert_eq!(buses.free(8), Some(48));
        assert_eq!(Buses::new(200).free(8), None);
    }

    #[test]
    fn the_last_free_slot_is_taken() {
        let mut slots = Slots::default();
        assert_eq!(slots.free(), Some(30));
        slots.take(30);
        assert_eq!(slots.free(), Some(29));
        (0..32).for_each(|slot| slots.take(slot));
        assert_eq!(slots.free(), None);
    }
}
